"""Walkable cells of the terrains."""

from __future__ import annotations

import numpy as np
import pytest

from jmarl.envs.battle.scenarios.terrain import (
    get_terrain,
    is_connected,
    load_terrains,
    walkable,
)


@pytest.mark.parametrize("name", list(load_terrains()))
def test_a_terrain_is_connected(name):
    cells = walkable(get_terrain(name))
    assert cells.shape == (32, 32)
    assert is_connected(cells)


def test_the_strip_has_rows_8_to_23():
    cells = walkable(get_terrain("strip"))
    assert (cells == ((np.arange(32) >= 8) & (np.arange(32) < 24))[None]).all()
    assert walkable(get_terrain("open")).all()


def test_the_octagon_follows_its_formula():
    cells = np.zeros((32, 32), bool)
    for y in range(5, 27):
        d = max(0, 10 - y, y - 21)
        cells[5 + d : 27 - d, y] = True
    assert (walkable(get_terrain("octagon")) == cells).all()
    assert (cells == cells.T).all()


def test_the_choke_of_the_corridor_is_4_wide():
    cells = np.array(walkable(get_terrain("corridor")))
    choke = cells[:, 12] & cells[:, 13]
    assert np.flatnonzero(choke).tolist() == [11, 12, 13, 14]
    assert [cells[:, y].sum() for y in (22, 29)] == [19, 12]
    cells[11:15, 12] = False
    assert not is_connected(cells)


def test_the_cliff_of_the_ravine_leaves_ramps_at_both_ends():
    cells = np.array(walkable(get_terrain("ravine")))
    assert np.flatnonzero(cells[:, 12]).tolist() == [*range(4), *range(28, 32)]
    assert cells[:, 9:12].all() and cells[:, 13:17].all()
    cells[:4, 12] = False
    assert is_connected(cells)
    cells[28:, 12] = False
    assert not is_connected(cells)


def test_room_b_and_diagonal_have_the_cells_of_the_spec():
    assert walkable(get_terrain("room_b")).sum() == 12 + 12 * 14 + 12 + 10 + 8 + 6 + 4
    diagonal = walkable(get_terrain("diagonal"))
    rows = {1: (2, 8), 12: (4, 20), 16: (8, 21), 24: (16, 30), 30: (22, 30)}
    for y, (start, stop) in rows.items():
        assert np.flatnonzero(diagonal[:, y]).tolist() == list(range(start, stop))
