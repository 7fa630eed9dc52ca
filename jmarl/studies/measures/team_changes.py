"""Measure of changing teams: win rates in other scenarios, and recovery after a change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jmarl.config import check, check_positive, check_range
from jmarl.envs import registry
from jmarl.envs.battle.smac.smac_state import State
from jmarl.saved.grid_cells import is_same_env
from jmarl.saved.record import make_recorder
from jmarl.studies.measures.saved_run import SavedRun
from jmarl.studies.results import MEASURE_EPISODES
from jmarl.training.anakin import Actor
from jmarl.training.build import BuiltRun, build_run
from jmarl.training.compatibility import check_acting


KEY = "measure.options.scenarios"
LEAST_SHARE = 0.1
"""Rows on which fewer of the changes are still observed do not count."""


@dataclass(frozen=True)
class Options:
    """Scenarios, and the definition of a recovery.

    Attributes:
        scenarios: Names or paths of scenarios with the units of the training scenario.
        episodes: Greedy episodes in each scenario.
        window: Time steps over which damage rates are averaged.
        share: Share of the rate before the change at which a team has recovered.
        seed: Seed of the episodes.
    """

    scenarios: tuple[str, ...]
    episodes: int = MEASURE_EPISODES
    window: int = 5
    share: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        check(len(self.scenarios) > 0, KEY, (), "must name a scenario")
        check_range("measure.options.episodes", self.episodes, 1)
        check_range("measure.options.window", self.window, 1)
        check_positive("measure.options.share", self.share)


class Trace(NamedTuple):
    """Recorded rows of greedy episodes."""

    damage: Float[np.ndarray, "T B"]
    """Health and shields that the enemies lose at each step."""
    changes: Bool[np.ndarray, "T B"]
    """Whether an ally arrives or is withdrawn alive at each step."""
    last: Bool[np.ndarray, "T B"]
    """Whether the step ends an episode."""
    won: Float[np.ndarray, "T B"]


def measure(run: SavedRun, options: Options) -> dict[str, Any]:
    """Return the results of a run in several scenarios.

    Args:
        run: The run; the parameters of each seed's best evaluation are measured.
        options: Scenarios.

    Returns:
        For each scenario, by ``<metric>/<scenario>``: ``win_rate``, ``retention`` (the share of
        the win rate in the training scenario), and ``recovery`` (time steps, see
        ``recovery_time``), None if it is undefined.

    Raises:
        ConfigError: If a run is not of the environment ``battle``, or its parameters do not fit
            a scenario.
    """
    runs = _scenarios(run.built, options.scenarios)
    params, keys = run.params(), run.keys(options.seed)
    traces = {}
    for name, built in runs.items():
        record = jax.jit(_recorder(built, options.episodes))
        inputs = zip(params, keys, strict=True)
        traces[name] = [Trace(*jax.device_get(record(*pair))) for pair in inputs]
    wins = {name: [win_rate(x) for x in found] for name, found in traces.items()}
    same = (name for name in runs if is_same_env(runs[name].config, run.built.config))
    training = wins[next(same)]
    found: dict[str, Any] = {}
    for name in options.scenarios:
        pairs = zip(wins[name], training, strict=True)
        times = [_recovery(trace, options) for trace in traces[name]]
        found[f"win_rate/{name}"] = wins[name]
        found[f"retention/{name}"] = [x / y if y > 0 else None for x, y in pairs]
        found[f"recovery/{name}"] = times
    undefined = [name for name, x in found.items() if set(x) == {None}]
    return {name: x for name, x in found.items() if name not in undefined}


def _scenarios(
    own: BuiltRun,
    names: tuple[str, ...],
) -> dict[str, BuiltRun]:
    """Build a run in other scenarios, and in its own if that is not among them."""
    env = own.config.env["name"]
    rule = "has no scenario; measure runs of env=battle"
    check(env == "battle", "env", env, rule)
    built = {}
    for name in names:
        options = {**own.config.env, "scenario": name}
        inlined = registry.inline_files(env, options)
        built[name] = build_run(dataclasses.replace(own.config, env=inlined))
        check_acting(KEY, name, built[name], own)
    if any(is_same_env(each.config, own.config) for each in built.values()):
        return built
    return {**built, "": own}


def _recorder(run: BuiltRun, episodes: int) -> Any:
    _, env, system = run
    n = env.spec.n_agents

    def read(before: Actor, after: Actor) -> Any:
        old, new = before.env_state, after.env_state
        assert isinstance(old, State) and isinstance(new, State)
        lost = jnp.clip(_strength(old) - _strength(new), 0.0)[:, n:].sum(-1)
        step = after.timestep
        return lost, _changes(old, new, n), step.last, step.info["won"]

    record = make_recorder(env, system, episodes, read)
    return lambda params, key: record(params, key, jnp.zeros(()))


def _strength(state: State) -> jax.Array:
    return state.health if state.shield is None else state.health + state.shield


def _changes(old: State, new: State, n: int) -> jax.Array:
    """Return whether an ally arrives or is withdrawn alive between two states, ``[B]``."""
    step = new.steps[:, None]
    changes = jnp.zeros_like(new.health[:, :n], bool)
    if new.arrives is not None:
        changes |= (new.arrives[:, :n] == step) & (step > 0)
    if old.leaves is not None:
        changes |= (old.leaves[:, :n] == step) & old.alive[:, :n]
    return changes.any(-1)


def win_rate(trace: Trace) -> float:
    """Return the share of first episodes that were won."""
    end = trace.last.argmax(0)
    return float(np.take_along_axis(trace.won, end[None], 0).mean())


def _recovery(trace: Trace, options: Options) -> float | None:
    before, after = damage_rates(trace, options.window)
    if not len(after):
        return None
    return recovery_time(before, after, options.window, options.share)


def damage_rates(
    trace: Trace, window: int
) -> tuple[Float[np.ndarray, " W"], Float[np.ndarray, " H"]]:
    """Return the mean damage at each step before and after a change.

    The mean is over the changes of all first episodes that last until that step. Steps that
    fewer than ``LEAST_SHARE`` of the changes reach are left out.

    Args:
        trace: Recorded episodes.
        window: Steps W before a change.

    Returns:
        Damage of the W steps before a change and of the H steps after it. Both are empty without
        a change.
    """
    end = trace.last.argmax(0)
    length = len(trace.last)
    rows = np.full(
        (window + length, trace.changes.sum()),
        np.nan,
    )
    column = 0
    for t, b in np.argwhere(trace.changes):
        if t >= end[b]:
            continue
        first = max(0, t + 1 - window)
        series = trace.damage[first : end[b] + 1, b]
        start = window - (t + 1 - first)
        rows[start : start + len(series), column] = series
        column += 1
    if column == 0:
        return np.empty(0), np.empty(0)
    rows = rows[:, :column]
    counts = np.isfinite(rows).sum(1)
    means = np.nansum(rows, 1) / np.maximum(counts, 1)
    reached = counts >= LEAST_SHARE * column
    before = means[:window][reached[:window]]
    after = means[window:][reached[window:]]
    return before, after


def recovery_time(
    before: Float[np.ndarray, " W"],
    after: Float[np.ndarray, " H"],
    window: int,
    share: float,
) -> float | None:
    """Return the number of steps after a change until a rate has recovered.

    That is the first step from which the mean over ``window`` steps is at least ``share`` of the
    mean before the change. It is 0 if the rate never fell.

    Args:
        before: Rates before the change.
        after: Rates after it.
        window: Steps of a mean.
        share: Share of the earlier mean.

    Returns:
        Steps; None without damage before the change, or if the rate does not recover.
    """
    if len(before) == 0 or not before.mean() > 0 or len(after) < window:
        return None
    means = np.lib.stride_tricks.sliding_window_view(after, window).mean(-1)
    recovered = np.flatnonzero(means >= share * before.mean())
    return float(recovered[0]) if len(recovered) else None
