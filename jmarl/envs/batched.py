"""Build an ``Env``, a batch of environments, from the functions of a single environment.

A user writes a ``SingleEnv``: pure functions of one environment, without a batch axis, without
auto-reset and optionally without a time limit. ``batched`` turns it into an ``Env``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.options import parse_count
from jmarl.envs.scene import Scene
from jmarl.platforms import platform
from jmarl.types import CentralState, EntityObs, Env, Key, Spec, TimeStep


Tree = TypeVar("Tree")


class Step(NamedTuple):
    """Result of one time step of a single environment."""

    obs: Any
    """``EntityObs`` after the step, without a batch axis; None with ``BatchedEnv.observe``."""
    reward: Any
    """One reward for each agent, ``[N]``, or a scalar for the team."""
    terminated: Any
    """The episode reached a terminal state, so learning does not bootstrap."""
    truncated: Any = False
    """The episode was cut before a terminal state, so learning bootstraps."""
    info: Mapping[str, Any] = MappingProxyType({})
    """Scalars with the same names at every step, those of ``Spec.outcomes`` among them."""


class SingleEnv(NamedTuple):
    """A single environment as pure functions, without a batch axis and without auto-reset."""

    name: str
    spec: Spec
    reset: Callable[[Key], tuple[Any, EntityObs]]
    """``reset(key) -> (state, obs)``; the state is any pytree of arrays."""
    step: Callable[[Key, Any, jax.Array], tuple[Any, Step]]
    """``step(key, state, action) -> (state, Step)``.

    The action is an integer for each agent, ``[N]``. In a continuous environment it is a
    vector for each agent, ``[N, spec.n_actions]``, with components in [-1, 1].
    """
    scene: Callable[[Any], Scene] | None = None
    """``scene(state) -> Scene``: picture of a state, given as NumPy arrays, for videos."""


class BatchState(struct.PyTreeNode):
    """State of B environments."""

    env_state: Any
    """State of the single environments, leaves ``[B, ...]``."""
    steps: Int[Array, "B"]
    """Actions taken in the current episode."""
    last: Bool[Array, "B"]
    """The last step ended an episode, so the next step resets."""


class BatchedEnv(NamedTuple):
    """Environments that step together, without auto-reset; every leaf has a leading B."""

    name: str
    spec: Spec
    reset: Callable[[Key, int], tuple[Any, EntityObs | None]]
    """``reset(key, batch) -> (state, obs)``; the state is any pytree of arrays."""
    step: Callable[[Key, Any, jax.Array], tuple[Any, Step]]
    """``step(key, state, action) -> (state, Step)``, with one reward for each agent."""
    scene: Callable[[Any], Scene] | None = None
    """``scene(state) -> Scene``: picture of one environment, given as NumPy arrays."""
    observe: Callable[[Any], EntityObs] | None = None
    """``observe(state) -> obs``, if ``reset`` and ``step`` return None as observations.

    Observations are then computed once for each step, also if environments reset.
    """


def batched(env: SingleEnv) -> Env:
    """Run B copies of an environment side by side, with next-step reset.

    An episode that does not end earlier is truncated after ``spec.episode_limit`` actions.
    On a CPU, resets are computed only if an environment needs one.

    Args:
        env: Functions of a single environment.

    Returns:
        The same environment with a leading axis B.

    Raises:
        ConfigError: If ``spec.episode_limit`` is not an integer of at least 1.
    """

    def reset(key: Key, batch: int) -> tuple[Any, EntityObs]:
        return jax.vmap(env.reset)(jax.random.split(key, batch))

    def step_one(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        state, result = env.step(key, state, action)
        return state, _as_arrays(result, env.spec)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        keys = jax.random.split(key, action.shape[0])
        return jax.vmap(step_one)(keys, state, action)

    return with_resets(BatchedEnv(env.name, env.spec, reset, step, env.scene))


def with_resets(env: BatchedEnv) -> Env:
    """Add next-step reset and the time limit to environments that step together.

    Args:
        env: Functions of a batch of environments.

    Returns:
        The same environments, which reset one step after the end of an episode.

    Raises:
        ConfigError: If ``spec.episode_limit`` is not an integer of at least 1.
    """
    spec = env.spec
    parse_count("episode_limit", spec.episode_limit)

    def start(key: Key, batch: int) -> tuple[BatchState, EntityObs | None]:
        env_state, obs = env.reset(key, batch)
        steps = jnp.zeros(batch, jnp.int32)
        last = jnp.zeros(batch, bool)
        return BatchState(env_state=env_state, steps=steps, last=last), obs

    def step_all(
        key: Key, state: BatchState, action: jax.Array
    ) -> tuple[BatchState, TimeStep]:
        env_state, result = env.step(key, state.env_state, action)
        steps = state.steps + 1
        timestep = _time_step(result, steps >= spec.episode_limit)
        state = BatchState(env_state=env_state, steps=steps, last=timestep.last)
        return state, timestep

    def reset(key: Key, batch: int) -> tuple[BatchState, TimeStep]:
        state, obs = start(key, batch)
        _, like = jax.eval_shape(step_all, key, state, _zero_action(spec, batch))
        return complete(state, _first_time_step(obs, like))

    def step(
        key: Key, state: BatchState, action: jax.Array
    ) -> tuple[BatchState, TimeStep]:
        stepped = step_all(jax.random.split(key)[0], state, action)

        def fresh() -> tuple[BatchState, TimeStep]:
            reset_key = jax.random.split(key)[1]
            fresh_state, obs = start(reset_key, state.last.shape[0])
            return fresh_state, _first_time_step(obs, stepped[1])

        return complete(*replace_ended(state.last, fresh, stepped))

    def complete(state: BatchState, timestep: TimeStep) -> tuple[BatchState, TimeStep]:
        if env.observe is not None:
            timestep = timestep.replace(obs=env.observe(state.env_state))
        return state, timestep

    scene = env.scene and partial(_draw, env.scene)
    return Env(env.name, spec, reset, step, scene=scene)


def _draw(scene: Callable[[Any], Scene], state: BatchState) -> Scene:
    return scene(state.env_state)


def flat_spec(
    n_agents: int,
    own_width: int,
    n_actions: int,
    episode_limit: int,
    *,
    global_width: int | None = None,
    discrete: bool = True,
    outcomes: tuple[str, ...] = (),
) -> Spec:
    """Build the ``Spec`` of an environment with flat observations, without entity groups.

    Args:
        n_agents: Number of agents N.
        own_width: Width of the observation of one agent.
        n_actions: Number of discrete actions, or of components of a continuous action.
        episode_limit: Largest number of actions in an episode.
        global_width: Width of the central state. None: the central state is the concatenation
            of all observations, which is the default of ``flat_obs``.
        discrete: False if actions are vectors with components in [-1, 1].
        outcomes: Entries of ``TimeStep.info`` that score an episode when it ends.

    Returns:
        The description of the environment.
    """
    return Spec(
        n_agents=n_agents,
        n_actions=n_actions,
        own_width=own_width,
        groups=(),
        global_width=n_agents * own_width if global_width is None else global_width,
        episode_limit=episode_limit,
        action_target=(-1,) * n_actions,
        discrete=discrete,
        outcomes=outcomes,
    )


def flat_obs(
    spec: Spec,
    own: Float[Array, "N F"],
    *,
    avail: Bool[Array, "N A"] | None = None,
    alive: Bool[Array, "N"] | None = None,
    state: Float[Array, "Fs"] | None = None,
) -> EntityObs:
    """Build observations of a single environment from one flat vector for each agent.

    Args:
        spec: Description of the environment, as built by ``flat_spec``.
        own: Observation of each agent, ``[N, spec.own_width]``.
        avail: Available actions, ``[N, spec.n_actions]``. None: all.
        alive: Mask of living agents, ``[N]``. None: all.
        state: Central state, ``[spec.global_width]``. None: the concatenation of ``own``.

    Returns:
        Observations without a batch axis.
    """
    n_agents = spec.n_agents
    own = jnp.asarray(own, jnp.float32)
    features = own.reshape(-1) if state is None else jnp.asarray(state, jnp.float32)
    if avail is None:
        avail = jnp.ones((n_agents, spec.n_actions), bool)
    if alive is None:
        alive = jnp.ones(n_agents, bool)
    return EntityObs(
        own=own,
        rows=(),
        mask=(),
        avail=jnp.asarray(avail, bool),
        alive=jnp.asarray(alive, bool),
        joined=jnp.zeros(n_agents, bool),
        unit_class=jnp.zeros(n_agents, jnp.int32),
        state=CentralState(features=features, rows=(), mask=()),
    )


def select(condition: Bool[Array, "B"], a: Tree, b: Tree) -> Tree:
    """Choose between two batches, environment by environment.

    Args:
        condition: Mask of the environments to take from ``a``, ``[B]``.
        a: A pytree with leaves ``[B, ...]``.
        b: A pytree with the structure and shapes of ``a``.

    Returns:
        A pytree with the structure and shapes of ``a``.
    """

    def pick(x: jax.Array, y: jax.Array) -> jax.Array:
        mask = condition.reshape((-1,) + (1,) * (x.ndim - 1))
        return jnp.where(mask, x, y)

    return jax.tree.map(pick, a, b)


def replace_ended(
    ended: Bool[Array, "B"], fresh: Callable[[], Tree], other: Tree
) -> Tree:
    """Choose fresh values for the environments that have ended.

    If none has, a CPU does not compute the fresh values. On an accelerator, a branch would cost
    more: its operands are copied, and the host or all devices wait for the condition. Nearly every
    step of a large batch ends an episode.

    Args:
        ended: Environments that take the fresh values, ``[B]``.
        fresh: Function that computes them.
        other: Values of all other environments, with the structure and shapes of the fresh ones.
    """

    def chosen() -> Tree:
        return select(ended, fresh(), other)

    if platform() != "cpu":
        return chosen()
    return jax.lax.cond(jnp.any(ended), chosen, lambda: other)


def batch_first(tree: Tree) -> Tree:
    """Move the batch, the last axis of every leaf, to the front."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), tree)


def batch_last(tree: Tree) -> Tree:
    """Move the batch, the first axis of every leaf, to the end.

    CPUs vectorize a step over the environments if the batch is the last axis of its arrays.
    """
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)


def unfused(x: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return integers unchanged, computed by a loop of their own.

    XLA for CPUs fuses stacks and transpositions with the computations around them, which then
    neither vectorize nor are shared between their uses. It does not fuse beyond a sum, here of
    ``x`` and zeros. ``lax.optimization_barrier`` has no effect. A step of foraging with 4 players
    takes 0.23 us with this function and 0.39 us without it (jax 0.10, a batch of 256).
    """
    is_first = np.array([True, False]).reshape(2, *[1] * x.ndim)
    return jnp.where(is_first, x, 0).sum(0, dtype=x.dtype)


def _as_arrays(result: Step, spec: Spec) -> Step:
    """Return the result of a single environment as arrays, with one reward for each agent."""
    reward = jnp.asarray(result.reward, jnp.float32)
    return result._replace(
        reward=jnp.broadcast_to(reward, (spec.n_agents,)),
        terminated=jnp.asarray(result.terminated, bool),
        truncated=jnp.asarray(result.truncated, bool),
        info={name: jnp.asarray(value) for name, value in result.info.items()},
    )


def _time_step(result: Step, is_late: Bool[Array, "B"]) -> TimeStep:
    """Build the time step of a batch; termination has priority over truncation."""
    return TimeStep(
        obs=result.obs,
        reward=result.reward,
        terminated=result.terminated,
        truncated=(result.truncated | is_late) & ~result.terminated,
        first=jnp.zeros(is_late.shape, bool),
        info=dict(result.info),
    )


def _first_time_step(obs: EntityObs | None, like: Any) -> TimeStep:
    """Build the first time step of an episode, with shapes and dtypes of ``like``."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like.replace(obs=None))
    return zeros.replace(obs=obs, first=jnp.ones(like.first.shape, bool))


def _zero_action(spec: Spec, batch: int) -> jax.Array:
    if spec.discrete:
        return jnp.zeros((batch, spec.n_agents), jnp.int32)
    return jnp.zeros((batch, spec.n_agents, spec.n_actions), jnp.float32)
