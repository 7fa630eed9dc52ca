"""Phases F and G of a tick: walks and pushes."""

from __future__ import annotations

import numpy as np

from smac_twin.world import (
    MAP_SIZE,
    REACH_SLACK,
    TICK,
    Order,
    Unit,
    distance,
    may_heal,
    may_hit,
    reach,
)


EDGE = 1e-3
"""Distance that units keep from the upper borders of the map."""
PUSH_EPSILON = 1e-6
LARGEST_PUSH = 0.5
"""Largest push along an axis in a tick."""
Pair = tuple[float, float]


def move(
    units: list[Unit],
    orders: list[Order],
    walkable: np.ndarray,
    walked: list[float],
    was_alive: list[bool],
) -> None:
    """Walk along headings and towards targets, all units at once (phase F)."""
    walks = []
    for i, unit in enumerate(units):
        direction, limit = way(units, i, orders[i], walked[i], was_alive)
        stands = limit <= 0 or direction == (0.0, 0.0) or unit.kind.speed == 0
        if stands or not unit.alive:
            unit.pace = 0.0
            walks.append((0.0, 0.0))
            continue
        gain = unit.kind.acceleration * TICK
        unit.pace = min(unit.kind.speed, unit.pace + gain)
        length = min(unit.pace * TICK, limit)
        walked[i] += length
        walks.append((direction[0] * length, direction[1] * length))
    for unit, walk in zip(units, walks, strict=True):
        if unit.alive:
            displace(unit, walk, walkable)


def way(
    units: list[Unit], i: int, order: Order, walked: float, was_alive: list[bool]
) -> tuple[Pair, float]:
    """Return the direction of unit i's walk and the distance it may still go."""
    if order.target < 0:
        return order.heading, order.length - walked
    unit, target = units[i], units[order.target]
    can_affect = may_hit(unit, target) or may_heal(units, i, order.target)
    apart = distance(unit, target)
    limit = apart - reach(unit, target)
    if not was_alive[order.target] or not can_affect or limit <= REACH_SLACK:
        return (0.0, 0.0), 0.0
    return ((target.x - unit.x) / apart, (target.y - unit.y) / apart), limit


def displace(unit: Unit, walk: Pair, walkable: np.ndarray) -> None:
    """Move a unit, slide it along a wall in its way, and keep it on the map."""
    x, y = clip_to_map(unit.x + walk[0]), clip_to_map(unit.y + walk[1])
    options = [(x, y)]
    if not (unit.kind.flies or unit.kind.strides):
        options += [(x, unit.y), (unit.x, y)]
        options = [(x, y) for x, y in options if walkable[int(x), int(y)]]
    if options:
        unit.x, unit.y = options[0]


def clip_to_map(value: float) -> float:
    """Return a coordinate within the map."""
    return min(max(value, 0.0), MAP_SIZE - EDGE)


def push(units: list[Unit], walkable: np.ndarray) -> None:
    """Push overlapping bodies apart, all pairs at once (phase G)."""
    pushes = [push_on(units, i) for i in range(len(units))]
    for unit, pushed in zip(units, pushes, strict=True):
        if unit.alive and not unit.kind.has("s"):
            displace(unit, pushed, walkable)


def push_on(units: list[Unit], i: int) -> Pair:
    """Return the sum of the pushes of all other bodies on unit i, half of each overlap."""
    unit = units[i]
    total_x = total_y = 0.0
    for other in units:
        if other is unit or not collide(unit, other):
            continue
        touching = unit.kind.separation + other.kind.separation
        factor = max(0.0, touching / (distance(unit, other) + PUSH_EPSILON) - 1)
        total_x += (unit.x - other.x) * factor / 2
        total_y += (unit.y - other.y) * factor / 2
    return limit_push(total_x), limit_push(total_y)


def limit_push(value: float) -> float:
    """Return a push along an axis, at most ``LARGEST_PUSH``."""
    return min(max(value, -LARGEST_PUSH), LARGEST_PUSH)


def collide(a: Unit, b: Unit) -> bool:
    """Return whether two units are living bodies of the same plane."""
    if not (a.alive and b.alive) or a.kind.strides or b.kind.strides:
        return False
    return a.kind.flies == b.kind.flies
