"""Distributions of scores, and the probability that one system improves on another."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from jmarl.results.intervals import win_rate_variance
from jmarl.results.statistics.aggregates import Scores, task_means
from jmarl.results.statistics.bootstrap import (
    RESAMPLES,
    TAIL,
    Interval,
    student_interval,
)


def performance_profile(
    scores: Scores, thresholds: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "... K"]:
    """Return the share of all runs with a score above each threshold.

    Args:
        scores: Scores by task.
        thresholds: Scores to exceed, ``[K]``.
    """
    values = np.concatenate(scores, axis=-1)
    return _share_above(values, thresholds)


def task_profile(
    scores: Scores, thresholds: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "... K"]:
    """Return the share of tasks with a mean score above each threshold.

    Args:
        scores: Scores by task.
        thresholds: Scores to exceed, ``[K]``.
    """
    return _share_above(task_means(scores), thresholds)


def _share_above(
    values: Float[np.ndarray, "... N"], thresholds: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "... K"]:
    above = values[..., None, :] > np.asarray(thresholds)[:, None]
    return above.mean(-1)


def probability_of_improvement(
    x: Scores,
    y: Scores,
) -> Float[np.ndarray, "..."]:
    """Return the probability that a run of one system scores higher than one of another.

    It is the share of pairs of seeds in which ``x`` is higher, averaged over tasks. A tie counts
    as one half.

    Args:
        x: Scores of the first system, by task.
        y: Scores of the second system, for the same tasks.
    """
    pairs = zip(x, y, strict=True)
    return np.mean(
        [_wins(a, b) for a, b in pairs],
        axis=0,
    )


def _wins(
    x: Float[np.ndarray, "... S"], y: Float[np.ndarray, "... Q"]
) -> Float[np.ndarray, "..."]:
    signs = np.sign(x[..., :, None] - y[..., None, :])
    return (0.5 + 0.5 * signs).mean((-2, -1))


def improvement_interval(
    x: Scores, y: Scores, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the probability of improvement with its 95 % interval, within [0, 1].

    If all runs of one system are better in every task, no bootstrap sample differs. The variance
    is then the largest possible one, ``p (1 - p) / S`` for ``S`` seeds of the smaller sample
    (Birnbaum and Klose 1957), at the probability ``p`` of Agresti and Coull.

    Args:
        x: Scores of the first system, by task.
        y: Scores of the second system, for the same tasks.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    from scipy.special import stdtrit  # slow to import

    statistic = probability_of_improvement
    found = student_interval(statistic, x, y, resamples=resamples, seed=seed)
    value, low, high = map(float, found)
    if low == high:
        number = sum(min(len(a), len(b)) for a, b in zip(x, y, strict=True))
        freedom = sum(map(len, (*x, *y))) - 2 * len(x)
        deviation = math.sqrt(win_rate_variance(value, 1, number))
        half = float(stdtrit(freedom, 1 - TAIL)) * deviation
        low, high = value - half, value + half
    return Interval(value, max(0.0, low), min(1.0, high))
