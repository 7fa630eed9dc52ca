"""Learning curves of a run, as data and as a picture."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from jmarl.results.metrics_file import iter_rows


COLORS = {"greedy": "tab:blue", "sampled": "tab:orange"}


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
    """Draw the learning curves of a run: median over its seeds, and a band from worst to best.

    Args:
        run: Path of the run folder.
        to: Path of the picture; by default ``curve.png`` in the run folder.

    Returns:
        The path of the picture. It has a panel for the return, and a panel for the win
        rate if the environment has a win rate.

    Raises:
        ValueError: If the run has no evaluation.
    """
    from matplotlib.figure import Figure  # slow to import

    folder = pathlib.Path(run)
    logged = iter_rows(folder / "metrics.jsonl")
    rows = [row for row in logged if row["kind"] == "eval"]
    if not rows:
        raise ValueError(f"{folder}: no evaluation in metrics.jsonl")
    labels = {"return": "return", "won": "win rate"}
    names = [name for name in labels if f"greedy/{name}" in rows[0]]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(names)))
    for axes, name in zip(panels, names, strict=True):
        _draw_panel(axes, rows, name)
        axes.set_ylabel(f"evaluation {labels[name]}")
    seeds = len(rows[0]["greedy/return"])
    title = f"{folder.name}, median of {seeds} seeds, worst to best"
    figure.suptitle(title if seeds > 1 else folder.name, fontsize=9)
    path = pathlib.Path(to) if to else folder / "curve.png"
    figure.savefig(path, dpi=120)
    return path


def _draw_panel(axes: Any, rows: list[dict[str, Any]], name: str) -> None:
    for mode, color in COLORS.items():
        steps, values = curve(rows, f"{mode}/{name}")
        axes.plot(steps, np.median(values, axis=1), color=color, label=mode)
        if values.shape[1] > 1:
            worst = values.min(axis=1)
            best = values.max(axis=1)
            axes.fill_between(steps, worst, best, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("environment steps")
    if name == "won":
        axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
