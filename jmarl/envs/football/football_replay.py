"""Replay of recorded actions of football, from the start or from recorded frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jmarl.config.errors import check
from jmarl.envs import next_step
from jmarl.envs.batched import select
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.football_env import (
    STEP,
    State,
    make_engine,
    make_setup,
    to_state,
    to_world,
)
from jmarl.envs.football.football_records import (
    Rows,
    check_frames,
    from_record,
    restore,
    row,
)
from jmarl.envs.football.scenarios.football_scenario import Scenario
from jmarl.envs.keys import derive_keys
from jmarl.types import Key


def replay(
    scenario: str | Scenario,
    actions: Int[Any, "B H n"],
    key: Key,
    *,
    frames: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Play given actions in each of B environments.

    With the actions and the key of ``play``, the results are its records.

    Args:
        scenario: Scenario, or its name without ``football_``.
        actions: Actions of the n agents in H steps. An action of -1, or equal to the number of
            actions, leaves an agent to the scripted play.
        key: Random key.
        frames: Situations in which the episodes begin: one row of a record for each environment,
            leaves ``[B, ...]``, and ``sticky``, the buttons that are pressed before the first
            action, bool ``[B, n, 10]`` in GRF's order. Unrecorded facts, such as kicks in
            preparation, last touches and fatigue, are as at rest. None: the scenario's start.
        **options: Fields of ``FootballConfig``.

    Returns:
        The arrays of a record except ``actions``, with the axes ``[B, H + 1]``, and ``ended``, bool
        ``[B, H + 1]``. Rows after the end of an episode repeat its last row.

    Raises:
        ConfigError: If the scenario, an option, or the shape of an array is wrong.
    """
    setup = make_setup(scenario, options)
    actions = np.asarray(actions, np.int32)
    n = setup.scenario.n_agents
    fits = actions.ndim == 3 and actions.shape[2] == n
    rule = f"must have the shape (B, H, {n}): {setup.scenario.name} has {n} agents"
    check(fits, "actions", actions.shape, rule)
    arrays = None if frames is None else check_frames(setup, frames, len(actions))
    return jax.device_get(_replay(setup, jnp.asarray(actions), key, arrays))


@partial(jax.jit, static_argnums=0)
def _replay(
    setup: Setup, actions: Int[Array, "B H n"], key: Key, frames: Rows | None
) -> Rows:
    k_reset, k_steps = jax.random.split(key)
    state = begin(setup, k_reset, len(actions))
    if frames is not None:
        state = to_state(restore(setup, to_world(state), frames))

    def step(
        state: State,
        now: tuple[Array, Array],
    ) -> tuple[State, Rows]:
        t, action = now
        _, k_env = step_keys(k_steps, t)
        after = advance_running(setup, k_env, state, action)
        return after, record_row(setup, after)

    by_time = from_record(setup, actions).swapaxes(0, 1)
    times = jnp.arange(len(by_time))
    _, others = jax.lax.scan(step, state, (times, by_time))
    return jax.tree.map(_join, record_row(setup, state), others)


def _join(first: Array, others: Array) -> Array:
    """Return all rows of each episode, ``[B, H + 1, ...]``, from the first and the others."""
    rows = jnp.concatenate([first[None], others])
    return jnp.moveaxis(rows, 0, 1)


def record_row(setup: Setup, state: State) -> Rows:
    """Return the row of a record of B environments, and ``ended``."""
    return row(setup, to_world(state)) | {"ended": state.ended}


def begin(
    setup: Setup,
    key: Key,
    batch: int,
) -> State:
    """Return the first state of B episodes, that of ``Env.reset``."""
    return next_step.reset(make_engine(setup), 0, key, batch)[0]


def step_keys(
    key: Key,
    t: Int[Array, ""],
) -> Key:
    """Return the keys of step t, one for the script and one for ``Env.step``."""
    return jax.random.split(jax.random.fold_in(key, t))


def advance_running(
    setup: Setup, key: Key, state: State, action: Int[Array, "B N"]
) -> State:
    """Advance the episodes that have not ended, as ``Env.step`` does.

    Args:
        setup: Scenario and options.
        key: Key of the step.
        state: State of B environments.
        action: Actions of the agents.
    """
    keys = derive_keys(
        jax.random.split(key, len(action)),
        [STEP],
    )
    moved, _ = make_engine(setup).transition(keys, state, action)
    return select(state.ended, state, moved)
