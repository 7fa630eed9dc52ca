"""Random cells of a grid, from numbers in [0, 1). Axes ``*b`` of a batch come last.

Sets of cells are bits of words, which makes them small: a word has the cells of a row, or 32 of
them in a wider grid.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt


BITS = 32


def pack(cells: Bool[Array, "H W *b"]) -> UInt[Array, "H K *b"]:
    """Return a set of cells as K words for each row; the first cell is the lowest bit."""
    columns, batch = cells.shape[1], cells.shape[2:]
    bits = _along(np.uint32(1) << np.arange(columns, dtype=np.uint32) % BITS, batch)
    values = jnp.where(cells, bits, np.uint32(0))
    starts = range(0, columns, BITS)
    words = [values[:, i : i + BITS].sum(1, dtype=jnp.uint32) for i in starts]
    return jnp.stack(words, axis=1)


def span(
    columns: int, low: Int[Array, "*b"], high: Int[Array, "*b"]
) -> UInt[Array, "K *b"]:
    """Return the cells ``low`` to ``high`` of a row as K words.

    Bits behind the last cell of the row may be set as well.

    Args:
        columns: Number of cells of the row.
        low: First column.
        high: Last column; the set is empty if it is lower than ``low``.
    """
    starts = _along(np.arange(0, columns, BITS), low.shape)
    return _below(high + 1 - starts) & ~_below(low - starts)


def _below(n: Int[Array, "*b"]) -> UInt[Array, "*b"]:
    """Return a word with its lowest n bits set: none below 0, all from 32 on."""
    shifted = np.uint32(1) << jnp.clip(n, 0, BITS - 1).astype(jnp.uint32)
    return jnp.where(n < BITS, shifted - np.uint32(1), ~np.uint32(0))


def select_cell(
    words: UInt[Array, "H K *b"], draw: Float[Array, "*b"]
) -> tuple[Int[Array, "*b"], Int[Array, "*b"]]:
    """Return row and column of the cell of rank ``floor(draw * n)`` among the n cells of a set.

    Ranks count row by row. The result is arbitrary if the set is empty.
    """
    per_row = words.shape[1]
    flat = words.reshape(-1, *words.shape[2:])
    ends = jnp.cumsum(_count(flat), axis=0)
    total = ends[-1]
    # Rounding may lift a draw just below 1 to the number of cells.
    rank = jnp.minimum(jnp.floor(draw * total).astype(jnp.int32), total - 1)
    is_before = ends <= rank
    index = is_before.sum(0)
    rank = rank - jnp.where(is_before, _count(flat), 0).sum(0)
    positions = _along(np.arange(len(flat)), draw.shape)
    word = jnp.where(positions == index, flat, np.uint32(0)).sum(0, dtype=jnp.uint32)
    row, place = jnp.divmod(index, per_row)
    return row, place * BITS + _select_bit(word, rank)


def _select_bit(word: UInt[Array, "*b"], rank: Int[Array, "*b"]) -> Int[Array, "*b"]:
    """Return the position of the set bit of a rank: halve the word where the rank lies."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = _count(word & np.uint32((1 << width) - 1))
        is_above = rank >= low
        word = jnp.where(is_above, word >> np.uint32(width), word)
        rank = jnp.where(is_above, rank - low, rank)
        position = jnp.where(is_above, position + width, position)
    return position


def _count(words: UInt[Array, "*b"]) -> Int[Array, "*b"]:
    return jax.lax.population_count(words).astype(jnp.int32)


def _along(x: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    """Return a constant with an axis of length 1 for each axis of a batch."""
    return x.reshape(*x.shape, *[1] * len(batch))


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
