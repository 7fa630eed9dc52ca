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
)


Estimate = dict[str, Any]
"""``mean``, ``low`` and ``high`` over seeds, each seed in ``per_seed``, and ``note``.

An undefined number is None, and the note gives the reason.
"""
ONE_SEED = "one seed"
BOUNDS = {"won": (0.0, 1.0)}
"""Smallest and largest value of bounded metrics."""
LEVEL = 0.05
"""Significance level of comparisons."""
NO_DIFFERENCE, NOT_TESTED = "no difference", "not tested, one seed"


def estimate(
    per_seed: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """Return the mean over seeds and its 95 % interval (Student's t).

    Args:
        per_seed: One result per seed, ``[S]``.
        least: Least possible value, a bound of the interval.
        most: Largest possible value.
    """
    mean, low, high = seed_interval(np.asarray(per_seed, float))
    alone = len(per_seed) == 1
    return {
        "mean": mean,
        "low": None if alone else max(low, least),
        "high": None if alone else min(high, most),
        "per_seed": list(per_seed),
        "note": ONE_SEED if alone else "",
    }


def retention(
    test: Sequence[float], training: Sequence[float], seeds: Sequence[int]
) -> Estimate:
    """Return the share of the score that is retained in a test environment.

    The ratio of both scores is taken for each seed. Mean and interval are those of the ratios,
    so the interval reflects the variation of both scores.

    Args:
        test: Score of each seed in the test environment, ``[S]``.
        training: Score of each seed in the training environment, ``[S]``.
        seeds: Seeds, for the note.

    Returns:
        The estimate. It is undefined unless every seed has a positive score in the training
        environment.
    """
    failed = [seed for seed, x in zip(seeds, training, strict=True) if not x > 0]
    if failed:
        shown = ", ".join(map(str, failed))
        note = f"undefined: no score in training, seed {shown}"
        empty = dict.fromkeys(("mean", "low", "high"))
        return {**empty, "per_seed": None, "note": note}
    ratios = [x / y for x, y in zip(test, training, strict=True)]
    return estimate(ratios, least=0.0 if min(test) >= 0 else -math.inf)


def score(record: dict[str, Any], mode: str, metric: str) -> Estimate:
    """Return the score over the seeds from the record of an evaluation."""
    per_seed = [seed["mean"] for seed in record["results"][mode][metric]]
    return estimate(per_seed, *BOUNDS.get(metric, ()))


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
    difference, low, high = seed_difference(x, y)
    p = seed_p_value(x, y)
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
