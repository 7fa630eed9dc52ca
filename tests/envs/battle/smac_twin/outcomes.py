"""Reward of a step, and the end of an episode."""

from __future__ import annotations

from typing import Literal

from smac_twin.kinds import ALLY, ENEMY
from smac_twin.world import Events, Unit


Variant = Literal["smac", "smacv2"]
Outcome = Literal["running", "won", "lost", "draw"]


def reward(units: list[Unit], events: Events, won: bool) -> float:
    """Return the reward of a step, of which a win without recovery sums to 20."""
    raw = 200.0 if won else 0.0
    most = 200.0
    for u, unit in enumerate(units):
        if unit.team == ENEMY:
            raw += events.damage[u] + 10.0 * events.killed[u]
            most += 10.0 + unit.kind.health + unit.kind.shield
    return raw * 20.0 / most


def outcome(units: list[Unit], variant: Variant) -> Outcome:
    """Return whether the episode goes on, and who won if it does not.

    Allies are beaten if only healers are left. So are enemies, of which at most one healer may be
    left in SMAC. Two beaten teams draw.
    """
    allies = [unit for unit in units if unit.team == ALLY and unit.alive]
    enemies = [unit for unit in units if unit.team == ENEMY and unit.alive]
    lost = all(unit.kind.heals for unit in allies)
    won = all(unit.kind.heals for unit in enemies)
    if variant == "smac" and len(enemies) > 1:
        won = False
    if lost and won:
        return "draw"
    if lost:
        return "lost"
    return "won" if won else "running"
