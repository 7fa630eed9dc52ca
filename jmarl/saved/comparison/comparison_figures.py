"""Figures of a comparison: learning curves, performance profiles, probabilities of improvement."""

from __future__ import annotations

import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np

from jmarl.results.figures import Drawing, svg_text
from jmarl.saved.comparison.analysis import Record
from jmarl.saved.comparison.comparison_text import seeds_text
from jmarl.saved.comparison.selection import UNNAMED


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
LONGEST_LABEL = 36
"""Characters on a line of a label."""
MOST_LINES = 3
"""Lines of a label."""
LINE = 0.165
"""Inches of a line of the caption."""
COLOR_MAP = "PuOr"
DIAGONAL = "0.9"
"""Gray of the cells that compare a group with itself."""
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
MATRIX = (
    "Probability that a seed of the row scores higher than one of the column, ties counting one "
    "half; below it the 95 % interval."
)
CELL = 0.8
"""Inches of a cell of the matrix."""


def draw_figures(record: Record, folder: pathlib.Path) -> list[str]:
    """Draw all figures as PNG and SVG.

    Args:
        record: Record of a comparison.
        folder: Existing folder for the files.

    Returns:
        The names of the figures, without suffix.
    """
    drawings = comparison_drawings(record)
    for name, drawing in drawings.items():
        save_png(drawing, folder / f"{name}.png")
        drawing.figure.set_layout_engine("none")  # the layout is the same in both files
        text = svg_text(drawing.figure)
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return list(drawings)


def comparison_drawings(record: Record) -> dict[str, Drawing]:
    """Return the figures of a comparison by name.

    Args:
        record: Record of a comparison.
    """
    import matplotlib as mpl  # slow to import

    with mpl.rc_context({"text.parse_math": False}):  # a name may contain $
        drawings = {
            "sample_efficiency": _curves(record, "env_steps"),
            "wall_time": _curves(record, "wall_time_s"),
            "profiles": _profiles(record),
        }
        if record["improvement"]:
            drawings["improvement"] = _matrix(record)
    return drawings


def save_png(drawing: Drawing, path: pathlib.Path) -> None:
    """Add the title and the caption, for which the figure becomes higher, and write it."""
    figure = drawing.figure
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(drawing.caption, int(width * 14))
    figure.set_figheight(height + LINE * (2 + len(lines)))
    figure.suptitle(drawing.title, fontsize=10)
    figure.supxlabel("\n".join(lines), fontsize=8, color="0.25")
    figure.savefig(path, dpi=150)


class Lines(NamedTuple):
    """One line per group, with a band."""

    x_label: str
    y_label: str
    series: dict[str, tuple[Any, Record]]
    """Horizontal positions and an interval of arrays, by group."""
    is_share: bool
    """True if values lie in [0, 1]."""
    drawstyle: str = "default"


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=size, layout="constrained")


def _seed_text(record: Record) -> str:
    """Return the number of seeds, and the arguments that all groups share."""
    groups = record["groups"]
    every = [n for group in groups.values() for n in group["seeds"].values()]
    text = f"Seeds: {_range(every)} in each group"
    if len(record["envs"]) > 1:
        text += f" and each of {len(record['envs'])} environments"
    shared = " ".join(_shared_words(record))
    return f"{text}." + f" All groups have {shared}." * bool(shared)


def _shared_words(record: Record) -> list[str]:
    """Return the words that the names of several groups have in common."""
    first, *others = (name.split() for name in record["groups"])
    shared = [word for word in first if all(word in words for words in others)]
    return shared if others else []


def _sample_text(record: Record) -> str:
    """Return the numbers of seeds, and of episodes behind each score."""
    every = [n for group in record["groups"].values() for n in group["episodes"]]
    return f"{_seed_text(record)} Each score is from {_range(every)} episodes."


def _range(values: list[int]) -> str:
    ends = dict.fromkeys((min(values), max(values)))
    return " to ".join(f"{end:,}" for end in ends)


def _metric(record: Record) -> str:
    mode, _, name = record["metric"].partition("/")
    label = "win rate" if name == "won" else name
    is_mapped = record["is_share"] and name != "won"
    return f"{mode} {label}" + " (mapped to [0, 1])" * is_mapped


def _where(record: Record) -> str:
    envs = record["envs"]
    return envs[0] if len(envs) == 1 else f"{len(envs)} environments"


def _label(record: Record, name: str) -> str:
    """Return the name of a group without shared words, and its seeds, in lines that fit."""
    shared = _shared_words(record)
    own = " ".join(word for word in name.split() if word not in shared) or UNNAMED
    lines = textwrap.wrap(own, LONGEST_LABEL, max_lines=MOST_LINES, placeholder=" …")
    seeds = f"({seeds_text(record['groups'][name], ' seeds')})"
    fits = len(lines[-1]) + len(seeds) < LONGEST_LABEL
    *above, last = lines
    return "\n".join([*above, f"{last} {seeds}"] if fits else [*lines, seeds])


def _are_long(labels: list[str]) -> bool:
    """Return True if labels do not fit into a legend or below the columns of a matrix."""
    return any("\n" in label for label in labels)


def _curves(record: Record, axis: str) -> Drawing:
    alone = len(record["envs"]) == 1
    by_time = axis == "wall_time_s"
    scale = 60.0 if by_time and alone else 1.0
    series = {}
    for name, group in record["groups"].items():
        found = group["curves"][axis]
        series[name] = np.array(found["budget"]) / scale, found
    kind = "Wall time" if by_time else "Sample efficiency"
    share = "time" if by_time else "steps"
    unit = "wall time (minutes)" if by_time else "environment steps"
    lines = Lines(
        x_label=unit if alone else f"share of the {share} of each environment",
        y_label=_metric(record),
        series=series,
        is_share=record["is_share"],
    )
    return Drawing(
        title=f"{kind}: {_metric(record)} on {_where(record)}",
        caption=f"{CURVES}{TIME * by_time} {_seed_text(record)}",
        figure=_draw_lines(record, lines),
    )


def _profiles(record: Record) -> Drawing:
    x = np.array(record["thresholds"])
    groups = record["groups"].items()
    lines = Lines(
        x_label=f"threshold of the {_metric(record)}",
        y_label="share of seeds above",
        series={name: (x, group["profile"]) for name, group in groups},
        is_share=True,
        drawstyle="steps-post",
    )
    return Drawing(
        title=f"Performance profiles on {_where(record)}",
        caption=f"{PROFILES} {_sample_text(record)}",
        figure=_draw_lines(record, lines),
    )


def _draw_lines(record: Record, lines: Lines) -> Any:
    """Draw all groups in one panel, or each in a panel of its own beside the others in gray."""
    number = len(lines.series)
    labels = [_label(record, name) for name in lines.series]
    apart = number > MOST_TOGETHER or _are_long(labels)
    columns = COLUMNS if apart else 1
    rows = -(-number // COLUMNS) if apart else 1
    size = (8.4, 0.5 + 2.1 * rows) if apart else (6.4, 3.8)
    figure = _figure(size)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()
    for i, name in enumerate(lines.series):
        axes = panels[i] if apart else panels[0]
        if apart:
            axes.set_title(labels[i], fontsize=8.5)
            _draw_others(axes, lines, name)
        _draw_line(axes, lines, name, i)
        axes.lines[-1].set_label(labels[i])
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
    style = {"color": color, "ls": dashes, "drawstyle": lines.drawstyle, "lw": 1.8}
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
    axes.tick_params(labelsize=8.5)
    if lines.x_label == "environment steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if has_below:
        axes.tick_params(labelbottom=False)
    else:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(lines.x_label, fontsize=9)
    if not has_left:
        axes.set_ylabel(lines.y_label, fontsize=9)


def _matrix(record: Record) -> Drawing:
    return Drawing(
        title=f"Probability of improvement on {_where(record)}",
        caption=f"{MATRIX} {_sample_text(record)}",
        figure=_draw_matrix(record),
    )


def _draw_matrix(record: Record) -> Any:
    names = list(record["groups"])
    number = len(names)
    labels = [_label(record, name) for name in names]
    room = 0.075 * max(len(line) for label in labels for line in label.splitlines())
    are_long = _are_long(labels)
    side = CELL * number
    below = 0.6 if are_long else 0.7 * room + 0.4
    figure = _figure((1.2 * side + room + 1.2, side + below))
    axes = figure.subplots()
    values = np.full((number, number), np.nan)
    for found in record["improvement"]:
        place = names.index(found["group"]), names.index(found["over"])
        values[place] = found["value"]
        _cell(axes, place, found)
    image = axes.imshow(values, cmap=COLOR_MAP, vmin=0, vmax=1)
    axes.set_facecolor(DIAGONAL)
    bar = figure.colorbar(image, ax=axes, shrink=0.75)
    bar.set_label("probability that row > column", fontsize=8.5)
    bar.ax.tick_params(labelsize=8.5)
    if are_long:
        labels = [f"{label}  {i}" for i, label in enumerate(labels, 1)]
        axes.set_xticks(range(number), range(1, number + 1), fontsize=8)
    else:
        axes.set_xticks(range(number), labels, fontsize=8, rotation=35, ha="right")
    axes.set_yticks(range(number), labels, fontsize=8)
    return figure


def _cell(axes: Any, place: tuple[int, int], found: Record) -> None:
    import matplotlib  # slow to import

    row, column = place
    text = f"{found['value']:.2f}\n{found['low']:.2f}–{found['high']:.2f}"
    red, green, blue, _ = matplotlib.colormaps[COLOR_MAP](found["value"])
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5  # brightness
    color = "white" if is_dark else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
