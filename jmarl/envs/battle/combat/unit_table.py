"""Unit table of SMAC and SMACv2: one row per unit type, in normal seconds of 16 loops.

Figures are those of StarCraft II 4.10, which later work on SMAC uses. Distances are in cells. Rules
that are equal for all units, such as the rate of healing, are part of the physics. This module
imports neither JAX nor NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple


Plane = Literal["ground", "air", "both", ""]
Weapon = Literal["plain", "line", "burst"]

LOOPS_PER_SECOND = 16
"""Game loops in a normal second. A step of SMAC has 8 loops."""
ATTRIBUTES = ("light", "armored", "biological", "mechanical", "massive", "structure")
"""Attributes in StarCraft II that these types have."""
INSTANT = math.inf
"""Acceleration of a unit that reaches its speed immediately."""


class UnitRow(NamedTuple):
    """Type of a unit: one row of the unit table."""

    name: str
    letter: str
    """Short name in compositions and pictures."""
    health: float
    shield: float
    armor: float
    """Reduction of the health damage of each hit."""
    attributes: frozenset[str]
    """Subset of ``ATTRIBUTES``."""
    flies: bool
    colossal: bool
    """Crosses cliffs, is hit by ground and by air weapons, and collides with nothing."""
    targets: Plane
    """Planes that the weapon hits; empty without a weapon."""
    damage: float
    """Damage of one hit."""
    hits: int
    """Hits of a volley. Armor applies to each."""
    bonus: float
    """Extra damage of a hit on a target with the attribute ``bonus_against``."""
    bonus_against: str
    weapon: Weapon
    burst_radius: float
    """Range of a burst, to which the radius of the target is added."""
    attack_range: float
    """Edge-to-edge range of the weapon, or of healing."""
    cooldown: float
    """Seconds between volleys."""
    cooldown_scale: float
    """Game loops by which SMAC divides the cooldown in its state."""
    heal: bool
    speed: float
    """Distance per second."""
    acceleration: float
    """Distance per second squared; infinite if the speed is reached immediately."""
    sight_range: float
    """Sight range in SMACv2, between centers. SMAC uses 9 for all types."""
    smacv2_range: float
    """Distance between centers up to which SMACv2 offers targets. SMAC uses 6 for all types."""
    radius: float
    """Radius that determines ranges."""
    separation: float
    """Radius for collisions."""
    health_regen: float
    """Health per second."""
    shield_regen: float
    """Shield per second, after 10 s without damage."""
    energy: float
    """Energy at the start of an episode."""
    max_energy: float
    energy_regen: float
    """Energy per second."""
    abilities: tuple[str, ...] = ()
    """Names of abilities in ``ABILITIES``."""

    def scaled(self, factor: float) -> UnitRow:
        """Return a type whose damage, with its bonus, is multiplied by a factor."""
        return self._replace(damage=self.damage * factor, bonus=self.bonus * factor)


class EnemyDifference(NamedTuple):
    """Field of a unit type that differs for the enemies."""

    unit: str
    field: str
    value: float


class Ability(NamedTuple):
    """Ability besides attacks and healing, for studies with several action groups. Not in SMAC."""

    name: str
    targets: Literal["allies", "self"]
    amount: float
    """Armor that ``ward`` adds, or sight range that ``spot`` adds to allies in range."""
    attack_range: float
    """Edge-to-edge range."""
    duration: float
    """Seconds."""
    cooldown: float
    """Seconds between uses."""


_BASE = UnitRow(
    name="",
    letter="",
    health=1.0,
    shield=0.0,
    armor=0.0,
    attributes=frozenset(),
    flies=False,
    colossal=False,
    targets="",
    damage=0.0,
    hits=1,
    bonus=0.0,
    bonus_against="",
    weapon="plain",
    burst_radius=0.0,
    attack_range=0.0,
    cooldown=0.0,
    cooldown_scale=15.0,
    heal=False,
    speed=2.25,
    acceleration=INSTANT,
    sight_range=9.0,
    smacv2_range=2.0,
    radius=0.375,
    separation=0.375,
    health_regen=0.0,
    shield_regen=0.0,
    energy=0.0,
    max_energy=0.0,
    energy_regen=0.0,
)
"""Defaults of the rows below."""
_PROTOSS = _BASE._replace(shield_regen=2.0)
_ZERG = _BASE._replace(health_regen=0.2734)
_LIGHT = frozenset({"light", "biological"})

UNITS: tuple[UnitRow, ...] = (
    _BASE._replace(
        name="marauder",
        letter="M",
        health=125.0,
        armor=1.0,
        attributes=frozenset({"armored", "biological"}),
        targets="ground",
        damage=10.0,
        bonus=10.0,
        bonus_against="armored",
        attack_range=6.0,
        cooldown=1.5,
        cooldown_scale=25.0,
        sight_range=10.0,
        smacv2_range=6.0,
        radius=0.5625,
        separation=0.5625,
    ),
    _BASE._replace(
        name="marine",
        letter="m",
        health=45.0,
        attributes=_LIGHT,
        targets="both",
        damage=6.0,
        attack_range=5.0,
        cooldown=0.861,
        smacv2_range=5.0,
    ),
    _BASE._replace(
        name="medivac",
        letter="d",
        health=150.0,
        armor=1.0,
        attributes=frozenset({"armored", "mechanical"}),
        flies=True,
        attack_range=4.0,
        heal=True,
        speed=2.75,
        acceleration=2.3125,
        sight_range=11.0,
        smacv2_range=4.0,
        radius=0.75,
        separation=0.75,
        energy=50.0,
        max_energy=200.0,
        energy_regen=0.5625,
    ),
    _PROTOSS._replace(
        name="colossus",
        letter="c",
        health=200.0,
        shield=150.0,
        armor=1.0,
        attributes=frozenset({"armored", "mechanical", "massive"}),
        colossal=True,
        targets="ground",
        damage=10.0,
        hits=2,
        bonus=5.0,
        bonus_against="light",
        weapon="line",
        attack_range=7.0,
        cooldown=1.5,
        cooldown_scale=24.0,
        sight_range=10.0,
        smacv2_range=7.0,
        radius=1.0,
        separation=0.75,
    ),
    _PROTOSS._replace(
        name="stalker",
        letter="s",
        health=80.0,
        shield=80.0,
        armor=1.0,
        attributes=frozenset({"armored", "mechanical"}),
        targets="both",
        damage=13.0,
        bonus=5.0,
        bonus_against="armored",
        attack_range=6.0,
        cooldown=1.870,
        cooldown_scale=35.0,
        speed=2.953,
        sight_range=10.0,
        smacv2_range=6.0,
        radius=0.625,
        separation=0.625,
    ),
    _PROTOSS._replace(
        name="zealot",
        letter="Z",
        health=100.0,
        shield=50.0,
        armor=1.0,
        attributes=_LIGHT,
        targets="ground",
        damage=8.0,
        hits=2,
        attack_range=0.1,
        cooldown=1.2,
        cooldown_scale=22.0,
        radius=0.5,
    ),
    _ZERG._replace(
        name="baneling",
        letter="b",
        health=30.0,
        attributes=frozenset({"biological"}),
        targets="ground",
        damage=20.0,
        bonus=15.0,
        bonus_against="light",
        weapon="burst",
        burst_radius=2.2,
        attack_range=0.25,
        cooldown_scale=1.0,
        speed=2.5,
        sight_range=8.0,
    ),
    _ZERG._replace(
        name="zergling",
        letter="z",
        health=35.0,
        attributes=_LIGHT,
        targets="ground",
        damage=5.0,
        attack_range=0.1,
        cooldown=0.696,
        cooldown_scale=11.0,
        speed=2.953,
        sight_range=8.0,
    ),
    _ZERG._replace(
        name="hydralisk",
        letter="h",
        health=80.0,
        attributes=_LIGHT,
        targets="both",
        damage=12.0,
        attack_range=5.0,
        cooldown=0.825,
        cooldown_scale=10.0,
        smacv2_range=5.0,
        radius=0.625,
        separation=0.625,
    ),
    _ZERG._replace(
        name="spine_crawler",
        letter="x",
        health=300.0,
        armor=2.0,
        attributes=frozenset({"armored", "biological", "structure"}),
        targets="ground",
        damage=25.0,
        bonus=5.0,
        bonus_against="armored",
        attack_range=7.0,
        cooldown=1.850,
        speed=0.0,
        sight_range=11.0,
        smacv2_range=7.0,
        radius=1.125,
        separation=1.125,
    ),
)
"""Unit types, in the order of SMAC's agents, which are sorted by type."""

ENEMY_DIFFERENCES: tuple[EnemyDifference, ...] = (
    EnemyDifference("medivac", "speed", 2.5),
    EnemyDifference("hydralisk", "health", 90.0),
)
"""Figures of enemies that differ: the types of SMAC's allies are copies of older data."""

NOBODY = _BASE._replace(name="nobody", health=0.0, speed=0.0)
"""Row of an absent unit."""

ABILITIES: tuple[Ability, ...] = (
    Ability("ward", "allies", 4.0, 5.0, 3.0, 5.0),
    Ability("spot", "self", 4.0, 6.0, 3.0, 6.0),
)
"""Abilities that jmarl adds."""

RACES: dict[str, tuple[tuple[str, float], ...]] = {
    "terran": (("marine", 0.45), ("marauder", 0.45), ("medivac", 0.1)),
    "protoss": (("stalker", 0.45), ("zealot", 0.45), ("colossus", 0.1)),
    "zerg": (("zergling", 0.45), ("hydralisk", 0.45), ("baneling", 0.1)),
}
"""Unit types of each race of SMACv2, with their probabilities."""
REDRAWN = ("medivac", "baneling")
"""Types that must not be the only one in a team of SMACv2. Such a team is drawn again."""


def with_differences(
    units: Iterable[UnitRow], differences: Iterable[EnemyDifference]
) -> tuple[UnitRow, ...]:
    """Return a unit table with some fields replaced."""
    changes: dict[str, dict[str, Any]] = {}
    for row in differences:
        changes.setdefault(row.unit, {})[row.field] = row.value
    return tuple(unit._replace(**changes.get(unit.name, {})) for unit in units)


ENEMY_UNITS = with_differences(UNITS, ENEMY_DIFFERENCES)
"""Unit types of the enemies."""
