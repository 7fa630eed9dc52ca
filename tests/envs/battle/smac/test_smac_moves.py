"""Walks, approaches, pushes and borders."""

from __future__ import annotations

import numpy as np
import pytest
from smac_worlds import EAST, NORTH, SOUTH, WEST, arena


CENTER = 16.0
SPEEDS = {
    "marine": 2.25,
    "marauder": 2.25,
    "stalker": 2.953,
    "zealot": 2.25,
    "colossus": 2.25,
    "zergling": 2.953,
    "baneling": 2.5,
    "hydralisk": 2.25,
    "spine_crawler": 0.0,
}
DIRECTIONS = {NORTH: (0, 1), SOUTH: (0, -1), EAST: (1, 0), WEST: (-1, 0)}
FIRST_TICKS = 36 * 2.3125 / 16**2
"""Distance of a medivac's first step: 1 + 2 + ... + 8 ticks of acceleration."""


def test_each_type_walks_its_speed():
    """Speed 2.25 walks 1.125 in a step of 0.5 s."""
    case = arena().case()
    units = {}
    for k, name in enumerate(SPEEDS):
        units[name] = case.ally(name, 10.0, 1.0 + 3 * k)
        case.move(units[name], EAST)
    trace = arena().run([case])
    walks = {name: trace.walk(0, unit)[0] for name, unit in units.items()}
    assert walks == pytest.approx({name: v / 2 for name, v in SPEEDS.items()}, abs=1e-4)
    assert walks["marine"] == pytest.approx(1.125, abs=1e-4)


@pytest.mark.parametrize("action", list(DIRECTIONS))
def test_moves_have_their_directions(action):
    case = arena().case()
    marine = case.ally("marine", CENTER, CENTER)
    case.move(marine, action)
    walk = arena().run([case]).walk(0, marine)
    assert walk == pytest.approx(np.multiply(DIRECTIONS[action], 1.125), abs=1e-4)


def test_a_move_ends_after_2_units():
    """A runner of speed 8 would walk 4 in a step."""
    case = arena().case()
    runner = case.ally("runner", CENTER, CENTER)
    case.move(runner, EAST)
    x = arena().run([case], steps=2).state.position[:, 0, runner, 0]
    assert np.diff(x) == pytest.approx([2.0, 2.0], abs=1e-4)


def test_a_medivac_accelerates_up_to_its_speed_which_differs_by_team():
    case = arena().case()
    medivac = case.ally("medivac", 4.0, CENTER)
    case.move(medivac, EAST)
    x = arena().run([case], steps=5).state.position[:, 0, medivac, 0]
    steps = np.diff(x)
    assert steps[0] == pytest.approx(FIRST_TICKS, abs=1e-4)
    assert steps[3:] == pytest.approx([2.75 / 2] * 2, abs=1e-4)
    tables = arena().facts.battle.units, arena().facts.battle.enemy_units
    speeds = [{unit.name: unit.speed for unit in table}["medivac"] for table in tables]
    assert speeds == [2.75, 2.5]


def test_a_medivac_that_stops_accelerates_anew():
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER, pace=2.75)
    trace = arena().run([case])
    assert not trace.walk(0, medivac).any()
    assert trace.state.pace[-1, 0, medivac] == 0


def test_a_unit_ordered_at_a_target_out_of_reach_walks_to_it():
    case = arena().case()
    zealot = case.ally("zealot", CENTER, CENTER)
    target = case.enemy("spine_crawler", CENTER + 4.0, CENTER + 3.0)
    case.aim(zealot, target)
    trace = arena().run([case], steps=4)
    walk = trace.state.position[1, 0, zealot] - trace.state.position[0, 0, zealot]
    assert walk == pytest.approx([0.8 * 1.125, 0.6 * 1.125], abs=1e-4)
    reach = 0.1 + 0.5 + 1.125
    apart = np.linalg.norm(
        trace.state.position[-1, 0, target] - trace.state.position[-1, 0, zealot]
    )
    assert apart == pytest.approx(reach, abs=2e-3)
    assert trace.state.health[1, 0, target] == 300.0
    assert trace.state.health[-1, 0, target] < 300.0


def test_a_unit_in_reach_stands():
    case = arena().case()
    stalker = case.ally("stalker", CENTER, CENTER)
    target = case.enemy("spine_crawler", CENTER + 6.0, CENTER)
    case.aim(stalker, target)
    assert not arena().run([case], steps=2).walk(0, stalker).any()


def test_a_unit_does_not_walk_to_a_target_that_it_cannot_affect():
    flyer, dead = arena().case(), arena().case()
    marauder = flyer.ally("marauder", CENTER, CENTER)
    flyer.aim(marauder, flyer.enemy("medivac", CENTER + 9.0, CENTER))
    dead.ally("marauder", CENTER, CENTER)
    dead.aim(marauder, dead.enemy("marine", CENTER + 9.0, CENTER, health=0.0))
    trace = arena().run([flyer, dead])
    assert not trace.walk(0, marauder).any()
    assert not trace.walk(1, marauder).any()


def pushed(one: str, other: str) -> np.ndarray:
    """Return how far a step moves an ally to the left and an enemy 0.5 right of it."""
    case = arena().case()
    left = case.ally(one, CENTER, CENTER)
    right = case.enemy(other, CENTER + 0.5, CENTER)
    trace = arena().run([case])
    return np.asarray([-trace.walk(0, left)[0], trace.walk(0, right)[0]])


OVERLAPS = {
    ("marine", "marine"): (0.125, 0.125),
    # The radius of a zealot is 0.5, but it collides at 0.375.
    ("zealot", "zealot"): (0.125, 0.125),
    ("stalker", "stalker"): (0.375, 0.375),
    ("medivac", "medivac"): (0.5, 0.5),
    ("marine", "medivac"): (0, 0),
    ("marine", "colossus"): (0, 0),
    ("colossus", "colossus"): (0, 0),
    ("colossus", "medivac"): (0, 0),
}


@pytest.mark.parametrize("pair", list(OVERLAPS))
def test_bodies_of_one_plane_push_each_other_apart(pair):
    assert pushed(*pair) == pytest.approx(OVERLAPS[pair], abs=1e-3)


def test_a_structure_pushes_but_does_not_move():
    """Of an overlap of 1, the marine is moved by half in each tick."""
    marine, structure = pushed("marine", "spine_crawler")
    assert marine == pytest.approx(1.0, abs=0.01)
    assert structure == 0


def test_the_dead_neither_push_nor_move():
    case = arena().case()
    marine = case.ally("marine", CENTER, CENTER)
    dead = case.ally("marine", CENTER + 0.2, CENTER, health=0.0)
    case.move(dead, EAST)
    trace = arena().run([case])
    assert not trace.walk(0, marine).any()
    assert not trace.walk(0, dead).any()


def test_units_stay_on_the_map_and_nobody_dies_there():
    case = arena().case()
    places = {
        "stalker": (31.5, CENTER, EAST),
        "marine": (0.5, CENTER, WEST),
        "medivac": (CENTER, 31.9, NORTH),
        "colossus": (CENTER, 0.5, SOUTH),
    }
    units = []
    for name, (x, y, action) in places.items():
        unit = case.ally(name, x, y)
        case.move(unit, action)
        units.append(unit)
    state = arena().run([case], steps=4).state
    position = state.position[-1, 0, units]
    expected = [[32, CENTER], [0, CENTER], [CENTER, 32], [CENTER, 0]]
    assert np.allclose(position, expected, atol=2e-3)
    assert (position < 32).all()
    assert (state.health[-1, 0, units] == state.health[0, 0, units]).all()
