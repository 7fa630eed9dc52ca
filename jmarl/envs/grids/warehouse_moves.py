"""Moves of robots that want to enter cells: chains move, cycles rotate, conflicts are blocked.

The original package builds a graph of the cells, with an edge from the cell of each robot to the
one that it wants to enter, and decides for each connected part:

* If a robot stays, the robots that queue behind it stay too.
* Two robots that want to exchange places block each other and everyone behind them.
* The robots on a longer cycle move; those that want to enter the cycle stay.
* Otherwise the part is a tree that leads to a free cell. The robots on its longest path move.

Of equally long paths, the original takes the one whose cell comes first in the graph, which is
``mention_order`` if the part has at least half of the cells of the graph. In smaller parts the
order is that of a Python set, an accident of hashing; here it is ``mention_order`` too.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int


MAX_UNROLLED = 8
"""Largest number of robots for which loops over the length of a chain are unrolled."""


def resolve(
    cell: Int[Array, "N"], target: Int[Array, "N"], order: Int[Array, "N"]
) -> Bool[Array, "N"]:
    """Return the mask of robots that move.

    Args:
        cell: Cells of the robots, all different.
        target: Cells that they want to enter; their own cell if they stay.
        order: Rank of each robot among equally long chains; the lowest goes first.
    """
    n = cell.shape[0]
    wants = target != cell
    follows = wants[:, None] & (
        target[:, None] == cell
    )  # [N, N], robot i behind robot j
    length = _chain_lengths(follows)
    in_cycle = (length >= n) & ~(follows & follows.T).any(1)

    is_rival = wants & (target[:, None] == target)
    longer = (length > length[:, None]) | (
        (length == length[:, None]) & (order < order[:, None])
    )
    is_first = wants & ~(is_rival & longer).any(1)
    is_free = ~follows.any(1)

    def advance(moves: Bool[Array, "N"]) -> Bool[Array, "N"]:
        return is_first & (is_free | (follows & moves).any(1))

    return _repeat(advance, jnp.zeros(n, bool), n) | in_cycle


def mention_order(
    cell: Int[Array, "N"],
    target: Int[Array, "N"],
) -> Int[Array, "N"]:
    """Return the rank of the robots' cells in a list of start and target of each robot in turn."""
    n = cell.shape[0]
    turns = 2 * jnp.arange(n)
    is_target = (
        cell[:, None] == target
    )  # [N, N], the cell of robot i, the target of robot j
    return jnp.minimum(
        turns,
        jnp.where(is_target, turns + 1, 2 * n).min(1),
    )


def _chain_lengths(follows: Bool[Array, "N N"]) -> Int[Array, "N"]:
    """Return the number of robots in the longest chain behind each robot, N on a cycle."""
    n = follows.shape[0]

    def lengthen(length: Int[Array, "N"]) -> Int[Array, "N"]:
        return jnp.where(follows, length[:, None] + 1, 0).max(0)

    return _repeat(
        lengthen,
        jnp.zeros(n, jnp.int32),
        n,
    )


def _repeat(
    function,
    x: Array,
    times: int,
) -> Array:
    return lax.fori_loop(
        0, times, lambda _, x: function(x), x, unroll=times <= MAX_UNROLLED
    )
