"""Orders of the enemies.

``attack_move`` acquires what a unit can hit within its range or a scan of 5, keeps the target while
it is a candidate, and otherwise walks to the destination. ``pursue`` attacks the nearest ally until
it is dead. ``hold`` attacks what is within reach. Healers heal the most wounded unit nearby. A unit
with a wall between it and a target out of reach, or its destination, walks around the wall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from smac_twin.world import (
    IDLE,
    MAP_SIZE,
    Order,
    Unit,
    distance,
    is_in_reach,
    may_heal,
    may_hit,
)


SCAN = 5.0
"""Least distance at which a unit on an attack-move acquires targets."""
Policy = Literal["attack_move", "pursue", "hold"]
Point = tuple[float, float]


@dataclass(frozen=True)
class Command:
    """Command of one enemy for the whole episode."""

    policy: Policy
    destination: Point = (0.0, 0.0)
    """Goal of an attack-move."""


def enemy_orders(
    units: list[Unit], commands: list[Command], paths: np.ndarray | None
) -> list[Order]:
    """Return the orders of the enemies, the last units, for one step.

    Args:
        units: all units, with ``last_target`` as the last step left it.
        commands: one for each enemy.
        paths: next cell on the way from each cell ``32 x + y`` to each other, or -1 where the
            straight walk is free; None if it always is.
    """
    first = len(units) - len(commands)
    return [
        enemy_order(units, first + j, command, paths)
        for j, command in enumerate(commands)
    ]


def enemy_order(
    units: list[Unit], u: int, command: Command, paths: np.ndarray | None
) -> Order:
    """Return the order of enemy u."""
    unit = units[u]
    if not unit.alive:
        return IDLE
    find = choose_wounded if unit.kind.heals else choose_victim
    target = find(units, u, command.policy)
    if target >= 0:
        goal = (units[target].x, units[target].y)
    elif command.policy == "attack_move":
        goal = command.destination
    else:
        return IDLE
    if target >= 0 and is_in_reach(unit, units[target]):
        return Order(target=target)
    detour = next_cell(unit, goal, paths)
    if detour is not None:
        return walk_to(unit, detour, target)
    return Order(target=target) if target >= 0 else walk_to(unit, goal)


def next_cell(unit: Unit, goal: Point, paths: np.ndarray | None) -> Point | None:
    """Return the center of the next cell on the way around a wall; None if none is in the way."""
    if paths is None or unit.kind.flies or unit.kind.strides:
        return None
    size = int(MAP_SIZE)
    here, there = (int(x) * size + int(y) for x, y in ((unit.x, unit.y), goal))
    cell = int(paths[here, there])
    return None if cell < 0 else (cell // size + 0.5, cell % size + 0.5)


def walk_to(unit: Unit, goal: Point, chosen: int = -1) -> Order:
    """Return the order to walk straight to a place and to stand there."""
    dx, dy = goal[0] - unit.x, goal[1] - unit.y
    length = math.hypot(dx, dy)
    if length == 0:
        return Order(chosen=chosen)
    return Order((dx / length, dy / length), length, chosen=chosen)


def choose_wounded(units: list[Unit], i: int, policy: Policy) -> int:
    """Return the most wounded unit that healer i may heal nearby, or -1."""
    del policy
    best, lowest = -1, 1.0
    for t, target in enumerate(units):
        if not target.alive or not may_heal(units, i, t):
            continue
        fraction = target.health / target.kind.health
        near = distance(units[i], target) <= SCAN + target.kind.radius
        if near and fraction < lowest:
            best, lowest = t, fraction
    return best


def choose_victim(units: list[Unit], i: int, policy: Policy) -> int:
    """Return the last target if enemy i may still choose it, else the nearest, or -1."""
    unit = units[i]
    limit = scan_of(unit, policy)
    candidates = [
        t
        for t, target in enumerate(units)
        if target.alive
        and may_hit(unit, target)
        and distance(unit, target) <= limit + target.kind.radius
    ]
    if unit.last_target in candidates:
        return unit.last_target
    return min(candidates, key=lambda t: distance(unit, units[t]), default=-1)


def scan_of(unit: Unit, policy: Policy) -> float:
    """Return the distance to the edge of a unit within which it is acquired."""
    if policy == "pursue":
        return math.inf
    if policy == "hold":
        return unit.kind.attack_range + unit.kind.radius
    return max(unit.kind.attack_range, SCAN)
