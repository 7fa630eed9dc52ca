"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


MASKED = -1e9
"""Score of a masked key. Its weight is exactly 0 beside an allowed key; a fully masked row is
finite instead of NaN."""


def attend(
    q: Float[Array, "... I D"],
    k: Float[Array, "... J D"],
    v: Float[Array, "... J V"],
    mask: Bool[Array, "... J"] | None,
) -> Float[Array, "... I V"]:
    """Return ``softmax(q k^T / sqrt(D)) v``.

    A query without an allowed key weights all keys equally. Its output is finite but meaningless.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: True where query i may attend to key j; broadcast to ``[..., I, J]``. None allows all.

    Returns:
        The weighted mean of the values for each query.
    """
    # [..., I, J]
    scores = jnp.einsum("...id,...jd->...ij", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("...ij,...jd->...id", weights, v)
