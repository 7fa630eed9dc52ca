"""Cells of a study on disk: their configurations, and the states of their runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jmarl.config import ConfigError, RunConfig, check, split_argument
from jmarl.config.compose import from_tree, load_config
from jmarl.config.parsing import flatten
from jmarl.results.files import read_json, write_json
from jmarl.runs.folder import check_folders, read_config
from jmarl.runs.status import read_status
from jmarl.studies.results import record_file
from jmarl.studies.study_file import Cell, Study


OWN_KEYS = ("run_dir", "resume")
"""Keys that a study sets in each cell."""
STUDY_FILE = "study.json"
"""File of a study's folder with the overrides of its last call."""


class PlannedCell(NamedTuple):
    """A cell with its folder, and the configuration that it is trained with."""

    cell: Cell
    folder: Path
    config: RunConfig
    overrides: tuple[str, ...]
    """Overrides of the command line, which take precedence over those of the cell."""
    damage: str = ""
    """Why the run in the folder cannot be read; empty if it can."""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return self.cell.name


def out_folder(study: Study, out: str) -> Path:
    """Return the folder of a study, by default ``runs/studies/<name>``."""
    return Path(out).expanduser() if out else Path("runs", "studies", study.name)


def plan(
    study: Study,
    folder: Path,
    overrides: Sequence[str],
) -> list[PlannedCell]:
    """Compose the configurations of all cells.

    Args:
        study: The study.
        folder: Folder of the study.
        overrides: Overrides of every cell, as ``key=value``.

    Raises:
        ConfigError: If an override is invalid, two cells have equal configurations, or the run
            in a cell's folder has another configuration. A folder that cannot be read is no error.
    """
    planned = compose_cells(study, folder, overrides)
    _check_distinct(study, planned)
    return [_compare(study, each) for each in planned]


def compose_cells(
    study: Study,
    folder: Path,
    overrides: Sequence[str],
) -> list[PlannedCell]:
    """Compose the configurations of all cells, without a look at runs in their folders.

    Raises:
        ConfigError: If an override is invalid.
    """
    for override in overrides:
        key, value = split_argument(override)
        rule = "is set by the study; choose its folder with out=<folder>"
        check(key not in OWN_KEYS, key, value, rule)
    return [_compose(study, folder, cell, overrides) for cell in study.cells()]


def write_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Write the overrides of a study's call into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STUDY_FILE, {"overrides": list(overrides)})


def read_overrides(folder: Path) -> list[str]:
    """Return the overrides of the last call in a study's folder."""
    return read_json(folder / STUDY_FILE).get("overrides", [])


@contextmanager
def errors_name(study: Study, cell: Cell) -> Iterator[None]:
    """Name the study and the cell in errors of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"study={study.name}: cell {cell.name}: {error}") from None


def _compose(
    study: Study, folder: Path, cell: Cell, overrides: Sequence[str]
) -> PlannedCell:
    with errors_name(study, cell):
        config = load_config(cell.system, [*cell.overrides, *overrides])
        path = folder / cell.name
        if state_of(path) == "missing":
            check_folders(dataclasses.replace(config, run_dir=str(path)))
    return PlannedCell(cell, path, config, tuple(overrides))


def _check_distinct(study: Study, planned: Iterable[PlannedCell]) -> None:
    seen: list[PlannedCell] = []
    for each in planned:
        for other in seen:
            if other.config == each.config:
                names = f"{other.cell.name} and {each.cell.name}"
                fix = "leave out overrides of keys that the study varies"
                raise ConfigError(f"study={study.name}: cells {names} are equal; {fix}")
        seen.append(each)


def _compare(study: Study, planned: PlannedCell) -> PlannedCell:
    """Check that the run in a cell's folder has the configuration of the cell."""
    if state_of(planned.folder) == "missing":
        return planned
    try:
        text = difference(planned)
    except ConfigError as error:
        return planned._replace(damage=str(error))
    if text:
        fix = "give the same overrides, choose another out=, or remove that folder"
        with errors_name(study, planned.cell):
            raise ConfigError(f"{text}; {fix}")
    return planned


def difference(planned: PlannedCell) -> str:
    """Return the first key in which a cell differs from the run in its folder, with both values.

    The text is empty if there is none.

    Raises:
        ConfigError: If the configuration of the run is damaged.
    """
    old, new = _flat(_trained_config(planned)), _flat(planned.config)
    for key in {**new, **old}:
        if old.get(key) != new.get(key):
            return f"{key}={new.get(key)!r}, but {planned.folder} has {old.get(key)!r}"
    return ""


def _trained_config(planned: PlannedCell) -> RunConfig:
    """Return the configuration of a cell's run, from its folder or from its record."""
    if record := _read_record(planned):
        return from_tree(record["config"] | {"run_dir": "", "resume": ""})
    return read_config(planned.folder)


def trained_versions(planned: PlannedCell) -> dict[str, Any]:
    """Return the versions that a cell was trained with; empty if it has no run."""
    record = _read_record(planned)
    return record.get("versions") or read_json(planned.folder / "versions.json")


def is_trained(planned: PlannedCell) -> bool:
    """Return True if a cell has a run, or the record of one."""
    return bool(_read_record(planned)) or state_of(planned.folder) != "missing"


def _read_record(planned: PlannedCell) -> dict[str, Any]:
    """Return the record of a cell's run; an empty dictionary if there is none to read."""
    with suppress(ValueError):
        return read_json(record_file(planned.folder.parent, planned.cell))
    return {}


def _flat(config: RunConfig) -> dict[str, Any]:
    """Return the values of a configuration by key, without its folders."""
    tree = dataclasses.asdict(dataclasses.replace(config, run_dir="", resume=""))
    return flatten(tree)


def state_of(folder: Path) -> str:
    """Return the state of the run in a cell's folder (see ``read_status``), or ``missing``."""
    has_run = (folder / "config.yaml").exists()
    return read_status(folder)["state"] if has_run else "missing"
