"""Page of an episode: one HTML file that plays it in any browser and loads nothing else.

The page contains the scenes as JSON. Coordinates are multiples of ``grid``, and only changes over
time take space:

* A *series* has a value for each frame. ``[value, n]`` stands for ``n`` equal values.
* ``discs`` has seven entries for each disc: series of its look, of the differences of x and of y,
  of its fill and of its height, and lists of series of the fills of its bars and of the values of
  its details.
* A look is an index into ``looks``: radius, color, ring, label, name, colors of the bars, and names
  of the details. Values of details and captions are indices into ``texts``.
* ``areas`` and ``lines`` end with the frames that show them: numbers of frames without and with
  them, in turn. A point is an index into ``discs``, for the center of the disc, or ``[x, y]``.
* ``ground`` has the color of the background, its areas, lines and arcs, which all frames show.

The index -1 stands for nothing: an absent disc, a missing bar, a missing detail.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from typing import Any

from jmarl.envs.scene import Arc, Disc, LegendEntry, Line, Rectangle, Scene, Sector
from jmarl.saved.frame import view


GRID = 4000
"""Steps of the grid along the longer side of a scene."""
FULL = 100
"""Number of a full bar."""
NOTHING = -1
PLACEHOLDER = "{{episode}}"
_Discs = dict[tuple[str, int], Disc]
"""Discs by name, and number of earlier discs with this name."""
_Place = tuple[int, int]
_Track = list[Disc | None]
"""State of a disc in each frame."""
_Mark = tuple[Any, ...]
_Marks = list[_Mark]
_Point = Callable[[float, float], Any]
_Series = list[Any]


def encode_html(scenes: Sequence[Scene], title: str, frame_ms: int) -> bytes:
    """Return a page that plays an episode.

    Args:
        scenes: Scenes of the same size.
        title: Title of the page.
        frame_ms: Milliseconds from one scene to the next.
    """
    episode = {"title": title, "ms": frame_ms, **encode_scenes(scenes)}
    text = json.dumps(episode, ensure_ascii=False, separators=(",", ":"))
    # A tag in a text must not end the script.
    data = text.replace("<", "\\u003c")
    template = resources.files("jmarl.saved").joinpath("player.html")
    page = template.read_text("utf-8")
    return page.replace(PLACEHOLDER, data).encode()


def encode_scenes(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return scenes as a tree for JSON, in the format of this module."""
    episode = _Episode(scenes)
    captions = [episode.texts.index(scene.caption) for scene in scenes]
    return {
        "size": episode.size,
        "view": view(scenes),
        "origin": (*scenes[0].origin, -1 if scenes[0].y_down else 1),
        "grid": episode.step,
        "frames": len(scenes),
        "legend": list(map(_legend_entry, scenes[0].legend)),
        "captions": _series(captions),
        "ground": _ground(episode),
        "discs": [_disc(episode, name) for name in episode.names],
        "areas": _marks(_areas(episode)),
        "lines": _marks(_lines(episode)),
        # The entries above fill these tables.
        "looks": episode.looks.values,
        "texts": episode.texts.values,
    }


class _Table:
    """Distinct values in the order of their first use."""

    def __init__(self) -> None:
        self._indices: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        return self._indices.setdefault(value, len(self._indices))

    @property
    def values(self) -> list[Any]:
        return list(self._indices)


class _Episode:
    """Grid and discs of an episode, and tables of the looks and texts met so far."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = scenes
        self.size = scenes[0].width, scenes[0].height
        self.step = max(self.size) / GRID
        self.discs = [_identify(scene.discs) for scene in scenes]
        names = dict.fromkeys(itertools.chain(*self.discs))
        self.names = {name: index for index, name in enumerate(names)}
        self.looks = _Table()
        self.texts = _Table()

    def round(self, length: float) -> int:
        return round(length / self.step)

    def place(self, x: float, y: float) -> _Place:
        return self.round(x), self.round(y)


def _identify(discs: Iterable[Disc]) -> _Discs:
    counts: collections.Counter[str] = collections.Counter()
    found = {}
    for disc in discs:
        found[disc.name, counts[disc.name]] = disc
        counts[disc.name] += 1
    return found


@functools.cache
def _hex(color: str) -> str:
    """Return a color for the page; an empty one stays empty."""
    from matplotlib.colors import to_hex

    return to_hex(color) if color else ""


def _legend_entry(entry: LegendEntry) -> LegendEntry:
    return entry._replace(color=_hex(entry.color))


# Discs.


def _disc(episode: _Episode, name: tuple[str, int]) -> list[Any]:
    """Return the entries of a disc."""
    track = [discs.get(name) for discs in episode.discs]
    seen = [disc for disc in track if disc]
    n_bars = max(len(disc.bars) for disc in seen)
    n_details = max(len(disc.details) for disc in seen)
    x = _hold(disc and episode.round(disc.x) for disc in track)
    y = _hold(disc and episode.round(disc.y) for disc in track)
    fill = [_level(disc.fill if disc else None) for disc in track]
    height = _hold(disc and episode.round(disc.height) for disc in track)
    return [
        _series(_look(disc, episode) for disc in track),
        _series(_differences(x)),
        _series(_differences(y)),
        _series(fill),
        _series(height),
        [_bar_series(track, index) for index in range(n_bars)],
        [_detail_series(episode, track, index) for index in range(n_details)],
    ]


def _look(disc: Disc | None, episode: _Episode) -> int:
    if disc is None:
        return NOTHING
    look = (
        episode.round(disc.radius),
        _hex(disc.color),
        _hex(disc.ring),
        disc.label,
        disc.name,
        tuple(_hex(bar.color) for bar in disc.bars),
        tuple(name for name, _ in disc.details),
    )
    return episode.looks.index(look)


def _bar_series(track: _Track, index: int) -> _Series:
    levels = []
    for disc in track:
        bars = disc.bars if disc else ()
        fill = bars[index].fill if index < len(bars) else None
        levels.append(_level(fill))
    return _series(levels)


def _detail_series(episode: _Episode, track: _Track, index: int) -> _Series:
    values = []
    for disc in track:
        details = disc.details if disc else ()
        has_detail = index < len(details)
        text = details[index][1] if has_detail else ""
        values.append(episode.texts.index(text) if has_detail else NOTHING)
    return _series(values)


def _level(fill: float | None) -> int:
    """Return a fraction as a number up to ``FULL``, which is 0 only for an empty bar."""
    if fill is None:
        return NOTHING
    return max(round(FULL * fill), 1) if fill > 0 else 0


# Lines and areas.


def _lines(episode: _Episode) -> Iterator[_Marks]:
    for frame, scene in enumerate(episode.scenes):
        point = _points(episode, frame)
        yield [_line(line, point) for line in scene.lines]


def _areas(episode: _Episode) -> Iterator[_Marks]:
    # An area that stays is no part of a disc that comes by.
    everything = itertools.chain(*(scene.areas for scene in episode.scenes))
    counts = collections.Counter(everything)
    for frame, scene in enumerate(episode.scenes):
        point = _points(episode, frame)
        marks = []
        for area in scene.areas:
            locate = point if counts[area] == 1 else episode.place
            marks.append(_area(area, episode, locate))
        yield marks


def _ground(episode: _Episode) -> dict[str, Any]:
    """Return the background, which has no frames."""
    background = episode.scenes[0].background
    areas = [_area(area, episode, episode.place) for area in background.areas]
    lines, arcs = [], []
    for line in background.lines:
        if isinstance(line, Arc):
            arcs.append(_arc(line, episode))
        else:
            lines.append(_line(line, episode.place))
    color = _hex(background.color)
    return {"color": color, "areas": areas, "lines": lines, "arcs": arcs}


def _arc(arc: Arc, episode: _Episode) -> _Mark:
    center, radius = episode.place(arc.x, arc.y), episode.round(arc.radius)
    angles = round(arc.direction, 4), round(arc.angle, 4)
    return _hex(arc.color), arc.style, center, radius, *angles


def _points(episode: _Episode, frame: int) -> _Point:
    """Return a function from a place to the index of a disc there, or else coordinates."""
    centers = {}
    for name, disc in episode.discs[frame].items():
        centers[disc.x, disc.y] = episode.names[name]
    return lambda x, y: centers.get((x, y), episode.place(x, y))


def _line(line: Line, point: _Point) -> _Mark:
    start = point(line.x0, line.y0)
    end = point(line.x1, line.y1)
    return _hex(line.color), line.style, start, end


def _area(area: Rectangle | Sector, episode: _Episode, point: _Point) -> _Mark:
    style = _hex(area.color), area.opacity
    if isinstance(area, Rectangle):
        low = episode.place(area.x0, area.y0)
        high = episode.place(area.x1, area.y1)
        return "rectangle", *style, *low, *high
    angles = round(area.direction, 4), round(area.angle, 4)
    radius = episode.round(area.radius)
    return "sector", *style, point(area.x, area.y), radius, *angles


def _marks(frames: Iterable[_Marks]) -> list[list[Any]]:
    """Return the distinct marks of all frames, each with the frames that show it."""
    shown: dict[_Mark, set[int]] = {}
    for frame, marks in enumerate(frames):
        for mark in marks:
            shown.setdefault(mark, set()).add(frame)
    return [[*mark, _intervals(times)] for mark, times in shown.items()]


def _intervals(frames: set[int]) -> list[int]:
    """Return the numbers of frames between, and in, runs of consecutive frames."""
    starts = {frame for frame in frames if frame - 1 not in frames}
    stops = {frame + 1 for frame in frames if frame + 1 not in frames}
    borders = sorted(starts | stops)
    return _differences(borders)


# Series.


def _series(values: Iterable[int]) -> _Series:
    """Return values with runs of equal ones as ``[value, n]``."""
    series = []
    for value, run in itertools.groupby(values):
        count = len(list(run))
        series.append(value if count == 1 else (value, count))
    return series


def _hold(values: Iterable[int | None]) -> list[int]:
    """Fill gaps with the value before them, or with 0."""
    held = [0]
    for value in values:
        held.append(held[-1] if value is None else value)
    return held[1:]


def _differences(values: Sequence[int]) -> list[int]:
    """Return the first value and the differences of consecutive values."""
    pairs = itertools.pairwise([0, *values])
    return [after - before for before, after in pairs]
