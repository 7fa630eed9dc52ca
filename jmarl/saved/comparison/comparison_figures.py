"""Figures of a comparison: learning curves, performance profiles, probabilities of improvement."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

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
"""Line styles, so that groups differ in more than the color."""
MOST_TOGETHER = 5
"""Largest number of groups in one panel. More groups have a panel each."""
COLUMNS = 3
"""Panels in a row."""
CURVES = (
    "Interquartile mean over seeds; bands: pointwise 95 % intervals (Student's t, bootstrap "
    "standard errors). Ends at the smallest final budget of all runs."
)
TIME = " Time of training and evaluation, without compilation, of all seeds of a run together."
PROFILES = (
    "Share of all seeds with a score above the threshold; bands: pointwise 95 % percentiles of "
    "the stratified bootstrap, too narrow for few seeds."
)
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
            figure.set_layout_engine("none")  # the layout is the same in all files


class Lines(NamedTuple):
    """One line per group, with a band."""

    title: str
    caption: str
    x_label: str
    y_label: str
    series: dict[str, tuple[Any, Record]]
    """Horizontal positions and an interval of arrays, by group."""
    is_share: bool
    """True if values lie in [0, 1]."""
    drawstyle: str = "default"


def _figure(size: tuple[float, float], title: str, caption: str) -> Any:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    lines = textwrap.fill(caption, int(size[0] * 15))
    figure.supxlabel(lines, fontsize=7.5, color="0.35")
    return figure


def _metric(record: Record) -> str:
    mode, _, name = record["metric"].partition("/")
    label = "win rate" if name == "won" else name
    is_mapped = record["is_share"] and name != "won"
    return f"{mode} {label}" + " (mapped to [0, 1])" * is_mapped


def _where(record: Record) -> str:
    envs = record["envs"]
    return envs[0] if len(envs) == 1 else f"{len(envs)} environments"


def _label(record: Record, name: str) -> str:
    return f"{name} ({seeds_text(record['groups'][name], ' seeds')})"


def _curves(record: Record, axis: str) -> Any:
    alone = len(record["envs"]) == 1
    by_time = axis == "wall_time_s"
    scale = 60.0 if by_time and alone else 1.0
    series = {}
    for name, group in record["groups"].items():
        found = group["curves"][axis]
        series[name] = np.array(found["budget"]) / scale, found
    share = "time" if by_time else "steps"
    unit = "wall time (minutes)" if by_time else "environment steps"
    lines = Lines(
        title=f"{_metric(record)} on {_where(record)}",
        caption=CURVES + TIME * by_time,
        x_label=unit if alone else f"share of the {share} of each environment",
        y_label=_metric(record),
        series=series,
        is_share=record["is_share"],
    )
    return _draw_lines(record, lines)


def _profiles(record: Record) -> Any:
    x = np.array(record["thresholds"])
    groups = record["groups"].items()
    lines = Lines(
        title=f"Performance profiles on {_where(record)}",
        caption=PROFILES,
        x_label=f"threshold of the {_metric(record)}",
        y_label="share of seeds above",
        series={name: (x, group["profile"]) for name, group in groups},
        is_share=True,
        drawstyle="steps-post",
    )
    return _draw_lines(record, lines)


def _draw_lines(record: Record, lines: Lines) -> Any:
    """Draw all groups in one panel, or each in a panel of its own beside the others in gray."""
    number = len(lines.series)
    apart = number > MOST_TOGETHER
    columns = COLUMNS if apart else 1
    rows = -(-number // COLUMNS) if apart else 1
    size = (8.4, 0.9 + 2.1 * rows) if apart else (6.4, 4.4)
    figure = _figure(size, lines.title, lines.caption)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()
    for i, name in enumerate(lines.series):
        axes = panels[i] if apart else panels[0]
        if apart:
            axes.set_title(_label(record, name), fontsize=8.5)
            _draw_others(axes, lines, name)
        _draw_line(axes, lines, name, i)
        axes.lines[-1].set_label(_label(record, name))
    for axes in panels[number if apart else 1 :]:
        axes.set_visible(False)
    for i, axes in enumerate(panels[: number if apart else 1]):
        _finish(axes, lines, apart and i + columns < number, i % columns > 0)
    if not apart:
        panels[0].legend(fontsize=8, framealpha=0.8)
    return figure


def _draw_others(axes: Any, lines: Lines, own: str) -> None:
    for name, (x, found) in lines.series.items():
        if name != own:
            style = {"color": "0.75", "lw": 0.8, "drawstyle": lines.drawstyle}
            axes.plot(x, found["value"], **style)


def _draw_line(axes: Any, lines: Lines, name: str, number: int) -> None:
    x, found = lines.series[name]
    color = COLORS[number % len(COLORS)]
    dashes = DASHES[number % len(DASHES)]
    style = {"color": color, "ls": dashes, "drawstyle": lines.drawstyle}
    step = "post" if lines.drawstyle == "steps-post" else None
    low, high = found["low"], found["high"]
    axes.fill_between(x, low, high, step=step, color=color, alpha=0.15, lw=0)
    axes.plot(x, found["value"], **style)


def _finish(axes: Any, lines: Lines, has_below: bool, has_left: bool) -> None:
    """Label the axes; inner panels share the labels of the outer ones."""
    from matplotlib.ticker import EngFormatter  # slow to import

    axes.margins(x=0)
    if lines.is_share:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    if lines.x_label == "environment steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if has_below:
        axes.tick_params(labelbottom=False)
    else:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(lines.x_label, fontsize=9)
    if not has_left:
        axes.set_ylabel(lines.y_label, fontsize=9)


def _matrix(record: Record) -> Any:
    names = list(record["groups"])
    number = len(names)
    caption = (
        "Probability that a seed of the row scores higher than one of the column, ties "
        "counting one half; below it the 95 % interval."
    )
    size = 2.8 + 0.75 * number
    title = f"{_metric(record)} on {_where(record)}:\nprobability of improvement"
    figure = _figure((size + 0.8, size), title, caption)
    axes = figure.subplots()
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
