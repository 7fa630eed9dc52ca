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
from jmarl.types import BY_CLASS


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
    """Ally, counted among all agents, that the action supports if the unit is a healer."""


@functools.cache
def layout(f: Facts) -> tuple[Action, ...]:
    """Return all actions: own | attacks on enemies | support of allies."""
    targeted = _clash(f) if f.config.layout == "clash" else _unified(f)
    return (*_own(f), *targeted)


def _own(f: Facts) -> list[Action]:
    """Return the actions without a target."""
    actions = [Action("no_op"), Action("stop")]
    for x, y in MOVES:
        heading = (float(x), float(y))
        actions.append(Action("move", heading=heading))
    if f.config.cone:
        actions += [Action("turn", direction=i) for i in range(DIRECTIONS)]
    if f.spots:
        actions.append(Action("spot"))
    return actions


def _unified(f: Facts) -> list[Action]:
    """Return an attack on each enemy, and each kind of support of each other ally."""
    actions = [Action(ATTACK, enemy=j) for j in range(f.m)]
    slots = range(f.n - 1)
    if f.heals:
        actions += [Action(HEAL, slot=k) for k in slots]
    if f.wards:
        actions += [Action(WARD, slot=k) for k in slots]
    return actions


def _clash(f: Facts) -> list[Action]:
    """Return SMAC's targeted actions: j is enemy j, or ally j for healers."""
    n_allies = f.n if f.heals else 0
    actions = []
    for j in range(max(n_allies, f.m)):
        enemy = j if j < f.m else NONE
        ally = j if j < n_allies else NONE
        actions.append(Action(ATTACK, enemy=enemy, ally=ally))
    return actions


def n_own_actions(f: Facts) -> int:
    """Return the number of actions without a target."""
    return len(_own(f))


def action_target(f: Facts) -> tuple[int, ...]:
    """Return the observer's slot at which each action is aimed, -1, or ``BY_CLASS``."""
    return tuple(_target_slot(f, action) for action in layout(f))


def _target_slot(f: Facts, action: Action) -> int:
    if action.ally != NONE:
        return BY_CLASS
    if action.enemy == NONE:
        return action.slot
    first_enemy = f.n - 1
    return first_enemy + action.enemy


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
    if unit.speed > 0:
        names.add("move")
    if unit.targets:
        names.add(ATTACK)
    if unit.heal:
        names.add(HEAL)
    if _may_use(f, row, "allies"):
        names.add(WARD)
    if _may_use(f, row, "self"):
        names.add("spot")
    able = [_takes(action, unit, names) for action in layout(f)]
    return np.asarray(able)


def _may_use(f: Facts, row: int, targets: str) -> bool:
    """Return whether a type has the ability that is aimed at some targets."""
    cooldown = f.ability("cooldown", targets)[row]
    return math.isfinite(cooldown)


def _takes(action: Action, unit: UnitRow, names: set[str]) -> bool:
    is_targeted = action.ally >= 0 or action.enemy >= 0
    if not is_targeted:
        return action.name in names
    if unit.heal:
        return action.ally >= 0
    return action.enemy >= 0 and ATTACK in names


def target_index(f: Facts, rows: Rows, action: Int[Array, "B N"]) -> Int[Array, "B N"]:
    """Return the index of the unit at which each ally's action is aimed, or -1."""
    agent = jnp.arange(f.n)
    enemy = take(column(f, "enemy"), action)
    slot = take(column(f, "slot"), action)
    target = jnp.where(enemy >= 0, enemy + f.n, NONE)
    target = jnp.where(slot >= 0, slot + (slot >= agent), target)
    if f.config.layout == "clash":
        ally = take(column(f, "ally"), action)
        rate = take(combatants.column(f.table, "heal"), rows[..., : f.n])
        target = jnp.where(rate > 0, ally, target)
    return target


def has_name(f: Facts, name: str, action: Int[Array, "B N"]) -> Bool[Array, "B N"]:
    """Return whether actions have a given name."""
    return take(column(f, "name") == name, action)
