"""Episodes of scripted players of football: results, and records of the first ones."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jmarl.config.errors import check, check_range
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import ENDS, OWN_HALF
from jmarl.envs.football.football_env import State, make_setup, observe_state
from jmarl.envs.football.football_records import Rows, to_record
from jmarl.envs.football.football_replay import (
    advance_running,
    begin,
    record_row,
    step_keys,
)
from jmarl.envs.football.football_scripts import Script, make_script
from jmarl.envs.football.scenarios.football_scenario import Scenario
from jmarl.types import Key


class _Loop(NamedTuple):
    """Episodes so far, and the rows of the first R of them."""

    step: Int[Array, ""]
    state: State
    rows: Rows
    """Leaves ``[limit + 1, R, ...]``."""
    actions: Int[Array, "limit R n"]


def play(
    scenario: str | Scenario,
    script: str | Script,
    episodes: int,
    key: Key,
    *,
    record: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Play exactly one episode in each of several environments.

    Args:
        scenario: Scenario, or its name without ``football_``.
        script: One of ``SCRIPTS`` or another name that they allow, or a function
            ``(obs, key) -> actions[B, N]`` of ``EntityObs`` and a random key.
        episodes: Number of environments.
        key: Random key.
        record: Number of first episodes to record.
        **options: Fields of ``FootballConfig``.

    Returns:
        ``n``, the number of episodes; ``win``, the share with a goal of the left team;
        ``mean_len`` in steps; ``ends``, the number of episodes for each reason to end (``goal``,
        ``conceded``, ``out``, ``poss``, ``time``, and ``own_half`` with SPECTra's reward);
        ``score`` [n, 2] and ``length`` [n]; ``end``, a list of reasons; ``records``, a list of
        dictionaries. A record has ``actions`` [T, N] and the arrays of ``football_records.row``
        with a leading T + 1. The last row is the result of the last step.

    Raises:
        ConfigError: If the scenario, the script or an option is unknown, or a value is wrong.
    """
    setup = make_setup(scenario, options)
    check_range("episodes", episodes, 1)
    check_range("record", record, 0, episodes)
    act = make_script(setup, script) if isinstance(script, str) else script
    loop = jax.device_get(_play(setup, act, episodes, record, key))
    length, score = loop.state.steps, loop.state.score
    has_scored = score[:, 0] > 0
    end = [ENDS[reason] for reason in loop.state.end]
    counts = Counter(end)
    is_spectra = setup.config.reward == "spectra"
    reasons = ENDS[1:] if is_spectra else ENDS[1:OWN_HALF]
    return {
        "n": episodes,
        "win": float(np.mean(has_scored)),
        "mean_len": float(length.mean()),
        "ends": {reason: counts[reason] for reason in reasons},
        "score": score,
        "length": length,
        "end": end,
        "records": [_cut(loop, i, int(length[i])) for i in range(record)],
    }


def _cut(
    loop: _Loop,
    index: int,
    length: int,
) -> dict[str, np.ndarray]:
    """Return the record of an episode, given arrays of NumPy."""
    record = {name: x[: length + 1, index] for name, x in loop.rows.items()}
    record["actions"] = loop.actions[:length, index]
    record.pop("ended")
    return jax.tree.map(np.asarray, record)


@partial(
    jax.jit,
    static_argnums=(0, 1, 2, 3),
)
def _play(
    setup: Setup,
    script: Script,
    episodes: int,
    record: int,
    key: Key,
) -> _Loop:
    k_reset, k_steps = jax.random.split(key)
    limit, n = setup.episode_limit, setup.scenario.n_agents

    def running(loop: _Loop) -> Array:
        return ~loop.state.ended.all() & (loop.step < limit)

    def step(loop: _Loop) -> _Loop:
        t, state, rows, actions = loop
        k_act, k_env = step_keys(k_steps, t)
        action = script(observe_state(setup, state), k_act)
        expected = (episodes, n)
        rule = f"must return actions of the shape {expected}, not {action.shape}"
        name = getattr(script, "__name__", script)
        check(action.shape == expected, "script", name, rule)
        action = action.astype(jnp.int32)
        state = advance_running(setup, k_env, state, action)
        played = to_record(setup, action[:record])
        return _Loop(
            step=t + 1,
            state=state,
            rows=_write(rows, first_rows(state), t + 1),
            actions=actions.at[t].set(played),
        )

    def first_rows(state: State) -> Rows:
        return jax.tree.map(
            lambda x: x[:record],
            record_row(setup, state),
        )

    state = begin(setup, k_reset, episodes)
    now = first_rows(state)
    rows = {name: _room(limit + 1, x) for name, x in now.items()}
    start = _Loop(
        step=jnp.int32(0),
        state=state,
        rows=_write(rows, now, 0),
        actions=jnp.zeros(
            (limit, record, n),
            jnp.int8,
        ),
    )
    return jax.lax.while_loop(running, step, start)


def _room(rows: int, like: Array) -> Array:
    """Return zeros for a number of rows like a given one."""
    return jnp.zeros(
        (rows, *like.shape),
        like.dtype,
    )


def _write(
    rows: Rows,
    now: Rows,
    t: Int[Array, ""] | int,
) -> Rows:
    """Write row t of the episodes."""
    return jax.tree.map(
        lambda x, value: x.at[t].set(value),
        rows,
        now,
    )
