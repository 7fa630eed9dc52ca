"""Losses of latents: entropy of their distributions, and spread over a team.

SHPPO (Guo et al. 2024, arXiv:2404.03869) lowers the entropy and raises the spread. Agents that are
dead or absent count in neither.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


MIN_RANGE = 1e-6
"""Smallest range of a team's distances that is normalized."""
NORM_EPS = 1e-12
"""Constant added to squared norms, so that the direction of a zero latent has a gradient."""


def mean_of_living(
    x: Float[Array, "*batch N"], alive: Bool[Array, "*batch N"]
) -> Float[Array, "*batch"]:
    """Return the mean over living agents.

    Args:
        x: One number for each agent ``[..., N]``.
        alive: Mask of living agents ``[..., N]``.

    Returns:
        Means ``[...]``, 0 if no agent lives.
    """
    total = jnp.where(alive, x, 0.0).sum(-1)
    return total / jnp.maximum(alive.sum(-1), 1)


def gaussian_entropy(
    log_sigma: Float[Array, "*batch K"],
) -> Float[Array, "*batch"]:
    """Return the entropy of Gaussians with independent components, in nats.

    Args:
        log_sigma: Log standard deviations ``[..., K]``.

    Returns:
        ``sum_k 1/2 log(2 pi e sigma_k^2)``, ``[...]``.
    """
    return (log_sigma + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def cosine_spread(
    latent: Float[Array, "*batch N K"], alive: Bool[Array, "*batch N"]
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
    squares = (latent**2).sum(-1, keepdims=True)
    direction = latent * jax.lax.rsqrt(squares + NORM_EPS)
    # [..., N, N]
    distance = 1.0 - jnp.einsum("...ik,...jk->...ij", direction, direction)
    is_other = ~jnp.eye(alive.shape[-1], dtype=bool)
    pairs = alive[..., :, None] & alive[..., None, :] & is_other
    fixed = jax.lax.stop_gradient(distance)
    low = fixed.min((-2, -1), where=pairs, initial=2.0, keepdims=True)
    high = fixed.max((-2, -1), where=pairs, initial=0.0, keepdims=True)
    extent = jnp.maximum(high - low, MIN_RANGE)
    normalized = jnp.where(high - low < MIN_RANGE, 0.0, (distance - low) / extent)
    is_pair = (alive.sum(-1) == 2)[..., None, None]
    values = jnp.where(is_pair, distance, normalized)
    total = jnp.where(pairs, values, 0.0).sum((-2, -1))
    return total / jnp.maximum(pairs.sum((-2, -1)), 1)
