"""Scripted players: their rules on recorded frames, and their results beside the engine's."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from benchmarks.football_calibration.forecasts import FRAME_FIELDS, records_of
from benchmarks.football_calibration.motion_laws import Figures
from benchmarks.football_calibration.records import SCENARIOS, load_json, split_name
from jmarl.envs.football import SCRIPTS, play
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.football_env import (
    make_setup,
    observe_state,
    to_state,
    to_world,
)
from jmarl.envs.football.football_records import restore, sticky_rows
from jmarl.envs.football.football_replay import begin
from jmarl.envs.football.football_scripts import Script, make_script
from jmarl.types import EntityObs, Key


def script_laws(episodes: int) -> tuple[Figures, list[dict[str, Any]]]:
    """Compare the scripts with the engine's.

    Args:
        episodes: Episodes for each scenario and script.

    Returns:
        Figures over all cells, and a table of the cells.
    """
    table = [cell for name in SCENARIOS for cell in play_scenario(name, episodes)]
    ours, engine = (
        np.asarray([c[key] for c in table]) for key in ("win", "engine_win")
    )
    off = np.abs(ours - engine)
    runs = [bool(re.search("run_shoot", cell["script"])) for cell in table]
    figures = {
        "script.actions_reproduced": reproduced_actions(),
        "script.win_rate.mean_difference": off.mean(),
        "script.win_rate.rank_correlation": rank_correlation(ours, engine),
        "script.run_shoot.largest_difference": off[runs].max(),
    }
    return figures, table


def play_scenario(
    scenario: str,
    episodes: int,
) -> list[dict[str, Any]]:
    """Play all scripts in one program; return a row of results for each."""
    setup = make_setup(scenario, {})
    act = side_by_side(setup, SCRIPTS, episodes)
    played = play(
        scenario,
        act,
        episodes * len(SCRIPTS),
        jax.random.key(0),
    )
    engine = {
        cell["script"]: cell
        for cell in load_json("scripts")
        if cell["scenario"] == scenario
    }
    rows = []
    for index, script in enumerate(SCRIPTS):
        own = slice(index * episodes, (index + 1) * episodes)
        cell = engine[script]
        rows.append(
            {
                "scenario": scenario,
                "script": script,
                "win": float((played["score"][own, 0] > 0).mean()),
                "engine_win": cell["wins"] / cell["n"],
                "steps": float(played["length"][own].mean()),
                "engine_steps": cell["mean_len"],
                "ends": shares(Counter(played["end"][own])),
                "engine_ends": shares(cell["ends"]),
            }
        )
    return rows


def side_by_side(
    setup: Setup,
    scripts: tuple[str, ...],
    episodes: int,
) -> Script:
    """Return a script that plays each of several scripts in its own environments."""
    acts = [make_script(setup, name) for name in scripts]

    def act(
        obs: EntityObs,
        key: Key,
    ) -> Int[Array, "B N"]:
        actions = []
        for index, script in enumerate(acts):
            own = slice(index * episodes, (index + 1) * episodes)
            part = jax.tree.map(lambda x: x[own], obs)
            actions.append(script(part, jax.random.fold_in(key, index)))
        return jnp.concatenate(actions)

    return act


def shares(counts: Any) -> str:
    """Return the shares of some reasons to end as text, in percent."""
    total = sum(counts.values())
    parts = [f"{name} {100 * n / total:.0f}" for name, n in sorted(counts.items()) if n]
    return ", ".join(parts)


def rank_correlation(
    a: np.ndarray,
    b: np.ndarray,
) -> float:
    """Return Spearman's correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    return below + (equal - 1) / 2


def reproduced_actions() -> float:
    """Return the share of the actions of ``run_shoot`` recordings that the rules give."""
    same = [reproduced(scenario) for scenario in SCENARIOS]
    return float(np.concatenate(same).mean())


def reproduced(scenario: str) -> Bool[np.ndarray, "n"]:
    """Return whether the rules give each action of the recordings of a scenario."""
    setup = make_setup(scenario, {})
    records = records_of(scenario)
    runs = {name: records[name] for name in records if "run_shoot" in name}
    names = [split_name(name)[1] for name in runs]
    scripts = tuple(sorted(set(names)))
    fields = {
        field: _cut([run[field] for run in runs.values()]) for field in FRAME_FIELDS
    }
    recorded = [run["actions"] for run in runs.values()]
    fields["sticky"] = _cut([sticky_rows(actions) for actions in recorded])
    times = np.concatenate([np.arange(len(actions)) for actions in recorded])
    given = np.asarray(_scripted_actions(setup, scripts, fields, times))
    lengths = [len(actions) for actions in recorded]
    which = np.repeat(
        [scripts.index(name) for name in names],
        lengths,
    )
    same = given[which, np.arange(len(which))] == np.concatenate(recorded)
    return same.ravel()


def _cut(rows: list[np.ndarray]) -> np.ndarray:
    """Return the rows before each action, of all recordings."""
    return np.concatenate([values[:-1] for values in rows])


@partial(jax.jit, static_argnums=(0, 1))
def _scripted_actions(
    setup: Setup, scripts: tuple[str, ...], frames: dict, times: Int[Array, "B"]
) -> Int[Array, "scripts B N"]:
    """Return the actions of each script in all frames."""
    key = jax.random.key(0)
    start = to_world(begin(setup, key, len(times)))
    world = restore(setup, start, frames).replace(steps=times)
    obs = observe_state(setup, to_state(world))
    return jnp.stack([make_script(setup, script)(obs, key) for script in scripts])
