"""Cells of a study: their configurations, and where their runs or records lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jmarl.config import ConfigError, RunConfig, check, split_argument
from jmarl.config.compose import load_config
from jmarl.results.files import read_json, write_json
from jmarl.runs.folder import check_folders
from jmarl.studies.cell_runs import difference, record_file, stale_reason, state_of
from jmarl.studies.results import is_measured
from jmarl.studies.study_file import Cell, Study


OWN_KEYS = ("run_dir", "resume")
"""Keys that a study sets in each cell."""
STUDY_FILE = "study.json"
"""File of a study's folder with the overrides of its last call."""
RECORDS = "results/studies"
"""Default folder of the records of all studies."""


class PlannedCell(NamedTuple):
    """A cell with its folder, and the configuration that it is trained with."""

    cell: Cell
    folder: Path
    config: RunConfig
    overrides: tuple[str, ...]
    """Overrides of the command line, which take precedence over those of the cell."""
    damage: str = ""
    """Why the run in the folder cannot be read; empty if it can."""
    record: Path | None = None
    """Record that counts as the run of the cell; None if its folder does."""
    rejection: str = ""
    """Why the record of the cell does not count; empty if it does, or if there is none."""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return self.cell.name

    @property
    def path(self) -> Path:
        """Run folder of the cell, or the record of its run."""
        return self.record or self.folder

    @property
    def is_finished(self) -> bool:
        """True if the cell has a record that counts, or its run is finished now."""
        return self.record is not None or state_of(self.folder) == "finished"


def out_folder(study: Study, out: str) -> Path:
    """Return the folder of a study, by default ``runs/studies/<name>``."""
    return Path(out).expanduser() if out else Path("runs", "studies", study.name)


def records_folder(study: Study, records: str) -> Path | None:
    """Return the folder of a study's records; None for ``none``."""
    return None if records == "none" else Path(records).expanduser() / study.name


def plan(
    study: Study,
    folder: Path,
    overrides: Sequence[str],
    records: Path | None = None,
) -> list[PlannedCell]:
    """Compose the configurations of all cells.

    Args:
        study: The study.
        folder: Folder of the study.
        overrides: Overrides of every cell, as ``key=value``.
        records: Folder of the study's records; None for none.

    Raises:
        ConfigError: If an override is invalid, two cells have equal configurations, or the run
            in a cell's folder has another configuration. A folder that cannot be read is no error.
    """
    planned = compose_cells(study, folder, overrides, records)
    _check_distinct(study, planned)
    return [_compare(study, each) for each in planned]


def compose_cells(
    study: Study,
    folder: Path,
    overrides: Sequence[str],
    records: Path | None = None,
) -> list[PlannedCell]:
    """Compose the configurations of all cells, and find the records of their runs.

    A finished run in a cell's folder comes first. Then comes a record: one beside that folder
    as it is, one in ``records`` if it is complete and not stale.

    Args:
        study: The study.
        folder: Folder of the study, or one with records of its cells.
        overrides: Overrides of every cell, as ``key=value``.
        records: Folder of the study's records; None for none.

    Raises:
        ConfigError: If an override is invalid.
    """
    for override in overrides:
        key, value = split_argument(override)
        rule = "is set by the study; choose its folder with out=<folder>"
        check(key not in OWN_KEYS, key, value, rule)
    composed = [_compose(study, folder, cell, overrides) for cell in study.cells()]
    return [_find_record(study, each, records) for each in composed]


def write_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Write the overrides of a study's call into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STUDY_FILE, {"overrides": list(overrides)})


def read_overrides(folder: Path, records: Path | None = None) -> list[str]:
    """Return the overrides of the last call in a study's folder, or of its records if none."""
    called = read_json(folder / STUDY_FILE)
    if not called and records:
        called = read_json(records / STUDY_FILE)
    return called.get("overrides", [])


def run_paths(planned: Iterable[PlannedCell]) -> dict[str, Path]:
    """Return the run folder of each cell, or the record of its run, by the cell's name."""
    return {each.name: each.path for each in planned}


def stale_cells(planned: Iterable[PlannedCell]) -> list[str]:
    """Return a line for each cell with a stale run."""
    lines = []
    for each in planned:
        is_trained = each.record or state_of(each.folder) != "missing"
        if is_trained and (reason := stale_reason(each.config, each.path)):
            lines.append(f"{each.name} ({reason})")
    return lines


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


def _find_record(
    study: Study, planned: PlannedCell, records: Path | None
) -> PlannedCell:
    beside = record_file(planned.folder.parent, planned.cell)
    if planned.is_finished:
        return planned
    if beside.exists():
        return planned._replace(record=beside)
    path = record_file(records, planned.cell) if records else None
    if path is None or not path.exists():
        return planned
    reason = stale_reason(planned.config, path)
    if not reason and not is_measured(path, study.measure):
        reason = f"{path} has no results of the measure"
    kept = None if reason else path
    return planned._replace(record=kept, rejection=reason)


def _compare(study: Study, planned: PlannedCell) -> PlannedCell:
    """Check that the run in a cell's folder has the configuration of the cell."""
    if planned.record or state_of(planned.folder) == "missing":
        return planned
    try:
        text = difference(planned.config, planned.folder)
    except ConfigError as error:
        return planned._replace(damage=str(error))
    if text:
        fix = "give the same overrides, choose another out=, or remove that folder"
        with errors_name(study, planned.cell):
            raise ConfigError(f"{text}; {fix}")
    return planned
