"""Weapons with an area: bursts of banelings and lines of colossi."""

from __future__ import annotations

import numpy as np
import pytest
from smac_worlds import Arena, arena


CENTER = 16.0
BURST_RADIUS = 2.2
RADIUS = {"zealot": 0.5, "marauder": 0.5625, "zergling": 0.375, "colossus": 1.0}


def bursting(margin: float):
    """Return a case of a baneling amid units whose edges are ``margin`` beyond its burst."""
    case = arena().case()
    baneling = case.ally("baneling", CENTER, CENTER)
    target = case.enemy("zealot", CENTER + 0.9, CENTER)
    case.aim(baneling, target)
    reach = BURST_RADIUS + margin
    victims = {
        "zealot": case.enemy("zealot", CENTER, CENTER + reach + 0.5),
        "marauder": case.enemy("marauder", CENTER, CENTER - reach - 0.5625),
        "zergling": case.enemy("zergling", CENTER - reach - 0.375, CENTER, health=35),
        "colossus": case.enemy("colossus", CENTER - 1.0 - reach, CENTER),
    }
    return case, baneling, victims


def test_a_burst_hits_all_ground_units_within_its_radius_plus_theirs():
    near, baneling, victims = bursting(-0.02)
    far, _, spared = bursting(0.02)
    trace = arena().run([near, far])
    lost = {name: trace.lost(0, unit) for name, unit in victims.items()}
    expected = {"zealot": 35, "marauder": 19, "zergling": 35, "colossus": 20}
    assert lost == pytest.approx(expected)
    assert all(trace.lost(1, unit) == 0 for unit in spared.values())
    assert trace.state.health[-1, 0, baneling] == 0
    assert trace.lost(1, far.arena.names.index("zealot", far.arena.n)) == 35


def test_a_burst_spares_friends_and_flyers():
    case = arena().case()
    baneling = case.ally("baneling", CENTER, CENTER)
    friends = [
        case.ally("zergling", CENTER, CENTER - 0.8),
        case.ally("marine", CENTER, CENTER + 0.8),
        case.ally("baneling", CENTER - 0.8, CENTER),
        case.ally("colossus", CENTER, CENTER + 1.0),
    ]
    target = case.enemy("zealot", CENTER + 0.9, CENTER)
    flyer = case.enemy("medivac", CENTER + 1.0, CENTER + 1.0)
    case.aim(baneling, target)
    trace = arena().run([case])
    assert [trace.lost(0, unit) for unit in [*friends, flyer]] == [0] * 5
    assert trace.lost(0, target) == 35


def test_a_type_with_another_weapon_does_not_burst():
    """A copy of a baneling that bites, in a battle with banelings."""
    bites = Arena(
        """
units: {biter: {like: baneling, weapon: plain, cooldown: 2}}
allies: [{units: {biter: 1, baneling: 1}, at: [8, 8]}]
enemies: [{units: {marauder: 2}, at: [24, 24]}]
orders: hold
"""
    )
    case = bites.case()
    biter = case.ally("biter", CENTER, CENTER)
    case.ally("baneling", 8, 8)
    target = case.enemy("marauder", CENTER + 0.9, CENTER)
    other = case.enemy("marauder", CENTER - 0.9, CENTER)
    case.aim(biter, target)
    trace = bites.run([case])
    lost = trace.state.health[0, 0] - trace.state.health[-1, 0]
    assert lost[[biter, target, other]].tolist() == [0, 19, 0]


def test_a_baneling_bursts_when_it_is_killed():
    case = arena().case()
    killer = case.ally("marine", CENTER - 4.0, CENTER)
    near = case.ally("zergling", CENTER, CENTER + 1.0)
    friend = case.enemy("zealot", CENTER, CENTER - 1.0)
    baneling = case.enemy("baneling", CENTER, CENTER, health=6.0)
    case.aim(killer, baneling)
    trace = arena().run([case])
    assert trace.state.health[-1, 0, [baneling, near]].tolist() == [0, 0]
    assert trace.lost(0, friend) == 0


def test_a_baneling_that_a_burst_kills_bursts_too():
    """A chain: an enemy's burst kills an ally's baneling, which bursts in the next tick."""
    case = arena().case()
    killer = case.ally("marine", CENTER - 4.5, CENTER)
    second = case.ally("baneling", CENTER + 2.0, CENTER, health=20.0)
    first = case.enemy("baneling", CENTER, CENTER, health=6.0)
    beyond = case.enemy("marauder", CENTER + 4.0, CENTER)
    case.aim(killer, first)
    trace = arena().run([case])
    assert trace.state.health[-1, 0, [first, second]].tolist() == [0, 0]
    assert trace.lost(0, beyond) == 19
    assert trace.lost(0, killer) == 0
    assert not trace.state.pending[-1, 0].any()


def test_all_bursts_of_a_tick_land():
    case = arena().case()
    target = case.enemy("zealot", CENTER + 0.9, CENTER)
    for y in (-0.4, 0.0, 0.4):
        case.aim(case.ally("baneling", CENTER, CENTER + y), target)
    # Shield 50: 35, then 15 and 20 - 1 from the second, then 35 - 1.
    assert arena().run([case]).lost(0, target) == pytest.approx(35 + 15 + 19 + 34)


def test_a_baneling_does_not_burst_without_a_target_in_reach():
    case = arena().case()
    case.ally("baneling", CENTER, CENTER)
    case.enemy("marauder", CENTER + 1.5, CENTER)
    state = arena().run([case]).state
    assert (state.health[-1, 0] == state.health[0, 0]).all()


def line(margin: float):
    """Return a case of a colossus that shoots along x, and units at the ends of its strip."""
    case = arena().case()
    colossus = case.ally("colossus", CENTER - 5.0, CENTER)
    target = case.enemy("marauder", CENTER, CENTER)
    case.aim(colossus, target)
    along, across = 0.15 + 0.375 + margin, 1.25 + 0.15 + 0.375 + margin
    victims = [
        case.enemy("marine", CENTER, CENTER + across),
        case.enemy("marine", CENTER, CENTER - across),
        case.enemy("zergling", CENTER + along, CENTER),
        case.enemy("zergling", CENTER - along, CENTER + 1.0),
    ]
    return case, target, victims


def test_a_line_is_a_strip_of_28_by_3_across_the_shot():
    (near, target, victims), (far, _, spared) = line(-0.01), line(0.01)
    trace = arena().run([near, far])
    # 2 hits of 10 + 5 on light units; a zergling regains health.
    assert trace.lost(0, target) == 18
    assert [trace.lost(0, unit) for unit in victims] == pytest.approx(
        [30] * 4, abs=0.14
    )
    assert [trace.lost(1, unit) for unit in spared] == [0] * 4


def test_a_line_turns_with_the_shot():
    """The strip of a diagonal shot is at right angles to it."""
    case = arena().case()
    colossus = case.ally("colossus", CENTER - 3.0, CENTER - 3.0)
    target = case.enemy("marine", CENTER, CENTER)
    case.aim(colossus, target)
    across = case.enemy("marine", CENTER + 0.8, CENTER - 0.8)
    along = case.enemy("marine", CENTER + 0.8, CENTER + 0.8)
    trace = arena().run([case])
    assert [trace.lost(0, unit) for unit in (target, across, along)] == [30, 30, 0]


def test_a_line_hits_each_unit_once_per_beam_and_spares_friends_and_flyers():
    case = arena().case()
    colossus = case.ally("colossus", CENTER - 5.0, CENTER)
    target = case.enemy("marauder", CENTER, CENTER)
    case.aim(colossus, target)
    friend = case.ally("marine", CENTER, CENTER + 1.0)
    flyer = case.enemy("medivac", CENTER, CENTER + 1.0)
    other = case.enemy("colossus", CENTER, CENTER - 1.5)
    trace = arena().run([case])
    lost = [trace.lost(0, unit) for unit in (target, friend, flyer, other)]
    assert lost == [18, 0, 0, 20]


def test_a_shot_at_the_own_place_has_its_strip_along_y():
    case = arena().case()
    colossus = case.ally("colossus", CENTER, CENTER)
    target = case.enemy("marine", CENTER, CENTER)
    case.aim(colossus, target)
    north = case.enemy("zealot", CENTER, CENTER + 1.5)
    east = case.enemy("zealot", CENTER + 1.5, CENTER)
    trace = arena().run([case])
    assert [trace.lost(0, unit) for unit in (target, north, east)] == [30, 30, 0]


def test_enemies_have_areas_too():
    case = arena().case()
    case.enemy("colossus", CENTER - 5.0, CENTER, cooldown=0.0)
    marines = [case.ally("marine", CENTER, CENTER + y) for y in (0.0, 1.0, -1.0)]
    friend = case.enemy("marine", CENTER, CENTER + 1.5)
    trace = arena().run([case])
    assert [trace.lost(0, unit) for unit in marines] == [30] * 3
    assert trace.lost(0, friend) == 0
    assert np.isfinite(trace.reward).all()
