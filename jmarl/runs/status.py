"""The state of a run: ``status.json``, its heartbeat, and the lock of the run folder.

A killed process cannot record its end. ``read_status`` therefore compares the recorded state with
the process that wrote it. This module does not import JAX.
"""

from __future__ import annotations

import datetime
import fcntl
import math
import os
import pathlib
import platform
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jmarl.hosts.process_group import count, is_writer, writer_only
from jmarl.results.files import json_text, read_json, replace_file


LOCK = ".lock"
"""File of a run folder that the process of the run keeps locked."""
HEARTBEAT_S = 15.0
"""Seconds between two heartbeats."""
PLACEHOLDER = "<folder>"
"""Text in messages for the path of the run folder, because no file contains that path."""
STALE_S = 90.0
"""Seconds without a heartbeat after which a process on another host counts as ended."""

CPU_SECONDS = "cpu_seconds"
"""Entry of a status with the CPU seconds of all processes that worked on the run."""
PROGRESS = ("update", "env_steps")
"""Entries of a status that stay when the run ends."""

_WRITING = threading.Lock()


@writer_only
def write_status(folder: pathlib.Path, state: str, **details: Any) -> None:
    """Write ``status.json``: the state, the current time, and this process.

    A status that cannot be written never stops a run. If the disk is too full for a new
    file, the old one is overwritten in place. If that fails too, it is removed, because its
    state may be wrong.

    Args:
        folder: The run folder.
        state: ``running``, ``interrupted``, ``killed``, ``failed`` or ``finished``.
        **details: Further entries.
    """
    with _WRITING:
        clock = _cpu_clock(_read(folder))
        status = {"state": state, "time": _now(), **_process(), **clock, **details}
        _write(folder, status)


def _process() -> dict[str, Any]:
    """Return the entries that identify this process."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_start": _start_of(os.getpid()),
    }


def _is_own(status: dict[str, Any]) -> bool:
    """Return True if this process wrote a status."""
    return all(status.get(key) == value for key, value in _process().items())


def _cpu_clock(old: dict[str, Any]) -> dict[str, float]:
    """Return the CPU seconds of a run so far, and the offset of this process's clock."""
    now = time.process_time()
    known = old.get("cpu_offset") if _is_own(old) else None
    offset = old.get(CPU_SECONDS, 0.0) - now if known is None else known
    return {CPU_SECONDS: round(offset + now, 1), "cpu_offset": round(offset, 3)}


def is_recorded(folder: pathlib.Path) -> bool:
    """Return True if this process has recorded that the run is running."""
    status = _read(folder)
    process = (status.get("host"), status.get("pid"))
    return status.get("state") == "running" and process == (
        platform.node(),
        os.getpid(),
    )


def write_end(
    folder: pathlib.Path, state: str, *, always: bool = False, **details: Any
) -> None:
    """Write the status of a run that has ended, with its last progress.

    Args:
        folder: The run folder.
        state: As in ``write_status``.
        always: False: keep the status of an earlier process if this process has not recorded
            that the run is running.
        **details: Further entries.
    """
    if always or is_recorded(folder):
        status = _read(folder)
        progress = {name: status[name] for name in PROGRESS if name in status}
        write_status(folder, state, **progress, **details)


def _write(folder: pathlib.Path, status: dict[str, Any]) -> None:
    path, text = folder / "status.json", json_text(status)
    try:
        replace_file(path, text)
    except OSError:
        _overwrite(path, text)


def _overwrite(path: pathlib.Path, text: str) -> None:
    """Overwrite a file in place, or remove it."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
    except OSError:
        with suppress(OSError):
            path.unlink()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _start_of(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot, which identifies it.

    It is None if there is no such process, or no ``/proc``.
    """
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = text.rpartition(")")[2].split()
    return int(after_name[19])


@contextmanager
def heartbeat(folder: pathlib.Path, every_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Renew the time in ``status.json`` from a thread, also while a program compiles.

    Args:
        folder: The run folder.
        every_s: Seconds between two heartbeats.
    """
    end = threading.Event()

    def beat() -> None:
        while not end.wait(every_s):
            _renew(folder)

    if is_writer():
        threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        end.set()


def _renew(folder: pathlib.Path) -> None:
    with _WRITING:
        status = _read(folder)
        if status.get("state") == "running":
            clock = _cpu_clock(status) if _is_own(status) else {}
            _write(folder, {**status, "time": _now(), **clock})


def read_status(folder: pathlib.Path) -> dict[str, Any]:
    """Return ``status.json`` with the state that is true now.

    A run is ``running`` if a process holds its lock, or if a process on another host has
    sent a heartbeat in the last ``STALE_S`` seconds. A run is ``killed`` if its process
    ended without recording another state. It is ``unknown`` if the file is missing or
    damaged.

    Args:
        folder: The run folder.
    """
    status = _read(folder)
    return {**status, "state": _state_now(folder, status)}


def _read(folder: pathlib.Path) -> dict[str, Any]:
    """Read ``status.json``; return an empty dictionary if it is missing or damaged."""
    with suppress(OSError, ValueError):
        status = read_json(folder / "status.json")
        return status if isinstance(status, dict) else {}
    return {}


def _state_now(folder: pathlib.Path, status: dict[str, Any]) -> str:
    recorded = str(status.get("state", "unknown"))
    locked = _is_locked(folder)
    if locked:
        return "running"
    if recorded != "running":
        return recorded
    return "running" if _lives(status, locked) else "killed"


def _lives(status: dict[str, Any], locked: bool | None) -> bool:
    """Return True if the process that wrote a status still runs, as far as is known."""
    if status.get("host") != platform.node():
        return _age_s(status) < STALE_S
    if locked is False:
        return False
    start = _start_of(status.get("pid", 0))
    return start is not None and start == status.get("process_start")


def _is_locked(folder: pathlib.Path) -> bool | None:
    """Return True if a process holds the lock of a run folder; None if that is not known."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return None
    return False


def _age_s(status: dict[str, Any]) -> float:
    with suppress(KeyError, TypeError, ValueError):
        written = datetime.datetime.fromisoformat(status["time"])
        return (datetime.datetime.now(datetime.UTC) - written).total_seconds()
    return math.inf


def fill_in_folder(message: str, folder: pathlib.Path) -> str:
    """Replace the placeholder in the message of a status by the path of the run folder."""
    return message.replace(shlex.quote(PLACEHOLDER), shlex.quote(str(folder)))


def resume_command(system: str, folder: pathlib.Path) -> str:
    """Return the shell command that resumes a run; on each process if it has several."""
    command = f"python -m jmarl.systems.{system} resume={shlex.quote(str(folder))}"
    return f"{command} distributed=true" if count() > 1 else command
