"""The Anakin loop: environment, policy, learning and optimizer in one compiled program.

``rollout`` is a scan of ``System.act`` and ``Env.step``; ``train_chunk`` is a scan of rollout
and ``System.update``. Both know only the seam (``Env``, ``System``). Podracer architectures
(Hessel et al. 2021, arXiv 2104.06272), section 3; differs from the paper: one program on a mesh with
the environment axis sharded, in which only a gradient is split by hand (``learning.parallel``), instead of a
replica for each core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jmarl.learning.optimizers import keep_schedules
from jmarl.learning.parallel import ENV_AXIS
from jmarl.system import TRANSFERABLE_FIELDS, Learner, System
from jmarl.types import (
    Carry,
    Env,
    EnvState,
    Key,
    Metrics,
    Rollout,
    TimeStep,
    Transition,
)


class Episode(struct.PyTreeNode):
    """The episode that each environment is in: return (mean over agents) and length so far."""

    ret: Float[Array, "*batch"]
    length: Int[Array, "*batch"]


class Runner(struct.PyTreeNode):
    """Everything a run is: saving and restoring this resumes it bit for bit."""

    learner: Learner
    env_state: EnvState
    timestep: TimeStep
    carry: Carry
    episode: Episode
    key: Key
    env_steps: Int[Array, "*seeds"]
    """Environment steps so far: rows on which the action counted. ``uint32``."""


ON_ENV_AXIS = ("env_state", "timestep", "carry", "episode")
"""Fields of ``Runner`` whose leaves lead with B and are split over devices; the others are replicated.

A learner's ``replay`` is split too, along its second axis.
"""
RING = (None, None, ENV_AXIS)
"""Seed, row and environment, of a replay."""


def init_runner(env: Env, system: System, num_envs: int, key: Key) -> Runner:
    """The state of a run before its first step."""
    key, k_learner, k_env = jax.random.split(key, 3)
    env_state, timestep = env.reset(k_env, num_envs)
    return Runner(
        learner=system.init(k_learner),
        env_state=env_state,
        timestep=timestep,
        carry=system.carry(num_envs),
        episode=Episode(ret=jnp.zeros(num_envs), length=jnp.zeros(num_envs, jnp.int32)),
        key=key,
        env_steps=jnp.uint32(0),
    )


def drop_env_state(runner: Runner) -> Runner:
    """A runner without its environments and their past: what goes on in another world, in the same shapes there.

    A checkpoint that is not to be exact holds this.
    """
    learner = runner.learner
    learner = learner.replace(replay=None) if hasattr(learner, "replay") else learner
    return runner.replace(
        env_state=None, timestep=None, carry=None, episode=None, learner=learner
    )


def is_whole(runner: Runner) -> bool:
    """Whether the runner has its environments; what ``drop_env_state`` leaves has not."""
    return runner.episode is not None


def next_runner(
    env: Env, system: System, num_envs: int, before: Runner, *, reset_optimizer: bool
) -> Runner:
    """The state in which a run goes on in another world, or in its own again; it reads what ``drop_env_state`` leaves.

    What was learnt is handed over (``TRANSFERABLE_FIELDS``), environment steps and schedules go on, environments and replay
    begin anew. With ``reset_optimizer`` the moments do too.
    """
    fresh, old = init_runner(env, system, num_envs, before.key), before.learner
    kept = {
        name: getattr(old, name) for name in TRANSFERABLE_FIELDS if hasattr(old, name)
    }
    if hasattr(old, "opt_state"):
        new = fresh.learner.opt_state
        kept["opt_state"] = (
            keep_schedules(new, old.opt_state) if reset_optimizer else old.opt_state
        )
    return fresh.replace(
        learner=fresh.learner.replace(**kept), env_steps=before.env_steps
    )


def _track(
    episode: Episode, timestep: TimeStep, outcomes: Sequence[str]
) -> tuple[Episode, Metrics]:
    """Add one time step to the running episodes; what those that it ends came to, zero for the others.

    Of the environment's ``info`` only the ``outcomes`` count.
    """
    episode = Episode(
        ret=jnp.where(
            timestep.first, 0.0, episode.ret + timestep.obs.team_mean(timestep.reward)
        ),
        length=jnp.where(timestep.first, 0, episode.length + 1),
    )
    ended = timestep.last
    judged = {name: timestep.info[name] for name in outcomes}
    finished = judged | {"return": episode.ret, "length": episode.length}
    results = {
        name: jnp.where(ended, x, 0).astype(jnp.float32) for name, x in finished.items()
    }
    return episode, results | {"count": ended.astype(jnp.float32)}


def rollout(
    env: Env, system: System, runner: Runner, length: int, key: Key
) -> tuple[Runner, Rollout, Metrics]:
    """Act for ``length`` rows with fixed parameters.

    Returns the runner after it, the experience, and sums over the episodes that ended:
    ``count``, ``return``, ``length`` and the environment's outcomes.
    """
    k_refresh, k_steps = jax.random.split(key)
    explore = system.explore(runner.env_steps.astype(jnp.float32))
    params, obs_codec = runner.learner.params, env.spec.obs_codec

    def step(loop: tuple[EnvState, TimeStep, Carry, Episode], keys: Key) -> Any:
        env_state, timestep, carry, episode = loop
        encoded_obs = obs_codec.encode(env_state) if obs_codec else None
        action, carry, extras = system.act(params, carry, timestep, keys[0], explore)
        env_state, after = env.step(keys[1], env_state, action)
        episode, ended = _track(episode, after, env.spec.outcomes)
        row = Transition(
            obs=timestep.obs,
            first=timestep.first,
            valid=timestep.valid,
            action=action,
            reward=after.reward,
            terminated=after.terminated,
            truncated=after.truncated,
            extras=extras,
        )
        return (env_state, after, carry, episode), (row, ended, encoded_obs)

    start = (
        env.refresh(k_refresh, runner.env_state),
        runner.timestep,
        runner.carry,
        runner.episode,
    )
    end, (rows, ended, encoded_obs) = jax.lax.scan(
        step, start, jax.random.split(k_steps, (length, 2))
    )
    env_state, timestep, carry, episode = end
    env_steps = runner.env_steps + rows.valid.sum(dtype=jnp.uint32)
    after = runner.replace(
        env_state=env_state,
        timestep=timestep,
        carry=carry,
        episode=episode,
        env_steps=env_steps,
    )
    if obs_codec:
        encoded_obs = jax.tree.map(
            lambda x, last: jnp.concatenate([x, last[None]]),
            encoded_obs,
            obs_codec.encode(env_state),
        )
    experience = Rollout(
        steps=rows,
        carry=runner.carry,
        last=timestep,
        last_carry=carry,
        encoded_obs=encoded_obs,
    )
    return after, experience, jax.tree.map(jnp.sum, ended)


def train_chunk(
    env: Env, system: System, rollout_length: int, updates: int, runner: Runner
) -> tuple[Runner, dict[str, Metrics]]:
    """``updates`` times rollout and update.

    Metrics: ``train``, the means over the updates of what ``System.update`` reports;
    ``episodes``, the sums over the episodes that ended.
    """

    def iteration(runner: Runner, _: None) -> tuple[Runner, dict[str, Metrics]]:
        key, k_rollout, k_update = jax.random.split(runner.key, 3)
        runner, experience, ended = rollout(
            env, system, runner, rollout_length, k_rollout
        )
        learner, metrics = system.update(runner.learner, experience, k_update)
        return runner.replace(learner=learner, key=key), {
            "train": metrics,
            "episodes": ended,
        }

    runner, metrics = jax.lax.scan(iteration, runner, None, length=updates)
    return runner, {
        "train": jax.tree.map(lambda x: x.mean(0), metrics["train"]),
        "episodes": jax.tree.map(lambda x: x.sum(0), metrics["episodes"]),
    }


def device_mesh(devices: Sequence[Any] = ()) -> Mesh:
    """One mesh axis over all local devices. Auto axes: explicit ones break the vmapped step."""
    return Mesh(
        np.asarray(devices or jax.local_devices()),
        (ENV_AXIS,),
        axis_types=(AxisType.Auto,),
    )


def runner_shardings(mesh: Mesh, runner: Runner) -> Runner:
    """Where each leaf of a runner with a leading seed axis lies: by the field's name, never by a size."""
    split, ring, whole = (
        NamedSharding(mesh, PartitionSpec(*axes))
        for axes in ((None, ENV_AXIS), RING, ())
    )
    places = {
        name: jax.tree.map(
            lambda _: split if name in ON_ENV_AXIS else whole, getattr(runner, name)
        )
        for name in Runner.__dataclass_fields__
    }
    if hasattr(runner.learner, "replay"):
        places["learner"] = places["learner"].replace(
            replay=jax.tree.map(lambda _: ring, runner.learner.replay)
        )
    return Runner(**places)
