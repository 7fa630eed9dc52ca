"""Recording of whole episodes with saved parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from jmarl.system import System
from jmarl.training.anakin import Actor, act_and_step
from jmarl.types import Env, Key, Params


Read = Callable[[Actor, Actor], Any]
"""Function of the states before and after a step that returns the arrays to record."""


def make_recorder(
    env: Env, system: System, batch: int, read: Read
) -> Callable[[Params, Key, Float[Array, ""]], Any]:
    """Build a function that plays from the start of ``batch`` episodes.

    Args:
        env: Environment.
        system: System, for its ``act``.
        batch: Number of environments.
        read: Function of the states before and after each step.

    Returns:
        Function ``(params, key, explore)``. It returns the results of ``read`` with a leading
        time axis of ``episode_limit + 1``; rows after the end of an episode belong to the next.
    """

    def play(
        params: Params,
        key: Key,
        explore: Float[Array, ""],
    ) -> Any:
        k_reset, k_steps = jax.random.split(key)

        def step(actor: Actor, key: Key) -> Any:
            keys = jax.random.split(key)
            after, _, _ = act_and_step(env, system, params, actor, keys, explore)
            return after, read(actor, after)

        start, timestep = env.reset(k_reset, batch)
        actor = Actor(start, timestep, system.carry(batch))
        keys = jax.random.split(k_steps, env.spec.episode_limit + 1)
        return jax.lax.scan(step, actor, keys)[1]

    return play
