"""Confidence intervals of results."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


Z95 = 1.959964
"""Quantile of the standard normal distribution for two-sided 95 % intervals."""


def confidence_interval(x: Float[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Compute the mean and its 95 % confidence interval.

    Binary values get the interval of Wilson (1927), which does not collapse to a point
    when all values are equal. Other values get the normal interval.

    Args:
        x: One value per episode, ``[N]``.

    Returns:
        Mean, lower bound and upper bound.
    """
    n = len(x)
    mean = float(np.mean(x))
    if np.isin(x, (0.0, 1.0)).all():
        center = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        root = math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n**2))
        half = Z95 / (1 + Z95**2 / n) * root
        return mean, max(0.0, center - half), min(1.0, center + half)
    half = Z95 * float(np.std(x, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return mean, mean - half, mean + half
