"""Actions of the allies: masks, and the orders that they stand for.

Actions are no-op, stop, north, south, east, west; then one per enemy, and in the layout ``unified``
one per other ally if an ally can heal. In SMAC's layout ``clash``, action j is enemy j for units
with a weapon, and ally j for healers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from smac_twin.world import IDLE, MAP_SIZE, Order, Unit, distance


N_OWN_ACTIONS = 6
NO_OP, STOP, NORTH, SOUTH, EAST, WEST = range(N_OWN_ACTIONS)
MOVES = {NORTH: (0.0, 1.0), SOUTH: (0.0, -1.0), EAST: (1.0, 0.0), WEST: (-1.0, 0.0)}
MOVE_LENGTH = 2.0
TARGET_RANGE = 6.0
"""Distance up to which SMAC offers a target, for every type."""
LEAST_TARGET_RANGE = 2.0
"""Smallest distance up to which SMACv2 offers a target."""
Layout = Literal["unified", "clash"]


class Actions:
    """Actions of N allies against M enemies.

    Args:
        n_allies: number of allies N.
        n_enemies: number of enemies M.
        has_healers: an ally can heal, perhaps in another episode.
        layout: ``unified`` or ``clash``.
        unit_ranges: offer targets within the unit's own range, as SMACv2 does.
    """

    def __init__(
        self,
        n_allies: int,
        n_enemies: int,
        has_healers: bool,
        layout: Layout = "unified",
        unit_ranges: bool = False,
    ) -> None:
        self.n, self.m = n_allies, n_enemies
        self.layout, self.unit_ranges = layout, unit_ranges
        targeted = n_enemies
        if has_healers:
            clashing = layout == "clash"
            targeted = max(self.n, self.m) if clashing else self.m + self.n - 1
        self.count = N_OWN_ACTIONS + targeted

    def target(self, units: list[Unit], i: int, action: int) -> int:
        """Return the index of the unit at which an action of ally i aims, or -1."""
        rank = action - N_OWN_ACTIONS
        if rank < 0:
            return -1
        if self.layout == "clash":
            if units[i].kind.heals:
                return rank if rank < self.n else -1
            return self.n + rank if rank < self.m else -1
        if rank < self.m:
            return self.n + rank
        return ally_of_slot(i, rank - self.m)

    def available(self, units: list[Unit], walkable: np.ndarray) -> np.ndarray:
        """Return the mask ``[N, A]`` of the actions that each ally can take."""
        mask = np.zeros((self.n, self.count), bool)
        for i in range(self.n):
            if not units[i].alive:
                mask[i, NO_OP] = True
                continue
            mask[i, STOP] = True
            for action, direction in MOVES.items():
                mask[i, action] = can_move(units[i], direction, walkable)
            for action in range(N_OWN_ACTIONS, self.count):
                t = self.target(units, i, action)
                mask[i, action] = t >= 0 and self.can_aim(units, i, t)
        return mask

    def can_aim(self, units: list[Unit], i: int, t: int) -> bool:
        """Return whether ally i can attack the enemy t, or heal the ally t."""
        unit = units[i]
        heals = t < self.n and unit.kind.heals and not units[t].kind.heals and i != t
        attacks = t >= self.n and unit.kind.weapon != ""
        if not (heals or attacks) or not units[t].alive:
            return False
        limit = TARGET_RANGE
        if self.unit_ranges:
            limit = max(unit.kind.attack_range, LEAST_TARGET_RANGE)
        return distance(unit, units[t]) <= limit

    def orders(self, units: list[Unit], actions: list[int]) -> list[Order]:
        """Return the orders that stand for the actions of the allies."""
        orders = []
        for i, action in enumerate(actions):
            t = self.target(units, i, action)
            order = IDLE
            if action in MOVES:
                order = Order(heading=MOVES[action], length=MOVE_LENGTH)
            elif t >= 0:
                order = Order(target=t)
            orders.append(order)
        return orders


def ally_of_slot(i: int, slot: int) -> int:
    """Return the index of the ally in a slot of ally i, which has no slot for itself."""
    return slot if slot < i else slot + 1


def can_move(unit: Unit, direction: tuple[float, float], walkable: np.ndarray) -> bool:
    """Return whether a move is offered; ``int`` cuts towards zero, as in SMAC."""
    x, y = int(unit.x + direction[0]), int(unit.y + direction[1])
    if not (0 <= x < MAP_SIZE and 0 <= y < MAP_SIZE):
        return False
    return unit.kind.flies or unit.kind.strides or bool(walkable[x, y])
