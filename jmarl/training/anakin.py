"""The Anakin loop: environment, policy and learning in one compiled program.

``rollout`` is a scan over ``System.act`` and ``Env.step``. ``train_chunk`` is a loop over
rollouts and ``System.update``. Both depend only on the interfaces ``Env`` and ``System``.

Podracer architectures (Hessel et al. 2021, arXiv:2104.06272), section 3.

Differs from the paper: one program runs on a mesh with a sharded environment axis, instead of
one replica per core. Only gradients are split explicitly (``learning.parallel``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from jmarl.learning.optimizers import keep_schedules
from jmarl.learning.parallel import sum_rows
from jmarl.learning.trees import leaf_paths
from jmarl.platforms import ENV_AXIS
from jmarl.system import Learner, System
from jmarl.training.packing import pack, unpack
from jmarl.types import (
    Carry,
    Env,
    EnvState,
    Extras,
    Key,
    Metrics,
    Params,
    Rollout,
    TimeStep,
    Transition,
)


ROLLOUT = "rollout"
"""Scope of the rollout in the compiled program, for tools that read it."""


class Episode(struct.PyTreeNode):
    """Return (mean over agents) and length so far of each environment's current episode."""

    ret: Float[Array, "*batch"]
    length: Int[Array, "*batch"]


class Runner(struct.PyTreeNode):
    """Complete state of a run. Restoring it resumes the run bit for bit."""

    learner: Learner
    env_state: EnvState
    timestep: TimeStep
    carry: Carry
    episode: Episode
    key: Key
    env_steps: Int[Array, "*seeds"]
    """Environment steps so far, ``uint32``: the number of valid rows."""


class Actor(NamedTuple):
    """Environment states, time steps and memories of B environments, with a leading B."""

    env_state: EnvState
    timestep: TimeStep
    carry: Carry


def init_runner(env: Env, system: System, num_envs: int, key: Key) -> Runner:
    """Return the state of a run before its first step."""
    key, k_learner, k_env = jax.random.split(key, 3)
    env_state, timestep = env.reset(k_env, num_envs)
    episode = Episode(ret=jnp.zeros(num_envs), length=jnp.zeros(num_envs, jnp.int32))
    return Runner(
        learner=system.init(k_learner),
        env_state=env_state,
        timestep=timestep,
        carry=system.carry(num_envs),
        episode=episode,
        key=key,
        env_steps=jnp.uint32(0),
    )


def drop_env_state(runner: Runner) -> Runner:
    """Return the runner without environments and replay, for an inexact checkpoint.

    All remaining leaves have the same shapes for any environment that fits the
    parameters.
    """
    return runner.replace(
        learner=runner.learner.replace(replay=None),
        env_state=None,
        timestep=None,
        carry=None,
        episode=None,
    )


def has_env_state(runner: Runner) -> bool:
    """Return False for the result of ``drop_env_state``."""
    return runner.episode is not None


def continue_in_env(
    env: Env,
    system: System,
    num_envs: int,
    previous: Runner,
    *,
    reset_optimizer: bool,
) -> Runner:
    """Return a runner that continues learning in new environments.

    Parameters, target network, value statistics, learning-rate schedules and the count of
    environment steps continue. Environments and replay are reset.

    Args:
        env: Environment to continue in.
        system: System built for ``env``.
        num_envs: Number of environments.
        previous: Runner of the previous stage, or of an inexact checkpoint.
            Only the fields that ``drop_env_state`` keeps are read.
        reset_optimizer: If True, reset the optimizer's moments.
    """
    fresh = init_runner(env, system, num_envs, previous.key)
    learned = previous.learner
    opt_state = learned.opt_state
    if reset_optimizer:
        opt_state = keep_schedules(fresh.learner.opt_state, opt_state)
    learner = fresh.learner.replace(
        params=learned.params,
        target=learned.target,
        value_stats=learned.value_stats,
        opt_state=opt_state,
    )
    return fresh.replace(learner=learner, env_steps=previous.env_steps)


def act_and_step(
    env: Env,
    system: System,
    params: Params,
    actor: Actor,
    keys: Key,
    explore: Float[Array, ""],
) -> tuple[Actor, Shaped[Array, "B N ..."], Extras]:
    """Choose an action in every environment and take one step.

    Args:
        env: Environment.
        system: System, for its ``act``.
        params: Parameters of the policy.
        actor: State before the step.
        keys: Two keys, one for acting and one for the environment.
        explore: Exploration rate; 0 is greedy.

    Returns:
        The state after the step, the actions ``[B, N, ...]``, and the extras of ``act``.
    """
    k_act, k_env = keys
    action, carry, extras = system.act(
        params, actor.carry, actor.timestep, k_act, explore
    )
    env_state, timestep = env.step(k_env, actor.env_state, action)
    return Actor(env_state, timestep, carry), action, extras


def _track_episodes(
    episode: Episode, timestep: TimeStep, outcomes: Sequence[str]
) -> tuple[Episode, Metrics]:
    """Add one time step to the running episodes.

    Returns the episodes, and results that are zero for episodes that have not ended. Only
    the ``outcomes`` are read from the environment's ``info``.
    """
    team_reward = timestep.obs.team_mean(timestep.reward)
    episode = Episode(
        ret=jnp.where(timestep.first, 0.0, episode.ret + team_reward),
        length=jnp.where(timestep.first, 0, episode.length + 1),
    )
    ended = timestep.last
    finished = {name: timestep.info[name] for name in outcomes}
    finished |= {"return": episode.ret, "length": episode.length}
    results = {
        name: jnp.where(ended, x, 0).astype(jnp.float32) for name, x in finished.items()
    }
    return episode, results | {"count": ended.astype(jnp.float32)}


def rollout(
    env: Env, system: System, runner: Runner, length: int, key: Key
) -> tuple[Runner, Rollout, Metrics]:
    """Act for ``length`` rows with fixed parameters.

    The exploration rate follows its schedule within the rollout, as if all rows were environment
    steps. It does not depend on how many environments share the experience.

    Returns:
        The runner after the rollout, the experience, and sums over the episodes that
        ended: ``count``, ``return``, ``length`` and the environment's outcomes.
    """
    k_refresh, k_steps = jax.random.split(key)
    num_envs = len(runner.timestep.first)
    env_steps = runner.env_steps + num_envs * jnp.arange(length, dtype=jnp.uint32)
    explore = jax.vmap(system.explore)(env_steps.astype(jnp.float32))
    params, codec = runner.learner.params, env.spec.obs_codec

    def step(state: tuple[Actor, Episode], inputs: tuple[Key, Array]) -> Any:
        before, episode = unpack(state)
        keys, explore = inputs
        encoded = codec.encode(before.env_state) if codec else None
        actor, action, extras = act_and_step(env, system, params, before, keys, explore)
        after = actor.timestep
        episode, ended = _track_episodes(episode, after, env.spec.outcomes)
        row = Transition(
            obs=before.timestep.obs,
            first=before.timestep.first,
            valid=before.timestep.valid,
            action=action,
            reward=after.reward,
            terminated=after.terminated,
            truncated=after.truncated,
            extras=extras,
        )
        return pack((actor, episode)), pack((row, ended, encoded))

    env_state = env.refresh(k_refresh, runner.env_state)
    actor = Actor(env_state, runner.timestep, runner.carry)
    keys = jax.random.split(k_steps, (length, 2))
    last, packed = jax.lax.scan(step, pack((actor, runner.episode)), (keys, explore))
    actor, episode = unpack(last)
    rows, ended, encoded = unpack(packed)
    if codec:
        encoded = _append(encoded, codec.encode(actor.env_state))
    experience = Rollout(
        steps=rows,
        carry=runner.carry,
        last=actor.timestep,
        last_carry=actor.carry,
        encoded_obs=encoded,
    )
    runner = runner.replace(
        **actor._asdict(),
        episode=episode,
        env_steps=runner.env_steps + rows.valid.sum(dtype=jnp.uint32),
    )
    return runner, experience, jax.tree.map(sum_rows, ended)


def _append(rows: Any, last: Any) -> Any:
    """Append one row to every leaf ``[T, ...]``."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), rows, last)


def train_chunk(
    env: Env,
    system: System,
    rollout_length: int,
    updates: int | Int[Array, ""],
    runner: Runner,
) -> tuple[Runner, dict[str, Metrics]]:
    """Alternate rollout and update, ``updates`` times.

    The number of updates may be an array, so that one compiled program runs any number.

    Returns:
        The runner after the chunk, and metrics: ``train`` has the means over the updates
        of the metrics of ``System.update``; ``episodes`` has the sums of ``rollout``;
        ``nonfinite`` has an entry for ``reward``, for each metric ``train/<name>`` and for
        each parameter ``params/<path>``. It is the first update of the chunk, counted
        from 0, at which the value is not finite, or -1.
    """
    # jit keeps the trace, so that the loop does not trace the update a second time
    once = jax.jit(partial(_update_once, env, system, rollout_length), inline=True)
    _, summed, checked = jax.eval_shape(once, runner)
    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), summed)
    names = tuple(checked)
    first_bad = jnp.full(len(names), -1, jnp.int32)

    def iteration(i: Int[Array, ""], state: Any) -> Any:
        runner, sums, first_bad = state
        runner, metrics, finite = once(runner)
        sums = jax.tree.map(jnp.add, sums, metrics)
        # one array, because a device would compute each value in several kernels
        is_bad = ~jnp.stack([finite[name] for name in names])
        first_bad = jnp.where((first_bad < 0) & is_bad, i, first_bad)
        return runner, sums, first_bad

    start = (runner, sums, first_bad)
    runner, sums, first_bad = jax.lax.fori_loop(0, updates, iteration, start)
    means = jax.tree.map(lambda x: x / updates, sums["train"])
    found = dict(zip(names, first_bad, strict=True))
    metrics = {"train": means, "episodes": sums["episodes"], "nonfinite": found}
    return runner, metrics


def _update_once(
    env: Env, system: System, rollout_length: int, runner: Runner
) -> tuple[Runner, dict[str, Metrics], Metrics]:
    """Return the runner after one update, its metrics, and whether each value is finite."""
    key, k_rollout, k_update = jax.random.split(runner.key, 3)
    with jax.named_scope(ROLLOUT):
        runner, experience, ended = rollout(
            env, system, runner, rollout_length, k_rollout
        )
    learner, metrics = system.update(runner.learner, experience, k_update)
    params = learner.params
    checked = {"reward": experience.steps.reward}
    checked |= {f"train/{name}": x for name, x in metrics.items()}
    leaves = jax.tree.leaves(params)
    checked |= {
        f"params/{path}": x for path, x in zip(leaf_paths(params), leaves, strict=True)
    }
    finite = {name: jnp.isfinite(x).all() for name, x in checked.items()}
    runner = runner.replace(learner=learner, key=key)
    return runner, {"train": metrics, "episodes": ended}, finite


def device_mesh(devices: Sequence[Any] = ()) -> Mesh:
    """Return a mesh with one axis over the given devices, by default all local ones.

    The axis type is Auto, because explicit axes break the vmapped environment step.
    """
    devices = devices or jax.local_devices()
    return Mesh(np.asarray(devices), (ENV_AXIS,), axis_types=(AxisType.Auto,))


def runner_shardings(mesh: Mesh, runner: Runner) -> Runner:
    """Return the sharding of each leaf of a runner with a leading seed axis S.

    Leaves with an environment axis, ``[S, B, ...]``, and the replay, ``[S, rows, B, ...]``,
    are split over devices; all others are replicated. The field determines the sharding,
    because axes of other leaves can have the same sizes.
    """

    def place(tree: Any, *axes: str | None) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda _: sharding, tree)

    replay = place(runner.learner.replay, None, None, ENV_AXIS)
    return Runner(
        learner=place(runner.learner.replace(replay=None)).replace(replay=replay),
        env_state=place(runner.env_state, None, ENV_AXIS),
        timestep=place(runner.timestep, None, ENV_AXIS),
        carry=place(runner.carry, None, ENV_AXIS),
        episode=place(runner.episode, None, ENV_AXIS),
        key=place(runner.key),
        env_steps=place(runner.env_steps),
    )
