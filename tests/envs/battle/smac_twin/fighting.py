"""Phases A to C of a tick: weapons fire, hits land, banelings burst."""

from __future__ import annotations

import math

from smac_twin.kinds import Kind
from smac_twin.world import Order, Unit, distance, is_in_reach, is_on_ground, may_hit


LEAST_DAMAGE = 0.5
"""Least damage of a hit that the shield did not absorb."""
DISC_OFFSETS = [-1.25 + 0.25 * k for k in range(11)]
"""Offsets of the discs of a line weapon from its target."""
DISC_RADIUS = 0.15


def fire(units: list[Unit], orders: list[Order]) -> list[bool]:
    """Return the units that fire in this tick (phase A)."""
    fired = []
    for unit, order in zip(units, orders, strict=True):
        fires = False
        if order.target >= 0 and unit.alive and unit.cooldown <= 0:
            target = units[order.target]
            fires = target.alive and may_hit(unit, target) and is_in_reach(unit, target)
        fired.append(fires)
    return fired


def hit(
    units: list[Unit], orders: list[Order], fired: list[bool], damage: list[float]
) -> None:
    """Apply the hits of all shots, and kill the units that fire a burst weapon (phase B).

    Targets are the units that were alive at the start of the tick. Hits on a baneling that fires
    in the same tick count as damage, as does the health that firing costs it.
    """
    alive = [unit.alive for unit in units]
    for i, unit in enumerate(units):
        if not fired[i]:
            continue
        for u in victims_of(units, i, orders[i].target, alive):
            for _ in range(unit.kind.n_hits):
                damage[u] += take_hit(units[u], unit.kind)
    for i, unit in enumerate(units):
        if fired[i] and unit.kind.weapon == "burst":
            damage[i] += unit.health
            unit.health = 0.0


def victims_of(units: list[Unit], i: int, t: int, alive: list[bool]) -> list[int]:
    """Return the units that unit i's shot at unit t hits in phase B."""
    if units[i].kind.weapon == "plain":
        return [t]
    if units[i].kind.weapon == "line":
        return touched_by_line(units, i, t, alive)
    return []


def touched_by_line(units: list[Unit], i: int, t: int, alive: list[bool]) -> list[int]:
    """Return the enemies of unit i in the line of discs across its shot at unit t."""
    shooter, target = units[i], units[t]
    length = distance(shooter, target)
    along = (1.0, 0.0)
    if length > 0:
        along = ((target.x - shooter.x) / length, (target.y - shooter.y) / length)
    discs = [
        (target.x - offset * along[1], target.y + offset * along[0])
        for offset in DISC_OFFSETS
    ]
    touched = []
    for u, unit in enumerate(units):
        if not alive[u] or unit.team == shooter.team or not is_on_ground(unit):
            continue
        nearest = min(math.hypot(unit.x - x, unit.y - y) for x, y in discs)
        if nearest <= DISC_RADIUS + unit.kind.radius:
            touched.append(u)
    return touched


def take_hit(unit: Unit, attacker: Kind) -> float:
    """Apply one hit, shield first, and return the shield and health lost."""
    raw = attacker.damage
    if unit.kind.has(attacker.bonus_against):
        raw += attacker.bonus
    absorbed = min(raw, unit.shield)
    unit.shield -= absorbed
    rest = raw - absorbed
    if rest <= 0:
        return absorbed
    lost = min(max(rest - unit.kind.armor, LEAST_DAMAGE), unit.health)
    unit.health -= lost
    return absorbed + lost


def burst(units: list[Unit], alive_at_start: list[bool], damage: list[float]) -> None:
    """Burst the units that died in phase B or are pending (phase C).

    Targets are the units that are alive after phase B. A baneling that a burst kills is pending.
    """
    alive = [unit.alive for unit in units]
    bursts = []
    for i, unit in enumerate(units):
        died_now = alive_at_start[i] and not alive[i]
        bursts.append(unit.kind.weapon == "burst" and (died_now or unit.pending))
    for i, burster in enumerate(units):
        if not bursts[i]:
            continue
        for u, unit in enumerate(units):
            if not alive[u] or unit.team == burster.team or not is_on_ground(unit):
                continue
            if distance(burster, unit) <= burster.kind.burst_radius + unit.kind.radius:
                damage[u] += take_hit(unit, burster.kind)
    for u, unit in enumerate(units):
        unit.pending = unit.kind.weapon == "burst" and alive[u] and not unit.alive
