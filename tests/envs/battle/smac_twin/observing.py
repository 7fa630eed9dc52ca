"""Observations of the allies: own features, and rows of the units in sight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smac_twin.acting import N_OWN_ACTIONS, Actions, ally_of_slot
from smac_twin.recovering import MAX_ENERGY
from smac_twin.world import MAP_SIZE, Unit, distance


SIGHT = 9.0
"""Sight of every type in SMAC. In SMACv2, each type has its own."""
LOOPS_PER_SECOND = 16


@dataclass
class Observation:
    """Observations of all allies and the masks of the units in sight."""

    own: np.ndarray
    """``[N, F]``: health, shield, gauge, type, last own action, x / 32, y / 32."""
    allies: np.ndarray
    """``[N, N - 1, F]``, see ``entity_row``."""
    enemies: np.ndarray
    """``[N, M, F]``, see ``entity_row``."""
    allies_seen: np.ndarray
    enemies_seen: np.ndarray


def observe(
    units: list[Unit], actions: Actions, type_names: tuple[str, ...]
) -> Observation:
    """Return what each ally observes; rows of unseen units and of dead observers are zero."""
    n, m, width = actions.n, actions.m, len(type_names)
    obs = Observation(
        own=np.zeros((n, 5 + width + N_OWN_ACTIONS)),
        allies=np.zeros((n, n - 1, 8 + width)),
        enemies=np.zeros((n, m, 8 + width)),
        allies_seen=np.zeros((n, n - 1), bool),
        enemies_seen=np.zeros((n, m), bool),
    )
    for i in range(n):
        if not units[i].alive:
            continue
        place = [units[i].x / MAP_SIZE, units[i].y / MAP_SIZE]
        bits = [float(units[i].last_action == k) for k in range(N_OWN_ACTIONS)]
        obs.own[i] = [*body(units[i], type_names), *bits, *place]
        others = [ally_of_slot(i, slot) for slot in range(n - 1)]
        enemies = range(n, n + m)
        for targets, rows, seen in (
            (others, obs.allies[i], obs.allies_seen[i]),
            (enemies, obs.enemies[i], obs.enemies_seen[i]),
        ):
            for slot, t in enumerate(targets):
                seen[slot] = sees(units[i], units[t], actions.unit_ranges)
                if seen[slot]:
                    rows[slot] = entity_row(units, actions, i, t, type_names)
    return obs


def sight_of(unit: Unit, unit_ranges: bool) -> float:
    """Return the distance below which a unit sees."""
    return unit.kind.sight if unit_ranges else SIGHT


def sees(unit: Unit, other: Unit, unit_ranges: bool) -> bool:
    """Return whether a living unit sees another."""
    return other.alive and distance(unit, other) < sight_of(unit, unit_ranges)


def body(unit: Unit, type_names: tuple[str, ...]) -> list[float]:
    """Return fractions of health and shield, of energy or cooldown, and a bit per type."""
    kind = unit.kind
    shield = unit.shield / kind.shield if kind.shield else 0.0
    gauge = max(0.0, min(1.0, unit.cooldown * LOOPS_PER_SECOND / kind.cooldown_scale))
    if kind.heals:
        gauge = unit.energy / MAX_ENERGY
    bits = [float(unit.name == name) for name in type_names]
    return [unit.health / kind.health, shield, gauge, *bits]


def entity_row(
    units: list[Unit], actions: Actions, i: int, t: int, type_names: tuple[str, ...]
) -> list[float]:
    """Return ally i's row on unit t.

    Columns: health, shield, gauge, type; relative x, y and distance over the sight; in reach;
    last target.
    """
    observer, other = units[i], units[t]
    sight = sight_of(observer, actions.unit_ranges)
    return [
        *body(other, type_names),
        (other.x - observer.x) / sight,
        (other.y - observer.y) / sight,
        distance(observer, other) / sight,
        float(actions.can_aim(units, i, t)),
        float(observer.last_target == t),
    ]
