"""``env.pad`` adds absent units; ``env.shuffle_slots`` permutes the units of each team."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import Episodes, random_actions
from slots import Slots, assert_same_obs
from subset import assert_same_battle

from jmarl.config.errors import ConfigError
from jmarl.envs import make
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.scenarios.scenario_file import parse
from jmarl.envs.battle.smac.smac_actions import n_own_actions


BATCH = 24
DRAWS = 6000
SIGMAS = 4.5
STEPS = 30
ATOL = 5e-4
MIXED = """
rules: smac
terrain: strip
allies:
  - {units: {marine: 2, marauder: 1}, at: [11, 16]}
  - {units: {medivac: 1}, at: [9, 16], arrives: 2, leaves: 25}
enemies:
  - {units: {marine: 1}, at: [20, 16]}
  - {units: {hydralisk: 1}, at: [19, 18], orders: hold, arrives: [1, 4]}
  - {units: {zergling: 1}, at: [20, 20], orders: {attack_move: [4, 12]}}
"""
"""Battle in which units differ in type, order, destination and time, and none has a shield."""


@pytest.fixture(scope="module")
def shuffled() -> Episodes:
    return Episodes(parse(MIXED, "mixed.yaml", "mixed"), even=True, shuffle_slots=True)


@pytest.mark.parametrize(
    ("name", "pad"),
    [
        ("smac_2m1d_vs_1m1M", (5, 4)),
        pytest.param("smac_3s_vs_3z", (0, 5), marks=pytest.mark.slow),
        pytest.param("smac_2s3z", (6, 0), marks=pytest.mark.slow),
        pytest.param("smacv2_terran_3v4", (4, 6), marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing(name, pad):
    battle = parse_name(name)
    padded = Episodes(battle, even=True, pad=pad)
    assert padded.n == max(pad[0], battle.n_allies)
    assert padded.m == max(pad[1], battle.n_enemies)
    assert padded.spec.fixed_team == (pad[0] == 0)
    assert_same_battle(padded, Episodes(battle, even=True), BATCH, STEPS)


def test_a_team_must_fit_into_its_padding():
    with pytest.raises(ConfigError, match=r"^env.pad\[1\]=2: smaller than the team of"):
        make("smac_3m", pad=(0, 2))


def test_permuted_slots_give_permuted_observations_transitions_and_rewards(shuffled):
    """Cooldowns have no random part here, so that shots are compared, too."""
    rng = np.random.default_rng(1)
    state, obs = shuffled.first(BATCH)
    allies, enemies = rng.permutation(shuffled.n), rng.permutation(shuffled.m)
    slots = Slots(shuffled, shuffled, allies, enemies)
    own = slots.state(state)
    damage = 0.0
    for t in range(STEPS):
        action = random_actions(obs, rng, targeted=n_own_actions(shuffled.facts))
        ours = shuffled.step(state, action, seed=t)
        theirs = shuffled.step(own, slots.actions(action[:, allies]), seed=t)
        state, own, obs = ours.state, theirs.state, ours.obs
        assert_same_obs(slots.obs(ours.obs), theirs.obs, ATOL)
        np.testing.assert_allclose(ours.reward, theirs.reward, atol=ATOL)
        for name in ("terminated", "truncated", "won"):
            assert (getattr(ours, name) == getattr(theirs, name)).all(), name
        damage += ours.reward.sum()
    assert damage > 0


def test_each_unit_takes_each_slot_equally_often(shuffled):
    """The allies are two marines, a marauder and a medivac; the enemies all differ."""
    rows = shuffled.starts(DRAWS).cast.row
    n = shuffled.n
    for team, sizes in ((rows[:, :n], [1, 2, 1]), (rows[:, n:], [1, 1, 1])):
        kinds, counts = np.unique(team, return_counts=True)
        assert (counts == DRAWS * np.asarray(sizes)).all()
        expected = np.asarray(sizes)[:, None] / team.shape[1]
        share = (team == kinds[:, None, None]).mean(1)
        sigma = np.sqrt(expected * (1 - expected) / DRAWS)
        assert (np.abs(share - expected) < SIGMAS * sigma).all()


def test_both_teams_are_permuted_uniformly_and_independently(shuffled):
    """All 12 orders of the allies and all 6 of the enemies occur together equally often."""
    rows = shuffled.starts(DRAWS).cast.row
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 12 * 6
    expected = DRAWS / len(counts)
    assert np.abs(counts - expected).max() < SIGMAS * np.sqrt(expected)


def test_a_unit_keeps_its_place_order_and_times(shuffled):
    starts = shuffled.starts(DRAWS)
    n, names = shuffled.n, [row.name for row in shuffled.facts.table]

    def values(name: str, field: np.ndarray, first: int, team: slice) -> np.ndarray:
        rows = starts.cast.row[:, team]
        return field[rows == first + names.index(name)]

    kinds = len(shuffled.facts.unit_types)
    allies, enemies = slice(0, n), slice(n, None)
    for name, order, goal in (("hydralisk", 2, None), ("zergling", 0, (4, 12))):
        orders = values(name, starts.cast.order, kinds, enemies)
        assert (orders == order).all()
        goals = values(name, starts.destination, kinds, enemies)
        assert goal is None or goals == pytest.approx(np.tile(goal, (DRAWS, 1)))
    places = values("medivac", starts.position[:, allies], 0, allies)
    assert np.abs(places - (9, 16)).max() <= 0.05 + 1e-5
    assert (values("medivac", starts.arrives[:, allies], 0, allies) == 2).all()
    assert (values("medivac", starts.leaves[:, allies], 0, allies) == 25).all()
    arrivals = values("hydralisk", starts.arrives[:, enemies], kinds, enemies)
    assert set(arrivals) == {1, 2, 3, 4}
    assert (values("marine", starts.arrives[:, allies], 0, allies) == 0).all()
