"""Aggregates of scores over tasks and seeds (Agarwal et al. 2021, arXiv:2108.13264, section 4.3).

Every function reduces the last axis of its arrays, so that it also takes bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


Scores = Sequence[Float[np.ndarray, "... S"]]
"""One array per task, with one score per seed on the last axis. Tasks may differ in ``S``."""
TRIM = 0.25
"""Share of the scores that the interquartile mean removes at either end."""


def task_means(scores: Scores) -> Float[np.ndarray, "... M"]:
    """Return the mean over seeds of each task."""
    return np.stack(
        [np.mean(x, axis=-1) for x in scores],
        axis=-1,
    )


def mean(scores: Scores) -> Float[np.ndarray, "..."]:
    """Return the mean over tasks of the means over seeds."""
    return task_means(scores).mean(-1)


def median(scores: Scores) -> Float[np.ndarray, "..."]:
    """Return the median over tasks of the means over seeds.

    It is the median over seeds if there is a single task.
    """
    values = scores[0] if len(scores) == 1 else task_means(scores)
    return np.median(values, axis=-1)


def interquartile_mean(scores: Scores) -> Float[np.ndarray, "..."]:
    """Return the mean of the middle half of all scores (IQM).

    A quarter of the scores, rounded down, is removed at either end. With three scores or fewer
    it is the mean.
    """
    values = np.sort(
        np.concatenate(scores, axis=-1),
        axis=-1,
    )
    count = values.shape[-1]
    cut = int(TRIM * count)
    return values[..., cut : count - cut].mean(-1)


def optimality_gap(
    scores: Scores,
    target: float = 1.0,
) -> Float[np.ndarray, "..."]:
    """Return the mean distance by which scores fall short of a target.

    Args:
        scores: Scores by task.
        target: Desired score. A score above it has no gap.
    """
    values = np.concatenate(scores, axis=-1)
    return target - np.minimum(values, target).mean(-1)


AGGREGATES = {
    "IQM": interquartile_mean,
    "median": median,
    "mean": mean,
    "optimality gap": optimality_gap,
}
"""Aggregates by the name that tables show."""
