"""Running statistics of value targets, so that the critic learns numbers of order one."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float


MIN_VARIANCE = 1e-4


class ValueStats(struct.PyTreeNode):
    """Exponential moving averages that start at zero, and the weight they have gathered."""

    mean: Float[Array, ""]
    square: Float[Array, ""]
    weight: Float[Array, ""]


def init_stats() -> ValueStats:
    """Statistics that have seen nothing; with them both maps below are the identity."""
    return ValueStats(mean=jnp.zeros(()), square=jnp.zeros(()), weight=jnp.zeros(()))


def update_stats(
    stats: ValueStats,
    target: Float[Array, "..."],
    mask: Bool[Array, "..."],
    *,
    decay: float,
) -> ValueStats:
    """Take in the finite targets where ``mask``; none at all leaves the statistics as they are.

    The value normalization of Yu et al. 2022 (arXiv:2103.01955), Appendix: an average of mean and
    mean square with the bias of its zero start divided out. Differs from it: one update a learning
    phase, not one a minibatch, and a shorter memory.
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
    """The debiased mean and standard deviation; 0 and 1 before the first update."""
    seen = stats.weight > 0
    weight = jnp.where(seen, stats.weight, 1.0)
    mean = stats.mean / weight
    variance = jnp.maximum(stats.square / weight - mean**2, MIN_VARIANCE)
    return mean, jnp.where(seen, jnp.sqrt(variance), 1.0)


def normalize(stats: ValueStats, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """From units of reward to units of the critic's output."""
    mean, std = mean_std(stats)
    return (value - mean) / std


def denormalize(stats: ValueStats, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """From units of the critic's output to units of reward."""
    mean, std = mean_std(stats)
    return value * std + mean
