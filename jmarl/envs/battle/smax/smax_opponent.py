"""Enemy policy: the heuristic of SMAX for all enemies at once, from one table of distances.

An enemy attacks its last target while that is in range, else the closest ally in range. If no
ally is in range, it walks towards a random ally in sight. If no ally is in sight, it walks
towards its own start rotated by 180 degrees about the center of the map.

Allies are counted from the last one backwards. Relative positions are divided and multiplied by
the sight range, so that rounding resolves ties as in SMAX.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

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
    alive = enemies.health > 0
    view = _view(rules, allies, enemies, kind)
    target, can_attack, last_target = _choose_target(view, memory.last_target)
    x = jnp.where(alive, enemies.x, 0.0)
    y = jnp.where(alive, enemies.y, 0.0)
    no_destination = (memory.destination_x == 0) & (memory.destination_y == 0)
    is_new = no_destination & (memory.last_target == -1)
    center = rules.center
    destination_x = jnp.where(is_new, -(x - center) + center, memory.destination_x)
    destination_y = jnp.where(is_new, -(y - center) + center, memory.destination_y)
    move = _choose_move(keys, view, (x, y), (destination_x, destination_y))
    action = jnp.where(can_attack, target + rules.n_own_actions, move)
    return action, Memory(destination_x, destination_y, last_target)


def _view(
    rules: Rules, allies: Bodies, enemies: Bodies, kind: Int[Array, "M B"]
) -> View:
    sight_range = trait(rules, "sight_range", kind)[:, None]  # [M, 1, B]
    attack_range = trait(rules, "attack_range", kind)[:, None]
    dx = allies.x[::-1][None] - enemies.x[:, None]  # [M, N, B]
    dy = allies.y[::-1][None] - enemies.y[:, None]
    ally_alive = allies.health[::-1][None] > 0
    both_alive = ally_alive & (enemies.health[:, None] > 0)
    seen = both_alive & (distance(dx, dy) < sight_range)
    dx = jnp.where(seen, dx / sight_range * sight_range, 0.0)
    dy = jnp.where(seen, dy / sight_range * sight_range, 0.0)
    return View(dx, dy, seen, seen & (distance(dx, dy) < attack_range))


def _choose_target(
    view: View, last_target: Int[Array, "M B"]
) -> tuple[Int[Array, "M B"], Bool[Array, "M B"], Int[Array, "M B"]]:
    """Return the target, whether any ally is in range, and the new last target."""
    rank = jnp.arange(view.seen.shape[1])[:, None]  # [N, 1]
    is_last_target = rank == last_target[:, None]  # [M, N, B]
    keep = jnp.any(view.in_range & is_last_target, axis=1)
    apart = jnp.where(view.in_range, distance(view.dx, view.dy), jnp.inf)
    target = jnp.where(keep, last_target, jnp.argmin(apart, axis=1))
    can_attack = jnp.any(view.in_range, axis=1)
    return target, can_attack, jnp.where(can_attack, target, -1)


def _choose_move(
    keys: Key[Array, "B"],
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
    total = cumulative[:, -1]
    threshold = total * (1 - _uniform_draws(keys, view.seen.shape[0]))
    drawn = jnp.sum(cumulative < threshold[:, None], axis=1)
    can_see = jnp.any(view.seen, axis=1)
    is_drawn = jnp.arange(view.seen.shape[1])[:, None] == drawn[:, None]

    def direction(offset: Array, here: Array, there: Array) -> Float[Array, "M B"]:
        # SMAX adds the own position and subtracts it again.
        ally = jnp.sum(jnp.where(is_drawn, offset, 0.0), axis=1) + here
        return jnp.where(can_see, ally, there) - here

    dx = direction(view.dx, position[0], destination[0])
    dy = direction(view.dy, position[1], destination[1])
    return jnp.argmax(jnp.stack([dy, dx, -dy, -dx]), axis=0)


def _uniform_draws(keys: Key[Array, "B"], count: int) -> Float[Array, "M B"]:
    """Return a uniform draw per enemy from the first child of the enemy's key, as in SMAX."""
    paths: list[Path] = [(enemy, 0) for enemy in range(count)]
    words = random_bits(derive_keys(keys, paths), 1)
    return bits_to_uniform(words[..., 0])
