"""Rules of battles as values: unit types, actions, clock and map.

This module does not import JAX, so that environments can be listed quickly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np


Column = tuple[float, ...]
"""One number for each unit type."""


class UnitTypes(NamedTuple):
    """Table of unit types: one entry per type, in the order of the one-hot encoding."""

    names: tuple[str, ...]
    letters: str
    speed: Column
    """Distance per second."""
    damage: Column
    """Health per hit."""
    attack_range: Column
    """Distance between centers."""
    sight_range: Column
    """Distance between centers."""
    radius: Column
    health: Column
    """Health at the start of an episode."""
    cooldown: Column
    """Seconds between hits, before the random deviation of -1 to 2 ticks."""

    @property
    def count(self) -> int:
        """Number of unit types."""
        return len(self.names)


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
        units: unit types.
        own_actions: actions without a target. One attack per enemy follows them.
        ticks: steps of the physics in one environment step.
        tick: seconds in one step of the physics.
        map_size: side of the square map, in distance units.
        win_bonus: reward added to the step in which the allies win.
    """

    prefix: str
    units: UnitTypes
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


_DIAGONAL = np.float32(1 / math.sqrt(2))
_MOVE = float(_DIAGONAL * _DIAGONAL * 2)
"""Length of a move in SMAX. It rotates diagonals, so a move is shorter by a rounding error."""
SMAX = Rules(
    prefix="smax_",
    units=UnitTypes(
        names=("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk"),
        letters="mMsZzh",
        speed=(3.15, 2.25, 4.13, 3.15, 4.13, 3.15),
        damage=(9.0, 10.0, 13.0, 8.0, 5.0, 12.0),
        attack_range=(5.0, 6.0, 6.0, 2.0, 2.0, 5.0),
        sight_range=(9.0, 10.0, 10.0, 9.0, 8.0, 9.0),
        radius=(0.375, 0.5625, 0.625, 0.5, 0.375, 0.625),
        health=(45.0, 125.0, 160.0, 150.0, 35.0, 80.0),
        cooldown=(0.61, 1.07, 1.87, 0.86, 0.5, 0.59),
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
