"""Heat maps of zero-shot grids: allies by enemies."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from jmarl.results.grid_table import NAMES
from jmarl.results.zero_shot import Estimate


KINDS = ("score", "retention")
COLORS = "viridis"
DARK = 0.6
"""Share of the scale below which a color needs white text."""


def draw_grid(record: dict[str, Any], path: pathlib.Path) -> None:
    """Draw score and retention of every run, with 95 % intervals.

    Rows are allies and columns are enemies. A pair outside the grid is empty. A frame marks the
    training environment.

    Args:
        record: Record of a grid.
        path: Path of the picture.
    """
    from matplotlib.figure import Figure  # slow to import

    rows, columns = (_labels(record, team) for team in ("allies", "enemies"))
    runs = record["runs"]
    highest = {kind: _highest(record, kind) for kind in KINDS}
    size = (2 * (2.2 + 1.1 * len(columns)), len(runs) * (1.2 + 0.45 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(runs), 2, squeeze=False)
    for row, (label, run) in zip(panels, runs.items(), strict=True):
        for axes, kind in zip(row, KINDS, strict=True):
            name = NAMES[record["metric"]] if kind == "score" else kind
            axes.set_title(f"{label}: {name}", fontsize=9)
            axes.set_xticks(range(len(columns)), columns, fontsize=8)
            axes.set_yticks(range(len(rows)), rows, fontsize=8)
            axes.set_xlabel("enemies")
            axes.set_ylabel("allies")
            _draw_panel(axes, record, run, (kind, highest[kind]))
    figure.suptitle(record["title"], fontsize=10)
    figure.savefig(path, dpi=120)


def _labels(record: dict[str, Any], team: str) -> list[str]:
    return list(dict.fromkeys(cell[team] for cell in record["cells"].values()))


def _highest(record: dict[str, Any], kind: str) -> float:
    """Return the end of the color scale, the same for all runs and at least 1."""
    values = [grid_values(record, run, kind) for run in record["runs"].values()]
    return max(1.0, float(np.nan_to_num(values).max()))


def _draw_panel(
    axes: Any, record: dict[str, Any], run: dict[str, Any], scale: tuple[str, float]
) -> None:
    kind, highest = scale
    values = grid_values(record, run, kind)
    image = axes.imshow(values, cmap=COLORS, vmin=0, vmax=highest, aspect="auto")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    for env, (y, x) in places(record).items():
        is_dark = not values[y, x] >= DARK * highest
        is_empty = np.isnan(values[y, x])
        color = "white" if is_dark and not is_empty else "black"
        text = _text(run["envs"][env][kind])
        axes.text(x, y, text, ha="center", va="center", fontsize=6, color=color)
        if env == run["training"]["cell"]:
            _frame(axes, x, y)


def places(record: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return row and column of each environment."""
    rows, columns = (_labels(record, team) for team in ("allies", "enemies"))
    return {
        env: (rows.index(cell["allies"]), columns.index(cell["enemies"]))
        for env, cell in record["cells"].items()
    }


def grid_values(
    record: dict[str, Any], run: dict[str, Any], kind: str
) -> Float[np.ndarray, "rows columns"]:
    """Return the means of a panel; NaN for pairs without a number.

    Args:
        record: Record of a grid.
        run: Record of one of its runs.
        kind: ``score`` or ``retention``.
    """
    shape = [len(_labels(record, team)) for team in ("allies", "enemies")]
    values = np.full(shape, np.nan)
    for env, place in places(record).items():
        mean = run["envs"][env][kind]["mean"]
        values[place] = np.nan if mean is None else mean
    return values


def _text(x: Estimate) -> str:
    if x["mean"] is None:
        return "undefined"
    if x["low"] is None:
        return f"{x['mean']:.2f}"
    return f"{x['mean']:.2f}\n[{x['low']:.2f}, {x['high']:.2f}]"


def _frame(axes: Any, x: int, y: int) -> None:
    from matplotlib.patches import Rectangle

    place = (x - 0.48, y - 0.48)
    frame = Rectangle(place, 0.96, 0.96, fill=False, edgecolor="red", linewidth=2)
    axes.add_patch(frame)
