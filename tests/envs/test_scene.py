"""Scenes: cells of a grid as rectangles."""

import numpy as np
import pytest

from jmarl.envs.scene import Rectangle, cell_areas


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_rectangles_cover_each_cell_once_and_nothing_else(share):
    cells = np.random.default_rng(0).random((7, 5)) < share
    covered = np.zeros_like(cells, int)
    for area in cell_areas(cells, "gray", 0.5):
        assert (area.color, area.opacity) == ("gray", 0.5)
        covered[area.x0 : area.x1, area.y0 : area.y1] += 1
    np.testing.assert_array_equal(covered, cells)


def test_a_block_of_cells_is_one_rectangle():
    cells = np.zeros((9, 6), bool)
    cells[2:5, 1:4] = True
    assert cell_areas(cells, "gray") == (Rectangle(2, 1, 5, 4, "gray"),)
