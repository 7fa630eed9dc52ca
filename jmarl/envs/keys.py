"""Keys and draws of batches of environments, restricted to those in use, in few calls.

JaxMARL splits keys along a tree. Under partitionable Threefry, JAX's default,
``split(key, n)[i]`` equals ``fold_in(key, i)``, and the i-th of n draws does not depend on n.
Thus a key deep in the tree can be derived without its siblings, and many such keys at once.
Draws of unequal length can also share one call. On a CPU each call of the generator
is a separate loop, in compile time and in launches, so there should be few calls.

On accelerators the generator is written out on the two words of a key, as element-wise operations
that XLA fuses. ``jax.random.split`` joins the words again, which costs two kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

from jmarl.platforms import platform


Path = tuple[int, ...]
"""Index of the child to take at each split: ``(1, 0)`` is the first child of the second."""
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Rotations of the rounds of Threefry-2x32, in two groups that alternate."""
ROUND_GROUPS = 5
PARITY = 0x1BD11BDA
"""Constant of the third word of Threefry's key schedule."""


def derive_keys(keys: Key[Array, "B"], paths: list[Path]) -> Key[Array, "L B"]:
    """Return the keys at the ends of L paths of splits, for each of B keys."""
    # [depth, L], padded with -1 below the end of a path
    children = np.full((max(map(len, paths)), len(paths)), -1, np.int32)
    for leaf, path in enumerate(paths):
        children[: len(path), leaf] = path

    roots = jnp.broadcast_to(keys, (len(paths), *keys.shape))  # [L, B]
    if platform() != "cpu":
        return join_words(_descend(split_words(roots), children))

    def descend(parents: Array, child: Array) -> tuple[Array, None]:
        below = fold_in(parents, child.astype(jnp.uint32))
        return jnp.where(child[:, None] < 0, parents, below), None

    leaves, _ = lax.scan(descend, roots, jnp.asarray(children))
    return leaves


def fold_in(keys: Key[Array, "L B"], child: UInt32[Array, "L"]) -> Key[Array, "L B"]:
    """Return child ``child[l]`` of each of the keys ``[l, :]``."""
    over_batch = jax.vmap(jax.random.fold_in, (0, None))
    return jax.vmap(over_batch)(keys, child)


def random_bits(keys: Key[Array, "L B"], count: int) -> UInt32[Array, "L B n"]:
    """Return the first ``count`` random words of each key."""
    if platform() != "cpu":
        index = jnp.arange(count, dtype=jnp.uint32)
        first, second = split_words(keys)
        return draw(Words(first[..., None], second[..., None]), index)

    def words(key: Key[Array, ""]) -> UInt32[Array, "n"]:
        return jax.random.bits(key, (count,), jnp.uint32)

    return jax.vmap(jax.vmap(words))(keys)


class Words(NamedTuple):
    """The two words of Threefry keys, as arrays of the shape of the keys."""

    first: UInt32[Array, "*shape"]
    second: UInt32[Array, "*shape"]


def split_words(keys: Key[Array, "*shape"]) -> Words:
    """Return the words of keys."""
    words = jax.random.key_data(keys)
    return Words(words[..., 0], words[..., 1])


def join_words(words: Words) -> Key[Array, "*shape"]:
    """Return the keys with the given words."""
    return jax.random.wrap_key_data(jnp.stack(words, axis=-1))


def child_words(parents: Words, child: UInt32[Array, "*shape"] | int) -> Words:
    """Return the words of ``fold_in(key, child)``, element by element."""
    return Words(*_threefry(parents, jnp.asarray(child, jnp.uint32)))


def draw(keys: Words, index: UInt32[Array, "*shape"] | int) -> UInt32[Array, "*shape"]:
    """Return the random word ``index`` of each key, element by element."""
    first, second = _threefry(keys, jnp.asarray(index, jnp.uint32))
    return first ^ second


def _descend(parents: Words, children: np.ndarray) -> Words:
    for child in children:
        stays = jnp.asarray(child[:, None] < 0)
        below = child_words(parents, child[:, None].astype(np.uint32))
        pairs = zip(parents, below, strict=True)
        parents = Words(*(jnp.where(stays, above, under) for above, under in pairs))
    return parents


def _threefry(keys: Words, count: Array) -> tuple[Array, Array]:
    """Encrypt the counter ``(0, count)`` with Threefry-2x32.

    Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*, with 20 rounds.
    """
    schedule = (*keys, keys.first ^ keys.second ^ jnp.uint32(PARITY))
    x, y = jnp.broadcast_arrays(keys.first, count + keys.second)
    for group in range(ROUND_GROUPS):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = ((y << rotation) | (y >> (32 - rotation))) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def bits_to_uniform(words: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Convert random words to numbers in [0, 1) from their upper 23 bits.

    ``jax.random.uniform`` makes the same number of a word.
    """
    return (words >> 9).astype(jnp.float32) * jnp.float32(2.0**-23)
