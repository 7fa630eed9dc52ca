"""Limits of the view: a cone, and enemies that only some allies can see; targets without a mask."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from option_worlds import World
from smac_worlds import BATCH, N_OWN_ACTIONS


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
CHANCE = 0.3
EPISODES = 2000
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
def rare() -> World:
    """Return a world in which most allies cannot see what another has sighted first."""
    return World(PAIR, prob_obs_enemy=CHANCE)


def column_views(
    rare: World, columns: list[tuple[float, float]], luck: tuple[bool, bool]
) -> list[list[bool]]:
    """Return which of two allies sees an enemy at x = 18 while they move along x.

    Args:
        rare: the world.
        columns: x of both allies in each step.
        luck: whether each can see what the other sights first.
    """
    case = rare.case()
    pair = [case.ally("marine", x, 16) for x in columns[0]]
    enemy = case.enemy("marine", 18, 16)
    state, views = rare.arena.state([case]), []
    lucky = np.zeros(state.luck.shape, bool)
    lucky[:, pair] = np.asarray(luck)[:, None]
    state = state.replace(luck=lucky)
    for t, column in enumerate(columns):
        position = np.array(state.position)
        position[0, pair, 0] = column
        row = rare.step(state.replace(position=position), rare.stop(BATCH), seed=t)
        state = row.state
        views.append([rare.sees(row.obs, 0, ally, enemy) for ally in pair])
        near = np.abs(state.position[0, pair, 0] - 18) <= 6
        targets = [rare.offers(row.obs, 0, ally, "attack", enemy) for ally in pair]
        assert targets == list(near & views[-1])
    return views


def test_only_the_first_ally_that_sights_an_enemy_ever_sees_it(rare):
    """Of two that sight it in the same step, it is the first in the order of agents."""
    columns = [(4, 6), (13, 14), (4, 14), (14, 13)]
    views = column_views(rare, columns, (False, False))
    assert views == [[False, False], [True, False], [False, False], [True, False]]


def test_a_later_agent_may_be_the_first_to_sight_an_enemy(rare):
    columns = [(4, 13), (14, 13), (14, 4), (14, 13)]
    views = column_views(rare, columns, (False, False))
    assert views == [[False, True], [False, True], [False, False], [False, True]]


def test_the_first_ally_to_sight_an_enemy_keeps_seeing_it(rare):
    """A lucky ally that sees it alone for a while does not take its place."""
    views = column_views(rare, [(13, 4), (4, 13), (13, 14)], (False, True))
    assert views == [[True, False], [False, True], [True, True]]


def test_the_luck_of_a_pair_has_the_given_probability_and_is_independent(rare):
    luck = rare.starts(EPISODES).luck
    assert luck.shape == (EPISODES, rare.n, rare.m)
    pairs = luck.reshape(EPISODES, -1)
    sigma = np.sqrt(CHANCE * (1 - CHANCE) / EPISODES)
    assert np.abs(pairs.mean(0) - CHANCE).max() < SIGMAS * sigma
    correlation = np.corrcoef(pairs.T) - np.eye(pairs.shape[1])
    assert np.abs(correlation).max() < SIGMAS / np.sqrt(EPISODES)


@pytest.mark.slow
@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_luck_may_be_certain_or_even(chance):
    luck = World(PAIR, prob_obs_enemy=chance).starts(EPISODES).luck
    assert luck.mean() == pytest.approx(chance, abs=0.02)


def test_allies_see_what_another_has_sighted_if_they_have_the_luck(rare):
    """All allies are in sight of all enemies. What they cannot see now, they never see."""
    state = jax.tree.map(np.array, rare.arena.start)
    state = state.replace(luck=rare.starts(BATCH, seed=1).luck)
    state.position[..., 0] = CENTER + np.arange(rare.n + rare.m) / 4
    state.position[..., 1] = CENTER
    row = rare.step(state, rare.stop(BATCH))
    seen = row.obs.mask[1]  # [B, N, M]
    assert seen[:, 0].all()
    assert (seen[:, 1:] == state.luck[:, 1:]).all()
    later = rare.step(row.state, rare.stop(BATCH), seed=1)
    assert (later.obs.mask[1] == seen).all()


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
