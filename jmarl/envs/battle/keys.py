"""SMAX's random draws, of which only those that are used are made, in few calls.

JaxMARL splits keys along a tree. Under partitionable Threefry, JAX's default, ``split(key, n)[i]`` is
``fold_in(key, i)`` and the i-th of n draws does not depend on n. So a key deep in the tree can be reached without its
siblings, many such keys at once, and draws of unequal length can share one call. On a CPU each call of the generator
is a loop of its own, in compile time and in launches, so there should be few.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32


Path = tuple[int, ...]
"""Which child to take at each split: ``(1, 0)`` is the first child of the second."""


def descend(keys: Key[Array, "B"], paths: list[Path]) -> Key[Array, "L B"]:
    """From each of B keys to the ends of L paths: keys ``[L, B]``."""
    children = np.full((max(map(len, paths)), len(paths)), -1, np.int32)
    for leaf, path in enumerate(paths):
        children[: len(path), leaf] = path

    def level(at: Array, child: Array) -> tuple[Array, None]:
        below = fold(at, child.astype(jnp.uint32))
        return jnp.where(child[:, None] < 0, at, below), None

    return lax.scan(
        level, jnp.broadcast_to(keys, (len(paths), *keys.shape)), jnp.asarray(children)
    )[0]


def fold(keys: Key[Array, "L B"], child: UInt32[Array, "L"]) -> Key[Array, "L B"]:
    """Child ``child[l]`` of each of the keys ``[L, B]``."""
    return jax.vmap(jax.vmap(jax.random.fold_in, (0, None)))(keys, child)


def bits(keys: Key[Array, "L B"], count: int) -> UInt32[Array, "L B n"]:
    """The first ``count`` random words of each of the keys ``[L, B]``."""
    return jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (count,), jnp.uint32)))(
        keys
    )


def uniform(words: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The number in [0, 1) that ``jax.random.uniform`` makes of a random word: its upper 23 bits."""
    return (words >> 9).astype(jnp.float32) * jnp.float32(2.0**-23)
