"""Ways around walls: the next cell on the shortest path between any two cells."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from jmarl.envs.battle.scenarios.terrain import Terrain, walkable


DIRECT = -1
"""Entry of a pair of cells without a wall in the way."""
DETOUR = 1.5
"""Longest walk to a near cell, in lengths of a walk without walls. Around a right angle it is
1.4."""


@functools.cache
def next_cells(terrain: Terrain) -> np.ndarray | None:
    """Return the next cell on the way from each cell to each other.

    The number of a cell is ``32 x + y``. Neighbors share an edge, or a corner that touches no wall.
    A walk is straight if the shortest path is no longer than on a map without walls.

    Returns:
        ``[from, to]``, with ``DIRECT`` for a straight walk; None if every walk is straight.
    """
    cells = walkable(terrain)
    if cells.all():
        return None
    distance, previous = dijkstra(_graph(terrain), return_predecessors=True)
    places = np.stack(np.unravel_index(np.arange(cells.size), cells.shape))
    unobstructed = _lengths(places[:, :, None] - places[:, None])
    is_detour = np.isfinite(distance) & (distance > unobstructed + 1e-6)
    if not is_detour.any():
        return None
    # The graph is symmetric: the cell before i on the way from j is the next from i to j.
    return np.where(is_detour, previous.T, DIRECT).astype(np.int16)


@functools.cache
def near_cells(terrain: Terrain, x: int, y: int) -> np.ndarray:
    """Return the cells to which the walk from a cell is no large detour, as bool ``[x, y]``.

    The far side of a wall is not near, unless the wall ends close by.
    """
    cells = walkable(terrain)
    start = np.ravel_multi_index((x, y), cells.shape)
    distance = dijkstra(_graph(terrain), indices=start).reshape(cells.shape)
    offset = np.indices(cells.shape) - np.reshape([x, y], (2, 1, 1))
    return cells & (distance <= DETOUR * _lengths(offset) + 1e-6)


def _lengths(offset: np.ndarray) -> np.ndarray:
    """Return the lengths of walks without walls, given the cells ``[2, ...]`` along each axis."""
    shorter, longer = np.sort(np.abs(offset), axis=0)
    return longer + (np.sqrt(2) - 1) * shorter


@functools.cache
def _graph(terrain: Terrain) -> csr_array:
    """Return the lengths of the steps between neighboring cells."""
    cells = walkable(terrain)
    size = cells.shape[0]
    starts, ends, lengths = [], [], []
    for x, y in zip(*np.nonzero(cells), strict=True):
        for dx, dy in itertools.product((-1, 0, 1), repeat=2):
            if (dx or dy) and _is_open(cells, x, y, dx, dy):
                starts.append(size * x + y)
                ends.append(size * (x + dx) + y + dy)
                lengths.append(np.hypot(dx, dy))
    shape = (cells.size, cells.size)
    return csr_array((lengths, (starts, ends)), shape=shape)


def _is_open(cells: np.ndarray, x: int, y: int, dx: int, dy: int) -> bool:
    size = cells.shape[0]
    if not (0 <= x + dx < size and 0 <= y + dy < size):
        return False
    return bool(cells[x + dx, y + dy] and cells[x + dx, y] and cells[x, y + dy])
