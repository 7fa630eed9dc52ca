"""Paths and shapes of the leaves of a pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def is_key(x: Any) -> bool:
    """Return True if a leaf is an array of typed random keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of each leaf, joined by slashes, e.g. ``params/kernel``."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(tree)
    ]


def leaf_shapes(tree: Any) -> dict[str, str]:
    """Return the dtype and shape of each leaf by path, e.g. ``float32[3,4]``."""
    return {path: shape_text(*shape) for path, shape in raw_shapes(tree).items()}


def raw_shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and dtype of each leaf by path; a typed key counts as its words."""
    leaves = jax.tree.leaves(tree)
    return dict(zip(leaf_paths(tree), map(_raw_shape, leaves), strict=True))


def shape_text(shape: tuple[int, ...], dtype: str) -> str:
    """Return a shape and dtype as text, e.g. ``float32[3,4]``."""
    return f"{dtype}[{','.join(map(str, shape))}]"


def _raw_shape(x: Any) -> tuple[tuple[int, ...], str]:
    raw = jax.eval_shape(jax.random.key_data, x) if is_key(x) else x
    return tuple(raw.shape), str(raw.dtype)
