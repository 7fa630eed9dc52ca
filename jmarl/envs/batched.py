"""From one plain world to a batch of worlds that reset one step late.

What a user writes is a ``SingleEnv``: the pure functions of *one* world, with no batch axis, no
auto-reset and, if it likes, no clock. ``batched`` turns it into an ``Env``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.config import build, check_range
from jmarl.types import CentralState, EntityObs, Env, Key, Spec, TimeStep


Tree = TypeVar("Tree")


class Step(NamedTuple):
    """What one action of all agents led to, in one world."""

    obs: EntityObs
    reward: Any
    """A reward for each agent, ``[N]``, or one scalar for the team."""
    terminated: Any
    """The episode ended for good: nothing follows, so nothing is bootstrapped."""
    truncated: Any = False
    """The episode was cut although the world would go on."""
    info: Mapping[str, Any] = MappingProxyType({})
    """Scalars; the same names at every step, those of ``Spec.outcomes`` among them."""


class SingleEnv(NamedTuple):
    """One world as pure functions, without a batch axis and without auto-reset.

    ``reset(key) -> (state, EntityObs)`` and ``step(key, state, action[N, ...]) -> (state, Step)``.
    The state is any pytree of arrays. An action is an integer for each agent or, in a
    continuous world, a vector of ``spec.n_actions`` components in [-1, 1].
    """

    name: str
    spec: Spec
    reset: Callable[[Key], tuple[Any, EntityObs]]
    step: Callable[[Key, Any, jax.Array], tuple[Any, Step]]


class BatchState(struct.PyTreeNode):
    """The worlds, how far each has come, and which of them begin anew at the next step."""

    world: Any
    steps: Int[Array, "B"]
    last: Bool[Array, "B"]


def batched(world: SingleEnv) -> Env:
    """Run B worlds side by side, each beginning its next episode one step after the last ended.

    An episode that has not ended by itself after ``spec.episode_limit`` actions is truncated,
    so a world needs no clock. Resets are computed only at steps at which some world needs one.

    Raises ``ConfigError`` for an episode limit that is no whole number of at least 1.
    """
    count("episode_limit", world.spec.episode_limit)

    def begin(key: Key, batch: int) -> tuple[BatchState, EntityObs]:
        state, obs = jax.vmap(world.reset)(jax.random.split(key, batch))
        return BatchState(
            world=state, steps=jnp.zeros(batch, jnp.int32), last=jnp.zeros(batch, bool)
        ), obs

    def advance(
        key: Key, state: BatchState, action: jax.Array
    ) -> tuple[BatchState, TimeStep]:
        keys = jax.random.split(key, state.last.shape[0])
        inner, (timestep, steps) = jax.vmap(advance_one)(
            keys, state.world, state.steps, action
        )
        return BatchState(world=inner, steps=steps, last=timestep.last), timestep

    def advance_one(
        key: Key, state: Any, steps: jax.Array, action: jax.Array
    ) -> tuple[Any, tuple]:
        state, out = world.step(key, state, action)
        return state, (_time_step(out, world.spec, steps + 1), steps + 1)

    def reset(key: Key, batch: int) -> tuple[BatchState, TimeStep]:
        state, obs = begin(key, batch)
        _, like = jax.eval_shape(advance, key, state, _no_action(world.spec, batch))
        return state, _first(obs, like)

    def step(
        key: Key, state: BatchState, action: jax.Array
    ) -> tuple[BatchState, TimeStep]:
        advance_key, begin_key = jax.random.split(key)
        moved = advance(advance_key, state, action)

        def renew() -> tuple[BatchState, TimeStep]:
            fresh, obs = begin(begin_key, state.last.shape[0])
            return select(state.last, (fresh, _first(obs, moved[1])), moved)

        return jax.lax.cond(jnp.any(state.last), renew, lambda: moved)

    return Env(world.name, world.spec, reset, step)


def count(option: str, value: Any) -> int:
    """``value``, if it is a whole number of at least 1; else raise ``ConfigError`` naming ``env.<option>``."""
    key = f"env.{option}"
    number = build(int, value, key)
    check_range(key, number, 1)
    return number


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
    """The ``Spec`` of a world that says nothing of entities.

    ``global_width`` is the width of its world state; without one the state is all the
    observations in a row, as ``flat_obs`` builds it.
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
    """Observations of one world that says nothing of entities: all in ``own``, no groups.

    By default every action is available, every agent alive, and the central state is all
    the observations in a row.
    """
    own = jnp.asarray(own, jnp.float32)
    features = own.reshape(-1) if state is None else jnp.asarray(state, jnp.float32)
    return EntityObs(
        own=own,
        rows=(),
        mask=(),
        avail=jnp.ones((spec.n_agents, spec.n_actions), bool)
        if avail is None
        else jnp.asarray(avail, bool),
        alive=jnp.ones(spec.n_agents, bool)
        if alive is None
        else jnp.asarray(alive, bool),
        joined=jnp.zeros(spec.n_agents, bool),
        unit_class=jnp.zeros(spec.n_agents, jnp.int32),
        state=CentralState(features=features, rows=(), mask=()),
    )


def _time_step(out: Step, spec: Spec, steps: Int[Array, ""]) -> TimeStep:
    """One world's ``TimeStep``; termination wins where both would end the episode."""
    terminated = jnp.asarray(out.terminated, bool)
    return TimeStep(
        obs=out.obs,
        reward=jnp.broadcast_to(jnp.asarray(out.reward, jnp.float32), (spec.n_agents,)),
        terminated=terminated,
        truncated=(jnp.asarray(out.truncated, bool) | (steps >= spec.episode_limit))
        & ~terminated,
        first=jnp.zeros((), bool),
        info={name: jnp.asarray(value) for name, value in out.info.items()},
    )


def _first(obs: EntityObs, like: Any) -> TimeStep:
    """The time step that begins an episode, with the fields of ``like`` (arrays or their shapes)."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like.replace(obs=None))
    return zeros.replace(obs=obs, first=jnp.ones(like.first.shape, bool))


def _no_action(spec: Spec, batch: int) -> jax.Array:
    if spec.discrete:
        return jnp.zeros((batch, spec.n_agents), jnp.int32)
    return jnp.zeros((batch, spec.n_agents, spec.n_actions), jnp.float32)


def select(condition: Bool[Array, "B"], a: Tree, b: Tree) -> Tree:
    """Choose whole worlds from two trees of the same structure, whose leaves lead with B."""
    return jax.tree.map(
        lambda x, y: jnp.where(condition.reshape((-1,) + (1,) * (x.ndim - 1)), x, y),
        a,
        b,
    )
