"""Epsilon-greedy choice among the available actions, and its schedule."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.types import Key


def greedy(
    q: Float[Array, "*batch A"], avail: Bool[Array, "*batch A"]
) -> Int[Array, "*batch"]:
    """The available action of the highest value, the first of equals."""
    return jnp.argmax(jnp.where(avail, q, -jnp.inf), axis=-1)


def epsilon_greedy(
    key: Key,
    q: Float[Array, "*batch A"],
    avail: Bool[Array, "*batch A"],
    epsilon: Float[Array, ""],
) -> Int[Array, "*batch"]:
    """Uniform among the available actions with probability ``epsilon``, else greedy; each row draws for itself."""
    coin_key, pick_key = jax.random.split(key)
    rank = jnp.where(avail, jax.random.uniform(pick_key, avail.shape), -1.0)
    explores = jax.random.uniform(coin_key, avail.shape[:-1]) < epsilon
    return jnp.where(explores, jnp.argmax(rank, axis=-1), greedy(q, avail))


def linear_decay(
    start: float, end: float, steps: int
) -> Callable[[Float[Array, ""]], Float[Array, ""]]:
    """``rate(env_steps)``: from ``start`` to ``end`` over ``steps`` environment steps, and ``end`` from then on."""
    return lambda env_steps: (
        end + (start - end) * jnp.maximum(0.0, 1.0 - env_steps / steps)
    )
