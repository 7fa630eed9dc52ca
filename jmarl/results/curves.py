"""Learning curves of a run, as data and as a figure."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from jmarl.results.figures import Drawing
from jmarl.results.metrics_file import Row, iter_rows


COLORS = {"greedy": "tab:blue", "sampled": "tab:orange"}
DASHES = {"greedy": "-", "sampled": "--"}
LABELS = {"return": "return", "won": "win rate"}


def curve(
    rows: list[dict[str, Any]], name: str
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K S"]]:
    """Return one metric of all evaluations.

    Args:
        rows: Rows of ``metrics.jsonl``.
        name: Metric, e.g. ``greedy/won``.

    Returns:
        Environment steps (mean over the seeds), ``[K]``, and values of each seed, ``[K, S]``.
    """
    selected = [row for row in rows if row["kind"] == "eval" and name in row]
    steps = np.array([np.mean(row["env_steps"]) for row in selected], float)
    values = np.array([row[name] for row in selected], float)
    return steps, values.reshape(len(selected), -1)


def draw(run: str | pathlib.Path, to: str | pathlib.Path | None = None) -> pathlib.Path:
    """Draw the learning curves of a run: each seed, and the median over the seeds.

    Args:
        run: Path of the run folder.
        to: Path of the picture; by default ``curve.png`` in the run folder.

    Returns:
        The path of the picture. It has a panel for the return, and a panel for the win
        rate if the environment has a win rate.

    Raises:
        ValueError: If the run has no evaluation.
    """
    folder = pathlib.Path(run)
    rows = evaluations(iter_rows(folder / "metrics.jsonl"))
    if not rows:
        raise ValueError(f"{folder}: no evaluation in metrics.jsonl")
    drawing = learning_curves(rows)
    seeds = count_seeds(rows)
    title = f"{folder.name}, {seeds} seeds and their median"
    drawing.figure.suptitle(title if seeds > 1 else folder.name, fontsize=9)
    path = pathlib.Path(to) if to else folder / "curve.png"
    drawing.figure.savefig(path, dpi=120)
    return path


def evaluations(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of evaluations, without those of the absolute metric."""
    return [row for row in rows if row["kind"] == "eval"]


def count_seeds(rows: list[Row]) -> int:
    """Return the number of seeds that an evaluation has values for."""
    return len(rows[0]["env_steps"])


def learning_curves(rows: list[Row]) -> Drawing:
    """Draw the evaluations of a run: a thin line for each seed, a thick one for their median.

    Args:
        rows: Rows of its evaluations, at least one.

    Returns:
        A panel for the return, and one for the win rate if the environment has a win rate.
    """
    from matplotlib.figure import Figure  # slow to import

    names = [name for name in LABELS if f"greedy/{name}" in rows[0]]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(names)))
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, rows, name)
        axes.set_ylabel(f"evaluation {LABELS[name]}", fontsize=9)
    seeds = count_seeds(rows)
    each = "Thin lines: single seeds; thick lines: median. " * (seeds > 1)
    caption = (
        f"{each}{len(rows)} evaluations of {seeds} {'seeds' if seeds > 1 else 'seed'}."
    )
    return Drawing("Learning curves", caption, figure)


def _draw_panel(axes: Any, rows: list[Row], name: str) -> None:
    from matplotlib.ticker import EngFormatter  # slow to import

    for mode, color in COLORS.items():
        if f"{mode}/{name}" not in rows[0]:
            continue
        steps, values = curve(rows, f"{mode}/{name}")
        style = {"color": color, "ls": DASHES[mode]}
        if values.shape[1] > 1:
            axes.plot(steps, values, **style, lw=0.8, alpha=0.5)
        axes.plot(steps, np.median(values, axis=1), **style, lw=2, label=mode)
    axes.set_xlabel("environment steps", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if name == "won":
        axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
