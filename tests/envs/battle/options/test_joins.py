"""Names joined by ``+``: each episode is one of the battles, as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import Episodes
from subset import assert_same_battle

from jmarl.envs.battle.scenarios.naming import parse_name


BATCH = 24
DRAWS = 3000
SIGMAS = 4.5
STEPS = 30
SPREAD = 4.0
"""Largest distance of a unit from the place of its group."""


@pytest.fixture(scope="module")
def marines_or_corridor() -> Episodes:
    return Episodes(parse_name("smac_3m+corridor"), even=True)


def play_alone(joined: Episodes) -> None:
    """Check that each battle of a join plays as if it were alone."""
    for choice, battle in enumerate(joined.facts.choices):
        alone = Episodes(battle, even=True)
        assert_same_battle(joined, alone, BATCH, STEPS, choice)


def test_battles_on_two_terrains_play_as_if_they_were_alone(marines_or_corridor):
    """Orders, ways around walls, observations, masks, rewards and ends are equal."""
    play_alone(marines_or_corridor)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "smac_3m+2s3z",
        "smac_2c_vs_64zg+MMM",
        "smacv2_zerg_4v5+3v4",
        "smacv2_zerg_5v5+terran_3v4",
    ],
)
def test_other_battles_play_as_if_they_were_alone(name):
    play_alone(Episodes(parse_name(name), even=True))


def test_all_battles_occur_equally_often_with_their_units():
    joined = Episodes(parse_name("smac_3m+corridor+2s3z"))
    starts = joined.starts(DRAWS)
    share = np.bincount(starts.choice, minlength=3) / DRAWS
    assert np.abs(share - 1 / 3).max() < SIGMAS * np.sqrt(2 / 9 / DRAWS)
    casts = [joined.facts.casts[choice] for choice in starts.choice]
    assert (starts.cast.row == [cast.row for cast in casts]).all()
    assert (starts.cast.order == [cast.order for cast in casts]).all()


def test_units_start_at_the_places_of_their_battle(marines_or_corridor):
    joined = marines_or_corridor
    state, _ = joined.first(BATCH)
    for choice, battle in enumerate(joined.facts.choices):
        teams = (0, battle.allies, battle.n_allies), (joined.n, battle.enemies, 3)
        for first, (group, *_), count in teams:
            units = state.position[state.choice == choice, first : first + count]
            assert np.abs(units - group.at[:2]).max() < SPREAD


def test_an_episode_ends_at_the_limit_of_its_battle(marines_or_corridor):
    joined = marines_or_corridor
    assert joined.spec.episode_limit == 400
    state, _ = joined.first(BATCH)
    limit = np.asarray([60, 400])[state.choice]
    early = np.arange(BATCH) % 2
    state = state.replace(steps=limit - 1 - early)
    after = joined.step(state, joined.stop(BATCH))
    assert (after.truncated == (early == 0)).all()
    assert not after.terminated.any()
    clock = after.obs.state.features[:, 0]
    assert clock == pytest.approx(1 - early / limit)


def test_the_sizes_are_those_of_the_largest_teams(marines_or_corridor):
    assert (marines_or_corridor.n, marines_or_corridor.m) == (6, 24)
    assert not marines_or_corridor.spec.fixed_team
