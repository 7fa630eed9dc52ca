"""The learning curve of a run as a small picture."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from jmarl.runs.loggers import read_rows


COLORS = {"greedy": "tab:blue", "sampled": "tab:orange"}


def curve(
    rows: list[dict[str, Any]], name: str
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K S"]]:
    """Environment steps (mean over the seeds) and the evaluations ``name`` of each seed, ``greedy/won`` say."""
    chosen = [row for row in rows if row["kind"] == "eval" and name in row]
    steps = np.array([np.mean(row["env_steps"]) for row in chosen], float)
    return steps, np.array([row[name] for row in chosen], float).reshape(
        len(chosen), -1
    )


def draw(run: str | pathlib.Path, to: str | pathlib.Path | None = None) -> pathlib.Path:
    """Draw the evaluations of a run folder: median over its seeds, and a band from the worst to the best one.

    One panel for the return and one for the win rate where there is one. Writes ``curve.png`` into
    the folder, or to the path ``to``; raises ``ValueError`` if nothing was evaluated yet.
    """
    from matplotlib.figure import Figure

    folder = pathlib.Path(run)
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "eval"]
    if not rows:
        raise ValueError(f"{folder}: no evaluation in metrics.jsonl")
    panels = {"return": "return", "won": "win rate"}
    panels = {
        name: label for name, label in panels.items() if f"greedy/{name}" in rows[0]
    }
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for axes, (name, label) in zip(
        np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        _panel(axes, rows, name)
        axes.set_ylabel(f"evaluation {label}")
    seeds = len(rows[0]["greedy/return"])
    figure.suptitle(
        f"{folder.name}, median of {seeds} seeds, worst to best"
        if seeds > 1
        else folder.name,
        fontsize=9,
    )
    path = pathlib.Path(to) if to else folder / "curve.png"
    figure.savefig(path, dpi=120)
    return path


def _panel(axes: Any, rows: list[dict[str, Any]], name: str) -> None:
    for mode, color in COLORS.items():
        steps, seeds = curve(rows, f"{mode}/{name}")
        axes.plot(steps, np.median(seeds, axis=1), color=color, label=mode)
        if seeds.shape[1] > 1:
            axes.fill_between(
                steps,
                seeds.min(axis=1),
                seeds.max(axis=1),
                color=color,
                alpha=0.2,
                linewidth=0,
            )
    axes.set_xlabel("environment steps")
    if name == "won":
        axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
