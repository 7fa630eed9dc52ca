"""Keys and draws of batches of environments, restricted to those in use, in few calls.

JaxMARL splits keys along a tree. Under partitionable Threefry, JAX's default,
``split(key, n)[i]`` equals ``fold_in(key, i)``, and the i-th of n draws does not depend on n.
Thus a key deep in the tree can be derived without its siblings, and many such keys at once.
Draws of unequal length can also share one call. On a CPU each call of the generator
is a separate loop, in compile time and in launches, so there should be few calls.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

from jmarl.platforms import short_loop


Path = tuple[int, ...]
"""Index of the child to take at each split: ``(1, 0)`` is the first child of the second."""


def derive_keys(keys: Key[Array, "B"], paths: list[Path]) -> Key[Array, "L B"]:
    """Return the keys at the ends of L paths of splits, for each of B keys."""
    # [depth, L], padded with -1 below the end of a path
    children = np.full((max(map(len, paths)), len(paths)), -1, np.int32)
    for leaf, path in enumerate(paths):
        children[: len(path), leaf] = path

    def descend(parents: Array, child: Array) -> tuple[Array, None]:
        below = fold_in(parents, child.astype(jnp.uint32))
        return jnp.where(child[:, None] < 0, parents, below), None

    roots = jnp.broadcast_to(keys, (len(paths), *keys.shape))  # [L, B]
    leaves, _ = lax.scan(descend, roots, jnp.asarray(children), unroll=short_loop())
    return leaves


def fold_in(keys: Key[Array, "L B"], child: UInt32[Array, "L"]) -> Key[Array, "L B"]:
    """Return child ``child[l]`` of each of the keys ``[l, :]``."""
    over_batch = jax.vmap(jax.random.fold_in, (0, None))
    return jax.vmap(over_batch)(keys, child)


def random_bits(keys: Key[Array, "L B"], count: int) -> UInt32[Array, "L B n"]:
    """Return the first ``count`` random words of each key."""

    def words(key: Key[Array, ""]) -> UInt32[Array, "n"]:
        return jax.random.bits(key, (count,), jnp.uint32)

    return jax.vmap(jax.vmap(words))(keys)


def bits_to_uniform(words: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Convert random words to numbers in [0, 1) from their upper 23 bits.

    ``jax.random.uniform`` makes the same number of a word.
    """
    return (words >> 9).astype(jnp.float32) * jnp.float32(2.0**-23)
