"""Initializers of kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.types import Key


def orthogonal(scale: float = 1.0) -> Callable[..., Float[Array, "..."]]:
    """Return an initializer of orthogonal kernels (Saxe et al. 2014, arXiv:1312.6120, section 3).

    A kernel ``[..., columns]`` is one matrix ``[rows, columns]``, drawn from the Haar distribution.
    Its columns are orthonormal times ``scale``. If it is wider than tall, its rows are.

    Flax's initializer takes Q of LAPACK's QR decomposition. In jaxlib 0.10, two batched
    decompositions at a time (seeds under ``vmap``) deadlock a CPU of two cores: each holds a thread
    and waits for the other's. Gram-Schmidt is a loop of matrix products. It has the same
    distribution and can be batched on every platform.

    Args:
        scale: Norm of every column, or of every row if the kernel is wider than tall.

    Returns:
        An initializer ``init(key, shape, dtype) -> kernel``.
    """

    def init(
        key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
    ) -> Float[Array, "..."]:
        rows = math.prod(shape[:-1])
        columns = shape[-1]
        if rows * columns == 0:
            return jnp.zeros(shape, dtype)
        long, short = max(rows, columns), min(rows, columns)
        q = _orthonormalize(jax.random.normal(key, (long, short)))
        matrix = q if rows >= columns else q.T
        return (scale * matrix).reshape(shape).astype(dtype)

    return init


def _orthonormalize(vectors: Float[Array, "M K"]) -> Float[Array, "M K"]:
    """Orthonormalize columns by Gram-Schmidt, with each projection done twice.

    A single projection leaves rounding errors in the direction of the removed component.
    """

    def add_column(k: int, q: Float[Array, "M K"]) -> Float[Array, "M K"]:
        v = vectors[:, k]
        for _ in range(2):
            v = v - q @ (q.T @ v)
        return q.at[:, k].set(v / jnp.linalg.norm(v))

    empty = jnp.zeros_like(vectors)
    return jax.lax.fori_loop(0, vectors.shape[1], add_column, empty)
