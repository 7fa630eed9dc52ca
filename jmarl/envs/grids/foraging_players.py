"""Scripted players of level-based foraging: ``random`` and ``gather``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import ConfigError, suggest
from jmarl.envs.grids.foraging_rules import EAST, LOAD, NORTH, SOUTH, WEST, WIDTH
from jmarl.envs.players import RANDOM, Player, PlayerSet, random
from jmarl.types import EntityObs, Key, Spec


GATHER = "gather"
NOISE = 0.1
"""Share of random actions, so that players do not block each other for ever."""


def make(
    name: str,
    spec: Spec,
) -> Player:
    """Build a player.

    Args:
        name: ``random`` or ``gather``.
        spec: Description of a foraging task.

    Raises:
        ConfigError: If the name is unknown.
    """
    if name == RANDOM:
        return random
    if name == GATHER:
        return gather(spec.own_width // WIDTH - spec.n_agents)
    fix = suggest(name, PLAYERS.names, f"expected one of {', '.join(PLAYERS.names)}")
    raise ConfigError(f"player={name}: unknown player; {fix}")


def gather(n_food: int) -> Player:
    """Return the player that loads the food nearest to the middle of the players in sight.

    It leaves out food that the players in sight cannot lift together. A player that sees no such
    food acts at random.

    Args:
        n_food: Number of food items of the task.
    """

    def play(
        key: Key,
        obs: EntityObs,
    ) -> Int[Array, "B N"]:
        noise_key, key = jax.random.split(key)
        entities = obs.own.reshape(
            *obs.own.shape[:-1],
            -1,
            WIDTH,
        )
        food, players = entities[..., :n_food, :], entities[..., n_food:, :]
        action, found = _approach(food, players)
        is_random = jax.random.bernoulli(noise_key, NOISE, action.shape) | ~found
        return jnp.where(is_random, random(key, obs), action)

    return play


def _approach(
    food: Float[Array, "*b F 3"], players: Float[Array, "*b P 3"]
) -> tuple[Int[Array, "*b"], Bool[Array, "*b"]]:
    """Return the action towards the chosen food, and whether there is some."""
    strength = players[..., 2]
    seen = (strength > 0)[..., None]
    middle = (players[..., :2] * seen).sum(-2) / seen.sum(-2)
    can_lift = (food[..., 2] > 0) & (food[..., 2] <= strength.sum(-1, keepdims=True))
    distance = jnp.abs(food[..., :2] - middle[..., None, :]).sum(-1)
    chosen = jnp.where(can_lift, distance, jnp.inf).argmin(-1)[..., None, None]
    goal = jnp.take_along_axis(food[..., :2], chosen, axis=-2)[..., 0, :]
    down, right = jnp.moveaxis(
        goal - players[..., 0, :2],
        -1,
        0,
    )
    vertical = jnp.where(down > 0, SOUTH, NORTH)
    horizontal = jnp.where(right > 0, EAST, WEST)
    walk = jnp.where(
        jnp.abs(down) > jnp.abs(right),
        vertical,
        horizontal,
    )
    is_beside = jnp.abs(down) + jnp.abs(right) == 1
    return jnp.where(is_beside, LOAD, walk), can_lift.any(-1)


PLAYERS = PlayerSet((RANDOM, GATHER), make)
