"""Random cells of a grid, from numbers in [0, 1). Axes ``*b`` of a batch come last."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def select_cell(
    cells: Bool[Array, "H W *b"], draw: Float[Array, "*b"]
) -> tuple[Int[Array, "*b"], Int[Array, "*b"]]:
    """Return row and column of the cell of rank ``floor(draw * n)`` among the n cells of a mask.

    Ranks count row by row. The result is arbitrary if the mask is empty.
    """
    counts = cells.sum(1)
    total = counts.sum(0)
    rank = jnp.floor(draw * total).astype(jnp.int32)
    # Rounding may lift a draw just below 1 to the number of cells.
    rank = jnp.minimum(rank, total - 1)
    row, rest = _locate(counts, rank)
    is_row = jnp.expand_dims(_indices(counts) == row, 1)
    column, _ = _locate(
        (cells & is_row).any(0).astype(jnp.int32),
        rest,
    )
    return row, column


def _locate(
    counts: Int[Array, "K *b"], rank: Int[Array, "*b"]
) -> tuple[Int[Array, "*b"], Int[Array, "*b"]]:
    """Return the bin that contains an item, and the rank of the item within the bin."""
    ends = jnp.cumsum(counts, axis=0)
    is_before = ends <= rank
    rest = rank - jnp.where(is_before, counts, 0).sum(0)
    return is_before.sum(0), rest


def _indices(x: Array) -> Int[Array, "K *ones"]:
    return jnp.arange(len(x)).reshape(
        -1,
        *[1] * (x.ndim - 1),
    )


def distinct(
    draws: Float[Array, "K *b"],
    n: int,
) -> Int[Array, "K *b"]:
    """Return K different integers below n, each uniform among those that are left.

    This is the shuffle of Fisher and Yates. A drawn integer is replaced by the last one that is
    left, so a later draw of it is looked up in the replacements.
    """
    positions, drawn = [], []
    for i, draw in enumerate(draws):
        left = n - i
        position = jnp.minimum(
            jnp.floor(draw * left).astype(jnp.int32),
            left - 1,
        )
        value = position
        for j in reversed(range(i)):
            value = jnp.where(
                value == positions[j],
                n - 1 - j,
                value,
            )
        positions.append(position)
        drawn.append(value)
    return jnp.stack(drawn)
