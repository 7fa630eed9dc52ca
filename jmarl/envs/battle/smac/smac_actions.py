"""Actions under the rules of SMAC: own | attacks on enemies | support of allies."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jmarl.envs.battle.combat import combatants
from jmarl.envs.battle.combat.combatants import Rows, take
from jmarl.envs.battle.combat.unit_table import UnitRow
from jmarl.envs.battle.smac.smac_facts import Facts


NO_OP, STOP = 0, 1
FIRST_MOVE = 2
MOVES = np.asarray([[0, 1], [0, -1], [1, 0], [-1, 0]], np.float32)
"""Directions of the moves: north, south, east, west."""
DIRECTIONS = 12
"""Directions of the view."""
ATTACK, HEAL, WARD = "attack", "heal", "ward"
NONE = -1


class Action(NamedTuple):
    """One action: a row of the layout."""

    name: str
    """``no_op``, ``stop``, ``move``, ``turn``, ``spot``, ``attack``, ``heal`` or ``ward``."""
    heading: tuple[float, float] = (0.0, 0.0)
    direction: int = NONE
    """Direction to which the view turns."""
    enemy: int = NONE
    """Enemy at which the action is aimed."""
    slot: int = NONE
    """Slot of the observer's allies at which the action is aimed."""
    ally: int = NONE
    """Ally, counted among all agents, that the action supports if the unit has no weapon."""


@functools.cache
def layout(f: Facts) -> tuple[Action, ...]:
    """Return all actions: own | attacks on enemies | support of allies."""
    own = [Action("no_op"), Action("stop")]
    own += [Action("move", heading=(float(x), float(y))) for x, y in MOVES]
    if f.config.cone:
        own += [Action("turn", direction=i) for i in range(DIRECTIONS)]
    if f.spots:
        own.append(Action("spot"))
    if f.config.layout == "clash":
        return (*own, *_clash(f))
    support = [name for name, used in ((HEAL, f.heals), (WARD, f.wards)) if used]
    return (
        *own,
        *(Action(ATTACK, enemy=j) for j in range(f.m)),
        *(Action(name, slot=k) for name in support for k in range(f.n - 1)),
    )


def _clash(f: Facts) -> list[Action]:
    """Return SMAC's targeted actions: j is enemy j, or ally j for units without a weapon."""
    count = max(f.n, f.m) if f.heals else f.m
    return [
        Action(
            ATTACK,
            enemy=j if j < f.m else NONE,
            ally=j if f.heals and j < f.n else NONE,
        )
        for j in range(count)
    ]


def n_own_actions(f: Facts) -> int:
    """Return the number of actions without a target."""
    return sum(a.enemy == a.slot == a.ally == NONE for a in layout(f))


def action_target(f: Facts) -> tuple[int, ...]:
    """Return the observer's slot at which each action is aimed, or -1.

    The layout ``clash`` has none, because the target depends on the type of the observer.
    """
    if f.config.layout == "clash":
        return (NONE,) * len(layout(f))
    first_enemy = f.n - 1
    return tuple(first_enemy + a.enemy if a.enemy >= 0 else a.slot for a in layout(f))


def column(f: Facts, name: str) -> np.ndarray:
    """Return a field of all actions."""
    return np.asarray([getattr(action, name) for action in layout(f)])


def class_actions(f: Facts) -> tuple[tuple[bool, ...], ...]:
    """Return whether each unit type can ever take each action."""
    able = np.stack([_able(f, row) for row in range(len(f.unit_types))])
    return tuple(tuple(row) for row in able.tolist())


def _able(f: Facts, row: int) -> np.ndarray:
    """Return the actions that a type can ever take, ``[A]``."""
    unit = f.table[row]
    names = {"no_op", "stop", "turn"}
    names |= {"move"} if unit.speed > 0 else set()
    names |= {ATTACK} if unit.targets else set()
    names |= {HEAL} if unit.heal else set()
    names |= {WARD} if math.isfinite(f.ability("cooldown", "allies")[row]) else set()
    names |= {"spot"} if math.isfinite(f.ability("cooldown", "self")[row]) else set()
    return np.asarray([_takes(action, unit, names) for action in layout(f)])


def _takes(action: Action, unit: UnitRow, names: set[str]) -> bool:
    if action.ally >= 0 or action.enemy >= 0:  # an attack, or its clash with a heal
        return action.ally >= 0 if unit.heal else action.enemy >= 0 and ATTACK in names
    return action.name in names


def target_index(f: Facts, rows: Rows, action: Int[Array, "B N"]) -> Int[Array, "B N"]:
    """Return the index of the unit at which each ally's action is aimed, or -1."""
    agent = jnp.arange(f.n)
    enemy = take(column(f, "enemy"), action)
    slot = take(column(f, "slot"), action)
    target = jnp.where(enemy >= 0, enemy + f.n, NONE)
    target = jnp.where(slot >= 0, slot + (slot >= agent), target)
    if f.config.layout == "clash":
        heals = take(combatants.column(f.table, "heal"), rows[..., : f.n]) > 0
        target = jnp.where(heals, take(column(f, "ally"), action), target)
    return target


def has_name(f: Facts, name: str, action: Int[Array, "B N"]) -> Bool[Array, "B N"]:
    """Return whether actions have a given name."""
    return take(column(f, "name") == name, action)
