"""Results of zero-shot tests over seeds: scores, retention, and comparisons of runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jmarl.results.intervals import (
    holm,
    seed_difference,
    seed_interval,
    seed_p_value,
    win_rate_variance,
)


Estimate = dict[str, Any]
"""``mean``, ``low`` and ``high`` over seeds, each seed in ``per_seed``, and ``note``.

``least_variance`` is the variance of a result that its finite number of episodes causes. An
undefined number is None, and the note gives the reason.
"""
ONE_SEED = "one seed"
NO_SCORE = "undefined: no score in training"
LEVEL = 0.05
"""Significance level of comparisons."""
NO_DIFFERENCE, NOT_TESTED = "no difference", "not tested, one seed"


def estimate(
    per_seed: Sequence[float],
    least: float = -math.inf,
    most: float = math.inf,
    variance: float = 0.0,
) -> Estimate:
    """Return the mean over seeds and its 95 % interval (Student's t).

    Args:
        per_seed: One result per seed, ``[S]``.
        least: Least possible value, a bound of the interval.
        most: Largest possible value.
        variance: Least variance of a result, from its finite number of episodes.
    """
    mean, low, high = seed_interval(np.asarray(per_seed, float), variance)
    alone = len(per_seed) == 1
    return {
        "mean": mean,
        "low": None if alone else max(low, least),
        "high": None if alone else min(high, most),
        "per_seed": list(per_seed),
        "least_variance": variance,
        "note": ONE_SEED if alone else "",
    }


def retention(test: Estimate, training: Estimate) -> Estimate:
    """Return the share of the score that is retained in a test environment.

    It is the ratio of the means over seeds. Its interval is that of the linear approximation of
    the ratio (Cochran 1977, section 6.4): Student's t for ``test - ratio * training`` by seed,
    divided by the mean in training.

    Args:
        test: Scores in the test environment.
        training: Scores of the same seeds in the training environment.

    Returns:
        The estimate. It is undefined if the mean score in training is not positive.
    """
    base = training["mean"]
    if not base > 0:
        return dict.fromkeys(("mean", "low", "high", "per_seed")) | {"note": NO_SCORE}
    ratio = test["mean"] / base
    x, y = np.array(training["per_seed"]), np.array(test["per_seed"])
    floor = test["least_variance"] + ratio**2 * training["least_variance"]
    # Equal scores in both environments are those of the training environment itself.
    floor = 0.0 if np.array_equal(x, y) else floor / base**2
    residuals = (y - ratio * x) / base
    least = 0.0 if min(y) >= 0 else -math.inf
    shares = [float(b / a) if a > 0 else None for a, b in zip(x, y, strict=True)]
    found = estimate(residuals + ratio, least=least, variance=floor)
    return found | {"per_seed": shares}


def score(record: dict[str, Any], mode: str, metric: str) -> Estimate:
    """Return the score over the seeds from the record of an evaluation."""
    per_seed = [seed["mean"] for seed in record["results"][mode][metric]]
    if metric != "won":
        return estimate(per_seed)
    counts = len(per_seed), record["episodes"]
    variance = win_rate_variance(float(np.mean(per_seed)), *counts)
    return estimate(per_seed, 0.0, 1.0, variance)


def compare(runs: dict[str, dict[str, Estimate]]) -> list[dict[str, Any]]:
    """Compare the scores of the first run with those of every other, in each environment.

    The test is Welch's t-test over seeds, with Holm's correction over all tests. A difference
    is claimed only if the intervals of both scores do not overlap and the adjusted p-value is
    below ``LEVEL``.

    Args:
        runs: Scores by run and environment.

    Returns:
        One record per environment and further run: ``env``, ``run``, ``to``, the
        ``difference`` with ``low`` and ``high``, ``p``, ``p_holm`` and ``verdict``.
    """
    (first, reference), *others = runs.items()
    pairs = itertools.product(reference, others)
    found = [
        {"env": env, "run": run, "to": first, **_test(own[env], reference[env])}
        for env, (run, own) in pairs
    ]
    tested = [test for test in found if test["p"] is not None]
    adjusted = holm([test["p"] for test in tested])
    for test, p in zip(tested, adjusted, strict=True):
        test["p_holm"] = p
        if test["verdict"] != NO_DIFFERENCE and not p < LEVEL:
            test["verdict"] = NO_DIFFERENCE
    return found


def _test(own: Estimate, other: Estimate) -> dict[str, Any]:
    """Test one difference, without correction for multiple tests."""
    x, y = np.array(own["per_seed"]), np.array(other["per_seed"])
    variances = own["least_variance"], other["least_variance"]
    difference, low, high = seed_difference(x, y, variances)
    p = seed_p_value(x, y, variances)
    tested = not math.isnan(p)
    verdict = NOT_TESTED
    if tested:
        overlap = own["low"] <= other["high"] and other["low"] <= own["high"]
        verdict = "higher" if difference > 0 else "lower"
        verdict = NO_DIFFERENCE if overlap else verdict
    return {
        "difference": difference,
        "low": low if tested else None,
        "high": high if tested else None,
        "p": p if tested else None,
        "p_holm": None,
        "verdict": verdict,
    }
