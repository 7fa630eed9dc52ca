"""One step of the world, from the orders of all units to its events."""

from __future__ import annotations

import numpy as np

from smac_twin.fighting import burst, fire, hit
from smac_twin.moving import move, push
from smac_twin.recovering import recover, reload, support
from smac_twin.world import TICKS, Events, Order, Unit


def step_world(units: list[Unit], orders: list[Order], walkable: np.ndarray) -> Events:
    """Advance the world by one step of 8 ticks, and return its events.

    Args:
        units: all units; changed in place.
        orders: one order per unit, valid for all ticks.
        walkable: ``[32 x, 32 y]`` mask of the cells that walkers can enter.
    """
    for unit, order in zip(units, orders, strict=True):
        # A healer that changes its target begins anew.
        unit.healing &= order.memory == unit.last_target
        unit.last_target = order.memory
    events = Events.none(len(units))
    was_alive = [unit.alive for unit in units]
    walked = [0.0] * len(units)
    for _ in range(TICKS):
        step_tick(units, orders, walkable, walked, events)
    events.killed[:] = [
        before and not unit.alive for before, unit in zip(was_alive, units, strict=True)
    ]
    return events


def step_tick(
    units: list[Unit],
    orders: list[Order],
    walkable: np.ndarray,
    walked: list[float],
    events: Events,
) -> None:
    """Advance the world by one tick. Positions change in phases F and G only."""
    damage = [0.0] * len(units)
    alive_at_start = [unit.alive for unit in units]
    fired = fire(units, orders)
    hit(units, orders, fired, damage)
    burst(units, alive_at_start, damage)
    support(units, orders, events)
    recover(units, damage)
    move(units, orders, walkable, walked, alive_at_start)
    push(units, walkable)
    reload(units, fired)
    events.damage += damage
    events.fired |= fired
