"""Confidence intervals of results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


Z95 = 1.959964
"""Quantile of the standard normal distribution for two-sided 95 % intervals."""


class Proportion(NamedTuple):
    """Share of successes among independent trials, such as the win rate of some episodes."""

    mean: float
    trials: int


def confidence_interval(x: Float[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Compute the mean and its 95 % confidence interval.

    Binary values get the interval of a proportion. Other values get the normal interval.

    Args:
        x: One value per episode, ``[N]``.

    Returns:
        Mean, lower bound and upper bound.
    """
    n = len(x)
    mean = float(np.mean(x))
    if np.isin(x, (0.0, 1.0)).all():
        return mean, *wilson_interval(Proportion(mean, n))
    half = Z95 * float(np.std(x, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return mean, mean - half, mean + half


def seed_interval(
    x: Float[np.ndarray, " S"], least_variance: float = 0.0
) -> tuple[float, float, float]:
    """Compute the mean over seeds and its 95 % confidence interval (Student's t).

    Args:
        x: One result per seed, ``[S]``.
        least_variance: Least variance of a result, from its finite number of episodes. It counts
            if the seeds vary less.

    Returns:
        Mean, lower bound and upper bound. The bounds of one seed are infinite.
    """
    from scipy.special import stdtrit  # slow to import

    n, mean = len(x), float(np.mean(x))
    if n == 1:
        return mean, -math.inf, math.inf
    deviation = math.sqrt(max(np.var(x, ddof=1), least_variance))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def win_rate_variance(mean: float, seeds: int, episodes: int) -> float:
    """Return the variance of the win rate of one seed, due to its finite number of episodes.

    Two wins and two losses are added to all episodes (Agresti and Coull 1998), so that the
    variance is positive even if all episodes were won.

    Args:
        mean: Mean win rate over the seeds.
        seeds: Number of seeds.
        episodes: Episodes of each seed.
    """
    total = seeds * episodes
    rate = (mean * total + 2) / (total + 4)
    return rate * (1 - rate) / episodes


LeastVariances = tuple[float, float]
"""Least variance of a result of either side, as in ``seed_interval``."""


def seed_difference(
    x: Float[np.ndarray, " S"],
    y: Float[np.ndarray, " R"],
    least: LeastVariances = (0.0, 0.0),
) -> tuple[float, float, float]:
    """Compute the difference of two means over seeds and its 95 % confidence interval (Welch).

    Args:
        x: One result per seed, ``[S]``.
        y: Results of other seeds or of another system, ``[R]``.
        least: Least variances of the results.

    Returns:
        Mean of ``x`` minus mean of ``y``, lower bound and upper bound. The bounds are infinite if
        ``x`` or ``y`` has one seed.
    """
    from scipy.special import stdtrit  # slow to import

    difference, error, freedom = _welch(x, y, least)
    if math.isnan(error):
        return difference, -math.inf, math.inf
    half = float(stdtrit(freedom, 0.975)) * error if error else 0.0
    return difference, difference - half, difference + half


def seed_p_value(
    x: Float[np.ndarray, " S"],
    y: Float[np.ndarray, " R"],
    least: LeastVariances = (0.0, 0.0),
) -> float:
    """Compute the two-sided p-value of Welch's t-test of equal means over seeds.

    Args:
        x: One result per seed, ``[S]``.
        y: Results of other seeds or of another system, ``[R]``.
        least: Least variances of the results.

    Returns:
        The p-value; NaN if ``x`` or ``y`` has one seed. If neither varies over its seeds, it is
        1 for equal values and 0 for others.
    """
    from scipy.special import stdtr  # slow to import

    difference, error, freedom = _welch(x, y, least)
    if math.isnan(error):
        return math.nan
    if error == 0:
        return float(difference == 0)
    return 2 * float(stdtr(freedom, -abs(difference) / error))


def _welch(
    x: np.ndarray, y: np.ndarray, least: LeastVariances
) -> tuple[float, float, float]:
    """Return the difference of two means, its standard error, and the degrees of freedom.

    The error is NaN for one seed. The degrees of freedom are NaN without variation.
    """
    difference = float(np.mean(x) - np.mean(y))
    sizes = np.array([len(x), len(y)])
    if sizes.min() == 1:
        return difference, math.nan, math.nan
    variances = np.maximum([np.var(x, ddof=1), np.var(y, ddof=1)], least)
    return difference, *satterthwaite(variances / sizes, sizes)


def satterthwaite(
    errors: Float[np.ndarray, " M"], sizes: Int[np.ndarray, " M"]
) -> tuple[float, float]:
    """Return the standard error of a sum of means, and its degrees of freedom.

    Args:
        errors: Variance of each mean, from its sample.
        sizes: Size of each sample, at least 2.

    Returns:
        Standard error, and degrees of freedom (Satterthwaite 1946), which are NaN without
        variation.
    """
    if not errors.any():
        return 0.0, math.nan
    freedom = errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum()
    return math.sqrt(errors.sum()), float(freedom)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests by Holm's method (1979).

    Tests with an adjusted value below 0.05 are significant together, with a probability of at
    most 5 % for any wrong one among them.

    Args:
        p: One p-value per test.

    Returns:
        The adjusted values, in the order of ``p``.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.maximum.accumulate(factors * np.asarray(p, float)[order])
    result = np.empty(len(p))
    result[order] = np.minimum(adjusted, 1.0)
    return result.tolist()


def wilson_interval(share: Proportion) -> tuple[float, float]:
    """Compute the 95 % score interval of a proportion (Wilson 1927).

    It lies in [0, 1] and does not collapse to a point at 0 or 1.

    Returns:
        Lower bound and upper bound.
    """
    p, n = share
    shrinkage = 1 + Z95**2 / n
    center = (p + Z95**2 / (2 * n)) / shrinkage
    half = Z95 / shrinkage * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    # In exact arithmetic the interval contains p. Rounding may exclude 0 or 1.
    low = min(p, center - half)
    high = max(p, center + half)
    return max(0.0, low), min(1.0, high)
