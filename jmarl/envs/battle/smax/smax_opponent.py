"""Enemy policy: the heuristic of SMAX for all enemies at once, from one table of distances.

An enemy attacks its last target while that is in range, else the closest ally in range. If no
ally is in range, it walks towards a random ally in sight. If no ally is in sight, it walks
towards its own start rotated by 180 degrees about the center of the map.

Allies are counted from the last one backwards. Relative positions are divided and multiplied by
the sight range, so that rounding resolves ties as in SMAX.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jmarl.envs.battle.fused import fused
from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.state import Bodies, distance, trait
from jmarl.envs.keys import Path, bits_to_uniform, derive_keys, random_bits


class Memory(NamedTuple):
    """Memory of each enemy: destination of its walk and last target (-1 if there is none)."""

    destination_x: Float[Array, "M B"]
    destination_y: Float[Array, "M B"]
    last_target: Int[Array, "M B"]


class View(NamedTuple):
    """Allies relative to each enemy, the last ally first; zero for unseen allies."""

    dx: Float[Array, "M N B"]
    dy: Float[Array, "M N B"]
    seen: Bool[Array, "M N B"]
    in_range: Bool[Array, "M N B"]


def choose_actions(
    rules: Rules,
    keys: Key[Array, "B"],
    allies: Bodies,
    enemies: Bodies,
    kind: Int[Array, "M B"],
    memory: Memory,
) -> tuple[Int[Array, "M B"], Memory]:
    """Return the actions of all enemies and their new memory.

    Actions 0 to 3 move; action 5 + j attacks the j-th ally from the end.
    """
    # Enemies count the allies from the last one backwards.
    seen_allies = Bodies(*(x[::-1] for x in allies))
    ranges = Ranges(*(trait(rules, name, kind) for name in Ranges._fields))
    draws = _uniform_draws(keys, len(kind))
    choose = functools.partial(_choose, rules.center, rules.n_own_actions)
    return fused(choose, seen_allies, enemies, ranges, memory, draws)


class Ranges(NamedTuple):
    """Ranges of the types of the enemies."""

    sight_range: Float[Array, "M B"]
    attack_range: Float[Array, "M B"]


def _choose(
    center: float,
    n_own_actions: int,
    allies: Bodies,
    enemies: Bodies,
    ranges: Ranges,
    memory: Memory,
    draws: Float[Array, "M B"],
) -> tuple[Int[Array, "M B"], Memory]:
    """Return actions and memory, for allies from the last one backwards."""
    alive = enemies.health > 0
    view = _view(allies, enemies, ranges)
    target, can_attack, last_target = _choose_target(view, memory.last_target)
    x = jnp.where(alive, enemies.x, 0.0)
    y = jnp.where(alive, enemies.y, 0.0)
    no_destination = (memory.destination_x == 0) & (memory.destination_y == 0)
    is_new = no_destination & (memory.last_target == -1)
    destination_x = jnp.where(is_new, -(x - center) + center, memory.destination_x)
    destination_y = jnp.where(is_new, -(y - center) + center, memory.destination_y)
    move = _choose_move(draws, view, (x, y), (destination_x, destination_y))
    action = jnp.where(can_attack, target + n_own_actions, move)
    return action, Memory(destination_x, destination_y, last_target)


def _view(allies: Bodies, enemies: Bodies, ranges: Ranges) -> View:
    sight_range = ranges.sight_range[:, None]  # [M, 1, B]
    dx = allies.x[None] - enemies.x[:, None]  # [M, N, B]
    dy = allies.y[None] - enemies.y[:, None]
    both_alive = (allies.health[None] > 0) & (enemies.health[:, None] > 0)
    seen = both_alive & (distance(dx, dy) < sight_range)
    dx = jnp.where(seen, dx / sight_range * sight_range, 0.0)
    dy = jnp.where(seen, dy / sight_range * sight_range, 0.0)
    in_range = seen & (distance(dx, dy) < ranges.attack_range[:, None])
    return View(dx, dy, seen, in_range)


def _choose_target(
    view: View, last_target: Int[Array, "M B"]
) -> tuple[Int[Array, "M B"], Bool[Array, "M B"], Int[Array, "M B"]]:
    """Return the target, whether any ally is in range, and the new last target."""
    is_last_target = _rank(view) == last_target[:, None]  # [M, N, B]
    keep = _any(view.in_range & is_last_target)
    apart = jnp.where(view.in_range, distance(view.dx, view.dy), jnp.inf)
    target = jnp.where(keep, last_target, jnp.argmin(apart, axis=1))
    can_attack = _any(view.in_range)
    return target, can_attack, jnp.where(can_attack, target, -1)


def _choose_move(
    draws: Float[Array, "M B"],
    view: View,
    position: tuple[Array, Array],
    destination: tuple[Array, Array],
) -> Int[Array, "M B"]:
    """Return the move that leads most directly to a random seen ally or to the destination.

    Moves are north, east, south and west.
    """
    # Draw an ally in sight by inverting the cumulative distribution.
    count = jnp.maximum(jnp.sum(view.seen, axis=1, keepdims=True), 1)
    cumulative = jnp.cumsum(view.seen / count, axis=1)  # [M, N, B]
    total = jnp.max(cumulative, axis=1)
    threshold = total * (1 - draws)
    drawn = jnp.sum(cumulative < threshold[:, None], axis=1)
    can_see = _any(view.seen)
    is_drawn = _rank(view) == drawn[:, None]

    def direction(offset: Array, here: Array, there: Array) -> Float[Array, "M B"]:
        # SMAX adds the own position and subtracts it again.
        ally = jnp.sum(jnp.where(is_drawn, offset, 0.0), axis=1) + here
        return jnp.where(can_see, ally, there) - here

    dx = direction(view.dx, position[0], destination[0])
    dy = direction(view.dy, position[1], destination[1])
    move, most = jnp.zeros_like(drawn), dy
    for index, other in enumerate((dx, -dy, -dx), start=1):
        move = jnp.where(other > most, index, move)
        most = jnp.maximum(most, other)
    return move


def _any(mask: Bool[Array, "M N B"]) -> Bool[Array, "M B"]:
    # Pallas has no reduction of booleans
    return jnp.max(mask.astype(jnp.int32), axis=1) > 0


def _rank(view: View) -> Int[Array, "M N B"]:
    """Return the rank of each ally, counted from the last one."""
    return lax.broadcasted_iota(jnp.int32, view.seen.shape, 1)


def _uniform_draws(keys: Key[Array, "B"], count: int) -> Float[Array, "M B"]:
    """Return a uniform draw per enemy from the first child of the enemy's key, as in SMAX."""
    paths: list[Path] = [(enemy, 0) for enemy in range(count)]
    words = random_bits(derive_keys(keys, paths), 1)
    return bits_to_uniform(words[..., 0])
