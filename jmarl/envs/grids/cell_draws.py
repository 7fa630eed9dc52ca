"""Random cells of a grid, from numbers in [0, 1)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def select_cell(
    cells: Bool[Array, "H W"], draw: Float[Array, ""]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Return row and column of the cell of rank ``floor(draw * n)`` among the n cells of a mask.

    Ranks count row by row. The result is arbitrary if the mask is empty.
    """
    counts = jnp.cumsum(cells.sum(1))
    rank = jnp.floor(draw * counts[-1]).astype(jnp.int32)
    # Rounding may lift a draw just below 1 to the number of cells.
    rank = jnp.minimum(rank, counts[-1] - 1)
    row = jnp.minimum((counts <= rank).sum(), len(counts) - 1)
    in_row = cells[row]
    rest = rank - (counts[row] - in_row.sum())
    return row, (jnp.cumsum(in_row) <= rest).sum()


def distinct(draws: Float[Array, "K"], n: int) -> Int[Array, "K"]:
    """Return K different integers below n, each uniform among those that are left."""
    drawn = jnp.zeros(0, jnp.int32)
    for i, draw in enumerate(draws):
        left = n - i
        value = jnp.minimum((draw * left).astype(jnp.int32), left - 1)
        for earlier in jnp.sort(drawn):
            value = value + (value >= earlier)
        drawn = jnp.append(drawn, value)
    return drawn
