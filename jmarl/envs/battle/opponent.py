"""The enemy's policy: SMAX's heuristic, decided for all enemies at once from one table of distances.

An enemy keeps shooting at its last target while that is in reach, else shoots at the closest ally in reach, else
walks towards an ally in sight, drawn at random, else towards its own start rotated by half a turn about the center.
It counts allies from the last one backwards, and reads relative positions that were divided and multiplied by its
sight range, which decides ties of rounding as SMAX does.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jmarl.envs.battle.keys import bits, descend, uniform
from jmarl.envs.battle.rules import MAP_SIZE, N_OWN_ACTIONS, UNITS
from jmarl.envs.battle.state import Bodies, distance, trait


CENTRE = MAP_SIZE / 2


class Memory(NamedTuple):
    """What each enemy remembers: its walking goal, and its last target (-1: none)."""

    goal_x: Float[Array, "M B"]
    goal_y: Float[Array, "M B"]
    quarry: Int[Array, "M B"]


class View(NamedTuple):
    """Allies, the last one first, as each enemy sees them; zero where unseen."""

    dx: Float[Array, "M N B"]
    dy: Float[Array, "M N B"]
    seen: Bool[Array, "M N B"]
    in_reach: Bool[Array, "M N B"]


def decide(
    keys: Key[Array, "B"],
    allies: Bodies,
    enemies: Bodies,
    kind: Int[Array, "M B"],
    memory: Memory,
) -> tuple[Int[Array, "M B"], Memory]:
    """The action of every enemy, in its own numbering: 0 to 3 walk, 5 + j shoots at the j-th ally from the end."""
    alive = enemies.health > 0
    view = _look(allies, enemies, kind)
    target, can_shoot, quarry = _aim(view, memory.quarry)
    here = jnp.where(alive, enemies.x, 0.0), jnp.where(alive, enemies.y, 0.0)
    fresh = (memory.goal_x == 0) & (memory.goal_y == 0) & (memory.quarry == -1)
    goal = [
        jnp.where(fresh, -(at - CENTRE) + CENTRE, known)
        for at, known in zip(here, (memory.goal_x, memory.goal_y), strict=True)
    ]
    walk = _walk(keys, view, here, goal)
    action = jnp.where(can_shoot, target + N_OWN_ACTIONS, walk)
    return action, Memory(goal[0], goal[1], quarry)


def _look(allies: Bodies, enemies: Bodies, kind: Int[Array, "M B"]) -> View:
    sight, reach = trait(UNITS.sight, kind)[:, None], trait(UNITS.reach, kind)[:, None]
    dx = allies.x[::-1][None] - enemies.x[:, None]
    dy = allies.y[::-1][None] - enemies.y[:, None]
    both = (allies.health[::-1][None] > 0) & (enemies.health[:, None] > 0)
    seen = both & (distance(dx, dy) < sight)
    dx = jnp.where(seen, dx / sight * sight, 0.0)
    dy = jnp.where(seen, dy / sight * sight, 0.0)
    return View(dx, dy, seen, seen & (distance(dx, dy) < reach))


def _aim(
    view: View, quarry: Int[Array, "M B"]
) -> tuple[Int[Array, "M B"], Bool[Array, "M B"], Int[Array, "M B"]]:
    """Whom to shoot at, whether anybody is in reach, and the target to remember."""
    order = jnp.arange(view.seen.shape[1])[:, None]
    keeps = jnp.any(view.in_reach & (order == quarry[:, None]), axis=1)
    apart = jnp.where(view.in_reach, distance(view.dx, view.dy), jnp.inf)
    target = jnp.where(keeps, quarry, jnp.argmin(apart, axis=1))
    can_shoot = jnp.any(view.in_reach, axis=1)
    return target, can_shoot, jnp.where(can_shoot, target, -1)


def _walk(
    keys: Key[Array, "B"], view: View, here: tuple[Array, Array], goal: list[Array]
) -> Int[Array, "M B"]:
    """North, east, south or west, whichever leads most nearly to the ally that was drawn, or else to the goal."""
    count = jnp.maximum(jnp.sum(view.seen, axis=1, keepdims=True), 1)
    share = jnp.cumsum(view.seen / count, axis=1)
    threshold = share[:, -1] * (1 - _draws(keys, view.seen.shape[0]))
    drawn = jnp.sum(share < threshold[:, None], axis=1)
    can_see = jnp.any(view.seen, axis=1)
    is_drawn = jnp.arange(view.seen.shape[1])[:, None] == drawn[:, None]
    ways = []
    for apart, at, to in zip((view.dx, view.dy), here, goal, strict=True):
        chased = jnp.sum(jnp.where(is_drawn, apart, 0.0), axis=1) + at
        ways.append(jnp.where(can_see, chased, to) - at)
    return jnp.argmax(jnp.stack([ways[1], ways[0], -ways[1], -ways[0]]), axis=0)


def _draws(keys: Key[Array, "B"], count: int) -> Float[Array, "M B"]:
    """A uniform draw for each enemy of each world, as SMAX makes it: from the first child of the enemy's own key."""
    return uniform(
        bits(descend(keys, [(enemy, 0) for enemy in range(count)]), 1)[..., 0]
    )
