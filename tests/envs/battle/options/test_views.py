"""Limits of the view: a cone, and enemies that only some allies can see; targets without a mask."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import Episodes, World
from smac_worlds import BATCH, N_OWN_ACTIONS

from jmarl.envs.battle.scenarios.naming import parse_name


PAIR = """
limit: 60
orders: hold
allies:
  - {units: {marine: 3, medivac: 1}, at: [4, 4]}
enemies:
  - {units: {marine: 12}, at: [28, 28]}
"""
CENTER = 16.0
TWELFTH = 30
"""Degrees between two directions of the view."""
EPISODES = 400
SIGMAS = 4.5


@pytest.fixture(scope="module")
def cone() -> World:
    return World(PAIR, cone=True)


def at_angle(degrees: float, distance: float = 5.0) -> tuple[float, float]:
    """Return the place in a direction from the center of the map."""
    angle = np.radians(degrees)
    return CENTER + distance * np.cos(angle), CENTER + distance * np.sin(angle)


def visible(cone: World, angles: list[float], facing: int = 0) -> list[bool]:
    """Return whether an enemy in each direction is seen and offered, one case for each."""
    cases = []
    for degrees in angles:
        case = cone.case()
        marine = case.ally("marine", CENTER, CENTER)
        enemy = case.enemy("marine", *at_angle(degrees))
        cases.append(case)
    state = cone.arena.state(cases)
    obs = cone.observe(state.replace(facing=np.full_like(state.facing, facing)))
    seen = [cone.sees(obs, b, marine, enemy) for b in range(len(cases))]
    offered = [cone.offers(obs, b, marine, "attack", enemy) for b in range(len(cases))]
    assert seen == offered
    return seen


def test_a_unit_sees_15_degrees_to_either_side_and_starts_east(cone):
    angles = [0, 14.5, -14.5, 15.5, -15.5, 90, 180, 194]
    assert visible(cone, angles) == [True, True, True, *[False] * 5]


@pytest.mark.parametrize("direction", [1, 6, 11])
def test_the_cone_is_around_the_view_in_each_direction(cone, direction):
    angles = [direction * TWELFTH + offset for offset in (0, 14.5, -14.5, 15.5, -15.5)]
    seen = visible(cone, angles, facing=direction)
    assert seen == [True, True, True, False, False]


def test_twelve_own_actions_turn_the_view(cone):
    """Each of 12 enemies around a unit is seen after a turn to it, and no other."""
    turns = cone.named("turn")
    assert turns == list(range(N_OWN_ACTIONS, N_OWN_ACTIONS + 12))
    cases = []
    for turn in turns:
        case = cone.case()
        marine = case.ally("marine", CENTER, CENTER)
        for k in range(12):
            case.enemy("marine", *at_angle(TWELFTH * k))
        case.actions[marine] = turn
        cases.append(case)
    row = cone.run(cases)[0]
    assert (row.state.facing[:12, marine] == np.arange(12)).all()
    assert (row.obs.mask[1][:12, marine] == np.eye(12, dtype=bool)).all()
    attacks = row.obs.avail[:12, marine][:, cone.named("attack")]
    assert (attacks == np.eye(12, dtype=bool)).all()
    assert row.state.position[:12, marine] == pytest.approx(CENTER)


def test_the_view_stays_until_it_is_turned_and_the_features_show_it(cone):
    case = cone.case()
    marine = case.ally("marine", CENTER, CENTER)
    case.enemy("marine", 28, 28)
    case.actions[marine] = cone.named("turn")[4]
    east = cone.see([case]).own[0, marine, -2:]
    turned = cone.run([case])[0]
    angle = np.radians(4 * TWELFTH)
    assert east == pytest.approx([1, 0])
    shown = turned.obs.own[0, marine, -2:]
    assert shown == pytest.approx([np.cos(angle), np.sin(angle)], abs=1e-6)
    later = cone.step(turned.state, cone.stop(BATCH))
    assert later.state.facing[0, marine] == 4
    assert later.obs.own[0, marine, -2:] == pytest.approx(shown)


def test_the_cone_hides_allies_and_patients_too(cone):
    case = cone.case()
    medivac = case.ally("medivac", CENTER, CENTER)
    ahead = case.ally("marine", CENTER + 3, CENTER, health=20)
    behind = case.ally("marine", CENTER - 3, CENTER, health=20)
    obs = cone.see([case])
    for unit, expected in ((ahead, True), (behind, False)):
        assert cone.sees(obs, 0, medivac, unit) == expected
        assert cone.offers(obs, 0, medivac, "heal", unit) == expected
    assert obs.avail[0, medivac, cone.named("turn")].all()


@pytest.fixture(scope="module")
def alone() -> World:
    """Return a world in which only the first ally that sights an enemy can see it."""
    return World(PAIR, prob_obs_enemy=0.0)


def column_views(alone: World, columns: list[tuple[float, float]]) -> list[list[bool]]:
    """Return which of two allies sees an enemy at x = 18 while they move along x."""
    case = alone.case()
    pair = [case.ally("marine", x, 16) for x in columns[0]]
    enemy = case.enemy("marine", 18, 16)
    state, views = alone.arena.state([case]), []
    for t, column in enumerate(columns):
        position = np.array(state.position)
        position[0, pair, 0] = column
        row = alone.step(state.replace(position=position), alone.stop(BATCH), seed=t)
        state = row.state
        views.append([alone.sees(row.obs, 0, ally, enemy) for ally in pair])
        near = np.abs(state.position[0, pair, 0] - 18) <= 6
        targets = [alone.offers(row.obs, 0, ally, "attack", enemy) for ally in pair]
        assert targets == list(near & views[-1])
    return views


def test_only_the_first_ally_that_sights_an_enemy_ever_sees_it(alone):
    """Of two that sight it in the same step, it is the first in the order of agents."""
    views = column_views(alone, [(4, 6), (13, 14), (4, 14), (14, 13)])
    assert views == [[False, False], [True, False], [False, False], [True, False]]


def test_a_later_agent_may_be_the_first_to_sight_an_enemy(alone):
    views = column_views(alone, [(4, 13), (14, 13), (14, 4), (14, 13)])
    assert views == [[False, True], [False, True], [False, False], [False, True]]


def test_each_other_ally_can_see_an_enemy_with_the_given_probability():
    """It is drawn for each pair, at the start: what an ally cannot see, it never sees."""
    half = Episodes(parse_name("smac_3m_vs_2m"), prob_obs_enemy=0.3)
    state, _ = half.first(EPISODES)
    position = np.zeros_like(state.position) + CENTER
    position[..., 0] += np.arange(half.n + half.m)
    position = np.asarray(position, np.float32)
    row = half.step(state.replace(position=position), half.stop(EPISODES))
    seen = row.obs.mask[1]  # [B, N, M]
    assert seen[:, 0].all()
    share = seen[:, 1:].mean(0)
    sigma = np.sqrt(0.3 * 0.7 / EPISODES)
    assert np.abs(share - 0.3).max() < SIGMAS * sigma
    pairs = seen[:, 1:].reshape(EPISODES, -1)
    correlation = np.corrcoef(pairs.T) - np.eye(pairs.shape[1])
    assert np.abs(correlation).max() < SIGMAS / np.sqrt(EPISODES)
    later = half.step(row.state, half.stop(EPISODES), seed=1)
    assert (later.obs.mask[1][:, 1:] <= seen[:, 1:]).all()


def test_without_the_mask_any_living_target_is_offered():
    world = World(PAIR, action_mask=False)
    case = world.case()
    marine, medivac = case.ally("marine", 2, 2), case.ally("medivac", 3, 2)
    hurt, dead = case.ally("marine", 29, 29), case.ally("marine", 4, 2, health=0)
    enemy, corpse = case.enemy("marine", 29, 2), case.enemy("marine", 4, 3, health=0)
    obs = world.see([case])
    assert not world.sees(obs, 0, marine, enemy)
    offers = [
        world.offers(obs, 0, *pair)
        for pair in (
            *((marine, "attack", enemy), (medivac, "heal", hurt)),
            *((marine, "attack", corpse), (medivac, "heal", dead)),
            *((medivac, "attack", enemy), (marine, "heal", hurt)),
        )
    ]
    assert offers == [True, True, False, False, False, False]
    world.aim(case, marine, "attack", enemy)
    moved = world.run([case])[0].state.position[0, marine]
    assert moved == pytest.approx((2 + 2.25 / 2, 2), abs=1e-3)
