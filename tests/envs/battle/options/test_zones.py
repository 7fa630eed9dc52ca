"""Zones slow, damage or conceal the units on their ground."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import World
from smac_worlds import EAST, WEST


SWAMPS = """
limit: 60
allies:
  - {units: {marine: 2, medivac: 1, colossus: 1, stalker: 1}, at: [16, 16]}
enemies:
  - {units: {marine: 1, medivac: 2, zealot: 1}, at: [16, 16], orders: hold}
  - {units: {marauder: 1}, at: [16, 16], orders: {attack_move: [31, 4]}}
zones:
  - {slow: 0.5, rectangle: [0, 0, 20, 6]}
  - {slow: 0.5, circle: [4, 4, 2]}
  - {damage: 4, circle: [4, 28, 2]}
  - {damage: 2, rectangle: [4, 26, 8, 30]}
  - {conceal: 3, rectangle: [20, 20, 30, 26]}
"""
"""Zones in separate corners of the map. Two of each effect overlap, except ``conceal``."""
SPEED = {"marine": 2.25, "colossus": 2.25, "stalker": 2.953, "marauder": 2.25}
STEP, TICK = 0.5, 1 / 16


@pytest.fixture(scope="module")
def swamps() -> World:
    return World(SWAMPS)


def walk(swamps: World, units: list[tuple], direction: int = EAST) -> np.ndarray:
    """Return how far each ally (name, x, y) walks in a step, one case for each."""
    cases = []
    for name, x, y in units:
        case = swamps.case()
        case.move(case.ally(name, x, y), direction)
        cases.append(case)
    row = swamps.run(cases)[0]
    after = [
        row.state.position[b, next(iter(case.changes)), 0]
        for b, case in enumerate(cases)
    ]
    return np.abs(np.asarray(after) - [x for _, x, _ in units])


@pytest.mark.parametrize("name", ["marine", "stalker", "colossus"])
def test_a_slow_zone_halves_a_walk_and_two_quarter_it(swamps, name):
    lengths = walk(swamps, [(name, 24, 16), (name, 10, 3), (name, 3, 4)])
    assert lengths == pytest.approx(STEP * SPEED[name] * np.asarray([1, 0.5, 0.25]))


def test_a_walk_is_slow_in_the_ticks_that_begin_in_the_zone(swamps):
    starts = np.asarray([20.0, 19.9, 19.5, 20.1])
    expected = []
    for x in starts:
        place = x
        for _ in range(8):
            place += TICK * SPEED["marine"] * (0.5 if place <= 20 else 1.0)
        expected.append(place - x)
    lengths = walk(swamps, [("marine", x, 3.0) for x in starts])
    assert lengths == pytest.approx(expected, abs=1e-5)
    back = walk(swamps, [("marine", 20.5, 3.0)], WEST)
    assert 0.5 < back[0] < STEP * SPEED["marine"]


def test_flyers_are_not_slow(swamps):
    inside, outside = walk(swamps, [("medivac", 10, 3), ("medivac", 10, 16)])
    assert inside == pytest.approx(outside)
    assert inside > 0


def test_enemies_are_slow_too(swamps):
    cases = []
    for x in (10, 24):
        case = swamps.case()
        case.ally("marine", 2, 16)
        enemy = case.enemy("marauder", x, 4)
        cases.append(case)
    moved = swamps.run(cases)[0].state.position[:2, enemy, 0] - (10, 24)
    assert moved == pytest.approx(STEP * SPEED["marauder"] * np.asarray([0.5, 1]))


def test_units_on_the_ground_lose_health_each_second(swamps):
    """Shields and armor do not help, and flyers lose nothing."""
    case = swamps.case()
    inside = [
        *(case.ally("stalker", 2.2, 28), case.ally("colossus", 3.4, 27.2)),
        case.enemy("zealot", 3.3, 28.8),
    ]
    safe = [
        *(case.ally("medivac", 3, 28), case.enemy("medivac", 3.5, 28.5)),
        case.ally("marine", 4, 24),
    ]
    both = case.ally("marine", 5.4, 27.2)
    before = swamps.arena.state([case])
    after = swamps.run([case])[0].state
    lost = np.asarray(before.health)[0] - after.health[0]
    assert lost[inside] == pytest.approx(4 * STEP)
    assert lost[both] == pytest.approx((4 + 2) * STEP)
    assert not lost[safe].any()
    assert (after.shield == np.asarray(before.shield)).all()


def test_the_damage_of_zones_kills_and_pays(swamps):
    """An enemy that a zone kills pays its health and the kill; an ally costs nothing."""
    case = swamps.case()
    marine = case.ally("marine", 4, 28, health=1.5)
    case.ally("marine", 24, 8)
    zealot = case.enemy("zealot", 3, 28.5, health=1.9, shield=50)
    case.enemy("marine", 28, 8)
    row = swamps.run([case])[0]
    assert row.state.health[0, marine] == 0
    assert row.state.health[0, zealot] == 0
    raw = 1.9 + 10
    most = swamps.facts.battle.max_reward
    assert row.reward[0] == pytest.approx(20 * raw / most)
    assert not row.terminated[0]


def hidden_pair(swamps: World, name: str, x: float, y: float):
    """Return a case with an ally that is 3.5 away from an enemy, and both units."""
    case = swamps.case()
    ally = case.ally("marine", x - 3.5, y)
    return case, ally, case.enemy(name, x, y)


def test_a_concealed_enemy_is_neither_seen_nor_offered_from_afar(swamps):
    cases = [
        hidden_pair(swamps, "marine", 25, 23),
        hidden_pair(swamps, "marine", 25, 16),
        hidden_pair(swamps, "medivac", 25, 23),
    ]
    near = swamps.case()
    ally = near.ally("marine", 25, 25.9)
    cases.append((near, ally, near.enemy("marine", 25, 23)))
    obs = swamps.see([case for case, *_ in cases])
    for b, visible in enumerate([False, True, True, True]):
        _, ally, enemy = cases[b]
        assert swamps.sees(obs, b, ally, enemy) == visible
        assert swamps.offers(obs, b, ally, "attack", enemy) == visible


def test_allies_see_each_other_in_a_zone_and_critics_see_all(swamps):
    case, ally, enemy = hidden_pair(swamps, "zealot", 25, 23)
    friend = case.ally("stalker", 28, 25)
    obs = swamps.see([case])
    assert swamps.sees(obs, 0, ally, friend)
    assert swamps.sees(obs, 0, friend, ally)
    assert obs.state.mask[1][0, enemy - swamps.n]


def test_a_concealed_ally_is_no_target_of_enemies_from_afar(swamps):
    cases = []
    for y in (23, 16):
        case = swamps.case()
        ally = case.ally("marine", 25, y)
        enemy = case.enemy("marine", 21.5, y, cooldown=0)
        cases.append(case)
    state = swamps.run(cases)[0].state
    assert list(state.last_target[:2, enemy]) == [-1, ally]
    assert state.health[0, ally] == 45
    assert state.health[1, ally] < 45
