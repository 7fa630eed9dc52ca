"""Confidence intervals of results."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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


def seed_interval(x: Float[np.ndarray, " S"]) -> tuple[float, float, float]:
    """Compute the mean over seeds and its 95 % confidence interval (Student's t).

    Args:
        x: One result per seed, ``[S]``.

    Returns:
        Mean, lower bound and upper bound. The bounds of one seed are infinite.
    """
    from scipy.special import stdtrit  # slow to import

    n, mean = len(x), float(np.mean(x))
    if n == 1:
        return mean, -math.inf, math.inf
    half = float(stdtrit(n - 1, 0.975) * np.std(x, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def seed_difference(
    x: Float[np.ndarray, " S"], y: Float[np.ndarray, " R"]
) -> tuple[float, float, float]:
    """Compute the difference of two means over seeds and its 95 % confidence interval (Welch).

    Args:
        x: One result per seed, ``[S]``.
        y: Results of other seeds or of another system, ``[R]``.

    Returns:
        Mean of ``x`` minus mean of ``y``, lower bound and upper bound. The bounds are infinite if
        ``x`` or ``y`` has one seed.
    """
    from scipy.special import stdtrit  # slow to import

    difference = float(np.mean(x) - np.mean(y))
    sizes = np.array([len(x), len(y)])
    if sizes.min() == 1:
        return difference, -math.inf, math.inf
    errors = np.array([np.var(x, ddof=1), np.var(y, ddof=1)]) / sizes
    if not errors.any():
        return difference, difference, difference
    freedom = errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum()
    half = float(stdtrit(freedom, 0.975) * math.sqrt(errors.sum()))
    return difference, difference - half, difference + half


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
