"""Evaluation: exactly one episode from each environment.

A fixed number of steps over-weights short episodes, because the environments that end early
count more than once; here each environment counts once, however long its episode is.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.learning.parallel import env_devices, split_envs
from jmarl.system import System
from jmarl.types import Carry, Env, EnvState, Key, Metrics, Params, TimeStep


MODES = ("greedy", "sampled")


class _Loop(NamedTuple):
    step: Int[Array, ""]
    env_state: EnvState
    timestep: TimeStep
    carry: Carry
    over: Bool[Array, " B"]
    result: Metrics


def evaluate(
    env: Env,
    system: System,
    params: Params,
    key: Key,
    episodes: int,
    explore: Float[Array, ""],
) -> Metrics:
    """Play one episode in each of ``episodes`` environments, which are split over the devices of the mesh.

    Returns ``return``, ``length`` and the environment's outcomes (``won``), each
    ``float32[episodes]``. ``explore=0`` is greedy.
    """
    k_reset, k_steps = jax.random.split(key)
    batch = -(-episodes // env_devices()) * env_devices()
    env_state, timestep = split_envs(env.reset(k_reset, batch))
    names = ("return", "length", *env.spec.outcomes)
    zeros = {name: jnp.zeros(batch) for name in names}
    carry, over, zeros = split_envs(
        (system.carry(batch), jnp.arange(batch) >= episodes, zeros)
    )
    start = _Loop(jnp.int32(0), env_state, timestep, carry, over, zeros)

    def running(loop: _Loop) -> Bool[Array, ""]:
        return ~loop.over.all() & (loop.step <= env.spec.episode_limit)

    def step(loop: _Loop) -> _Loop:
        k_act, k_env = jax.random.split(jax.random.fold_in(k_steps, loop.step))
        action, carry, _ = system.act(params, loop.carry, loop.timestep, k_act, explore)
        env_state, after = env.step(k_env, loop.env_state, action)
        gained = {
            "return": after.obs.team_mean(after.reward),
            "length": jnp.ones(batch),
        }
        gained |= {name: after.info[name] * after.last for name in env.spec.outcomes}
        result = {
            name: loop.result[name] + jnp.where(loop.over, 0.0, gained[name])
            for name in names
        }
        return _Loop(
            loop.step + 1, env_state, after, carry, loop.over | after.last, result
        )

    result = jax.lax.while_loop(running, step, start).result
    return {name: x[:episodes] for name, x in result.items()}


def exploration(system: System) -> Float[Array, " 2"]:
    """The rate of each of ``MODES``: none, and what training ends with."""
    return jnp.stack([jnp.zeros(()), system.explore(jnp.float32(jnp.inf))])


def evaluate_modes(
    env: Env, system: System, params: Params, key: Key, episodes: int
) -> dict[str, Metrics]:
    """The same start states played greedily, and sampled as at the end of training: ``{greedy, sampled}``."""
    both = jax.lax.map(
        lambda e: evaluate(env, system, params, key, episodes, e), exploration(system)
    )
    return {mode: jax.tree.map(lambda x: x[i], both) for i, mode in enumerate(MODES)}
