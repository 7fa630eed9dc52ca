"""Picture of a single environment as plain shapes, from which videos and pages are drawn.

Lengths have any unit. The x axis points to the right, and the y axis up. Colors are those of
Matplotlib, such as ``tab:blue`` or ``#1f77b4``. The background is drawn first, then areas, lines
and discs.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool


LineStyle = Literal["solid", "dashed", "dotted"]
Mark = Literal["disc", "ring", "bar", "area"] | LineStyle
FRAME_MS = 160
"""Default of ``Scene.frame_ms``."""


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
    ring: str = ""
    """Color of a ring around the disc, for example for the owner of a ball; empty for none."""
    height: float = 0.0
    """Height above the ground: a higher disc is larger, and its shadow is farther from it."""
    framed: bool = True
    """The part that ``Scene.zoom`` shows includes this disc."""


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


class Arc(NamedTuple):
    """A part of the outline of a circle; by default the whole circle."""

    x: float
    y: float
    radius: float
    color: str
    style: LineStyle = "solid"
    direction: float = 0.0
    """Angle of the middle of the arc, in radians from east towards north."""
    angle: float = math.tau
    """Angle between the ends, in radians."""


class Background(NamedTuple):
    """The ground of an episode and its markings, for example those of a pitch."""

    color: str = ""
    """Color of the ground; by default that of the page's theme."""
    areas: tuple[Rectangle | Sector, ...] = ()
    lines: tuple[Line | Arc, ...] = ()


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
    background: Background = Background()
    """Ground below all shapes, the same in all scenes of an episode; it is drawn only once."""
    frame_ms: int = FRAME_MS
    """Milliseconds to the next scene, the same in all scenes; GIF counts in units of 10 ms."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Point from which a page measures the positions of discs."""
    y_down: bool = False
    """A page measures positions downwards."""


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
