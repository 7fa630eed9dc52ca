"""Running statistics of value targets, which keep the outputs of the critic of order one.

Value normalization of Yu et al. 2022 (arXiv:2103.01955), Appendix: exponential moving averages
of mean and mean square, corrected for the bias of their start at zero.

Differs from the paper: one update per learning phase instead of one per minibatch, and a
shorter memory.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float


MIN_VARIANCE = 1e-4


class ValueStats(struct.PyTreeNode):
    """Exponential moving averages that start at zero."""

    mean: Float[Array, ""]
    """Average of the targets, biased towards zero."""
    square: Float[Array, ""]
    """Average of the squared targets, biased towards zero."""
    weight: Float[Array, ""]
    """Sum of the weights of all updates, which divides the bias out."""


def init_stats() -> ValueStats:
    """Return statistics without data.

    Returns:
        Statistics for which ``normalize`` and ``denormalize`` are the identity.
    """
    return ValueStats(mean=jnp.zeros(()), square=jnp.zeros(()), weight=jnp.zeros(()))


def update_stats(
    stats: ValueStats,
    target: Float[Array, "..."],
    mask: Bool[Array, "..."],
    *,
    decay: float,
) -> ValueStats:
    """Add a batch of value targets to the statistics.

    Args:
        stats: Statistics before the batch.
        target: Value targets in units of reward ``[...]``. Targets that are not finite are ignored.
        mask: Mask of the targets that count. It broadcasts against ``target``.
        decay: Weight of the old averages in [0, 1]. With 1 values are not normalized.

    Returns:
        New statistics, or the old ones if no target counts.
    """
    mask = jnp.broadcast_to(mask, target.shape) & jnp.isfinite(target)
    target = jnp.where(mask, target, 0.0)
    count = mask.sum()
    rate = jnp.where(count > 0, 1.0 - decay, 0.0)

    def blend(old, new):
        return (1.0 - rate) * old + rate * new

    return ValueStats(
        mean=blend(stats.mean, jnp.sum(target) / jnp.maximum(count, 1)),
        square=blend(stats.square, jnp.sum(target**2) / jnp.maximum(count, 1)),
        weight=blend(stats.weight, 1.0),
    )


def mean_std(stats: ValueStats) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the mean and the standard deviation, without the bias of the start at zero.

    Args:
        stats: Running statistics.

    Returns:
        Mean and standard deviation; 0 and 1 before the first update.
    """
    updated = stats.weight > 0
    weight = jnp.where(updated, stats.weight, 1.0)
    mean = stats.mean / weight
    variance = jnp.maximum(stats.square / weight - mean**2, MIN_VARIANCE)
    return mean, jnp.where(updated, jnp.sqrt(variance), 1.0)


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
