"""Runs of cells on disk: run folders, and the records of runs.

A path here is a run folder, or the JSON file with the record of a run. This module does not import
JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jmarl.config import ConfigError, RunConfig
from jmarl.config.compose import from_tree
from jmarl.config.parsing import flatten
from jmarl.results.files import read_json
from jmarl.runs.folder import read_config, version_changes
from jmarl.runs.status import read_status
from jmarl.saved.comparison.run_files import (
    OUTPUT_KEYS,
    is_among,
    read_run_record,
)
from jmarl.studies.study_file import Cell


def record_file(folder: Path, cell: Cell) -> Path:
    """Return the file with the record of a cell's run."""
    return folder / f"{cell.name}.json"


def state_of(folder: Path) -> str:
    """Return the state of the run in a cell's folder (see ``read_status``), or ``missing``."""
    has_run = (folder / "config.yaml").exists()
    return read_status(folder)["state"] if has_run else "missing"


def stale_reason(config: RunConfig, path: Path) -> str:
    """Return why a run does not answer the study of today; empty if it does.

    Either the cell's configuration in the study has changed, or the version of jmarl or of a
    package that results depend on.

    Args:
        config: Configuration of the cell.
        path: Its run folder, or the record of its run.
    """
    try:
        if text := difference(config, path):
            return f"trained with another configuration: {text}"
        return ", ".join(version_changes(_versions(path)))
    except ConfigError as error:
        return str(error)


def difference(config: RunConfig, path: Path) -> str:
    """Return the first key in which a cell differs from its run, with both values.

    The text is empty if there is none. Keys of a run's output, such as its logger, may differ.

    Raises:
        ConfigError: If the configuration of the run is damaged.
    """
    old, new = dict(_compared(_trained_config(path))), dict(_compared(config))
    for key in {**new, **old}:
        if old.get(key) != new.get(key):
            return f"{key}={new.get(key)!r}, but {path} has {old.get(key)!r}"
    return ""


def _trained_config(path: Path) -> RunConfig:
    if path.is_dir():
        return read_config(path)
    record = read_run_record(path)
    if record is None:
        raise ConfigError(f"{path}: is not the record of a run; remove it")
    return from_tree(record.config | {"run_dir": "", "resume": ""})


def _versions(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return read_json(path / "versions.json")
    record = read_run_record(path)
    return record.about if record else {}


def _compared(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Yield the values of a configuration by key, without those of a run's output."""
    for key, value in flatten(dataclasses.asdict(config)).items():
        if not is_among(key, OUTPUT_KEYS):
            yield key, value
