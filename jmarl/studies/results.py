"""Results of a study, read from its run folders, or from the records of its runs.

This module does not import JAX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jmarl.results.files import read_json, write_json
from jmarl.results.metrics_file import Row
from jmarl.runs.status import CPU_SECONDS, read_status
from jmarl.saved.comparison.run_files import (
    RunFiles,
    read_folder,
    read_run_record,
    run_record,
)
from jmarl.studies.cell_runs import record_file
from jmarl.studies.study_file import Cell, Part, Study


MEASURES = "measures.json"
"""File of a cell's folder with the results of the study's measure."""
MEASURES_KEY = "measures"
MEASURE_EPISODES = 256
"""Default number of episodes of a measure."""
LARGEST_KB = 100
"""Most kilobytes in the record of a run."""
PerSeed = list[float | None]
"""One value for each seed, None if it is undefined."""


class CellResult(NamedTuple):
    """Results of a finished cell."""

    cell: Cell
    seeds: list[int]
    metrics: dict[str, PerSeed]
    """``win_rate``, ``return``, ``stability`` and the metrics of the measure."""
    episodes: int
    """Episodes of each seed behind ``win_rate`` and ``return``."""
    run: RunFiles
    """Its run folder, or the record of its run."""
    cpu_seconds: float
    """CPU seconds of all processes that trained it; NaN if unknown."""


class Results(NamedTuple):
    """Results of a study."""

    study: Study
    finished: list[CellResult]
    missing: list[Cell]
    """Cells without a finished run."""
    unmeasured: list[Cell]
    """Cells with a finished run, but without the results of the measure."""
    unreadable: list[Cell]
    """Cells with a finished run whose files are damaged."""


def read_results(study: Study, paths: Mapping[str, Path]) -> Results:
    """Read the results of all cells.

    Args:
        study: The study.
        paths: Run folder of each cell, or the record of its run, by the name of the cell.
    """
    cells, measure = study.cells(), study.measure
    done = [cell for cell in cells if _is_finished(paths[cell.name])]
    missing = [cell for cell in cells if cell not in done]
    found, unreadable = [], []
    for cell in done:
        try:
            found.append(_read_cell(paths[cell.name], cell, measure))
        except Exception:  # a damaged file can lead to almost any exception
            unreadable.append(cell)
    read = [result.cell for result in found]
    unmeasured = [c for c in read if not is_measured(paths[c.name], measure)]
    return Results(study, found, missing, unmeasured, unreadable)


def _is_finished(path: Path) -> bool:
    return path.is_file() or read_status(path)["state"] == "finished"


def write_records(finished: Iterable[CellResult], folder: Path) -> list[str]:
    """Write the records of finished run folders.

    Returns:
        The names of cells whose records are larger than ``LARGEST_KB``. They are written too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    large = []
    for each in finished:
        path = record_file(folder, each.cell)
        measures = read_json(each.run.path / MEASURES)
        write_json(path, run_record(each.run) | {MEASURES_KEY: measures})
        if path.stat().st_size > 1000 * LARGEST_KB:
            large.append(each.cell.name)
    return large


def is_measured(path: Path, measure: Part | None) -> bool:
    """Return True if a run has the results of a measure, with the same options.

    Args:
        path: Run folder, or the record of a run.
        measure: The measure; None if the study has none.
    """
    return measure is None or bool(_measured(path, measure))


def write_measures(
    folder: Path,
    measure: Part,
    metrics: dict[str, Any],
) -> None:
    """Write the results of a measure to a run folder; numbers that are not finite become null."""
    per_seed = {name: list(map(_or_none, x)) for name, x in metrics.items()}
    tree = {"name": measure.name, "options": measure.options, "metrics": per_seed}
    write_json(folder / MEASURES, tree)


def _or_none(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _measured(path: Path, measure: Part) -> dict[str, Any]:
    """Return the results of a measure; an empty dictionary if it was not taken."""
    if path.is_dir():
        found = read_json(path / MEASURES)
    else:
        found = read_json(path).get(MEASURES_KEY, {})
    asked = {"name": measure.name, "options": measure.options}
    fits = all(found.get(key) == asked[key] for key in asked)
    return found if fits else {}


def _read_cell(path: Path, cell: Cell, measure: Part | None) -> CellResult:
    run = read_folder(path) if path.is_dir() else read_run_record(path)
    if run is None or run.state == "damaged":
        raise ValueError(f"{path}: the run of {cell.name} cannot be read")
    evaluations = [row for row in run.rows if row["kind"] == "eval"]
    final = next((row for row in run.rows if row["kind"] == "absolute"), None)
    factor = run.config["eval"]["absolute_factor"] if final else 1
    metrics = _scores(final or evaluations[-1])
    metrics["stability"] = stability(evaluations)
    if measure:
        metrics |= _measured(path, measure).get("metrics", {})
    seeds = [run.config["seed"] + i for i in range(run.config["num_seeds"])]
    episodes = factor * run.config["eval"]["episodes"]
    about = read_json(run.path / "status.json" if run.path.is_dir() else run.path)
    seconds = about.get(CPU_SECONDS)
    cost = math.nan if seconds is None else float(seconds)
    return CellResult(cell, seeds, metrics, episodes, run, cost)


def _scores(row: Row) -> dict[str, PerSeed]:
    names = {"win_rate": "greedy/won", "return": "greedy/return"}
    return {name: row[key] for name, key in names.items() if key in row}


def stability(evaluations: list[Row]) -> PerSeed:
    """Return the standard deviation of greedy win rates over the last quarter of evaluations.

    It is that of returns in environments without a win rate, and undefined for one evaluation.

    Args:
        evaluations: Rows of all evaluations.
    """
    last = evaluations[-max(2, len(evaluations) // 4) :]
    name = "greedy/won" if "greedy/won" in last[-1] else "greedy/return"
    values = np.array([row[name] for row in last], float)
    if len(values) < 2:
        return [None] * values.shape[1]
    return list(map(_or_none, values.std(axis=0, ddof=1)))
