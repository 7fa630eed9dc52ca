"""Phases D, E and H of a tick: healing, recovery and cooldowns."""

from __future__ import annotations

from smac_twin.kinds import SHIELD_RATE
from smac_twin.world import TICK, Events, Order, Unit, is_in_reach, may_heal


SHIELD_DELAY = 10.0
"""Seconds without damage after which shields recover."""
HEAL_RATE = 9.0
"""Health per second."""
HEALTH_PER_ENERGY = 3.0
ENERGY_TO_BEGIN = 5.0
ENERGY_RATE = 0.5625
MAX_ENERGY = 200.0


def support(units: list[Unit], orders: list[Order], events: Events) -> None:
    """Let each unit be healed by the first of its healers that can (phase D)."""
    helped: set[int] = set()
    for i, unit in enumerate(units):
        t = orders[i].target
        unit_can = t >= 0 and unit.alive and units[t].alive and may_heal(units, i, t)
        healed = False
        if unit_can and is_in_reach(unit, units[t]) and t not in helped:
            amount = heal(unit, units[t])
            events.healing[t] += amount
            healed = amount > 0
            if healed:
                helped.add(t)
        unit.healing = healed


def heal(healer: Unit, target: Unit) -> float:
    """Heal a unit in reach if it is wounded and the energy suffices; return the health."""
    missing = target.kind.health - target.health
    can_begin = healer.energy >= ENERGY_TO_BEGIN
    can_go_on = healer.healing and healer.energy > 0
    if missing <= 0 or not (can_begin or can_go_on):
        return 0.0
    amount = min(HEAL_RATE * TICK, missing, HEALTH_PER_ENERGY * healer.energy)
    healer.energy = max(healer.energy - amount / HEALTH_PER_ENERGY, 0.0)
    target.health = min(target.health + amount, target.kind.health)
    return amount


def recover(units: list[Unit], damage: list[float]) -> None:
    """Restore shields, health and energy of the living (phase E)."""
    for u, unit in enumerate(units):
        if not unit.alive:
            continue
        kind = unit.kind
        unit.calm = 0.0 if damage[u] > 0 else unit.calm + TICK
        if unit.calm >= SHIELD_DELAY:
            unit.shield = min(kind.shield, unit.shield + SHIELD_RATE * TICK)
        unit.health = min(kind.health, unit.health + kind.regeneration * TICK)
        if kind.heals:
            unit.energy = min(MAX_ENERGY, unit.energy + ENERGY_RATE * TICK)


def reload(units: list[Unit], fired: list[bool]) -> None:
    """Start the cooldowns of weapons that fired, and advance the others (phase H).

    The tick of a shot counts towards its cooldown. A weapon that becomes ready within a tick keeps
    the rest of the tick, a negative cooldown, for a shot in the next one. The random part is left
    out.
    """
    for unit, has_fired in zip(units, fired, strict=True):
        left = unit.cooldown + (unit.kind.cooldown if has_fired else 0.0)
        unit.cooldown = left - TICK if left > 0 else 0.0
