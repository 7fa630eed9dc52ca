"""Evaluation: exactly one episode in each environment.

A fixed number of time steps would give short episodes too much weight, because environments
that finish early would play several.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.learning.parallel import split_envs
from jmarl.platforms import env_devices
from jmarl.system import System
from jmarl.training.anakin import Actor, act_and_step
from jmarl.types import Env, Key, Metrics, Params, TimeStep


MODES = ("greedy", "sampled")


class _State(NamedTuple):
    step: Int[Array, ""]
    actor: Actor
    finished: Bool[Array, " B"]
    result: Metrics


def evaluate(
    env: Env,
    system: System,
    params: Params,
    key: Key,
    episodes: int,
    explore: Float[Array, ""],
) -> Metrics:
    """Play one episode in each of ``episodes`` environments.

    The environments are split over the devices of the current mesh.

    Args:
        env: Environment.
        system: System, for its ``act``.
        params: Parameters of the policy.
        key: Random key of the evaluation.
        episodes: Number of episodes.
        explore: Exploration rate; 0 is greedy.

    Returns:
        ``return``, ``length`` and the environment's outcomes (such as ``won``), each
        ``float32[episodes]``.
    """
    k_reset, k_steps = jax.random.split(key)
    devices = env_devices()
    batch = -(-episodes // devices) * devices
    env_state, timestep = split_envs(env.reset(k_reset, batch))
    names = ("return", "length", *env.spec.outcomes)
    zeros = {name: jnp.zeros(batch) for name in names}
    padding = jnp.arange(batch) >= episodes
    carry, finished, zeros = split_envs((system.carry(batch), padding, zeros))
    actor = Actor(env_state, timestep, carry)

    def running(state: _State) -> Bool[Array, ""]:
        return ~state.finished.all() & (state.step <= env.spec.episode_limit)

    def step(state: _State) -> _State:
        keys = jax.random.split(jax.random.fold_in(k_steps, state.step))
        actor, _, _ = act_and_step(env, system, params, state.actor, keys, explore)
        gained = _step_results(env, actor.timestep)
        result = {
            name: state.result[name] + jnp.where(state.finished, 0.0, gained[name])
            for name in names
        }
        finished = state.finished | actor.timestep.last
        return _State(state.step + 1, actor, finished, result)

    start = _State(jnp.int32(0), actor, finished, zeros)
    result = jax.lax.while_loop(running, step, start).result
    return {name: x[:episodes] for name, x in result.items()}


def _step_results(env: Env, timestep: TimeStep) -> Metrics:
    """Return the contribution of one time step to return, length and outcomes."""
    reward = timestep.obs.team_mean(timestep.reward)
    results = {"return": reward, "length": jnp.ones(reward.shape)}
    for name in env.spec.outcomes:
        results[name] = timestep.info[name] * timestep.last
    return results


def exploration_rates(system: System) -> Float[Array, " 2"]:
    """Return the exploration rate of each of ``MODES``: 0, and the final rate of training."""
    return jnp.stack([jnp.zeros(()), system.explore(jnp.float32(jnp.inf))])


def evaluate_modes(
    env: Env, system: System, params: Params, key: Key, episodes: int
) -> dict[str, Metrics]:
    """Evaluate with greedy and with sampled actions, from the same initial states.

    Returns ``{"greedy": results, "sampled": results}`` with the results of ``evaluate``.
    """

    def one(explore: Float[Array, ""]) -> Metrics:
        return evaluate(env, system, params, key, episodes, explore)

    both = jax.lax.map(one, exploration_rates(system))
    return {mode: jax.tree.map(lambda x: x[i], both) for i, mode in enumerate(MODES)}
