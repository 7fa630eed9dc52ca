"""Results of a study, read from its run folders alone. This module does not import JAX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from jmarl.results.files import read_json, write_json
from jmarl.results.metrics_file import Row, iter_rows
from jmarl.runs.status import read_status
from jmarl.studies.study_file import Cell, Part, Study


MEASURES = "measures.json"
"""File of a cell's folder with the results of the study's measure."""
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
    versions: dict[str, Any]
    """Versions and devices of the process that trained it."""


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


def read_results(study: Study, folder: Path) -> Results:
    """Read the results of all cells.

    Args:
        study: The study.
        folder: Folder of the study.
    """
    cells, measure = study.cells(), study.measure
    states = {cell.name: read_status(folder / cell.name)["state"] for cell in cells}
    done = [cell for cell in cells if states[cell.name] == "finished"]
    missing = [cell for cell in cells if cell not in done]
    found, unreadable = [], []
    for cell in done:
        try:
            found.append(_read_cell(folder / cell.name, cell, measure))
        except Exception:  # a damaged file can lead to almost any exception
            unreadable.append(cell)
    read = [result.cell for result in found]
    unmeasured = [c for c in read if not is_measured(folder / c.name, measure)]
    return Results(study, found, missing, unmeasured, unreadable)


def is_measured(folder: Path, measure: Part | None) -> bool:
    """Return True if a run has the results of a measure, with the same options."""
    return measure is None or bool(_measured(folder, measure))


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


def _measured(folder: Path, measure: Part) -> dict[str, Any]:
    found = read_json(folder / MEASURES)
    asked = {"name": measure.name, "options": measure.options}
    return found if all(found.get(key) == asked[key] for key in asked) else {}


def _read_cell(folder: Path, cell: Cell, measure: Part | None) -> CellResult:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    rows = list(iter_rows(folder / "metrics.jsonl"))
    evaluations = [row for row in rows if row["kind"] == "eval"]
    final = next((row for row in rows if row["kind"] == "absolute"), None)
    factor = config["eval"]["absolute_factor"] if final else 1
    metrics = _scores(final or evaluations[-1])
    metrics["stability"] = stability(evaluations)
    if measure:
        metrics |= _measured(folder, measure).get("metrics", {})
    seeds = [config["seed"] + i for i in range(config["num_seeds"])]
    episodes = factor * config["eval"]["episodes"]
    return CellResult(
        cell, seeds, metrics, episodes, read_json(folder / "versions.json")
    )


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
