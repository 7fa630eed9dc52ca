"""Groups that arrive after the start or are withdrawn before the end of an episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from option_worlds import Episodes, Step
from smac_worlds import NO_OP, NORTH, STOP

from jmarl.envs import make
from jmarl.envs.battle.scenarios.scenario_file import parse


WAVES = """
limit: 40
orders: hold
allies:
  - {units: {marine: 1}, at: [4, 4]}
  - {units: {marauder: 1, medivac: 1, stalker: 1}, at: [4, 24], arrives: 3, leaves: 6}
  - {units: {zealot: 2}, at: [16, 4], arrives: [2, 5], leaves: [7, 9]}
enemies:
  - {units: {marine: 1}, at: [28, 28]}
  - {units: {medivac: 1, stalker: 1}, at: [28, 4], arrives: 3, leaves: 6}
  - {units: {zealot: 1}, at: [16, 28], arrives: 4}
"""
"""The teams stay apart, so only arrivals and withdrawals change anything."""
MARAUDER, MARINE, MEDIVAC, STALKER, *ZEALOTS = range(6)
FOE_MARINE, FOE_MEDIVAC, FOE_STALKER, FOE_ZEALOT = range(6, 10)
ALLIES, ENEMIES = range(6), range(6, 10)
BATCH = 16
STEPS = 12
DRAWS = 4000
SIGMAS = 4.5


@pytest.fixture(scope="module")
def waves() -> Episodes:
    return Episodes(parse(WAVES, "waves.yaml", "waves"))


def play(
    waves: Episodes, deaths: list[dict[int, Any]], action: int = STOP
) -> list[Step]:
    """Return all steps of episodes in which some units die before a given step.

    All agents take one action, and their health is restored by nothing.
    """
    state, _ = waves.first(BATCH)
    record = []
    for t in range(STEPS):
        health = state.health.copy()
        for b, schedule in enumerate(deaths):
            health[b, list(schedule.get(t, ()))] = 0.0
        state = state.replace(health=health)
        record.append(waves.step(state, np.full((BATCH, waves.n), action), seed=t))
        state = record[-1].state
    return record


@pytest.fixture(scope="module")
def quiet(waves) -> list[Step]:
    """Return the steps of episodes in which nobody dies."""
    return play(waves, [])


def test_a_unit_is_there_from_its_arrival_to_its_withdrawal(waves, quiet):
    start, first = waves.first(BATCH)
    assert (start.arrives[:, MARINE] == 0).all()
    assert (start.arrives[:, STALKER] == 3).all()
    assert (start.leaves[:, STALKER] == 6).all()
    for t, (state, obs) in enumerate(
        [(start, first), *((row.state, row.obs) for row in quiet)]
    ):
        there = (start.arrives <= t) & (t < start.leaves)
        allies, enemies = there[:, : waves.n], there[:, waves.n :]
        assert ((state.health > 0) == there).all()
        assert (obs.alive == allies).all()
        assert (obs.state.mask[0] == allies).all()
        assert (obs.state.mask[1] == enemies).all()
        assert not obs.own[~allies].any()
        assert not (obs.mask[0].any(-1) & ~allies).any()
        others = np.stack([np.delete(allies, i, 1) for i in ALLIES], axis=1)
        assert not (obs.mask[0] & ~others).any()


def test_absent_agents_have_no_action_and_withdrawn_ones_the_no_op(waves, quiet):
    for t, row in enumerate(quiet, start=1):
        absent = row.state.arrives[:, : waves.n] > t
        gone = row.state.leaves[:, : waves.n] <= t
        count = row.obs.avail.sum(-1)
        assert not count[absent].any()
        assert (count[gone] == 1).all()
        assert row.obs.avail[gone, NO_OP].all()
        assert row.obs.avail[~absent & ~gone, STOP].all()
        assert (row.obs.present == ~absent).all()


def test_an_agent_has_joined_exactly_at_its_arrival(waves, quiet):
    start, first = waves.first(BATCH)
    assert not first.joined.any()
    for t, row in enumerate(quiet, start=1):
        assert (row.obs.joined == (start.arrives[:, : waves.n] == t)).all()


def test_units_arrive_with_full_strength(waves, quiet):
    state = quiet[2].state  # step 3
    strength = [state.health, state.shield, state.energy]
    for unit, full in (
        *((MARAUDER, (125, 0, 0)), (MEDIVAC, (150, 0, 50)), (STALKER, (80, 80, 0))),
        *((FOE_MEDIVAC, (150, 0, 50)), (FOE_STALKER, (80, 80, 0))),
    ):
        assert [values[0, unit] for values in strength] == pytest.approx(full)
    assert (state.cooldown[:, MARAUDER] == 0).all()


def test_actions_of_absent_agents_have_no_effect(waves, quiet):
    """Nor is their last action seen, when they arrive."""
    moved = play(waves, [], NORTH)[2]
    assert moved.state.position[:, STALKER] == pytest.approx(
        quiet[2].state.position[:, STALKER]
    )
    arrived = [MARAUDER, MEDIVAC, STALKER]
    assert moved.obs.own[:, arrived] == pytest.approx(quiet[2].obs.own[:, arrived])


def test_a_withdrawal_is_no_kill(quiet):
    """Enemies were withdrawn at step 6, and neither team was beaten."""
    assert all((row.reward == 0).all() for row in quiet)
    assert not any((row.terminated | row.won).any() for row in quiet)


# Units that die before a step; the step that ends the episode, if any; whether it is won.
ENDS = {
    "no enemy is left but those to arrive": ({1: [FOE_MARINE]}, None, False),
    "all enemies are dead": ({4: ENEMIES}, 5, True),
    "an enemy is to arrive": ({3: ENEMIES}, None, False),
    "a withdrawn enemy is not dead": ({8: ENEMIES}, None, False),
    "an enemy that died is not withdrawn": (
        {4: [FOE_MEDIVAC, FOE_STALKER], 8: ENEMIES},
        9,
        True,
    ),
    "no ally is left but those to arrive": ({0: [MARINE]}, None, False),
    "withdrawn allies are not dead": ({6: [MARINE, *ZEALOTS]}, None, False),
    "all allies are dead": ({5: ALLIES}, 6, False),
    "allies that died are not withdrawn": (
        {5: [MARAUDER, MEDIVAC, STALKER], 6: [MARINE, *ZEALOTS]},
        7,
        False,
    ),
}


def test_a_battle_ends_if_all_of_a_team_have_died(waves):
    """Units that are to arrive, or were withdrawn alive, neither lose nor win a battle."""
    record = play(waves, [deaths for deaths, *_ in ENDS.values()])
    for b, (name, (_, step, wins)) in enumerate(ENDS.items()):
        ends = [t for t, row in enumerate(record, start=1) if row.terminated[b]]
        assert ends[:1] == ([] if step is None else [step]), name
        won = [t for t, row in enumerate(record, start=1) if row.won[b]]
        assert won[:1] == ([step] if wins else []), name


def test_only_a_win_pays_the_bonus(waves):
    record = play(waves, [deaths for deaths, *_ in ENDS.values()])
    bonus = 20 * 200 / waves.facts.battle.max_reward
    for row in record:
        paid = np.broadcast_to(bonus * row.won[:, None], row.reward.shape)
        assert row.reward == pytest.approx(paid)


def test_drawn_steps_are_uniform_and_the_same_for_a_group(waves):
    starts = waves.starts(DRAWS)
    zealots = slice(ZEALOTS[0], ZEALOTS[-1] + 1)
    for values, low, high in ((starts.arrives, 2, 5), (starts.leaves, 7, 9)):
        steps = values[:, zealots]
        assert (steps[:, 0] == steps[:, 1]).all()
        count = high - low + 1
        share = np.bincount(steps[:, 0] - low, minlength=count) / DRAWS
        sigma = np.sqrt((1 - 1 / count) / count / DRAWS)
        assert len(share) == count
        assert np.abs(share - 1 / count).max() < SIGMAS * sigma
    assert (starts.arrives[:, FOE_ZEALOT] == 4).all()


def test_the_number_of_agents_varies(waves):
    assert not waves.spec.fixed_team


TEAMS = """\
allies: [{units: {marine: 1}, at: [8, 16]}, {units: {marine: 1}, at: [8, 20]%s}]
enemies: [{units: {marine: 1}, at: [24, 16]}, {units: {marine: 1}, at: [24, 20]%s}]
"""


def test_a_team_is_fixed_if_only_enemies_arrive_or_leave():
    """MAT, MAM and Sable need a fixed team."""
    times = ("", ", arrives: 5", ", leaves: 9")
    for time in times:
        assert make("battle", scenario=TEAMS % ("", time)).spec.fixed_team
        team = make("battle", scenario=TEAMS % (time, "")).spec
        assert team.fixed_team == (not time)
