"""Picture of a single environment as plain shapes, from which videos are drawn."""

from __future__ import annotations

from typing import NamedTuple


class Disc(NamedTuple):
    """A disc with a label, for example an agent, and optionally a bar above it."""

    x: float
    y: float
    radius: float
    color: str
    label: str
    fill: float | None = None
    """Filled fraction of the bar, from 0 to 1, for example health; None for no bar.

    A disc with 0 is drawn as an empty ring.
    """


class Line(NamedTuple):
    """A line from ``(x0, y0)`` to ``(x1, y1)``."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: str


class Scene(NamedTuple):
    """A picture of a single environment; the origin is at the lower left."""

    width: float
    height: float
    discs: tuple[Disc, ...]
    lines: tuple[Line, ...]
    caption: str
