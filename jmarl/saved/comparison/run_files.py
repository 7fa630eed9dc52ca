"""Find, read and record runs. The record of a run is a JSON file, without its checkpoints."""

from __future__ import annotations

import glob
import hashlib
import json
import pathlib
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jmarl.config import ConfigError
from jmarl.results.files import read_json
from jmarl.results.machine import PACKAGES, environment_record
from jmarl.results.metrics_file import Row, iter_rows
from jmarl.runs.folder import read_tree
from jmarl.runs.status import CPU_SECONDS
from jmarl.saved.list_runs import describe, run_folders


OUTPUT_KEYS = (
    "run_dir",
    "resume",
    "logger",
    "checkpoint",
    "arch.compile_cache",
    "arch.check_memory",
)
"""Keys that change the output of a run, but not its results."""
NO_EFFECT = ("seed", "num_seeds", *OUTPUT_KEYS)
"""Keys in which runs of equal configuration may differ."""
OWN_COLUMNS = ("env", *NO_EFFECT)
"""Keys that are not listed among the overrides, because the table has columns for them."""
PATHS = ("run_dir", "resume")
"""Keys with paths of the machine of a run, which its record leaves out."""
LONGEST = 24
"""Characters of an option that the name of an environment shows in full."""


class RunFiles(NamedTuple):
    """A run, as read from its files."""

    path: pathlib.Path
    state: str
    """``finished``, or another state of ``jmarl runs``."""
    note: str
    """Progress and reason of a run that is not finished."""
    config: dict[str, Any]
    """Configuration; empty if it cannot be read."""
    words: list[str]
    """Arguments of the command that started the run."""
    about: dict[str, Any]
    """Versions, devices and commit of the process that trained it."""
    rows: list[Row]
    """Rows of its evaluations and of the absolute metric."""

    @property
    def commit(self) -> str:
        """Commit that the run was trained at; empty if unknown."""
        return str(self.about.get("commit", ""))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages on which results depend."""
        names = ("jmarl", "python", *PACKAGES)
        return {name: str(self.about[name]) for name in names if name in self.about}


def find_runs(patterns: Iterable[str]) -> Iterator[RunFiles]:
    """Yield the runs that glob patterns name, each once, in the order of their paths.

    A folder stands for all run folders below it. A JSON file counts if it is the record
    of a run.

    Args:
        patterns: Paths or glob patterns, in which ``**`` stands for folders of any depth.
    """
    seen: set[pathlib.Path] = set()
    for path in _paths(patterns):
        folders = [] if _is_below(path, seen) else run_folders(path)
        for folder in sorted(folders) if path.is_dir() else ():
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield read_folder(folder)
        if path.suffix == ".json" and not _is_below(path, seen):
            record = read_run_record(path)
            if record:
                seen.add(path.resolve())
                yield record


def _paths(patterns: Iterable[str]) -> list[pathlib.Path]:
    found = {
        pathlib.Path(path)
        for pattern in patterns
        for path in glob.iglob(str(pathlib.Path(pattern).expanduser()), recursive=True)
    }
    return sorted(found)


def _is_below(path: pathlib.Path, seen: set[pathlib.Path]) -> bool:
    """Return True for a run that was read, and for files and folders in it."""
    resolved = path.resolve()
    return not seen.isdisjoint((resolved, *resolved.parents))


def read_folder(folder: pathlib.Path) -> RunFiles:
    """Read a run folder; a run whose files are damaged has no configuration and no rows."""
    line = describe(folder)
    is_finished = line.state == "finished"
    facts = (line.progress, line.advice.partition("\n")[0])
    note = "" if is_finished else "; ".join(filter(None, facts))
    state = line.state
    try:
        config = read_tree(folder)
        about = read_json(folder / "versions.json")
        rows = _evaluations(iter_rows(folder / "metrics.jsonl"))
    except (ConfigError, OSError, ValueError) as error:
        config, about, rows = {}, {}, []
        state, note = "damaged", " ".join(str(error).split())
    return RunFiles(
        path=folder,
        state=state,
        note=note,
        config=config,
        words=list(map(str, about.get("command", []))),
        about=about,
        rows=rows,
    )


def read_run_record(path: pathlib.Path) -> RunFiles | None:
    """Read a JSON file with the record of a run; return None for any other file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"config", "environment", "evaluations", "absolute"}
    if not isinstance(record, dict) or not keys <= record.keys():
        return None
    about = record["environment"] | record.get("versions", {})
    return RunFiles(
        path=path,
        state="finished",
        note="",
        config=record["config"],
        words=_words(str(record.get("train_command", ""))),
        about=about,
        rows=_evaluations([*record["evaluations"], *record["absolute"]]),
    )


def _words(command: str) -> list[str]:
    """Split a command; one that no shell would read is split at its spaces."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def run_record(run: RunFiles) -> dict[str, Any]:
    """Return the record of a finished run in a folder, for a JSON file.

    It has the configuration, all evaluations, versions and costs. ``find_runs`` reads it in place
    of the folder. ``cpu_seconds`` are those of all processes that worked on the run, with
    compilation; ``wall_seconds`` is the time of training and evaluation.
    """
    module = f"jmarl.systems.{run.config.get('system_name')}"
    status = read_json(run.path / "status.json")
    return {
        "environment": environment_record(run.about),
        "versions": {k: v for k, v in run.about.items() if k != "command"},
        "train_command": shlex.join(["python", "-m", module, *run.words]),
        "wall_seconds": run.rows[-1].get("time"),
        CPU_SECONDS: status.get(CPU_SECONDS),
        "config": {k: v for k, v in run.config.items() if k not in PATHS},
        "evaluations": [row for row in run.rows if row["kind"] == "eval"],
        "absolute": [row for row in run.rows if row["kind"] == "absolute"],
    }


def _evaluations(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("kind") in ("eval", "absolute")]


def env_name(run: RunFiles) -> str:
    """Return the name of a run's environment, with its options.

    A long option, such as the text of a scenario, is shown as in the command of the run.
    """
    env = run.config.get("env", {})
    typed = dict(word.split("=", 1) for word in run.words if "=" in word)
    parts = [str(env.get("name", ""))]
    for key, value in env.items():
        if key != "name":
            text = str(value)
            if len(text) > LONGEST or "\n" in text:
                digest = hashlib.sha256(text.encode()).hexdigest()[:6]
                text = f"{typed.get(f'env.{key}', '')}#{digest}".removeprefix("#")
            parts.append(f"{key}={text}")
    return " ".join(parts)


def overrides(run: RunFiles) -> str:
    """Return the arguments of a run's command that change its configuration.

    Environment, seeds and paths are left out. In a sweep, the run's own value replaces the list
    of values.
    """
    words = []
    for word in run.words:
        key, separator, text = word.lstrip("+").partition("=")
        is_own = is_among(key, OWN_COLUMNS)
        if separator and not is_own and not key.startswith("-"):
            words.append(f"{key}={_value(run.config, key, text)}")
    return " ".join(words)


def is_among(key: str, keys: Iterable[str]) -> bool:
    """Return True if a dotted key is one of some keys, or below one of them."""
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def _value(config: dict[str, Any], key: str, text: str) -> str:
    """Return the value of a key; ``text`` may list the values of a sweep."""
    if "," not in text or text[0] in "[{'\"":
        return text
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    node = node.get("name") if isinstance(node, dict) else node
    return text if node is None else str(node)


def config_id(run: RunFiles) -> str:
    """Return eight digits that are equal for runs that differ only in ``NO_EFFECT``."""
    if not run.config:
        return ""
    tree = json.loads(json.dumps(run.config, default=str))
    for key in NO_EFFECT:
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.get(parent, {})
        node.pop(last, None)
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
