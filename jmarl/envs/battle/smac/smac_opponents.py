"""Orders of the enemies under the rules of SMAC."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle import tactics
from jmarl.envs.battle.combat import zones
from jmarl.envs.battle.combat.combatants import Rows, Table, column, flags, pairs, take
from jmarl.envs.battle.combat.damage import LEAST_DAMAGE
from jmarl.envs.battle.combat.tick import Bodies
from jmarl.envs.battle.scenarios.battle_spec import ORDERS
from jmarl.envs.battle.scenarios.terrain import Terrain
from jmarl.envs.battle.situation import (
    BattleFacts,
    Choice,
    Situation,
    find_way,
    in_reach,
    look,
)
from jmarl.envs.battle.smac.smac_facts import MAP_SIZE, Facts
from jmarl.envs.battle.smac.smac_state import State, orders_of, rows_of
from jmarl.envs.battle.tactics import Tactic
from jmarl.envs.battle.unit_pairs import gather


SCAN = 5.0
"""Distance within which a unit on an attack-move acquires targets."""
EPSILON = 1e-6
"""Minimum distance to a goal in a denominator."""
BY_ORDER: Mapping[str, Tactic] = {
    "attack_move": tactics.attack_move,
    "pursue": tactics.pursue,
    "hold": tactics.hold,
}
"""Tactics by the order of a group."""
OPPONENTS: Mapping[str, Mapping[str, Tactic]] = {
    "orders": BY_ORDER,
    "healer_first": {
        order: tactics.healers_first(tactic) for order, tactic in BY_ORDER.items()
    },
    "heuristic": dict.fromkeys(BY_ORDER, tactics.heuristic),
}
"""Tactics by order, for each value of the option ``opponent``."""


class Reply(NamedTuple):
    """Orders of the enemies."""

    heading_x: Float[Array, "M B"]
    heading_y: Float[Array, "M B"]
    length: Float[Array, "M B"]
    target: Int[Array, "M B"]
    """Unit to attack or to heal now; -1 during a detour around walls."""
    aim: Int[Array, "M B"]
    """Unit that was chosen; -1 if there is none."""


@functools.cache
def battle_facts(table: Table, terrains: tuple[Terrain, ...]) -> BattleFacts:
    """Return the facts that tactics need."""
    reach, radius = column(table, "attack_range"), column(table, "radius")
    hit = pairs(table, "raw") - column(table, "armor")
    mobile = column(table, "speed") > 0
    return BattleFacts(
        terrains=terrains,
        health=column(table, "health"),
        weapon_range=reach,
        radius=radius,
        scan=np.where(mobile, np.maximum(reach, np.float32(SCAN)), reach + radius),
        sight=column(table, "sight_range"),
        speed=column(table, "speed"),
        healer=column(table, "heal") > 0,
        walks=flags(table, "walks"),
        damage=np.maximum(hit, LEAST_DAMAGE) * column(table, "hits")[:, None],
        hits=pairs(table, "hits"),
        heals=pairs(table, "heals"),
    )


def choose_orders(f: Facts, state: State, bodies: Bodies) -> Reply:
    """Return the orders of all enemies: attack, heal, or walk to the destination.

    If walls are in the way to the target or the destination, units that cannot cross them follow
    the shortest path.
    """
    own = slice(f.n, f.n + f.m)
    rows = columns_of(rows_of(f, state))
    orders = columns_of(orders_of(f, state))
    marches = orders == ORDERS.index("attack_move")
    x, y = jnp.where(marches, state.destination.T, MAP_SIZE / 2)
    situation = look(
        battle_facts(f.table, f.terrains),
        rows,
        bodies,
        own,
        state.last_target[:, own].T,
        (x, y),
        f.choose(f.ground, state.choice),
    )
    if zones.of("conceal", f.zones):
        seen = situation.attackable & _visible(f, rows, bodies)
        situation = situation._replace(attackable=seen)
    return _walk(bodies, situation, tactics.by_order(orders, _tactics(f), situation))


def columns_of(values: Rows) -> Rows:
    """Return values of units as ``[U, 1]`` or ``[U, B]``."""
    return values[:, None] if values.ndim == 1 else values.T


def _tactics(f: Facts) -> dict[int, Tactic]:
    """Return the tactics of the orders that occur."""
    tactic_of = OPPONENTS[f.config.opponent]
    occurring = np.unique([cast.order for cast in f.casts]).tolist()
    chosen = {order: tactic_of[ORDERS[order]] for order in occurring}
    if not f.slots.heals.size:
        return chosen
    return {order: tactics.tend(tactic) for order, tactic in chosen.items()}


def _visible(f: Facts, rows: Rows, bodies: Bodies) -> Bool[Array, "M U B"]:
    """Return the units that zones do not hide from the enemies."""
    grounded = take(flags(f.table, "grounded"), rows)
    farthest = zones.visible_from(f.zones, bodies.x, bodies.y, grounded)
    dx = bodies.x[None] - bodies.x[f.n :, None]
    dy = bodies.y[None] - bodies.y[f.n :, None]
    return dx * dx + dy * dy <= farthest * farthest


def _walk(bodies: Bodies, s: Situation, choice: Choice) -> Reply:
    """Return orders to attack a target, or to walk to it or to another place."""
    aims = choice.target >= 0
    goal_x = jnp.where(aims, _at(bodies.x, choice.target), choice.x)
    goal_y = jnp.where(aims, _at(bodies.y, choice.target), choice.y)
    way = find_way(s, goal_x, goal_y)
    detour = way.detour & ~in_reach(s, choice.target)
    to_x, to_y = way.x - s.x, way.y - s.y
    length = jnp.sqrt(to_x * to_x + to_y * to_y)
    walks = ~aims | detour
    scale = jnp.where(walks & (length > 0), 1 / jnp.maximum(length, EPSILON), 0.0)
    target = jnp.where(detour, -1, choice.target)
    return Reply(to_x * scale, to_y * scale, length, target, choice.target)


def _at(values: Float[Array, "U B"], index: Int[Array, "M B"]) -> Float[Array, "M B"]:
    return gather(values, jnp.maximum(index, 0))
