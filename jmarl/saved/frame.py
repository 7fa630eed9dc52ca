"""Frames: draw a scene with Matplotlib."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jmarl.envs.scene import Arc, Bar, Disc, LegendEntry, Line, Rectangle, Scene, Sector


Image = UInt8[np.ndarray, "H W 3"]
PIXELS = 640
"""Length of the longer side of a picture."""
VIEW_MARGIN = 0.06
"""Margin around the shown discs, as a fraction of the longer side of the whole."""
LEAST_VIEW = 0.5
"""Fraction of each side that is always shown."""
CAPTION_HEIGHT = 32
"""Height of the strip with the caption, in pixels."""
LEGEND_ROW_HEIGHT = 18
LEGEND_ENTRY_WIDTH = 106
GROUND = "#f6f6f2"
"""Color of the ground without a background."""
BAR_GROUND = "#c8c8c8"
BAR_COLOR = "tab:green"
"""Color of the first bar."""
CENTERED = {"ha": "center", "va": "center"}
ORDER = 1
"""Order of all shapes in Matplotlib, that of patches, so that later ones are above."""
STYLES = {
    "solid": ("-", 1.2, 0.6),
    "dashed": ((0, (2, 1)), 2.0, 0.9),
    "dotted": (":", 1.0, 0.5),
}
"""Style, width and opacity of lines."""
GROWTH = 0.12
"""Increase of the radius of a disc per unit of its height."""
SHADOW = 0.5
"""Distance of a shadow to the right, and downwards, per unit of height."""
SHADOW_OPACITY = 0.35
ARC_POINTS = 100
"""Number of points of the line that approximates an arc."""
RING_WIDTH = 2.2
"""Largest width of a ring in points."""
RING_SHARE = 0.35
"""Largest width of a ring in radii of its disc."""
DPI = 100
"""Pixels per inch; a point is 1/72 of an inch."""
LABEL_SHARE = 1.5
"""Largest size of a label, in radii of its disc."""
LABEL_POINTS = 7
"""Largest size of labels."""
SAMPLES = {"bar": (0.15, 1.0), "area": (0.3, 0.6)}
"""Half height and opacity of samples in the legend."""


class View(NamedTuple):
    """The part of the scenes that is shown."""

    left: float
    bottom: float
    width: float
    height: float


def whole(scene: Scene) -> View:
    """Return the view of a whole scene."""
    return View(0.0, 0.0, scene.width, scene.height)


def view(scenes: Sequence[Scene]) -> View:
    """Return the part of an episode to show: that with discs, if its scenes have ``zoom``."""
    discs = [disc for scene in scenes for disc in scene.discs if disc.framed]
    if not discs or not all(scene.zoom for scene in scenes):
        return whole(scenes[0])
    size = scenes[0].width, scenes[0].height
    center = np.asarray([(disc.x, disc.y) for disc in discs])
    radius = np.asarray([disc.radius for disc in discs])
    reach = radius[:, None] + VIEW_MARGIN * max(size)
    low = (center - reach).min(0)
    high = (center + reach).max(0)
    shown = np.clip(high - low, np.multiply(LEAST_VIEW, size), size)
    start = np.clip((low + high - shown) / 2, 0, size - shown)
    return View(*start.tolist(), *shown.tolist())


def draw_frame(scene: Scene, pixels: int = PIXELS, part: View | None = None) -> Image:
    """Draw a scene, with a strip for the caption above it, and one for the legend below.

    Args:
        scene: Scene to draw.
        pixels: Length of the longer side without the strips.
        part: Part to show; by default all.
    """
    part = part or whole(scene)
    unit = pixels / max(part.width, part.height)
    # video formats require even numbers of pixels
    width = 2 * round(part.width * unit / 2)
    height = 2 * round(part.height * unit / 2)
    picture = _draw_picture(scene, part, width, height)
    if not scene.legend:
        return picture
    return np.concatenate([picture, _draw_legend(scene.legend, width)])


def _figure(width: int, height: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _pixels(figure: Any) -> Image:
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    return pixels[..., :3].copy()


def _draw_picture(scene: Scene, part: View, width: int, height: int) -> Image:
    total = height + CAPTION_HEIGHT
    figure = _figure(width, total)
    axes = _axes(figure, part, height / total)
    ground = scene.background
    axes.set_facecolor(ground.color or GROUND)
    for area in (*ground.areas, *scene.areas):
        axes.add_patch(_area(area))
    for line in (*ground.lines, *scene.lines):
        _draw_line(axes, line)
    for disc in scene.discs:
        _draw_shadow(axes, disc)
    points = 72 / DPI * width / part.width
    # Empty discs are below the others, and bars above all discs.
    for disc in sorted(scene.discs, key=lambda disc: disc.fill != 0):
        _draw_disc(axes, disc, disc.radius * points, ground.color or GROUND)
    for disc in scene.discs:
        _draw_bars(axes, disc)
    middle = (height + CAPTION_HEIGHT / 2) / total
    figure.text(0.5, middle, scene.caption, CENTERED, fontsize=10)
    return _pixels(figure)


def _axes(figure: Any, part: View, share: float) -> Any:
    """Return the axes of a part of a scene, over the lower share of a figure."""
    axes = figure.add_axes((0, 0, 1, share))
    axes.set(
        xlim=(part.left, part.left + part.width),
        ylim=(part.bottom, part.bottom + part.height),
        xticks=[],
        yticks=[],
    )
    return axes


def _area(area: Rectangle | Sector) -> Any:
    from matplotlib import patches

    style: Any = {
        "facecolor": area.color,
        "alpha": area.opacity,
        "linewidth": 0,
    }
    if isinstance(area, Rectangle):
        corner = area.x0, area.y0
        width, height = area.x1 - area.x0, area.y1 - area.y0
        return patches.Rectangle(corner, width, height, **style)
    center = area.x, area.y
    first = math.degrees(area.direction - area.angle / 2)
    last = first + math.degrees(area.angle)
    return patches.Wedge(center, area.radius, first, last, **style)


def _draw_line(axes: Any, line: Line | Arc) -> None:
    style, width, opacity = STYLES[line.style]
    axes.plot(
        *_points(line),
        color=line.color,
        linestyle=style,
        zorder=ORDER,
        linewidth=width,
        alpha=opacity,
    )


def _points(line: Line | Arc) -> tuple[Sequence[float], Sequence[float]]:
    """Return the coordinates of the points that a line connects."""
    if isinstance(line, Line):
        return (line.x0, line.x1), (line.y0, line.y1)
    half = line.angle / 2
    angles = np.linspace(line.direction - half, line.direction + half, ARC_POINTS)
    x = line.x + line.radius * np.cos(angles)
    y = line.y + line.radius * np.sin(angles)
    return x.tolist(), y.tolist()


def _draw_shadow(axes: Any, disc: Disc) -> None:
    """Draw the shadow of a disc above the ground."""
    if disc.height > 0:
        shift = SHADOW * disc.height
        x, y = disc.x + shift, disc.y - shift
        shadow = Sector(x, y, disc.radius, "black", SHADOW_OPACITY)
        axes.add_patch(_area(shadow))


def _draw_disc(axes: Any, disc: Disc, points: float, ground: str) -> None:
    """Draw a disc with its label; an empty one is a ring with a cross.

    Args:
        axes: Axes to draw on.
        disc: Disc to draw.
        points: Radius of the disc in points.
        ground: Color of the ground, which shows through a pale disc.
    """
    from matplotlib.patches import Circle

    center = disc.x, disc.y
    size = min(LABEL_POINTS, LABEL_SHARE * points)
    text = partial(axes.text, *center, fontdict=CENTERED, zorder=ORDER, clip_on=True)
    is_empty = disc.fill == 0
    circle = Circle(
        center,
        disc.radius + GROWTH * disc.height,
        facecolor="none" if is_empty else _pale(disc, ground),
        edgecolor=disc.ring or (disc.color if is_empty else "white"),
        alpha=0.5 if is_empty else 1.0,
        linewidth=min(RING_WIDTH, RING_SHARE * points) if disc.ring else 1,
    )
    axes.add_patch(circle)
    if is_empty:
        text("\u00d7", color=disc.color, alpha=0.7, fontsize=size)
    else:
        text(disc.label, color="white", fontsize=size)


def _pale(disc: Disc, ground: str) -> np.ndarray:
    """Return the color of a disc, which is paler the emptier its first bar is."""
    from matplotlib.colors import to_rgb

    fill = 1.0 if disc.fill is None else disc.fill
    share = 0.35 + 0.65 * fill
    full = np.asarray(to_rgb(disc.color))
    return share * full + (1 - share) * np.asarray(to_rgb(ground))


def _draw_bars(axes: Any, disc: Disc) -> None:
    """Draw the bars of a disc that is not empty."""
    if disc.fill == 0:
        return
    bars = list(disc.bars)
    if disc.fill is not None:
        bars.insert(0, Bar(disc.fill, BAR_COLOR))
    height = 0.36 * disc.radius
    bottom = disc.y + 1.1 * disc.radius
    for level, bar in enumerate(bars):
        _draw_bar(axes, disc, bar, bottom + level * height, height)


def _draw_bar(axes: Any, disc: Disc, bar: Bar, bottom: float, height: float) -> None:
    from matplotlib.patches import Rectangle as Patch

    length = 2 * disc.radius
    patch = partial(Patch, (disc.x - disc.radius, bottom), height=height)
    ground = patch(width=length, facecolor=BAR_GROUND, edgecolor="white")
    axes.add_patch(ground)
    axes.add_patch(patch(width=length * bar.fill, facecolor=bar.color))


@functools.cache
def _draw_legend(entries: tuple[LegendEntry, ...], width: int) -> Image:
    """Draw the strip with the legend, with as many rows as needed."""
    columns = max(1, width // LEGEND_ENTRY_WIDTH)
    rows = math.ceil(len(entries) / columns)
    figure = _figure(width, rows * LEGEND_ROW_HEIGHT)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.axis("off")
    for index, entry in enumerate(entries):
        row, column = divmod(index, columns)
        _draw_entry(axes, entry, column, row + 0.5)
    return _pixels(figure)


def _draw_entry(axes: Any, entry: LegendEntry, x: float, y: float) -> None:
    """Draw a sample and its explanation in a cell of the legend."""
    left, right = x + 0.05, x + 0.22
    if entry.mark == "disc":
        sample = Disc((left + right) / 2, y, 0.0, entry.color, entry.label)
        axes.plot(sample.x, y, "o", color=entry.color, markersize=9, zorder=ORDER)
        _draw_disc(axes, sample, LABEL_POINTS, GROUND)
    elif entry.mark == "ring":
        ring = partial(axes.plot, markerfacecolor="none", markeredgewidth=RING_WIDTH)
        ring((left + right) / 2, y, "o", markeredgecolor=entry.color, markersize=8)
    elif entry.mark in ("bar", "area"):
        half, opacity = SAMPLES[entry.mark]
        area = Rectangle(left, y - half, right, y + half, entry.color, opacity)
        axes.add_patch(_area(area))
    else:
        _draw_line(axes, Line(left, y, right, y, entry.color, entry.mark))
    axes.text(x + 0.27, y, entry.text, va="center_baseline", fontsize=8)
