"""Environments of a batch with next-step reset and pools of starts, for any rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl.envs.batched import replace_ended, select
from jmarl.envs.keys import Path, derive_keys
from jmarl.envs.scene import Scene
from jmarl.types import EntityObs, Env, Key, Spec, TimeStep


State = Any
"""State of a batch of environments, with ``ended`` and a field ``pool``."""
Starts = Any
"""Starts of a batch of episodes: a pytree whose leaves have a leading B."""


class Outcome(NamedTuple):
    """Consequences of one step of each environment."""

    reward: Float[Array, "B N"]
    terminated: Bool[Array, "B"]
    truncated: Bool[Array, "B"]


class Engine(NamedTuple):
    """Functions of a batch of environments under the rules of a scenario."""

    spec: Spec
    draw_starts: Callable[[Keys[Array, "B"]], Starts]
    """Draw one start per key."""
    first_state: Callable[[Starts], State]
    """Return the first state of episodes with given starts."""
    transition: Callable[[Keys[Array, "L B"], State, Int[Array, "B N"]], Any]
    """``(keys, state, action) -> (state, outcome)``: one step, also of an ended episode."""
    observe: Callable[[State], EntityObs]
    outcomes: Callable[[State], dict[str, Float[Array, "B"]]]
    """Return the entries of ``Spec.outcomes``."""
    scene: Callable[[State], Scene]
    """Return the picture of one environment."""
    paths: tuple[Path, ...]
    """Paths from the key of a step to those of ``transition``, see ``keys.derive_keys``."""
    reset_path: Path
    """Path from the key of a step to that of ``draw_starts``."""


class Pool(struct.PyTreeNode):
    """Pre-drawn starts, P for each environment, used in turn."""

    starts: Starts
    """Leaves ``[B, P, ...]``."""
    used: Int[Array, "B"]
    """Number of starts used since the last refresh."""


def build(name: str, engine: Engine, reset_pool: int) -> Env:
    """Build an environment from its functions.

    Args:
        name: name of the environment.
        engine: functions of the scenario.
        reset_pool: starts that ``reset`` and ``refresh`` draw ahead for each environment; 0 draws
            every start when its episode begins.
    """
    return Env(
        name=name,
        spec=engine.spec,
        reset=partial(reset, engine, reset_pool),
        step=partial(step, engine),
        refresh=partial(refresh, engine, reset_pool),
        scene=engine.scene,
    )


def reset(
    engine: Engine, reset_pool: int, key: Key, batch: int
) -> tuple[State, TimeStep]:
    """Start the first episode of ``batch`` environments."""
    key, pool_key = jax.random.split(key)
    state = engine.first_state(engine.draw_starts(jax.random.split(key, batch)))
    if reset_pool:
        state = state.replace(pool=draw_pool(engine, reset_pool, pool_key, batch))
    # Each flag needs its own array: a buffer that occurs twice in a time step cannot be donated.
    zeros = partial(jnp.zeros, batch)
    reward = jnp.zeros((batch, engine.spec.n_agents))
    outcome = Outcome(reward, zeros(bool), zeros(bool))
    return state, _timestep(engine, state, outcome, first=~zeros(bool))


def step(
    engine: Engine, key: Key, state: State, action: Int[Array, "B N"]
) -> tuple[State, TimeStep]:
    """Advance each environment by one step; reset it instead if its last step ended an episode."""
    ended = state.ended
    pool = state.pool
    env_keys = jax.random.split(key, ended.shape[0])
    keys = derive_keys(env_keys, [*engine.paths, engine.reset_path])  # [L + 1, B]
    state = state.replace(pool=None)
    moved, outcome = engine.transition(keys, state, action)
    if pool is None:

        def fresh() -> State:
            return engine.first_state(engine.draw_starts(keys[-1]))

        state = replace_ended(ended, fresh, moved)
    else:
        fresh_state = engine.first_state(_next_starts(pool))
        pool = pool.replace(used=pool.used + ended)
        state = select(ended, fresh_state, moved).replace(pool=pool)
    no_outcome = jax.tree.map(jnp.zeros_like, outcome)
    outcome = select(ended, no_outcome, outcome)
    return state, _timestep(engine, state, outcome, first=ended)


def refresh(engine: Engine, reset_pool: int, key: Key, state: State) -> State:
    """Draw a new pool of starts if there is a pool."""
    if state.pool is None:
        return state
    pool = draw_pool(engine, reset_pool, key, state.ended.shape[0])
    return state.replace(pool=pool)


def draw_pool(engine: Engine, size: int, key: Key, batch: int) -> Pool:
    """Draw ``size`` starts for each of ``batch`` environments."""
    starts = engine.draw_starts(jax.random.split(key, batch * size))
    pooled = jax.tree.map(lambda x: x.reshape(batch, size, *x.shape[1:]), starts)
    return Pool(pooled, jnp.zeros(batch, jnp.int32))


def _next_starts(pool: Pool) -> Starts:
    size = jax.tree.leaves(pool.starts)[0].shape[1]
    rank = pool.used % size
    take = jax.vmap(lambda starts, i: starts[i])
    return jax.tree.map(lambda starts: take(starts, rank), pool.starts)


def _timestep(
    engine: Engine, state: State, outcome: Outcome, *, first: Bool[Array, "B"]
) -> TimeStep:
    return TimeStep(
        obs=engine.observe(state),
        reward=outcome.reward,
        terminated=outcome.terminated,
        truncated=outcome.truncated,
        first=first,
        info=engine.outcomes(state),
    )
