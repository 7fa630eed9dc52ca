"""Picture of a single environment as plain shapes, from which videos and pages are drawn.

Lengths have any unit. The x axis points to the right, and the y axis up. Colors are those of
Matplotlib, such as ``tab:blue`` or ``#1f77b4``. Areas are drawn first, then lines, then discs.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool


LineStyle = Literal["solid", "dashed", "dotted"]
Mark = Literal["disc", "bar", "area"] | LineStyle


class Bar(NamedTuple):
    """A bar above a disc, for example energy."""

    fill: float
    """Filled fraction, from 0 to 1."""
    color: str


class Disc(NamedTuple):
    """A disc with a label, for example an agent, and optionally bars above it."""

    x: float
    y: float
    radius: float
    color: str
    label: str
    fill: float | None = None
    """Filled fraction of the first bar, from 0 to 1, for example health; None for no bar.

    A disc with 0 is drawn as an empty ring.
    """
    bars: tuple[Bar, ...] = ()
    """Further bars, from bottom to top."""
    name: str = ""
    """Title of the details, the same in all scenes of an episode; by default the label."""
    details: tuple[tuple[str, str], ...] = ()
    """Names and values that a page shows when the pointer is over the disc."""
    agent: int | None = None
    """Index of the agent that the disc shows; None for other objects."""


class Line(NamedTuple):
    """A line from ``(x0, y0)`` to ``(x1, y1)``; a dotted line is thin and faint."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: str
    style: LineStyle = "solid"


class Rectangle(NamedTuple):
    """An area between the corners ``(x0, y0)`` and ``(x1, y1)``, for example a wall."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: str
    opacity: float = 0.4


class Sector(NamedTuple):
    """A sector of a circle, for example a field of view; by default the whole circle."""

    x: float
    y: float
    radius: float
    color: str
    opacity: float = 0.4
    direction: float = 0.0
    """Angle of the middle of the sector, in radians from east towards north."""
    angle: float = math.tau
    """Angle between the sides, in radians."""


class LegendEntry(NamedTuple):
    """An explanation of a kind of shapes."""

    text: str
    color: str
    mark: Mark = "area"
    """Shape of the sample."""
    label: str = ""
    """Label of a sample disc."""


class Scene(NamedTuple):
    """A picture of a single environment; the origin is at the lower left."""

    width: float
    height: float
    discs: tuple[Disc, ...]
    lines: tuple[Line, ...]
    caption: str
    areas: tuple[Rectangle | Sector, ...] = ()
    legend: tuple[LegendEntry, ...] = ()
    """Explanations, the same in all scenes of an episode."""
    zoom: bool = False
    """Show only the part of the picture in which there are discs during the episode."""


def cell_areas(
    cells: Bool[np.ndarray, "X Y"], color: str, opacity: float = 0.4
) -> tuple[Rectangle, ...]:
    """Cover cells of a grid, such as walls, with few rectangles.

    Args:
        cells: Mask of the cells. Cell ``[x, y]`` has its corner at ``(x, y)`` and side 1.
        color: Color of the rectangles.
        opacity: Opacity of the rectangles.
    """
    areas: list[Rectangle] = []
    growing: dict[tuple[int, int], int] = {}  # runs along y to their first column
    for x, column in enumerate([*cells, np.zeros(cells.shape[1], bool)]):
        runs = _runs(column)
        for run in sorted(growing.keys() - runs):
            areas.append(Rectangle(growing.pop(run), run[0], x, run[1], color, opacity))
        growing = {run: growing.get(run, x) for run in runs}
    return tuple(areas)


def _runs(flags: Bool[np.ndarray, "Y"]) -> set[tuple[int, int]]:
    """Return the runs of True, as (start, stop)."""
    steps = np.diff(np.concatenate([[0], flags, [0]]).astype(int))
    starts, stops = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    return set(zip(starts.tolist(), stops.tolist(), strict=True))
