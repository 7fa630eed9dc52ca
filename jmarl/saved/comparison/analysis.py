"""Statistics of a comparison, as a record that JSON can represent."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from jmarl.config import check, suggest
from jmarl.results.intervals import win_rate_variance
from jmarl.results.statistics.aggregates import (
    AGGREGATES,
    Scores,
    interquartile_mean,
    mean,
)
from jmarl.results.statistics.bootstrap import (
    Interval,
    percentile_interval,
    student_interval,
)
from jmarl.results.statistics.budgets import (
    Curve,
    area_under_curve,
    common_budget,
    median_wait,
    restricted_mean_interval,
    waits,
)
from jmarl.results.statistics.pairs import (
    Pair,
    non_inferiority,
    paired,
    paired_difference,
)
from jmarl.results.statistics.profiles import improvement_interval, performance_profile
from jmarl.saved.comparison.selection import (
    SHARES,
    THRESHOLD,
    Learner,
    Options,
    Selection,
)


GAP = "optimality gap"
POINTS = 41
"""Points of a curve and of a profile."""
Record = dict[str, Any]


def analyze(found: Selection, options: Options) -> Record:
    """Return all statistics of a comparison.

    Args:
        found: Selected runs.
        options: Choices, of which the bootstrap, threshold, margin and ``against`` matter here.

    Returns:
        ``metric``, ``envs``, ``score``, ``threshold``, ``notes``; by group: ``seeds``,
        ``episodes`` (numbers of episodes behind a score), ``aggregates``, ``area``, ``waits``,
        ``curves`` and ``profile``; ``improvement`` for ordered pairs, and ``differences`` from
        one group.

    Raises:
        ConfigError: If ``against`` names no group.
    """
    draws = {"resamples": options.resamples, "seed": options.seed}
    threshold = _threshold(found, options)
    names = list(found.groups)
    pairs = itertools.permutations(names, 2)
    return {
        "metric": found.metric,
        "is_share": found.is_share,
        "envs": found.envs,
        "score": found.score,
        "threshold": threshold,
        "margin": options.margin,
        "bootstrap": draws,
        "notes": found.notes,
        "groups": {name: _group(found, name, threshold, draws) for name in names},
        "thresholds": _profile_thresholds(found).tolist(),
        "improvement": [
            {"group": x, "over": y, **_improvement(found, x, y, draws)}
            for x, y in pairs
        ],
        "differences": _differences(found, options, draws),
    }


def _threshold(found: Selection, options: Options) -> float | None:
    """Return the threshold of budgets; None if there is none."""
    if options.threshold is not None:
        return options.threshold
    return THRESHOLD if found.metric.rpartition("/")[2] in SHARES else None


def _scores(by_env: list[list[Learner]]) -> Scores:
    return [np.array([x.score for x in learners]) for learners in by_env]


def _group(
    found: Selection, name: str, threshold: float | None, draws: dict[str, int]
) -> Record:
    by_env = found.groups[name]
    scores = _scores(by_env)
    everyone = [x for by_env in found.groups.values() for x in by_env[0]]
    alone = len(found.envs) == 1 and threshold is not None
    budgets = (("env_steps", "by_steps"), ("wall_time_s", "by_time"))
    thresholds = _profile_thresholds(found)
    profile = percentile_interval(
        lambda x: performance_profile(x, thresholds), scores, **draws
    )
    return {
        "seeds": {env: len(x) for env, x in zip(found.envs, by_env, strict=True)},
        "runs": sorted({x.run for learners in by_env for x in learners}),
        "episodes": sorted({x.episodes for learners in by_env for x in learners}),
        "scores": [x.tolist() for x in scores],
        "aggregates": _aggregates(found, by_env, draws),
        "area": _area(found, by_env, draws),
        "waits": {
            key: _waits(by_env[0], everyone, axis, threshold)
            for key, axis in budgets
            if alone
        },
        "curves": {key: _curve(found, by_env, axis, draws) for key, axis in budgets},
        "profile": _plain(profile),
    }


def _aggregates(
    found: Selection, by_env: list[list[Learner]], draws: dict[str, int]
) -> Record:
    scores = _scores(by_env)
    least = _least_variance(found, by_env)
    return {
        name: _plain(
            student_interval(statistic, scores, least_variance=least, **draws),
            found.is_share,
        )
        for name, statistic in AGGREGATES.items()
        if name != GAP or found.is_share
    }


def _least_variance(found: Selection, by_env: list[list[Learner]]) -> float:
    """Return the variance of a win rate from its finite number of episodes, 0 for others."""
    if found.metric.rpartition("/")[2] not in SHARES:
        return 0.0
    variances = []
    for learners in by_env:
        rate = float(np.mean([x.score for x in learners]))
        episodes = max(1, min(x.episodes for x in learners))
        variances.append(win_rate_variance(rate, len(learners), episodes))
    return float(np.mean(variances))


def _plain(x: Interval, is_share: bool = False) -> Record:
    """Return an interval as plain numbers, clipped to [0, 1] for shares."""
    low, high = np.clip(x[1:], 0, 1) if is_share else x[1:]
    ends = {"value": x.value, "low": low, "high": high}
    return {name: np.asarray(each, float).tolist() for name, each in ends.items()}


def _limits(found: Selection, axis: str) -> list[float]:
    """Return the budget that all runs have spent, for each environment."""
    every = list(found.groups.values())
    return [
        common_budget([getattr(x, axis) for by_env in every for x in by_env[i]])
        for i in range(len(found.envs))
    ]


def _area(
    found: Selection, by_env: list[list[Learner]], draws: dict[str, int]
) -> Record:
    limits = _limits(found, "by_steps")
    areas = [
        np.array([area_under_curve(x.by_steps, limit) for x in learners])
        for learners, limit in zip(by_env, limits, strict=True)
    ]
    interval = student_interval(mean, areas, **draws)
    return {**_plain(interval, found.is_share), "limits": limits}


def _waits(
    learners: list[Learner], everyone: list[Learner], axis: str, threshold: Any
) -> Record:
    """Return the budgets to the threshold of one group, with censored seeds marked."""
    limit = common_budget([getattr(x, axis) for x in everyone])
    result = waits([getattr(x, axis) for x in learners], threshold)
    middle = median_wait(result)
    return {
        "budget": result.budget.tolist(),
        "reached": result.reached.tolist(),
        "median": None if math.isinf(middle) else middle,
        "restricted_mean": _plain(restricted_mean_interval(result, limit)),
        "limit": limit,
    }


def _curve(
    found: Selection, by_env: list[list[Learner]], axis: str, draws: dict[str, int]
) -> Record:
    """Return the IQM over a grid of budgets; over shares of the budget for several environments."""
    limits = _limits(found, axis)
    starts = [
        min(getattr(x, axis).budget[0] for g in found.groups.values() for x in g[i])
        for i in range(len(limits))
    ]
    share = np.linspace(0, 1, POINTS)
    values = [
        np.stack([_at(getattr(x, axis), low + share * (high - low)) for x in learners])
        for learners, low, high in zip(by_env, starts, limits, strict=True)
    ]
    points = [
        student_interval(interquartile_mean, [x[:, k] for x in values], **draws)
        for k in range(POINTS)
    ]
    columns = zip(*(point[:3] for point in points), strict=True)
    found_points = Interval(*map(np.array, columns))
    alone = len(limits) == 1
    budget = starts[0] + share * (limits[0] - starts[0]) if alone else share
    return {"budget": budget.tolist(), **_plain(found_points, found.is_share)}


def _at(curve: Curve, budget: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    return np.interp(budget, curve.budget, curve.values)


def _profile_thresholds(found: Selection) -> Float[np.ndarray, " P"]:
    """Return the thresholds of profiles: the range of all scores, and a tenth of it around."""
    every = [x for by_env in found.groups.values() for x in _scores(by_env)]
    scores = np.concatenate(every)
    room = 0.1 * (scores.max() - scores.min() or 1)
    low, high = scores.min() - room, scores.max() + room
    if found.is_share:
        low, high = max(0.0, low), min(1.0, high)
    return np.linspace(low, high, 101)


def _improvement(
    found: Selection, x: str, y: str, draws: dict[str, int]
) -> dict[str, Any]:
    first, second = (_scores(found.groups[name]) for name in (x, y))
    return _plain(improvement_interval(first, second, **draws), True)


def _differences(
    found: Selection, options: Options, draws: dict[str, int]
) -> list[Record]:
    """Return the differences of all groups from one, paired by seed if possible."""
    names = list(found.groups)
    base = options.against or names[0]
    fix = suggest(base, names, f"known: {', '.join(names)}")
    check(base in names, "against", base, f"no such group; {fix}")
    others = [name for name in names if name != base]
    return [
        {"group": name, "from": base, **_difference(found, name, base, options, draws)}
        for name in others
    ]


def _difference(
    found: Selection, name: str, base: str, options: Options, draws: dict[str, int]
) -> Record:
    x, y = found.groups[name], found.groups[base]
    pairs = [_seed_pair(a, b) for a, b in zip(x, y, strict=True)]
    common = [pair for pair in pairs if pair is not None]
    if len(common) < len(pairs):
        interval = student_interval(_gap, _scores(x), _scores(y), **draws)
        return {**_plain(interval), "pairs": None}
    least = _least_variance(found, x) + _least_variance(found, y)
    test: Record = {"pairs": [len(a) for a, _ in common]}
    if options.margin is not None:
        result = non_inferiority(common, options.margin, least)
        test |= {"p": result.p, "verdict": result.verdict}
    return {**_plain(paired_difference(common, least)), **test}


def _gap(x: Scores, y: Scores) -> Float[np.ndarray, "..."]:
    return mean(x) - mean(y)


def _seed_pair(x: list[Learner], y: list[Learner]) -> Pair | None:
    """Return the scores of common seeds; None for fewer than 2, or if a seed is not unique."""
    by_seed = [{each.seed: each.score for each in side} for side in (x, y)]
    if len(by_seed[0]) < len(x) or len(by_seed[1]) < len(y):
        return None
    pair = paired(*by_seed)
    return pair if len(pair[0]) > 1 else None
