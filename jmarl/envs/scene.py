"""A picture of one world, as plain shapes: what an environment gives so that its episodes can be watched."""

from __future__ import annotations

from typing import NamedTuple


class Disc(NamedTuple):
    """Something round, with a bar over it that shows how much is left of it."""

    x: float
    y: float
    radius: float
    color: str
    label: str
    left: float
    """From 0, drawn as an empty ring, to 1."""


class Line(NamedTuple):
    """From one point to another."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: str


class Scene(NamedTuple):
    """What a world looks like; the origin is at the lower left."""

    width: float
    height: float
    discs: tuple[Disc, ...]
    lines: tuple[Line, ...]
    caption: str
