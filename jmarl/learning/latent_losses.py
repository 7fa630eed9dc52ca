"""Losses of latents: entropy of their distributions, and spread over a team.

SHPPO (Guo et al. 2024, arXiv:2404.03869) lowers the entropy and raises the spread. Both exclude
dead and absent agents.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


MIN_RANGE = 1e-6
"""Smallest range of a team's distances that is normalized."""
PAIR_AXES = (-2, -1)
NORM_EPS = 1e-12
"""Constant added to squared norms, so that the direction of a zero latent has a gradient."""


def mean_of_living(
    x: Float[Array, "*batch N"],
    alive: Bool[Array, "*batch N"],
) -> Float[Array, "*batch"]:
    """Return the mean over living agents.

    Args:
        x: One number for each agent ``[..., N]``.
        alive: Mask of living agents ``[..., N]``.

    Returns:
        Means ``[...]``, 0 if no agent lives.
    """
    return _masked_mean(x, alive, -1)


def gaussian_entropy(
    log_sigma: Float[Array, "*batch K"],
) -> Float[Array, "*batch"]:
    """Return the entropy of Gaussians with independent components, in nats.

    Args:
        log_sigma: Log standard deviations ``[..., K]``.

    Returns:
        ``sum_k 1/2 log(2 pi e sigma_k^2)``, ``[...]``.
    """
    constant = 0.5 * math.log(2 * math.pi * math.e)
    return jnp.sum(log_sigma + constant, axis=-1)


def cosine_spread(
    latent: Float[Array, "*batch N K"],
    alive: Bool[Array, "*batch N"],
) -> Float[Array, "*batch"]:
    """Return the mean normalized cosine distance over pairs of living agents.

    Distances are normalized to [0, 1] by the minimum and maximum of their row, which have no
    gradient. If these are equal, the normalized distances are 0. The distance of a team of two is
    not normalized, because its minimum is its maximum.

    Args:
        latent: Latents ``[..., N, K]``.
        alive: Mask of living agents ``[..., N]``.

    Returns:
        Means ``[...]``, 0 if fewer than two agents live.
    """
    distance = _cosine_distance(latent)
    pairs = _pairs(alive)
    low, high = _extent(jax.lax.stop_gradient(distance), pairs)
    width = high - low
    normalized = (distance - low) / jnp.maximum(width, MIN_RANGE)
    normalized = jnp.where(width < MIN_RANGE, 0.0, normalized)
    is_pair = alive.sum(-1) == 2
    values = jnp.where(is_pair[..., None, None], distance, normalized)
    return _masked_mean(values, pairs, PAIR_AXES)


def _cosine_distance(
    latent: Float[Array, "*batch N K"],
) -> Float[Array, "*batch N N"]:
    squares = jnp.sum(latent**2, axis=-1, keepdims=True)
    direction = latent * jax.lax.rsqrt(squares + NORM_EPS)
    pairs = "...ik,...jk->...ij"
    cosine = jnp.einsum(pairs, direction, direction, precision="highest")
    return 1.0 - cosine


def _pairs(alive: Bool[Array, "*batch N"]) -> Bool[Array, "*batch N N"]:
    """Return the mask of ordered pairs of two living agents."""
    is_self = jnp.eye(alive.shape[-1], dtype=bool)
    both = alive[..., :, None] & alive[..., None, :]
    return both & ~is_self


def _extent(
    distance: Float[Array, "*batch N N"],
    pairs: Bool[Array, "*batch N N"],
) -> tuple[Float[Array, "*batch 1 1"], Float[Array, "*batch 1 1"]]:
    """Return the least and the largest distance, in [0, 2], over a mask of pairs."""
    over_pairs = {"axis": PAIR_AXES, "where": pairs, "keepdims": True}
    low = jnp.min(distance, initial=2.0, **over_pairs)
    high = jnp.max(distance, initial=0.0, **over_pairs)
    return low, high


def _masked_mean(
    x: Float[Array, "..."],
    mask: Bool[Array, "..."],
    axes: int | tuple[int, ...],
) -> Float[Array, "..."]:
    """Return the mean over a mask, 0 if the mask is empty."""
    total = jnp.where(mask, x, 0.0).sum(axes)
    count = mask.sum(axes)
    return total / jnp.maximum(count, 1)
