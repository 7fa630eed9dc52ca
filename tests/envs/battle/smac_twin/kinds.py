"""Unit types: figures of StarCraft II 4.10 in normal seconds of 16 game loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


ALLY, ENEMY = 0, 1
"""Teams."""
ZERG_REGENERATION = 0.2734
SHIELD_RATE = 2.0
"""Shield that recovers per second."""


@dataclass(frozen=True)
class Kind:
    """Row of the unit table."""

    health: float
    shield: float
    armor: float
    attributes: str
    """Letters: light, armored, biological, mechanical, structure."""
    targets: str
    """Planes that the weapon hits: ``g`` ground, ``a`` air."""
    n_hits: int
    damage: float
    bonus: float
    bonus_against: str
    """Letter of an attribute, or nothing."""
    attack_range: float
    """Distance between edges; of healing, if the unit heals."""
    cooldown: float
    speed: float
    sight: float
    radius: float
    separation: float
    """Radius for collisions."""
    cooldown_scale: float
    """Unit of the cooldown in SMAC's state, in loops."""
    weapon: Literal["", "plain", "line", "burst"] = "plain"
    burst_radius: float = 0.0
    flies: bool = False
    strides: bool = False
    """Flag of the colossus: on the ground and in the air, free of walls and of pushes."""
    heals: bool = False
    regeneration: float = 0.0
    """Health per second."""
    acceleration: float = math.inf

    def has(self, attribute: str) -> bool:
        """Return whether the type has an attribute."""
        return attribute != "" and attribute in self.attributes


KINDS = {
    "marine": Kind(
        health=45, shield=0, armor=0, attributes="lb",
        targets="ga", n_hits=1, damage=6, bonus=0, bonus_against="",
        attack_range=5, cooldown=0.861, cooldown_scale=15,
        speed=2.25, sight=9, radius=0.375, separation=0.375,
    ),
    "marauder": Kind(
        health=125, shield=0, armor=1, attributes="ab",
        targets="g", n_hits=1, damage=10, bonus=10, bonus_against="a",
        attack_range=6, cooldown=1.5, cooldown_scale=25,
        speed=2.25, sight=10, radius=0.5625, separation=0.5625,
    ),
    "medivac": Kind(
        health=150, shield=0, armor=1, attributes="am",
        targets="", n_hits=0, damage=0, bonus=0, bonus_against="",
        attack_range=4, cooldown=0, cooldown_scale=15,
        speed=2.75, sight=11, radius=0.75, separation=0.75,
        weapon="", flies=True, heals=True,
        acceleration=2.3125,
    ),
    "stalker": Kind(
        health=80, shield=80, armor=1, attributes="am",
        targets="ga", n_hits=1, damage=13, bonus=5, bonus_against="a",
        attack_range=6, cooldown=1.87, cooldown_scale=35,
        speed=2.953, sight=10, radius=0.625, separation=0.625,
    ),
    "zealot": Kind(
        health=100, shield=50, armor=1, attributes="lb",
        targets="g", n_hits=2, damage=8, bonus=0, bonus_against="",
        attack_range=0.1, cooldown=1.2, cooldown_scale=22,
        speed=2.25, sight=9, radius=0.5, separation=0.375,
    ),
    "colossus": Kind(
        health=200, shield=150, armor=1, attributes="am",
        targets="g", n_hits=2, damage=10, bonus=5, bonus_against="l",
        attack_range=7, cooldown=1.5, cooldown_scale=24,
        speed=2.25, sight=10, radius=1.0, separation=0.75,
        weapon="line", strides=True,
    ),
    "zergling": Kind(
        health=35, shield=0, armor=0, attributes="lb",
        targets="g", n_hits=1, damage=5, bonus=0, bonus_against="",
        attack_range=0.1, cooldown=0.696, cooldown_scale=11,
        speed=2.953, sight=8, radius=0.375, separation=0.375,
        regeneration=ZERG_REGENERATION,
    ),
    "baneling": Kind(
        health=30, shield=0, armor=0, attributes="b",
        targets="g", n_hits=1, damage=20, bonus=15, bonus_against="l",
        attack_range=0.25, cooldown=0, cooldown_scale=1,
        speed=2.5, sight=8, radius=0.375, separation=0.375,
        weapon="burst", burst_radius=2.2,
        regeneration=ZERG_REGENERATION,
    ),
    "hydralisk": Kind(
        health=80, shield=0, armor=0, attributes="lb",
        targets="ga", n_hits=1, damage=12, bonus=0, bonus_against="",
        attack_range=5, cooldown=0.825, cooldown_scale=10,
        speed=2.25, sight=9, radius=0.625, separation=0.625,
        regeneration=ZERG_REGENERATION,
    ),
    "spine_crawler": Kind(
        health=300, shield=0, armor=2, attributes="abs",
        targets="g", n_hits=1, damage=25, bonus=5, bonus_against="a",
        attack_range=7, cooldown=1.85, cooldown_scale=15,
        speed=0.0, sight=11, radius=1.125, separation=1.125,
        regeneration=ZERG_REGENERATION,
    ),
}  # fmt: skip
DIFFERENCES = {"medivac": {"speed": 2.5}, "hydralisk": {"health": 90}}
"""Figures of enemies that differ from those of allies."""


def kind_of(name: str, team: int, strength: float) -> Kind:
    """Return the figures of a type in a team, with its damage times ``strength``."""
    changes = DIFFERENCES.get(name, {}) if team == ENEMY else {}
    kind = replace(KINDS[name], **changes)
    return replace(kind, damage=kind.damage * strength, bonus=kind.bonus * strength)
