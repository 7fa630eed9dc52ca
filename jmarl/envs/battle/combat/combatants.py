"""Properties of the units of a batch of battles, gathered from the unit table."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat.tick import (
    ABOVE,
    AIR,
    GROUND,
    Aim,
    Orders,
    Slots,
    Static,
    Ward,
)
from jmarl.envs.battle.combat.unit_table import Ability, UnitRow
from jmarl.envs.battle.unit_pairs import gather


Rows = np.ndarray | Int[Array, "..."]
"""Table rows of some units: constants, or drawn in each episode."""
Table = tuple[UnitRow, ...]
"""Rows of all types of allies, then of all types of enemies in the same order."""


def slots(table: Table, kinds: tuple[frozenset[int], ...]) -> Slots:
    """Return the slots with each property, from the table rows that each slot can have."""

    def where(holds: Callable[[UnitRow], bool]) -> np.ndarray:
        return np.flatnonzero([any(holds(table[k]) for k in ks) for ks in kinds])

    possible = [table[k] for k in frozenset().union(*kinds)]
    return Slots(
        bursts=where(lambda unit: unit.weapon == "burst"),
        lines=where(lambda unit: unit.weapon == "line"),
        heals=where(lambda unit: unit.heal),
        shields=any(unit.shield > 0 for unit in possible),
        most_hits=max(unit.hits for unit in possible),
        planes=len({plane(unit) for unit in possible} - {ABOVE}) > 1,
    )


def static(table: Table, row: Rows) -> Static:
    """Return the properties of units, given their table rows."""
    fields = {
        "separation": "separation",
        "speed": "speed",
        "radius": "radius",
        "full_health": "health",
        "full_shield": "shield",
        "armor": "armor",
        "health_regen": "health_regen",
        "shield_regen": "shield_regen",
        "energy_regen": "energy_regen",
        "full_energy": "max_energy",
        "acceleration": "acceleration",
        "cooldown": "cooldown",
        "hits": "hits",
    }
    gathered = {ours: take(column(table, name), row) for ours, name in fields.items()}
    return Static(
        **gathered,
        plane=take(_planes(table), row),
        line=take(flags(table, "line"), row),
        walks=take(flags(table, "walks"), row),
        grounded=take(flags(table, "grounded"), row),
        burst_radius=take(_burst_radii(table), row),
        mobile=take(flags(table, "mobile"), row),
    )


def aim(
    table: Table,
    row: Rows,
    orders: Orders,
    units: Static,
    hostile: Bool[Array, "U U"],
    ward: Ward | None,
) -> Aim:
    """Return the properties of each unit and its target.

    Attacks on allies and support of enemies have no effect.
    """
    index = jnp.maximum(orders.target, 0)
    is_foe = hostile[jnp.arange(len(index))[:, None], index]

    def of_target(values: Rows) -> Array:
        values = jnp.broadcast_to(jnp.asarray(values), index.shape)
        return gather(values, index)

    pair = row * len(table) + of_target(row)
    has = orders.target >= 0
    reach = take(column(table, "attack_range"), row)
    attacks = has & is_foe & take(pairs(table, "hits").ravel(), pair)
    heals = has & ~is_foe & take(pairs(table, "heals").ravel(), pair)
    wards = None
    if ward is not None:
        assert orders.wards is not None
        wards = has & ~is_foe & orders.wards
        reach = jnp.where(wards, ward.reach, reach)
        attacks, heals = attacks & ~wards, heals & ~wards
    return Aim(
        index=index,
        reach=reach + units.radius + of_target(units.radius),
        attacks=attacks,
        heals=heals,
        wards=wards,
        raw=take(pairs(table, "raw").ravel(), pair),
        armor=of_target(units.armor),
    )


def raw_of_all_pairs(table: Table, row: Rows) -> Float[Array, "U U B"]:
    """Return the damage of one hit of each unit on each other unit, before armor."""
    pair = row[:, None] * len(table) + row[None]
    return take(pairs(table, "raw").ravel(), pair)


def take(values: np.ndarray, index: Rows) -> Any:
    """Return values at some indices. The result is constant if the indices are."""
    if isinstance(index, np.ndarray):
        return values[index]
    return jnp.asarray(values)[index]


def take_pairs(values: np.ndarray, first: Rows, second: Rows) -> Any:
    """Return values ``[row, row]`` of pairs of units. The rows are broadcast."""
    return take(values.ravel(), first * len(values) + second)


@functools.cache
def column(table: Table, name: str) -> np.ndarray:
    """Return a field of all rows."""
    return np.asarray([getattr(unit, name) for unit in table], np.float32)


def plane(unit: UnitRow) -> int:
    """Return the plane in which a unit pushes others."""
    return ABOVE if unit.colossal else AIR if unit.flies else GROUND


@functools.cache
def ability_column(
    table: Table, abilities: tuple[Ability, ...], targets: str, name: str
) -> np.ndarray:
    """Return a field of the ability of each row with given targets.

    Rows without such an ability have 0, and an infinite cooldown.
    """
    missing = math.inf if name == "cooldown" else 0.0
    values = np.full(len(table), missing, np.float32)
    for ability in abilities:
        for row, unit in enumerate(table):
            if ability.targets == targets and ability.name in unit.abilities:
                values[row] = getattr(ability, name)
    return values


@functools.cache
def _planes(table: Table) -> np.ndarray:
    return np.asarray([plane(unit) for unit in table], np.int32)


@functools.cache
def _burst_radii(table: Table) -> np.ndarray:
    """Return the radii of bursts; 0 for weapons that do not burst."""
    is_burst = np.asarray([unit.weapon == "burst" for unit in table])
    return np.where(is_burst, column(table, "burst_radius"), np.float32(0))


@functools.cache
def flags(table: Table, name: str) -> np.ndarray:
    """Return whether each row has a property, such as ``armed`` or ``grounded``."""
    tests: dict[str, Callable[[UnitRow], bool]] = {
        "armed": lambda unit: unit.targets != "",
        "line": lambda unit: unit.weapon == "line",
        "walks": lambda unit: plane(unit) == GROUND,
        "grounded": lambda unit: not unit.flies,
        "mobile": lambda unit: "structure" not in unit.attributes,
    }
    return np.asarray([tests[name](unit) for unit in table])


@functools.cache
def pairs(table: Table, name: str) -> np.ndarray:
    """Return a property of all pairs of rows (unit, target)."""
    tests: dict[str, Callable[[UnitRow, UnitRow], float]] = {
        "hits": can_hit,
        "heals": can_heal,
        "raw": lambda a, b: a.damage + a.bonus * (a.bonus_against in b.attributes),
    }
    values = [[tests[name](a, b) for b in table] for a in table]
    return np.asarray(values, np.float32 if name == "raw" else bool)


def can_hit(unit: UnitRow, target: UnitRow) -> bool:
    """Return whether the weapon of a unit can hit a type."""
    on_ground = unit.targets in ("ground", "both") and not target.flies
    in_air = unit.targets in ("air", "both") and (target.flies or target.colossal)
    return on_ground or in_air


def can_heal(unit: UnitRow, target: UnitRow) -> bool:
    """Return whether a unit can heal a type."""
    return unit.heal and "biological" in target.attributes and not target.flies
