"""Epsilon-greedy choice among the available actions, and a linear schedule of epsilon."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.types import Key


def greedy(
    q: Float[Array, "*batch A"], avail: Bool[Array, "*batch A"]
) -> Int[Array, "*batch"]:
    """Return the available action with the highest value.

    Args:
        q: Action values ``[..., A]``.
        avail: Mask of available actions ``[..., A]``.

    Returns:
        Actions ``[...]``. Ties go to the first action.
    """
    return jnp.argmax(jnp.where(avail, q, -jnp.inf), axis=-1)


def epsilon_greedy(
    key: Key,
    q: Float[Array, "*batch A"],
    avail: Bool[Array, "*batch A"],
    epsilon: Float[Array, ""],
) -> Int[Array, "*batch"]:
    """Draw a uniform available action with probability ``epsilon``, else take the greedy one.

    Args:
        key: Random key. Every entry of the batch draws independently.
        q: Action values ``[..., A]``.
        avail: Mask of available actions ``[..., A]``.
        epsilon: Exploration rate in [0, 1].

    Returns:
        Actions ``[...]``.
    """
    explore_key, action_key = jax.random.split(key)
    noise = jnp.where(avail, jax.random.uniform(action_key, avail.shape), -1.0)
    explores = jax.random.uniform(explore_key, avail.shape[:-1]) < epsilon
    return jnp.where(explores, jnp.argmax(noise, axis=-1), greedy(q, avail))


def linear_decay(
    start: float, end: float, steps: int
) -> Callable[[Float[Array, ""]], Float[Array, ""]]:
    """Return a schedule that falls linearly and then stays constant.

    Args:
        start: Rate at environment step 0.
        end: Rate from environment step ``steps`` on.
        steps: Environment steps of the decay.

    Returns:
        Function ``rate(env_steps)``.
    """

    def rate(env_steps: Float[Array, ""]) -> Float[Array, ""]:
        return end + (start - end) * jnp.maximum(0.0, 1.0 - env_steps / steps)

    return rate
