"""The run folder: its files, its lock, and the configuration of a resumed run.

    config.yaml      resolved configuration with every key
    versions.json    packages, devices, commit, command
    metrics.jsonl    one row per chunk, per evaluation and for the absolute metric
    status.json      running, interrupted, killed, failed or finished; replaced atomically
    checkpoints/     Orbax checkpoints, one folder per step
    evaluation.json  absolute metric
    curve.png        learning curve

No file contains the path of the folder, so the folder may be moved.
"""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import os
import pathlib
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import yaml

from jmarl.config import (
    ConfigError,
    CurriculumConfig,
    RunConfig,
    check,
    read_value,
    split_argument,
)
from jmarl.config.choices import check_choice, configs_dir
from jmarl.config.compose import from_tree
from jmarl.hosts.process_group import by_writer, is_writer, writer_only
from jmarl.results.files import read_json, replace_file, write_json
from jmarl.results.machine import versions
from jmarl.runs.exit_codes import ResourceError, full_disk_reason
from jmarl.runs.status import LOCK


COMPARED_VERSIONS = (
    "jmarl",
    "jaxmarl",
    "jumanji",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "backend",
    "device_count",
)
"""Versions and devices that can change the results of a resumed run."""
CHANGEABLE_KEYS = (
    "total_timesteps",
    "seed",
    "system.lr",
    "on_nonfinite",
    "checkpoint",
    "logger",
    "arch.compile_cache",
    "arch.check_memory",
    "distributed",
    "run_dir",
    "resume",
)
"""Keys that may change when a run is resumed. The results depend on all other keys."""
LOCK_ATTEMPTS = 6
"""Attempts to lock a folder, because a reader of its status holds the lock for a moment."""


class FolderError(ResourceError):
    """Error for a new run that cannot start, on a full disk or with too little memory.

    Its folder has been removed.
    """


def open_folder(config: RunConfig) -> pathlib.Path:
    """Return the folder of a run, created by process 0 if the run is new.

    It is ``config.resume``, else ``config.run_dir``, else a new folder named after the
    system, the environment, the time and the seed.

    Raises:
        ConfigError: If ``resume`` is not a run folder, or ``run_dir`` already is one.
        ResourceError: If the disk is full.
    """
    return pathlib.Path(by_writer(lambda: str(_open_folder(config))))


def _open_folder(config: RunConfig) -> pathlib.Path:
    if config.resume:
        return find_folder("resume", config.resume)
    if config.run_dir:
        return _make_folder(_free_folder(config.run_dir))
    parent = pathlib.Path("runs", config.system_name, str(config.env["name"]))
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return _make_unique_folder(parent, f"{now}-s{config.seed}")


def check_folders(config: RunConfig) -> None:
    """Check the folders that a new run names, without creating one.

    Raises:
        ConfigError: If ``run_dir`` holds a run, if no folder can be created there, or if
            ``init_from`` holds no run.
    """
    folder = _free_folder(config.run_dir or "runs")
    exists = next(path for path in (folder, *folder.parents) if path.exists())
    if not (exists.is_dir() and os.access(exists, os.W_OK)):
        reason = "is not a folder" if not exists.is_dir() else "cannot be written to"
        raise ConfigError(
            f"run_dir={folder}: {exists} {reason}; choose another run_dir"
        )
    if config.init_from:
        find_folder("init_from", config.init_from)


def _free_folder(text: str) -> pathlib.Path:
    folder = _to_path("run_dir", text)
    if (folder / "config.yaml").exists():
        raise ConfigError(
            f"run_dir={folder}: holds a run; "
            f"continue it with resume={shlex.quote(str(folder))} or choose another folder"
        )
    return folder


def _to_path(key: str, text: str) -> pathlib.Path:
    """Return the path of a folder; raise ``ConfigError`` if no folder can have it."""
    try:
        folder = pathlib.Path(text).expanduser()
        (folder / "config.yaml").exists()
        str(folder.absolute()).encode()  # checkpoints need a path in UTF-8
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{key}={text}: not a usable path ({reason})") from None
    return folder


def find_folder(key: str, run: str) -> pathlib.Path:
    """Return the folder of an existing run.

    Args:
        key: Configuration key for the error message.
        run: Path of the folder.

    Raises:
        ConfigError: If the folder holds no run.
    """
    folder = _to_path(key, run)
    if not (folder / "config.yaml").exists():
        reason = "it has no config.yaml" if folder.exists() else "it does not exist"
        raise ConfigError(f"{key}={run}: no run folder ({reason})")
    return folder


def _make_folder(folder: pathlib.Path) -> pathlib.Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from None
    return folder


def write_error(folder: pathlib.Path, error: OSError) -> Exception:
    """Return the error for a folder that cannot be written to, as one line."""
    if reason := full_disk_reason(error):
        fix = "free space or choose another run_dir"
        return FolderError(f"run_dir={folder}: {reason}; {fix}")
    return ConfigError(f"run_dir={folder}: cannot be written to ({error.strerror})")


def _make_unique_folder(parent: pathlib.Path, name: str) -> pathlib.Path:
    """Create a new folder, with a number if runs start in the same second."""
    _make_folder(parent)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = parent / f"{name}{suffix}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise ConfigError(
        f"run_dir: {parent / name} and all its numbered variants exist; "
        "name a folder with run_dir"
    )


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Lock the folder, so that only this process writes to it. Process 0 locks it for a run.

    Raises:
        ConfigError: If another process holds the lock, or the folder is read-only.
        ResourceError: If the disk is full.
    """
    if not is_writer():
        yield
        return
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise write_error(folder, error) from None
    with file:
        if not _take_lock(file):
            raise ConfigError(f"{folder}: another process is writing this run")
        yield


def _take_lock(file: IO[str]) -> bool:
    for _ in range(LOCK_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


@writer_only
def discard(folder: pathlib.Path) -> None:
    """Remove the folder of a run that could not start; other files stay."""
    written = ("config.yaml", "versions.json", "metrics.jsonl", "status.json", LOCK)
    with suppress(OSError):
        for name in written:
            (folder / name).unlink(missing_ok=True)
        for empty in (folder / "checkpoints", folder):
            empty.rmdir()


def write_config(folder: pathlib.Path, config: RunConfig) -> None:
    """Write ``config.yaml``, without the path of the folder."""
    tree = _tuples_to_lists(dataclasses.asdict(config))
    tree |= {"run_dir": "", "resume": "", "distributed": False}
    replace_file(folder / "config.yaml", yaml.safe_dump(tree, sort_keys=False))


def read_config(folder: pathlib.Path) -> RunConfig:
    """Read ``config.yaml``.

    Raises:
        ConfigError: If the file is damaged.
    """
    return from_tree(read_tree(folder))


def resume_config(run: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Build the configuration that resumes a run.

    Args:
        run: Path of the run folder.
        overrides: Changes, as ``key=value``.

    Raises:
        ConfigError: If an override changes a key that is not in ``CHANGEABLE_KEYS``.
    """
    folder = find_folder("resume", run)
    tree = _defaults_of_newer_keys() | read_tree(folder)
    for override in overrides:
        key, text = split_argument(override)
        _apply_override(tree, key, read_value(key, text))
    return from_tree({**tree, "resume": run})


def _defaults_of_newer_keys() -> dict[str, Any]:
    """Return the defaults of keys that runs of older versions lack."""
    curriculum = dataclasses.asdict(CurriculumConfig())
    keys = {"init_from": "", "precision": "float32"}
    return {**keys, "curriculum": _tuples_to_lists(curriculum)}


def _apply_override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Change a key in place if it may change. ``build`` raises errors for unknown keys."""
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        rule = f"unknown key; {parent} is a value and has no parts"
        check(isinstance(node, dict), key, value, rule)
    if key == "logger":
        tree["logger"] = _read_logger_group(str(value))
    elif last not in node or _is_changeable(key):
        node[last] = value
    else:
        _check_unchanged(tree, key, node[last], value)


def _is_changeable(key: str) -> bool:
    return any(key == k or key.startswith(f"{k}.") for k in CHANGEABLE_KEYS)


def _check_unchanged(tree: dict[str, Any], key: str, old: Any, new: Any) -> None:
    """Raise ``ConfigError`` unless a value, or the choice of a group, stays the same."""
    is_group = isinstance(old, dict)
    if is_group:
        old = tree.get("system_name") if key == "system" else old.get("name")
    if old == new:
        return
    if is_group and old is None:
        shown = "a choice of the first start; leave it out"
    else:
        shown = f"{old!r} in this run"
    raise ConfigError(
        f"{key}={new}: cannot change when a run is resumed (it is {shown}); "
        "start a new run instead"
    )


def _read_logger_group(name: str) -> dict[str, Any]:
    check_choice("logger", name)
    path = configs_dir() / "logger" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_tree(folder: pathlib.Path) -> dict[str, Any]:
    """Read ``config.yaml`` as plain data.

    Raises:
        ConfigError: If the file cannot be read or holds no configuration.
    """
    path = folder / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no configuration")
    _rename_old_key(tree)
    return tree


def _rename_old_key(tree: dict[str, Any]) -> None:
    """Rename ``curriculum.reset_optimiser``, as it was spelled in older run folders."""
    curriculum = tree.get("curriculum")
    if isinstance(curriculum, dict) and "reset_optimiser" in curriculum:
        curriculum["reset_optimizer"] = curriculum.pop("reset_optimiser")


def _tuples_to_lists(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _tuples_to_lists(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_tuples_to_lists(v) for v in tree]
    return tree


def write_versions(folder: pathlib.Path, now: dict[str, Any]) -> None:
    """Write ``versions.json``; a resumed run appends to its list ``resumed``."""
    path = folder / "versions.json"
    tree = read_json(path)
    if tree:
        tree["resumed"] = [*tree["resumed"], now]
    else:
        tree = {**now, "resumed": []}
    write_json(path, tree)


def version_changes(before: dict[str, Any]) -> list[str]:
    """Return one line for each of ``COMPARED_VERSIONS`` that has changed."""
    now = versions()
    return [
        f"{name} {before[name]} when it was saved, {now.get(name)} now"
        for name in COMPARED_VERSIONS
        if name in before and before[name] != now.get(name)
    ]
