"""Terrains: walkable cells of the map.

The terrains of SMAC's maps are entries of ``terrains.yaml``. A scenario file can define another
terrain. This module does not import JAX.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmarl.config.errors import ConfigError, suggest
from jmarl.envs.battle.scenarios.yaml_node import Node, read_yaml


MAP_SIZE = 32
"""Cells along a side of the map."""
TERRAINS_FILE = Path(__file__).parent / "terrains.yaml"
_SPAN = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")
_EXAMPLE = "8-23: [0-32]"


class Row(NamedTuple):
    """Walkable cells in consecutive rows of the map."""

    first: int
    last: int
    spans: tuple[tuple[int, int], ...]
    """Coordinates from-to along x."""


class Terrain(NamedTuple):
    """Walkable cells of a map; hashable."""

    name: str
    rows: tuple[Row, ...]


@functools.cache
def walkable(terrain: Terrain) -> np.ndarray:
    """Return whether each cell can be walked on, as a read-only bool array ``[x, y]``."""
    cells = np.zeros((MAP_SIZE, MAP_SIZE), bool)
    for row in terrain.rows:
        for start, stop in row.spans:
            cells[start:stop, row.first : row.last + 1] = True
    cells.setflags(write=False)
    return cells


def is_walkable(terrain: Terrain, x: float, y: float) -> bool:
    """Return whether a point of the map can be walked on."""
    return bool(walkable(terrain)[int(x), int(y)])


def is_connected(cells: np.ndarray) -> bool:
    """Return whether every walkable cell can be reached from every other.

    Steps lead to the four neighbors of a cell. A map without walkable cells is not connected.
    """
    unseen = {(int(x), int(y)) for x, y in np.argwhere(cells)}
    if not unseen:
        return False
    frontier = [unseen.pop()]
    while frontier:
        x, y = frontier.pop()
        found = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & unseen
        unseen -= found
        frontier += found
    return not unseen


def get_terrain(name: str) -> Terrain:
    """Return a terrain of ``terrains.yaml``.

    Raises:
        ConfigError: If the name is unknown.
    """
    terrains = load_terrains()
    if name not in terrains:
        fix = suggest(name, terrains, f"expected one of {', '.join(terrains)}")
        raise ConfigError(f"terrain={name}: unknown terrain; {fix}")
    return terrains[name]


@functools.cache
def load_terrains(path: Path = TERRAINS_FILE) -> dict[str, Terrain]:
    """Return the terrains of a file by name.

    Raises:
        ConfigError: If the file is wrong. The message has its line and key.
    """
    root = read_yaml(path.read_text(encoding="utf-8"), path.name)
    entries = root.entries(f"strip: {{{_EXAMPLE}}}")
    return {name: read_terrain(node, name) for name, node in entries.items()}


def read_terrain(node: Node, name: str) -> Terrain:
    """Return the terrain that a mapping of rows describes.

    Raises:
        ConfigError: If a row is wrong or given twice.
    """
    rows: list[Row] = []
    for key, entry in node.entries(_EXAMPLE).items():
        row = _read_row(key, entry)
        entry.check(not _overlaps(row, rows), "a row of cells is given twice")
        rows.append(row)
    node.check(any(row.spans for row in rows), f"no rows; write {_EXAMPLE}")
    return Terrain(name, tuple(rows))


def _read_row(key: str, entry: Node) -> Row:
    match = _SPAN.fullmatch(key)
    rule = f"rows are y or y-y with y in [0, {MAP_SIZE - 1}], such as {_EXAMPLE}"
    if match is None:
        raise entry.error(rule)
    first = int(match[1])
    last = int(match[2] or match[1])
    entry.check(first <= last < MAP_SIZE, rule)
    return Row(first, last, tuple(map(_read_span, entry.items("[0-32]"))))


def _read_span(node: Node) -> tuple[int, int]:
    match = _SPAN.fullmatch(node.text())
    rule = f"expected from-to with 0 <= from < to <= {MAP_SIZE}, such as 0-{MAP_SIZE}"
    if match is None or match[2] is None:
        raise node.error(rule)
    node.check(int(match[1]) < int(match[2]) <= MAP_SIZE, rule)
    return int(match[1]), int(match[2])


def _overlaps(row: Row, others: Iterable[Row]) -> bool:
    return any(row.first <= other.last and other.first <= row.last for other in others)
