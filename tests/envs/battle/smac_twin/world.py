"""Units, orders, and relations between two units."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from smac_twin.kinds import Kind, kind_of


MAP_SIZE = 32.0
TICK = 1 / 16
TICKS = 8
REACH_SLACK = 1e-3
"""Distance beyond the reach at which a unit is in reach, so that rounding does not matter."""

cached_kind = functools.cache(kind_of)


@dataclass
class Unit:
    """State of one unit."""

    name: str
    team: int
    x: float
    y: float
    health: float
    shield: float = 0.0
    energy: float = 0.0
    cooldown: float = 0.0
    """Seconds until the weapon is ready; between -1 tick and 0 if it was ready within a tick."""
    calm: float = 0.0
    """Seconds since the last damage."""
    pace: float = 0.0
    """Speed of the last tick."""
    pending: bool = False
    """Flag: dead, and due to burst in the next tick."""
    healing: bool = False
    """Flag: the unit healed in the last tick."""
    last_target: int = -1
    """Target of the order of the last step; -1 if there was none."""
    last_action: int = 1
    """Last action of an ally; stop at the start of an episode."""
    strength: float = 1.0
    """Factor on the damage of the unit's hits."""

    @property
    def kind(self) -> Kind:
        """Return the figures of the unit's type."""
        return cached_kind(self.name, self.team, self.strength)

    @property
    def alive(self) -> bool:
        """Return whether the unit has health left."""
        return self.health > 0


@dataclass(frozen=True)
class Order:
    """Order of one unit for all ticks of a step.

    A target on the other team is attacked, and one on the own team healed.
    """

    heading: tuple[float, float] = (0.0, 0.0)
    """Unit vector, or zero to stand. An order with a target has none."""
    length: float = math.inf
    """Distance to walk in the whole step, at most."""
    target: int = -1
    chosen: int = -1
    """Unit that an enemy has chosen while it walks around a wall."""

    @property
    def memory(self) -> int:
        """Return the unit that is the last target in the next step."""
        return max(self.target, self.chosen)


IDLE = Order()


@dataclass
class Events:
    """Sums over the ticks of a step, one entry per unit."""

    damage: np.ndarray
    """Shield and health lost to hits."""
    healing: np.ndarray
    """Health received from healers."""
    killed: np.ndarray
    """Flag: the unit died in this step."""
    fired: np.ndarray
    """Flag: the unit has shot."""

    @classmethod
    def none(cls, n_units: int) -> Events:
        """Return the events of a step in which nothing happens."""
        sums = np.zeros((2, n_units))
        flags = np.zeros((2, n_units), bool)
        return cls(*sums, *flags)


def distance(a: Unit, b: Unit) -> float:
    """Return the distance between two centers."""
    return math.hypot(a.x - b.x, a.y - b.y)


def is_on_ground(unit: Unit) -> bool:
    """Return whether weapons against the ground hit a unit; a colossus is there, too."""
    return not unit.kind.flies


def may_hit(attacker: Unit, target: Unit) -> bool:
    """Return whether a weapon hits a target at any distance."""
    kind = attacker.kind
    if not kind.weapon or attacker.team == target.team:
        return False
    on_ground = "g" in kind.targets and not target.kind.flies
    in_air = "a" in kind.targets and (target.kind.flies or target.kind.strides)
    return on_ground or in_air


def may_heal(units: list[Unit], i: int, t: int) -> bool:
    """Return whether unit i can heal unit t at any distance and health."""
    target = units[t]
    if not units[i].kind.heals or i == t or units[i].team != target.team:
        return False
    return target.kind.has("b") and not target.kind.flies


def reach(unit: Unit, target: Unit) -> float:
    """Return the distance between centers from which a unit can affect its target."""
    return unit.kind.attack_range + unit.kind.radius + target.kind.radius


def is_in_reach(unit: Unit, target: Unit) -> bool:
    """Return whether a unit can affect its target from where it stands."""
    return distance(unit, target) <= reach(unit, target) + REACH_SLACK
