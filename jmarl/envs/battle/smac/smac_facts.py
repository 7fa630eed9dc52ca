"""Facts of a battle under the rules of SMAC that are the same in all episodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jmarl.envs.battle.combat import combatants
from jmarl.envs.battle.combat.combatants import Table
from jmarl.envs.battle.combat.tick import Slots
from jmarl.envs.battle.combat.unit_table import NOBODY, RACES, UnitRow
from jmarl.envs.battle.scenarios.battle_spec import (
    ORDERS,
    AnyBattle,
    Battle,
    DrawnBattle,
    Group,
    JoinedBattle,
    Zone,
)
from jmarl.envs.battle.scenarios.terrain import Terrain, walkable
from jmarl.envs.battle.smac.smac_options import SmacConfig


TICK = 1 / 16
"""Seconds in a tick of the physics."""
TICKS = 8
"""Ticks in a step."""
MAP_SIZE = 32.0
NEVER = 1_000_000
"""Step of an event that does not happen."""


class Cast(NamedTuple):
    """Units of an episode: constants, or drawn in each episode."""

    row: Any
    """Row of the table of each unit, ``[U]`` or ``[B, U]``."""
    order: Any
    """Order of each enemy, an index into ``ORDERS``, ``[M]`` or ``[B, M]``."""


@dataclass(frozen=True)
class Facts:
    """Facts of a battle that do not change between episodes. Equal battles have equal facts."""

    battle: AnyBattle
    config: SmacConfig

    @property
    def choices(self) -> tuple[Battle | DrawnBattle, ...]:
        """Battles from which each episode is drawn."""
        if isinstance(self.battle, JoinedBattle):
            return self.battle.choices
        return (self.battle,)

    @property
    def n(self) -> int:
        """Number of allies N, the first units."""
        return max(self.battle.n_allies, self.config.pad[0])

    @property
    def m(self) -> int:
        """Number of enemies M, the other units."""
        return max(self.battle.n_enemies, self.config.pad[1])

    @property
    def unit_types(self) -> tuple[UnitRow, ...]:
        """Unit types, in the order of the one-hot encoding."""
        return self.choices[0].units

    @cached_property
    def _sections(self) -> dict[Table, int]:
        """Return the first row of each distinct pair of unit tables."""
        distinct = dict.fromkeys(map(self._table, self.choices))
        return {part: i * len(part) for i, part in enumerate(distinct)}

    def _table(self, battle: Battle | DrawnBattle) -> Table:
        """Return the unit types of the allies, and then those of the enemies."""
        scale = battle.enemy_scale * self.config.enemy_scale
        return (*battle.units, *(row.scaled(scale) for row in battle.enemy_units))

    @cached_property
    def table(self) -> Table:
        """Rows of the types of allies, then of enemies, with their damage scaled.

        If battles with different tables are joined, their rows follow one another, so that
        ``row % len(unit_types)`` is always the type. The last row is that of absent units.
        """
        rows = [row for part in self._sections for row in part]
        return (*rows, NOBODY)

    @property
    def nobody(self) -> int:
        """Row of absent units."""
        return len(self.table) - 1

    @cached_property
    def casts(self) -> tuple[Cast, ...]:
        """Cast of each choice. The rows of drawn units are those of absent units."""
        return tuple(map(self._cast, self.choices))

    @property
    def cast(self) -> Cast | None:
        """Cast of all episodes; None if it is drawn."""
        is_joined = isinstance(self.battle, JoinedBattle)
        is_drawn = isinstance(self.battle, DrawnBattle)
        if is_joined or is_drawn or self.config.shuffle_slots:
            return None
        return self.casts[0]

    @property
    def rows(self) -> np.ndarray | None:
        """Row of the table of each unit; None if the units are drawn."""
        return None if self.cast is None else self.cast.row

    def _cast(self, battle: Battle | DrawnBattle) -> Cast:
        order = np.full(self.m, ORDERS.index("pursue"))
        row = np.full(self.n + self.m, self.nobody)
        if isinstance(battle, DrawnBattle):
            return Cast(row, order)
        first, kinds = self.first_row(battle), len(self.unit_types)
        for u, (kind, _) in enumerate(battle.roster(battle.allies)):
            row[u] = first + kind
        for j, (kind, group) in enumerate(battle.roster(battle.enemies)):
            row[self.n + j] = first + kinds + kind
            command = battle.enemies[group].order
            order[j] = ORDERS.index(command.kind if command else "hold")
        return Cast(row, order)

    def first_row(self, battle: Battle | DrawnBattle) -> int:
        """Return the first row of the unit types of a battle."""
        return self._sections[self._table(battle)]

    @cached_property
    def possible(self) -> tuple[frozenset[int], ...]:
        """Rows of the table that each unit can have."""
        rows = [
            self._possible(*pair) for pair in zip(self.choices, self.casts, strict=True)
        ]
        joint = [
            frozenset[int]().union(*of_unit) for of_unit in zip(*rows, strict=True)
        ]
        if self.config.shuffle_slots:
            allies = frozenset().union(*joint[: self.n])
            enemies = frozenset().union(*joint[self.n :])
            joint = [allies] * self.n + [enemies] * self.m
        return tuple(joint)

    def _possible(
        self, battle: Battle | DrawnBattle, cast: Cast
    ) -> list[frozenset[int]]:
        rows = [frozenset([int(row)]) for row in cast.row]
        if isinstance(battle, DrawnBattle):
            kinds = drawn_kinds(battle)
            first = self.first_row(battle)
            allies = frozenset(kind + first for kind in kinds)
            enemies = frozenset(row + len(self.unit_types) for row in allies)
            rows[: battle.n_allies] = [allies] * battle.n_allies
            rows[self.n : self.n + battle.n_enemies] = [enemies] * battle.n_enemies
        return rows

    def may(self, units: slice, has: Any) -> bool:
        """Return whether one of some units can have a property of the unit table."""
        rows = frozenset().union(*self.possible[units])
        return any(has(self.table[row]) for row in rows)

    @cached_property
    def slots(self) -> Slots:
        """Slots of units with certain properties."""
        return combatants.slots(self.table, self.possible)

    @property
    def agent_types(self) -> tuple[int, ...]:
        """Unit types that agents can have; joined battles have rows of their own for each type."""
        rows = frozenset[int]().union(*self.possible[: self.n]) - {self.nobody}
        return tuple(sorted({row % len(self.unit_types) for row in rows}))

    @property
    def allies_absent(self) -> bool:
        """Return whether agents can be absent, at the start or in a part of the episode."""
        absent = any(self.nobody in rows for rows in self.possible[: self.n])
        return absent or any(map(_has_times, self._groups("allies")))

    @property
    def is_v2(self) -> bool:
        """Return whether ranges, sight and own position are those of SMACv2."""
        return self.choices[0].rules == "smacv2"

    @cached_property
    def terrains(self) -> tuple[Terrain, ...]:
        """Distinct terrains."""
        return tuple(dict.fromkeys(choice.terrain for choice in self.choices))

    @cached_property
    def ground(self) -> np.ndarray:
        """Index of the terrain of each choice."""
        indices = [self.terrains.index(choice.terrain) for choice in self.choices]
        return np.asarray(indices, np.int32)

    @cached_property
    def walkable(self) -> np.ndarray | None:
        """Cells that can be walked on, ``[terrain, x, y]``; None if there are no walls."""
        cells = np.stack([walkable(terrain) for terrain in self.terrains])
        return None if cells.all() else cells

    @property
    def zones(self) -> tuple[Zone, ...]:
        """Zones of the map."""
        return getattr(self.battle, "zones", ())

    @cached_property
    def limits(self) -> np.ndarray:
        """Step limit of each choice."""
        return np.asarray([choice.limit for choice in self.choices], np.int32)

    @property
    def has_times(self) -> bool:
        """Return whether units arrive after the start, or are withdrawn before the end."""
        groups = (*self._groups("allies"), *self._groups("enemies"))
        return any(map(_has_times, groups))

    def _groups(self, team: str) -> list[Group]:
        """Return the groups of a team in scenario files; drawn battles have none."""
        return [g for choice in self.choices for g in getattr(choice, team, ())]

    @property
    def heals(self) -> bool:
        """Return whether there are actions that heal."""
        return self.config.heal_actions or self.may(
            slice(0, self.n), lambda row: row.heal
        )

    @property
    def wards(self) -> bool:
        """Return whether an ally can give temporary armor."""
        return self._may_use("allies")

    @property
    def spots(self) -> bool:
        """Return whether an ally can increase the sight range of allies near it."""
        return self._may_use("self")

    def _may_use(self, targets: str) -> bool:
        cooldowns = self.ability("cooldown", targets)
        rows = frozenset().union(*self.possible[: self.n])
        return any(np.isfinite(cooldowns[row]) for row in rows)

    def ability(self, name: str, targets: str) -> np.ndarray:
        """Return a field of the ability of each row that is aimed at ``allies`` or ``self``.

        The cooldown is infinite for rows that have no such ability.
        """
        abilities = getattr(self.choices[0], "abilities", ())
        return combatants.ability_column(self.table, abilities, targets, name)

    @property
    def hides_enemies(self) -> bool:
        """Return whether only some allies can see an enemy at all."""
        return self.config.prob_obs_enemy < 1

    def choose(self, values: np.ndarray, choice: Any) -> Any:
        """Return the values of the drawn battles, ``[B]``, or the only value as a constant."""
        return values[0] if choice is None else combatants.take(values, choice)


def drawn_kinds(battle: DrawnBattle) -> list[int]:
    """Return the types of a race."""
    names = [unit.name for unit in battle.units]
    return [names.index(name) for name, _ in RACES[battle.race]]


def _has_times(group: Group) -> bool:
    """Return whether a group arrives after the start, or is withdrawn before the end."""
    return group.arrives.last > 0 or group.leaves is not None
