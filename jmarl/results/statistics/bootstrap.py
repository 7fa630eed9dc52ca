"""Stratified bootstrap intervals of any statistic of scores.

Seeds are drawn with replacement within each task, because tasks are fixed and seeds are a sample.
Several samples, such as two systems, are resampled independently.

The percentile interval is that of Agarwal et al. (2021). With few seeds it is too narrow: for the
mean of one task it contains the true value in about 74 % of the cases with 3 seeds, 83 % with 5,
90 % with 10 and 92 % with 20. ``student_interval`` takes the standard error from the bootstrap and
its quantile from Student's t, and contains the true value in 92 to 97 % of the cases from 3 seeds
on (normal and beta-distributed scores; mean and IQM; one and three tasks). For the median over
three tasks with 5 seeds it is 90 to 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jmarl.results.statistics.aggregates import Scores


RESAMPLES = 2000
"""Default number of bootstrap samples."""
TAIL = 0.025
"""Probability beyond either end of a 95 % interval."""
Statistic = Callable[..., Any]
"""Function of one or more ``Scores`` that keeps their leading axes, ``[...]`` or ``[..., K]``."""


class Interval(NamedTuple):
    """Value of a statistic and its 95 % confidence interval: numbers, or arrays ``[K]``."""

    value: Any
    low: Any
    high: Any


def percentile_interval(
    statistic: Statistic,
    *samples: Scores,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a statistic with the percentiles of its bootstrap samples.

    Args:
        statistic: Function of the samples.
        *samples: Scores by task, one argument for each system.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    drawn = bootstrap(
        statistic,
        *samples,
        resamples=resamples,
        seed=seed,
    )
    low, high = np.quantile(
        drawn,
        (TAIL, 1 - TAIL),
        axis=0,
    )
    return Interval(statistic(*samples), low, high)


def student_interval(
    statistic: Statistic,
    *samples: Scores,
    resamples: int = RESAMPLES,
    seed: int = 0,
    least_variance: float = 0.0,
) -> Interval:
    """Return a statistic with an interval that is valid for few seeds.

    The bootstrap gives the standard error. It is multiplied by ``sqrt(N / (N - M))`` for ``N``
    scores in ``M`` strata, because resampling underestimates variances by this factor, and by the
    quantile of Student's t with ``N - M`` degrees of freedom. For the mean of one task the result
    is ``jmarl.results.intervals.seed_interval``, up to the error of resampling.

    Args:
        statistic: Function of the samples.
        *samples: Scores by task, one argument for each system.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
        least_variance: Least variance of one score, from its finite number of episodes.

    Returns:
        The interval. Its ends are infinite if a task has one seed.
    """
    from scipy.special import stdtrit  # slow to import

    value = statistic(*samples)
    sizes = np.array([x.shape[-1] for scores in samples for x in scores])
    freedom = sizes.sum() - len(sizes)
    if sizes.min() < 2:
        endless = np.full_like(value, math.inf, dtype=float)
        return Interval(value, -endless, endless)
    drawn = bootstrap(
        statistic,
        *samples,
        resamples=resamples,
        seed=seed,
    )
    variance = drawn.var(axis=0, ddof=1) * sizes.sum() / freedom
    error = np.sqrt(np.maximum(variance, least_variance / sizes.sum()))
    half = stdtrit(freedom, 1 - TAIL) * error
    return Interval(value, value - half, value + half)


def bootstrap(
    statistic: Statistic,
    *samples: Scores,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Return a statistic of bootstrap samples, ``[resamples, ...]``.

    Raises:
        ValueError: If a task has no score.
    """
    rng = np.random.default_rng(seed)
    drawn = [[_resample(rng, x, resamples) for x in scores] for scores in samples]
    return np.asarray(statistic(*drawn), float)


def _resample(
    rng: np.random.Generator,
    x: np.ndarray,
    resamples: int,
) -> np.ndarray:
    size = len(x)
    return np.asarray(x)[rng.integers(size, size=(resamples, size))]
