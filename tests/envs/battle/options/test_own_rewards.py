"""Rewards of single agents (``reward:`` in a scenario file), and SMAC's own reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from option_worlds import Episodes, World, random_actions
from smac_worlds import Case

from jmarl.envs.battle.scenarios.scenario_file import parse
from jmarl.envs.battle.smac.smac_actions import n_own_actions


GOALS = """
limit: 60
orders: hold
allies:
  - units: {marine: 1, marauder: 1, stalker: 1, medivac: 1, zealot: 1, colossus: 1, baneling: 1}
    at: [8, 16]
enemies:
  - {units: {marine: 2, zealot: 1}, at: [24, 16]}
reward:
  team: 0.25
  marine: {damage: 2}
  marauder: {kills: 3}
  stalker: {win: 0.5}
  medivac: {healing: 1.5}
  zealot: {survival: 2}
  colossus: {sight: 4, damage: 1}
"""
TEAM = 0.25
WEIGHTS = {
    "marine": {"damage": 2},
    "marauder": {"kills": 3},
    "stalker": {"win": 0.5},
    "medivac": {"healing": 1.5},
    "zealot": {"survival": 2},
    "colossus": {"sight": 4, "damage": 1},
    "baneling": {"damage": 1, "kills": 1, "win": 1},  # SMAC's, because it has no entry
}
ACTING = {"cooldown": 0.0}
FAR = (30.0, 30.0)


@pytest.fixture(scope="module")
def goals() -> World:
    return World(GOALS)


def duel(goals: World, shooter: str, enemy: str, **state: float) -> Case:
    """Return a case in which an ally attacks an enemy; another enemy is far away."""
    case = goals.case()
    ally = case.ally(shooter, 8, 16)
    goals.aim(case, ally, "attack", case.enemy(enemy, 12, 16, **state))
    case.enemy("marine", *FAR)
    return case


def cases_of_terms(goals: World) -> list[tuple[Case, dict[str, Any]]]:
    """Return a case for each term, and what happens in it.

    ``lost`` has the health and shield that allies lose, and ``seen`` the enemies they see.
    """
    last = goals.case()
    marine = last.ally("marine", 8, 16)
    goals.aim(last, marine, "attack", last.enemy("marine", 12, 16, health=4))
    clinic = goals.case()
    medivac, patient = clinic.ally("medivac", 8, 16), clinic.ally("marauder", 10, 16)
    clinic.changes[patient]["health"] = 50.0
    goals.aim(clinic, medivac, "heal", patient)
    clinic.enemy("marine", *FAR)
    hurt = goals.case()
    hurt.ally("zealot", 8, 16)
    hurt.ally("stalker", 2, 2)
    hurt.enemy("marine", 12, 16, **ACTING)
    watch = goals.case()
    watch.ally("colossus", 16, 16)
    watch.ally("marauder", 2, 2)
    for place in ((24, 16), (16, 8)):
        watch.enemy("marine", *place)
    watch.enemy("zealot", 16, 26)
    kill = duel(goals, "marine", "marine", health=5)
    return [
        (duel(goals, "stalker", "zealot"), {"damage": 13}),
        (kill, {"damage": 5, "kills": 10}),
        (last, {"damage": 4, "kills": 10, "win": 200}),
        (clinic, {"healing": 4.5}),
        (hurt, {"lost": {"zealot": 6}}),
        (watch, {"seen": {"colossus": 2}}),
    ]


def test_each_agent_has_the_terms_of_its_unit_type(goals):
    """A share of 0.25 is the team reward, and the rest is the agent's own."""
    table = cases_of_terms(goals)
    reward = goals.run([case for case, _ in table])[0].reward
    scale = 20 / goals.facts.battle.max_reward
    for b, (_, events) in enumerate(table):
        team = sum(events.get(term, 0) for term in ("damage", "kills", "win"))
        for ally, name in enumerate(goals.arena.names[: goals.n]):
            terms = {
                **events,
                "survival": -events.get("lost", {}).get(name, 0),
                "sight": events.get("seen", {}).get(name, 0),
            }
            own = sum(terms.get(key, 0) * w for key, w in WEIGHTS[name].items())
            expected = scale * (TEAM * team + (1 - TEAM) * own)
            assert reward[b, ally] == pytest.approx(expected, rel=1e-5), (b, name)


def test_agents_of_types_without_weights_have_the_team_reward(goals):
    table = cases_of_terms(goals)
    reward = goals.run([case for case, _ in table])[0].reward
    baneling = goals.arena.names.index("baneling")
    raw = [sum(e.get(k, 0) for k in ("damage", "kills", "win")) for _, e in table]
    expected = 20 / goals.facts.battle.max_reward * np.asarray(raw)
    assert reward[: len(table), baneling] == pytest.approx(expected)


def test_the_share_of_the_team_is_none_unless_it_is_given():
    battle = parse(GOALS.replace("  team: 0.25\n", ""), "goals.yaml", "goals")
    assert battle.team_reward == 0
    plain = parse(GOALS[: GOALS.index("reward:")], "plain.yaml", "plain")
    assert plain.team_reward == 1


HARDY = """
limit: 200
allies:
  - {units: {marine: 3, marauder: 4}, at: [14, 16]}
enemies:
  - {units: {stalker: 1, marine: 1, medivac: 1, zergling: 2}, at: [18, 16]}
"""
"""Enemies that recover: a shield, a patient of a healer, and Zerg."""
BATCH, STEPS = 16, 40


def smac_reward(before: Any, after: Any, won: np.ndarray, first: int, most: float):
    """Return SMAC's reward, environment by environment and unit by unit."""
    rewards = []
    for b in range(BATCH):
        change = deaths = 0.0
        for unit in range(first, before.health.shape[1]):
            if before.health[b, unit] <= 0:
                continue
            had = before.health[b, unit] + before.shield[b, unit]
            if after.health[b, unit] > 0:
                change += had - after.health[b, unit] - after.shield[b, unit]
            else:
                change += had
                deaths += 10
        rewards.append(20 * (abs(change + deaths) + 200 * won[b]) / most)
    return np.asarray(rewards)


def test_smacs_own_reward_pays_for_the_recovery_of_enemies():
    hardy = Episodes(parse(HARDY, "hardy.yaml", "hardy"), smac_reward=True)
    rng = np.random.default_rng(0)
    state, obs = hardy.first(BATCH)
    # Wounded enemies that have not been hit for a while, so that all recover at first.
    wounded = np.where(np.arange(hardy.n + hardy.m) >= hardy.n, 0.4, 1.0)
    state = state.replace(
        health=state.health * wounded,
        shield=state.shield * wounded,
        calm=np.full_like(state.calm, 10),
    )
    recovered = 0
    for t in range(STEPS):
        action = random_actions(obs, rng, n_own_actions(hardy.facts))
        row = hardy.step(state, action, seed=t)
        most = hardy.facts.battle.max_reward
        expected = smac_reward(state, row.state, row.won, hardy.n, most)
        assert row.reward == pytest.approx(
            np.broadcast_to(expected[:, None], row.reward.shape), abs=1e-5
        )
        strength = [
            (s.health + s.shield)[:, hardy.n :].sum(1) for s in (state, row.state)
        ]
        recovered += (strength[1] > strength[0]).sum()
        state, obs = row.state, row.obs
    assert recovered > 0
    assert row.won.any()
