"""Differences between systems: paired by seed, and against a margin given beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jmarl.results.intervals import satterthwaite
from jmarl.results.statistics.bootstrap import TAIL, Interval


Pair = tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]
NON_INFERIOR, INFERIOR, UNDECIDED = "non-inferior", "inferior", "undecided"


class NonInferiority(NamedTuple):
    """Result of a test of non-inferiority."""

    difference: Interval
    """Mean difference, with its 95 % interval."""
    margin: float
    """Largest loss that counts as equal."""
    p: float
    """One-sided p-value of a loss of at least the margin."""
    verdict: str
    """``non-inferior``, ``inferior`` or ``undecided``."""


def paired(
    x: Mapping[int, float],
    y: Mapping[int, float],
) -> Pair:
    """Return the scores of the seeds that both systems have, in the order of the seeds.

    Args:
        x: Score of each seed of one system.
        y: Score of each seed of another.
    """
    common = sorted(x.keys() & y.keys())
    return np.array([x[s] for s in common]), np.array([y[s] for s in common])


def paired_difference(pairs: Sequence[Pair], least_variance: float = 0.0) -> Interval:
    """Return the mean paired difference and its 95 % interval (Student's t).

    Differences are averaged over the seeds of a task, and then over tasks. The degrees of freedom
    are those of Satterthwaite (1946), which are ``S - 1`` for one task.

    Args:
        pairs: Scores of both systems on the same seeds, for each task.
        least_variance: Least variance of a difference, from the finite numbers of episodes.
    """
    from scipy.special import stdtrit  # slow to import

    mean, error, freedom = _moments(pairs, least_variance)
    if math.isnan(error):
        return Interval(mean, -math.inf, math.inf)
    half = float(stdtrit(freedom, 1 - TAIL)) * error if error else 0.0
    return Interval(mean, mean - half, mean + half)


def non_inferiority(
    pairs: Sequence[Pair], margin: float, least_variance: float = 0.0
) -> NonInferiority:
    """Test if a system is worse than another by less than a margin.

    The first system is non-inferior if the 95 % interval of its difference lies above ``-margin``,
    which is a one-sided test at 2.5 %. It is inferior if the interval lies below ``-margin``.
    Otherwise the data do not decide. The margin must be chosen before the runs.

    Args:
        pairs: Scores of the first and of the second system on the same seeds, for each task.
            Higher scores are better.
        margin: Largest loss that counts as equal, positive.
        least_variance: As in ``paired_difference``.

    Raises:
        ValueError: If the margin is not positive.
    """
    from scipy.special import stdtr  # slow to import

    if not margin > 0:
        raise ValueError(f"margin {margin:g} must be positive")
    difference = paired_difference(pairs, least_variance)
    mean, error, freedom = _moments(pairs, least_variance)
    excess = mean + margin
    if error > 0:
        p = float(stdtr(freedom, -excess / error))
    else:
        p = math.nan if math.isnan(error) else float(excess <= 0)
    above = difference.low > -margin
    verdict = NON_INFERIOR if above else UNDECIDED
    verdict = INFERIOR if difference.high < -margin else verdict
    return NonInferiority(difference, margin, p, verdict)


def _moments(
    pairs: Sequence[Pair], least_variance: float
) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom; NaN for both with a single seed."""
    differences = [x - y for x, y in pairs]
    sizes = np.array([len(d) for d in differences])
    mean = float(np.mean([d.mean() for d in differences]))
    if sizes.min() < 2:
        return mean, math.nan, math.nan
    variances = np.array([d.var(ddof=1) for d in differences])
    variances = np.maximum(variances, least_variance)
    errors = variances / sizes / len(sizes) ** 2
    return mean, *satterthwaite(errors, sizes)
