"""Rules of battles as values: unit types, actions, clock and map.

This module does not import JAX, so that environments can be listed quickly.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np


class UnitType(NamedTuple):
    """Type of a unit: one row of the unit table."""

    name: str
    letter: str
    """Short name in compositions and pictures."""
    speed: float
    """Distance per second."""
    damage: float
    """Health per hit."""
    attack_range: float
    """Distance between centers."""
    sight_range: float
    """Distance between centers."""
    radius: float
    health: float
    """Health at the start of an episode."""
    cooldown: float
    """Seconds between hits, before the random deviation of -1 to 2 ticks."""


class OwnAction(NamedTuple):
    """Action without a target."""

    name: str
    available: Literal["alive", "always"]
    """Units that can take it: those alive, or all units of the episode."""
    x: float = 0.0
    y: float = 0.0
    """Heading of a move."""


@dataclass(frozen=True)
class Rules:
    """Rules that all scenarios of a family share. They are hashable.

    Attributes:
        prefix: start of the names of environments with these rules.
        units: unit table, in the order of the one-hot encoding of types.
        own_actions: actions without a target. One attack per enemy follows them.
        ticks: steps of the physics in one environment step.
        tick: seconds in one step of the physics.
        map_size: side of the square map, in distance units.
        win_bonus: reward added to the step in which the allies win.
    """

    prefix: str
    units: tuple[UnitType, ...]
    own_actions: tuple[OwnAction, ...]
    ticks: int
    tick: float
    map_size: float
    win_bonus: float

    @property
    def n_own_actions(self) -> int:
        """Number of actions without a target."""
        return len(self.own_actions)

    @property
    def center(self) -> float:
        """Coordinate of the center of the map, on both axes."""
        return self.map_size / 2

    @property
    def n_unit_types(self) -> int:
        """Number of unit types."""
        return len(self.units)

    def column(self, name: str) -> np.ndarray:
        """Return a field of all unit types, always as the same array."""
        return _column(self.units, name)

    def own_action(self, name: str) -> int:
        """Return the index of an own action."""
        return [action.name for action in self.own_actions].index(name)

    def headings(self, n_actions: int) -> np.ndarray:
        """Return the x and y of the first ``n_actions`` actions, ``[2, n_actions]``.

        The heading of an attack is zero.
        """
        headings = np.zeros((2, n_actions), np.float32)
        for index, action in enumerate(self.own_actions):
            headings[:, index] = action.x, action.y
        return headings


@functools.cache
def _column(units: tuple[UnitType, ...], name: str) -> np.ndarray:
    # Programs contain a constant once if it is one array.
    return np.asarray([getattr(unit, name) for unit in units], np.float32)


_DIAGONAL = np.float32(1 / math.sqrt(2))
_MOVE = float(_DIAGONAL * _DIAGONAL * 2)
"""Length of a move in SMAX. It rotates diagonals, so a move is shorter by a rounding error."""
SMAX = Rules(
    prefix="smax_",
    units=(
        UnitType("marine", "m", 3.15, 9.0, 5.0, 9.0, 0.375, 45.0, 0.61),
        UnitType("marauder", "M", 2.25, 10.0, 6.0, 10.0, 0.5625, 125.0, 1.07),
        UnitType("stalker", "s", 4.13, 13.0, 6.0, 10.0, 0.625, 160.0, 1.87),
        UnitType("zealot", "Z", 3.15, 8.0, 2.0, 9.0, 0.5, 150.0, 0.86),
        UnitType("zergling", "z", 4.13, 5.0, 2.0, 8.0, 0.375, 35.0, 0.5),
        UnitType("hydralisk", "h", 3.15, 12.0, 5.0, 9.0, 0.625, 80.0, 0.59),
    ),
    own_actions=(
        OwnAction("north", "alive", 0.0, _MOVE),
        OwnAction("east", "alive", _MOVE, 0.0),
        OwnAction("south", "alive", 0.0, -_MOVE),
        OwnAction("west", "alive", -_MOVE, 0.0),
        OwnAction("stop", "always"),
    ),
    ticks=8,
    tick=1.0 / 16.0,
    map_size=32.0,
    win_bonus=1.0,
)
"""Rules of SMAX in JaxMARL 0.2.0 (Rutherford et al. 2023, arXiv:2311.10090).

They differ from StarCraft II: the marine hits harder and the zealot half as hard, the marauder
and the stalker shoot more slowly, and shields count as health.
"""
