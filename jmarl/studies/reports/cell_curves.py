"""Learning curves and scores of the cells in each environment of a study, as in ``jmarl compare``.

This module does not import JAX.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jmarl.config import ConfigError
from jmarl.saved.comparison.analysis import analyze
from jmarl.saved.comparison.comparison_figures import comparison_drawings, save_png
from jmarl.saved.comparison.comparison_text import comparison_text
from jmarl.saved.comparison.run_files import env_name
from jmarl.saved.comparison.selection import Options, select
from jmarl.studies.results import CellResult, Results


FIGURES = ("sample_efficiency", "wall_time")


def compare_cells(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the comparison of the cells in each environment that has at least two.

    Args:
        results: Results of the finished cells.
    """
    by_env: dict[str, list[CellResult]] = {}
    for result in results.finished:
        by_env.setdefault(env_name(result.run), []).append(result)
    for env, cells in by_env.items():
        if len(cells) > 1:
            yield _compare(results, env, cells)


def _compare(
    results: Results,
    env: str,
    cells: list[CellResult],
) -> dict[str, Any]:
    names = _names([cell.cell.labels for cell in cells])
    patterns = {
        name: [glob.escape(str(cell.run.path))]
        for name, cell in zip(names, cells, strict=True)
    }
    has_wins = all("win_rate" in cell.metrics for cell in cells)
    metric = "won" if has_wins else "return"
    options = Options(metric=metric, by="group", threshold=results.study.threshold)
    try:
        return {"env": env, **analyze(select(patterns, options), options)}
    except ConfigError as error:  # for example a single seed, or a single evaluation
        return {"env": env, "error": str(error)}


def _names(cells: list[dict[str, str]]) -> list[str]:
    """Return the labels of each cell, without those that all have in common."""
    varied = [name for name in cells[0] if len({cell[name] for cell in cells}) > 1]
    return ["-".join(cell[name] for name in varied) for cell in cells]


def curves_text(record: dict[str, Any]) -> str:
    """Return the tables of one environment as Markdown."""
    if "error" in record:
        return f"{record['env']}: no comparison of learning curves ({record['error']})"
    return comparison_text(record)


def draw_curves(record: dict[str, Any], folder: Path) -> None:
    """Draw the learning curves of one environment.

    Args:
        record: Record of the environment.
        folder: Folder of the report.
    """
    if "error" not in record:
        place = figure_folder(record, folder)
        place.mkdir(parents=True, exist_ok=True)
        drawings = comparison_drawings(record)
        for name in FIGURES:
            save_png(drawings[name], place / f"{name}.png")


def figure_folder(record: dict[str, Any], folder: Path) -> Path:
    """Return the folder of the figures of one environment."""
    return folder / "figures" / re.sub(r"[^\w.-]+", "_", record["env"])
