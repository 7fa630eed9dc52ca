"""Initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.types import Key


def orthogonal(scale: float = 1.0) -> Callable[..., Float[Array, "..."]]:
    """A kernel with orthonormal columns (rows, where it is wider than tall) times ``scale``, Haar distributed.

    Saxe et al. 2014 (arXiv:1312.6120), section 3. The initializer of Flax takes the Q of LAPACK's QR
    decomposition, and in jaxlib 0.10 two batched ones at a time (seeds under ``vmap``) hang a CPU
    of two cores: each holds a thread and waits for the other's. Gram-Schmidt is a loop of matrix
    products, gives the same distribution, and batches anywhere.
    """

    def init(
        key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
    ) -> Float[Array, "..."]:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if rows * columns == 0:
            return jnp.zeros(shape, dtype)
        q = _orthonormal(
            jax.random.normal(key, (max(rows, columns), min(rows, columns)))
        )
        return (scale * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)

    return init


def _orthonormal(vectors: Float[Array, "M K"]) -> Float[Array, "M K"]:
    """Gram-Schmidt, each projection done twice: once leaves the rounding of what was removed."""

    def add(k: int, q: Float[Array, "M K"]) -> Float[Array, "M K"]:
        v = vectors[:, k]
        for _ in range(2):
            v = v - q @ (q.T @ v)
        return q.at[:, k].set(v / jnp.linalg.norm(v))

    return jax.lax.fori_loop(0, vectors.shape[1], add, jnp.zeros_like(vectors))
