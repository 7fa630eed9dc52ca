"""Figures of a comparison: learning curves, performance profiles, probabilities of improvement."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from jmarl.saved.comparison.analysis import Record
from jmarl.saved.comparison.comparison_text import seeds_text


COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8C6D31",
)
"""Colors that color-blind readers can tell apart (Okabe and Ito 2008; brown in place of yellow)."""
DASHES = ("-", "--", ":", "-.")
"""Line styles; the next one is used each time that the colors repeat."""
SUFFIXES = (".png", ".svg")
LARGE = 6
"""Number of groups from which a matrix has smaller text."""


def draw_figures(record: Record, folder: pathlib.Path) -> list[str]:
    """Draw all figures as PNG and SVG.

    Args:
        record: Record of a comparison.
        folder: Existing folder for the files.

    Returns:
        The names of the figures, without suffix.
    """
    drawn = {
        "sample_efficiency": lambda: _curves(record, "env_steps"),
        "wall_time": lambda: _curves(record, "wall_time_s"),
        "profiles": lambda: _profiles(record),
    }
    if record["improvement"]:
        drawn["improvement"] = lambda: _matrix(record)
    for name, draw in drawn.items():
        _save(draw, folder / name)
    return list(drawn)


def _save(draw: Callable[[], Any], path: pathlib.Path) -> None:
    import matplotlib as mpl  # slow to import

    # Text stays text, and the same data give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jmarl"}):
        figure = draw()
        for suffix in SUFFIXES:
            metadata = {"Date": None} if suffix == ".svg" else {}
            figure.savefig(path.with_suffix(suffix), dpi=150, metadata=metadata)


def _figure(width: float, height: float, title: str, caption: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    columns = int(width * 15)
    lines = textwrap.fill(caption, columns)
    figure.supxlabel(lines, fontsize=7.5, color="0.35")
    return figure, axes


def _metric(record: Record) -> str:
    mode, _, name = record["metric"].partition("/")
    label = "win rate" if name == "won" else name
    is_mapped = record["is_share"] and name != "won"
    return f"{mode} {label}" + " (mapped to [0, 1])" * is_mapped


def _where(record: Record) -> str:
    envs = record["envs"]
    return envs[0] if len(envs) == 1 else f"{len(envs)} environments"


def _label(record: Record, name: str) -> str:
    return f"{name} ({seeds_text(record['groups'][name])} seeds)"


def _style(number: int) -> dict[str, str]:
    turn, color = divmod(number, len(COLORS))
    return {"color": COLORS[color], "linestyle": DASHES[turn % len(DASHES)]}


def _curves(record: Record, axis: str) -> Any:
    alone = len(record["envs"]) == 1
    by_time = axis == "wall_time_s"
    caption = (
        "Interquartile mean over seeds; bands: pointwise 95 % intervals (Student's t, "
        "bootstrap standard errors). Ends at the smallest final budget of all runs."
    )
    if by_time:
        caption += " Time of training and evaluation without compilation, of all seeds "
        caption += "of a run together."
    title = f"{_metric(record)} on {_where(record)}"
    figure, axes = _figure(6.4, 4.4, title, caption)
    scale = 60.0 if by_time and alone else 1.0
    for i, (name, group) in enumerate(record["groups"].items()):
        found = group["curves"][axis]
        budget = np.array(found["budget"]) / scale
        style = _style(i)
        axes.plot(budget, found["value"], label=_label(record, name), **style)
        _band(axes, budget, found, style["color"])
    share = "time" if by_time else "environment steps"
    unit = "wall time (minutes)" if by_time else "environment steps"
    axes.set_xlabel(unit if alone else f"share of the {share} of each environment")
    axes.set_ylabel(_metric(record))
    _finish(axes, record)
    return figure


def _band(axes: Any, x: Any, found: Record, color: str) -> None:
    axes.fill_between(x, found["low"], found["high"], color=color, alpha=0.12, lw=0)


def _finish(axes: Any, record: Record) -> None:
    axes.margins(x=0)
    if record["is_share"]:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    _legend(axes, record)


def _legend(axes: Any, record: Record) -> None:
    many = len(record["groups"]) > 4
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if many else {}
    axes.legend(fontsize=8, framealpha=0.8, **place)


def _profiles(record: Record) -> Any:
    caption = (
        "Share of all seeds with a score above the threshold; bands: pointwise 95 % "
        "percentiles of the stratified bootstrap, too narrow for few seeds."
    )
    title = f"Performance profiles on {_where(record)}"
    figure, axes = _figure(6.4, 4.4, title, caption)
    x = np.array(record["thresholds"])
    for i, (name, group) in enumerate(record["groups"].items()):
        found = group["profile"]
        style = _style(i)
        label = _label(record, name)
        axes.step(x, found["value"], where="post", label=label, **style)
        _band(axes, x, found, style["color"])
    axes.set_xlabel(f"threshold of the {_metric(record)}")
    axes.set_ylabel("share of seeds above the threshold")
    axes.margins(x=0)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    _legend(axes, record)
    return figure


def _matrix(record: Record) -> Any:
    names = list(record["groups"])
    number = len(names)
    caption = (
        "Probability that a seed of the row scores higher than one of the column, ties "
        "counting one half; below it the 95 % interval."
    )
    size = 2.6 + 0.85 * number
    title = f"{_metric(record)} on {_where(record)}:\nprobability of improvement"
    figure, axes = _figure(size + 0.8, size, title, caption)
    values = np.full((number, number), np.nan)
    for found in record["improvement"]:
        place = names.index(found["group"]), names.index(found["over"])
        values[place] = found["value"]
        _cell(axes, place, found, 8 if number < LARGE else 7)
    image = axes.imshow(values, cmap="PuOr", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.75, label="P(row > column)")
    labels = [_label(record, name) for name in names]
    axes.set_xticks(range(number), labels, fontsize=8, rotation=35, ha="right")
    axes.set_yticks(range(number), labels, fontsize=8)
    return figure


def _cell(axes: Any, place: tuple[int, int], found: Record, size: int) -> None:
    row, column = place
    text = f"{found['value']:.2f}\n[{found['low']:.2f},\n{found['high']:.2f}]"
    is_dark = abs(found["value"] - 0.5) > 0.3
    color = "white" if is_dark else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
