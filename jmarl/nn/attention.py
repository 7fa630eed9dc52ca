"""Softmax attention over what may be seen: the one sum that agents, mixers and sequence policies share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


MASKED = -1e9
"""The score of what may not be seen: its weight is exactly 0 beside any other, and a row of nothing else is no NaN."""


def attend(
    q: Float[Array, "... I D"],
    k: Float[Array, "... J D"],
    v: Float[Array, "... J V"],
    mask: Bool[Array, "... J"] | None,
) -> Float[Array, "... I V"]:
    """Softmax attention; ``mask[..., i, j]``: i may see j. Where it may see none, it sees all alike: finite, unused."""
    scores = jnp.einsum("...id,...jd->...ij", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    return jnp.einsum("...ij,...jd->...id", jax.nn.softmax(scores, axis=-1), v)
