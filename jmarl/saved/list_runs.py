"""List the runs below a folder: ``jmarl runs``. This module does not import JAX."""

from __future__ import annotations

import datetime
import itertools
import math
import os
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from jmarl.config import ConfigError
from jmarl.config.schedule import Schedule
from jmarl.results.metrics_file import Row, from_json
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.status import fill_in_folder, read_status, resume_command


FILES = {"versions.json", "status.json", "metrics.jsonl"}
"""A folder with any of these files counts as a run folder; ``config.yaml`` is too common."""
TAIL = 1 << 16
"""Bytes at the end of ``metrics.jsonl`` that are read first."""


class RunLine(NamedTuple):
    """Description of a run, as texts."""

    folder: pathlib.Path
    changed: datetime.datetime
    """Time of the last change of its state."""
    state: str
    progress: str
    """Updates so far and in total."""
    score: str
    """Greedy win rate or return of the last evaluation."""
    advice: str = ""
    """Reason of a failure, and how to resume the run."""


def list_runs(root: str = "runs") -> int:
    """Print the runs below a folder, from the oldest change of state to the newest.

    Args:
        root: Folder to search, or a run folder.

    Returns:
        The exit code.

    Raises:
        ConfigError: If the folder does not exist.
    """
    top = pathlib.Path(root).expanduser()
    if not top.is_dir():
        raise ConfigError(f"{root}: no such folder; use jmarl runs <folder>")
    lines = sorted(map(describe, run_folders(top)), key=lambda line: line.changed)
    print(format_lines(lines) if lines else f"no runs below {root}")
    return ExitCode.FINISHED


def run_folders(top: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the run folders below a folder. Hidden folders are skipped."""
    for path, folders, files in os.walk(top):
        if FILES & set(files):
            folders.clear()
            yield pathlib.Path(path)
        folders[:] = [name for name in folders if not name.startswith(".")]


def describe(folder: pathlib.Path) -> RunLine:
    """Describe a run. A damaged folder gets a line that names the reason."""
    try:
        return _describe(folder, _read_config(folder))
    except Exception as error:  # a damaged file can lead to almost any exception
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return RunLine(folder, _changed(folder, {}), "damaged", "", "", reason)


def _describe(folder: pathlib.Path, config: dict[str, Any]) -> RunLine:
    status = read_status(folder)
    last, evaluation = last_rows(folder / "metrics.jsonl")
    update = max(last.get("update", 0), status.get("update", 0))
    total = _schedule(config).num_updates
    return RunLine(
        folder,
        _changed(folder, status),
        status["state"],
        f"{update:,} of {total:,} ({min(1.0, update / total):.0%})",
        score_text(evaluation),
        _advice(folder, config, status),
    )


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    return yaml.load(text, loader)


def _schedule(config: dict[str, Any]) -> Schedule:
    return Schedule(
        total_rows=config["total_timesteps"],
        rows_per_update=config["num_envs"] * config["rollout_length"],
        rows_per_evaluation=config["eval"]["every"],
        updates_per_chunk=config["arch"]["updates_per_chunk"],
    )


def _changed(folder: pathlib.Path, status: dict[str, Any]) -> datetime.datetime:
    if "time" in status:
        return datetime.datetime.fromisoformat(status["time"]).astimezone()
    return datetime.datetime.fromtimestamp(folder.stat().st_mtime).astimezone()


def last_rows(path: pathlib.Path) -> tuple[Row, Row]:
    """Return the last row of a ``metrics.jsonl`` and the last one of an evaluation.

    Only the end of the file is read, as far as needed. A missing row is empty.
    """
    if not path.exists():
        return {}, {}
    size, length = TAIL, path.stat().st_size
    while True:
        rows = _rows_from_end(path, size)
        last = next(rows, {})
        up_to_last = itertools.chain([last], rows)
        evaluation = next((r for r in up_to_last if r.get("kind") == "eval"), {})
        if evaluation or size >= length:
            return last, evaluation
        size *= 8


def _rows_from_end(path: pathlib.Path, size: int) -> Iterator[Row]:
    """Yield the complete rows in the last bytes of a file, the last row first."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - size))
        lines = file.read().split(b"\n")
    complete = lines if size >= length else lines[1:]
    for line in reversed(complete):
        try:
            yield from_json(line.decode())
        except (ValueError, AttributeError):  # not JSON, or not a row
            continue


def score_text(evaluation: Row) -> str:
    """Return the median greedy win rate over the seeds, or the return if there is none."""
    for name, label in (("greedy/won", "win rate"), ("greedy/return", "return")):
        values = evaluation.get(name, [])
        finite = [v for v in values if v is not None and math.isfinite(v)]
        if finite:
            return f"{label} {statistics.median(finite):.3g}"
    return ""


def _advice(
    folder: pathlib.Path, config: dict[str, Any], status: dict[str, Any]
) -> str:
    if status["state"] in ("running", "finished"):
        return ""
    lines = []
    if status["state"] == "failed":
        reason = str(status.get("message", "")).partition("\n")[0]
        lines.append(fill_in_folder(reason, folder))
    if not config["checkpoint"]["enabled"]:
        lines.append("cannot be resumed, because checkpoint.enabled=false")
    elif status.get("exit_code") != ExitCode.NON_FINITE:
        command = resume_command(config["system_name"], folder)
        lines.append(f"resume with: {command}")
    return "\n".join(lines)


def format_lines(lines: list[RunLine]) -> str:
    """Format runs as a table. The advice on a run is on lines of its own."""
    header = ("run", "state", "updates", "last greedy", "changed")
    cells = [
        (str(run.folder), run.state, run.progress, run.score, f"{run.changed:%F %R}")
        for run in lines
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]

    def row(texts: tuple[str, ...]) -> str:
        padded = [text.ljust(n) for text, n in zip(texts, widths, strict=True)]
        return "  ".join(padded).rstrip()

    text = [row(header)]
    for run, texts in zip(lines, cells, strict=True):
        text.append(row(texts))
        text += [f"    {line}" for line in run.advice.splitlines()]
    return "\n".join(text)
