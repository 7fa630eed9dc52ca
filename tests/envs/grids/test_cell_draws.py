"""Sets of cells as bits of words, against masks of NumPy."""

import jax
import numpy as np
import pytest

from jmarl.envs.grids.cell_draws import pack, select_cell, span


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (15, 15), (4, 32), (5, 33), (2, 70)])
def test_a_draw_selects_the_cell_of_its_rank(shape):
    rng = np.random.default_rng(0)
    cells = rng.random((300, *shape)) < rng.random((300, 1, 1))
    cells = np.concatenate([cells, np.ones((1, *shape), bool)])
    draws = rng.random(len(cells), np.float32)
    draws[::9], draws[1::9] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    batch_last = np.moveaxis(cells, 0, -1)
    row, column = jax.jit(lambda x, y: select_cell(pack(x), y))(batch_last, draws)
    filled = cells.any((1, 2))
    expected = [
        _select(*pair) for pair in zip(cells[filled], draws[filled], strict=True)
    ]
    got = np.stack([row, column], axis=-1)[filled]
    np.testing.assert_array_equal(got, expected)


def _select(cells, draw):
    places = np.argwhere(cells)
    rank = int(np.floor(draw * np.float32(len(places))))
    return places[min(rank, len(places) - 1)]


@pytest.mark.parametrize("columns", [1, 8, 31, 32, 33, 64, 70])
def test_a_span_has_the_cells_between_its_ends(columns):
    ends = np.arange(-3, columns + 3)
    low, high = (x.reshape(-1) for x in np.meshgrid(ends, ends))
    words = jax.jit(lambda x, y: span(columns, x, y))(low, high)
    places = np.arange(columns)[:, None]
    expected = (places >= low) & (places <= high)
    inside = np.asarray(pack(np.ones((1, columns, 1), bool)))[0]
    np.testing.assert_array_equal(np.asarray(words) & inside, pack(expected[None])[0])
