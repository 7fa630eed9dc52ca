"""Running statistics of value targets, which keep the outputs of the critic of order one.

Value normalization of Yu et al. 2022 (arXiv:2103.01955), Appendix: moving averages of the first
two moments, in which the initial values have no weight.

Differs from the paper:

* Mean and variance are stored, instead of mean and mean square. A batch is merged with the formula
  of Chan et al. 1979 (Updating formulae and a pairwise algorithm for computing sample variances).
  The difference of two large squares never occurs, so nothing cancels for a large mean.
* One update per learning phase instead of one per minibatch, and a shorter memory.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from jmarl.learning.parallel import sum_rows


MIN_VARIANCE = 1e-4


class ValueStats(struct.PyTreeNode):
    """Mean and variance of value targets, averaged over recent batches."""

    mean: Float[Array, ""]
    variance: Float[Array, ""]
    weight: Float[Array, ""]
    """Weight of the averages in the next merge: 0 without data, and at most 1."""


def init_stats() -> ValueStats:
    """Return statistics without data.

    Returns:
        Statistics for which ``normalize`` and ``denormalize`` are the identity.
    """
    return ValueStats(mean=jnp.zeros(()), variance=jnp.ones(()), weight=jnp.zeros(()))


def update_stats(
    stats: ValueStats,
    target: Float[Array, "..."],
    mask: Bool[Array, "..."],
    *,
    rate: float,
) -> ValueStats:
    """Merge a batch of value targets into the statistics.

    Args:
        stats: Statistics before the batch.
        target: Value targets in units of reward ``[...]``. Targets that are not finite are ignored.
        mask: Mask of the targets that count. It broadcasts against ``target``.
        rate: Weight of the batch in [0, 1]; that of the old statistics is ``1 - rate``. With 0
            values are not normalized.

    Returns:
        New statistics, or the old ones if no target counts.
    """
    mask = jnp.broadcast_to(mask, target.shape) & jnp.isfinite(target)
    batch_mean, batch_variance = _moments(target, mask)
    batch_weight = jnp.where(mask.any(), rate, 0.0)
    weight = (1.0 - batch_weight) * stats.weight + batch_weight
    share = batch_weight / jnp.where(weight > 0, weight, 1.0)
    gap = batch_mean - stats.mean
    within = (1.0 - share) * stats.variance + share * batch_variance
    return ValueStats(
        mean=stats.mean + share * gap,
        variance=within + share * (1.0 - share) * gap**2,
        weight=weight,
    )


def _moments(
    x: Float[Array, "..."], mask: Bool[Array, "..."]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return mean and variance over a mask, from deviations from a first estimate."""
    count = jnp.maximum(mask.sum(), 1)

    def mean(y: Float[Array, "..."]) -> Float[Array, ""]:
        return sum_rows(jnp.where(mask, y, 0.0)) / count

    estimate = mean(x)
    error = mean(x - estimate)
    variance = mean((x - estimate) ** 2) - error**2
    return estimate + error, variance


def mean_std(stats: ValueStats) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the mean and the standard deviation.

    Args:
        stats: Running statistics.

    Returns:
        Mean and standard deviation; 0 and 1 before the first update.
    """
    return stats.mean, jnp.sqrt(jnp.maximum(stats.variance, MIN_VARIANCE))


def normalize(stats: ValueStats, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert values from units of reward to normalized units.

    Args:
        stats: Running statistics.
        value: Values in units of reward, of any shape.

    Returns:
        Values in the units of the critic's output, of the same shape.
    """
    mean, std = mean_std(stats)
    return (value - mean) / std


def denormalize(stats: ValueStats, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert values from normalized units to units of reward.

    Args:
        stats: Running statistics.
        value: Values in the units of the critic's output, of any shape.

    Returns:
        Values in units of reward, of the same shape.
    """
    mean, std = mean_std(stats)
    return value * std + mean
