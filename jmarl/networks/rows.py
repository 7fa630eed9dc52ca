"""A time axis of length one for acting, which calls the same network as learning with T = 1."""

from __future__ import annotations

from typing import TypeVar

import jax


Tree = TypeVar("Tree")


def add_time_axis(tree: Tree) -> Tree:
    """Return arrays of one time step as a rollout of length one.

    Args:
        tree: Pytree of arrays ``[B, ...]``.

    Returns:
        The same pytree with leaves ``[1, B, ...]``.
    """
    return jax.tree.map(lambda x: x[None], tree)


def drop_time_axis(tree: Tree) -> Tree:
    """Return the first time step of a rollout; the inverse of ``add_time_axis``.

    Args:
        tree: Pytree of arrays ``[T, B, ...]``.

    Returns:
        The same pytree with leaves ``[B, ...]``.
    """
    return jax.tree.map(lambda x: x[0], tree)
