"""Floor of a warehouse: constant tables over the cells of a grid with a border of walls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jmarl.envs.grids.grid_names import WarehouseSize


SHELF_HEIGHT = 8
"""Rows of shelves in a cluster."""
UP, DOWN, LEFT, RIGHT = range(4)
STEPS = (
    (0, -1),
    (0, 1),
    (-1, 0),
    (1, 0),
)
"""Change of x and y for each direction; y points down."""


class Layout(NamedTuple):
    """Tables of a warehouse. Cell ``(x, y)`` has the index ``(y + 1) * stride + x + 1``."""

    width: int
    height: int
    highway: Bool[np.ndarray, "C"]
    """Cells on which no shelf may be put down, walls included."""
    floor: Bool[np.ndarray, "C"]
    """Cells that are not walls."""
    goals: tuple[int, int]

    @property
    def stride(self) -> int:
        """Difference between the indices of a cell and the one below it."""
        return self.width + 2

    @property
    def n_cells(self) -> int:
        """Number of cells C, walls included."""
        return len(self.floor)

    @property
    def offsets(self) -> Int[np.ndarray, "4"]:
        """Difference between the indices of a cell and its neighbor in each direction."""
        return np.array(
            [dx + dy * self.stride for dx, dy in STEPS],
            np.int32,
        )

    @property
    def window(self) -> Int[np.ndarray, "9"]:
        """Differences between the indices of a cell and the observed ones, row by row."""
        rows = np.arange(-1, 2)[:, None] * self.stride
        return (rows + np.arange(-1, 2)).reshape(-1).astype(np.int32)

    def place(
        self,
        cell: Int[np.ndarray, "*b"],
    ) -> Int[np.ndarray, "*b 2"]:
        """Return x and y of cells."""
        return np.stack([cell % self.stride, cell // self.stride], axis=-1) - 1


def make_layout(size: WarehouseSize) -> Layout:
    """Return the floor of a warehouse: clusters of two columns of shelves between highways.

    The cluster in the middle of the last row is left out, as a queue in front of the two goals.
    """
    width = 3 * size.shelf_columns + 1
    height = (SHELF_HEIGHT + 1) * size.shelf_rows + 2
    x, y = np.arange(width), np.arange(height)[:, None]
    goals = width // 2 - 1, width // 2
    is_queue = (y > height - SHELF_HEIGHT - 3) & np.isin(x, goals)
    is_highway = (x % 3 == 0) | (y % (SHELF_HEIGHT + 1) == 0) | (y == height - 1)
    last_row = height * (width + 2)
    return Layout(
        width,
        height,
        np.pad(is_highway | is_queue, 1, constant_values=True).reshape(-1),
        np.pad(np.ones((height, width), bool), 1).reshape(-1),
        (
            last_row + goals[0] + 1,
            last_row + goals[1] + 1,
        ),
    )
