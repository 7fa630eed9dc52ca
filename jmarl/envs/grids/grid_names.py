"""Names of warehouses, ``rware_...``, and of foraging, ``lbf_...``. This module has no JAX.

* ``rware_SIZE-Nag[-easy|-hard]``: a tiny, small, medium or large floor and N robots. N shelves
  are requested at a time, twice as many if easy, half as many if hard.
* ``lbf_[Ss-]GxG-Pp-Ff[-coop]``: a grid of G x G cells, P players and F food items. Players
  observe S cells in each direction, by default the whole grid. With ``coop``, all players, or the
  three with the lowest levels, must lift each item together.
"""

from __future__ import annotations

import re
from typing import NamedTuple


_WAREHOUSE = re.compile(
    r"rware_(tiny|small|medium|large)-([1-9]\d*)ag(?:-(easy|hard))?"
)
_FORAGING = re.compile(
    r"lbf_(?:([1-9]\d*)s-)?([1-9]\d*)x([1-9]\d*)-([1-9]\d*)p-([1-9]\d*)f(-coop)?"
)
WAREHOUSES = {
    "rware_tiny-2ag": "two robots bring shelves to a goal, one row of shelf clusters",
    "rware_tiny-4ag": "four robots bring shelves to a goal, one row of shelf clusters",
    "rware_small-4ag": "four robots bring shelves to a goal, two rows of shelf clusters",
}
"""Listed name -> description."""
FORAGING = {
    "lbf_8x8-2p-2f-coop": "two players lift food together, 8 x 8 grid",
    "lbf_2s-8x8-2p-2f-coop": "two players lift food together, sight of two cells",
    "lbf_10x10-3p-3f": "three players, three food items, 10 x 10 grid",
    "lbf_2s-10x10-3p-3f": "three players, three food items, sight of two cells",
    "lbf_15x15-3p-5f": "three players, five food items, 15 x 15 grid",
    "lbf_15x15-4p-3f": "four players, three food items, 15 x 15 grid",
    "lbf_15x15-4p-5f": "four players, five food items, 15 x 15 grid",
}
"""Listed name -> description."""
_FLOORS = {
    "tiny": (1, 3),
    "small": (2, 3),
    "medium": (2, 5),
    "large": (3, 5),
}


class WarehouseSize(NamedTuple):
    """Sizes of a warehouse, without those that all warehouses share."""

    shelf_rows: int
    """Rows of shelf clusters."""
    shelf_columns: int
    """Columns of shelf clusters, an odd number."""
    n_agents: int
    requests: int
    """Number of shelves that are requested at a time."""


class ForagingSize(NamedTuple):
    """Sizes of a foraging task."""

    rows: int
    columns: int
    n_agents: int
    n_food: int
    sight: int
    """Number of cells that a player observes in each direction."""
    coop: bool
    """Every item has the largest possible level."""


def warehouse_size(name: str) -> WarehouseSize | None:
    """Return the sizes in the name of a warehouse, None if it is not one."""
    match = _WAREHOUSE.fullmatch(name)
    if match is None:
        return None
    floor, robots, level = match.groups()
    n_agents = int(robots)
    requests = {
        "easy": 2 * n_agents,
        None: n_agents,
        "hard": n_agents // 2,
    }
    return WarehouseSize(
        *_FLOORS[floor],
        n_agents,
        requests[level],
    )


def foraging_size(name: str) -> ForagingSize | None:
    """Return the sizes in the name of a foraging task, None if it is not one."""
    match = _FORAGING.fullmatch(name)
    if match is None:
        return None
    *numbers, coop = match.groups()
    sight, rows, columns, players, food = (int(number or 0) for number in numbers)
    sight = sight or max(rows, columns)
    return ForagingSize(
        rows,
        columns,
        players,
        food,
        sight,
        coop is not None,
    )


def warehouse_names() -> list[tuple[str, str]]:
    """Return the name and description of the listed warehouses."""
    return list(WAREHOUSES.items())


def foraging_names() -> list[tuple[str, str]]:
    """Return the name and description of the listed foraging tasks."""
    return list(FORAGING.items())


def matches_warehouse(name: str) -> bool:
    """Return True if ``name`` is a warehouse of any size."""
    return warehouse_size(name) is not None


def matches_foraging(name: str) -> bool:
    """Return True if ``name`` is a foraging task of any size."""
    return foraging_size(name) is not None
