"""Damage of single weapons: bonus, shield, armor, volleys, planes, reach and cooldowns."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from smac_worlds import BATCH, Case, Trace, arena

from jmarl.envs.battle.scenarios import scenario_file
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig


CENTER = 16.0
LOOP = 1 / 16
CLOSE, FAR = 0.9, 4.0
# Attacker, victim, distance, and the damage of the first volley.
VOLLEYS = [
    ("marine", "marine", FAR, 6),
    ("marine", "marauder", FAR, 5),
    ("marine", "zealot", FAR, 6),
    ("marine", "spine_crawler", FAR, 4),
    ("marine", "medivac", FAR, 5),
    ("marauder", "marauder", FAR, 19),
    ("marauder", "stalker", FAR, 20),
    ("marauder", "marine", FAR, 10),
    ("stalker", "marauder", FAR, 17),
    ("stalker", "medivac", FAR, 17),
    ("stalker", "colossus", FAR, 18),
    ("zealot", "marauder", CLOSE, 14),
    ("zealot", "zealot", CLOSE, 16),
    ("zergling", "zealot", CLOSE, 5),
    ("zergling", "marauder", CLOSE, 4),
    ("baneling", "zealot", CLOSE, 35),
    ("baneling", "zergling", CLOSE, 35),
    ("baneling", "baneling", CLOSE, 20),
    ("baneling", "marauder", CLOSE, 19),
    ("hydralisk", "medivac", FAR, 11),
    ("hydralisk", "colossus", FAR, 12),
    ("spine_crawler", "stalker", FAR, 30),
    ("spine_crawler", "zergling", FAR, 25),
    ("spine_crawler", "marauder", FAR, 29),
    ("colossus", "marine", FAR, 30),
    ("colossus", "stalker", FAR, 20),
    ("colossus", "marauder", FAR, 18),
    ("colossus", "colossus", FAR, 20),
]
GROUND_ONLY = (
    "marauder",
    "zealot",
    "colossus",
    "zergling",
    "baneling",
    "spine_crawler",
)
ZERG = ("zergling", "baneling", "hydralisk", "spine_crawler")
ZERG_RATE = 0.2734
COOLDOWNS = {
    "marine": 0.861,
    "marauder": 1.5,
    "stalker": 1.870,
    "zealot": 1.2,
    "colossus": 1.5,
    "zergling": 0.696,
    "hydralisk": 0.825,
    "spine_crawler": 1.850,
}


def duel(
    attacker: str, victim: str, apart: float, **state: float
) -> tuple[Case, int, int]:
    """Return a case in which an ally attacks an enemy; ``state`` is that of the victim."""
    case = arena().case()
    one = case.ally(attacker, CENTER, CENTER)
    other = case.enemy(victim, CENTER + apart, CENTER, **state)
    case.aim(one, other)
    return case, one, other


def first_volleys(duels: list[tuple[Case, int, int]]) -> np.ndarray:
    """Return the damage to the victims in one step."""
    trace = arena().run([case for case, *_ in duels])
    victims = [victim for *_, victim in duels]
    lost = [trace.lost(b, victim) for b, victim in enumerate(victims)]
    return lost + regained(trace, victims)


def regained(trace: Trace, victims: list[int]) -> np.ndarray:
    """Return the health that Zerg regain in the step in which they were hit."""
    health = trace.state.health[-1, np.arange(len(victims)), victims]
    is_zerg = np.isin([arena().names[victim] for victim in victims], ZERG)
    return is_zerg * (health > 0) * ZERG_RATE / 2


def test_a_volley_of_an_ally_costs_what_the_table_says():
    duels = [duel(*row[:3]) for row in VOLLEYS]
    assert np.allclose(first_volleys(duels), [row[3] for row in VOLLEYS], atol=1e-4)


def test_a_volley_of_an_enemy_costs_the_same():
    cases, victims = [], []
    for attacker, victim, apart, _ in VOLLEYS:
        case = arena().case()
        victims.append(case.ally(victim, CENTER + apart, CENTER))
        case.enemy(attacker, CENTER, CENTER, cooldown=0.0)
        cases.append(case)
    trace = arena().run(cases)
    lost = [trace.lost(b, victim) for b, victim in enumerate(victims)]
    damage = lost + regained(trace, victims)
    assert np.allclose(damage, [row[3] for row in VOLLEYS], atol=1e-4)


def test_armor_reduces_each_hit_that_the_shield_lets_through():
    duels = [
        duel("zealot", "marauder", CLOSE),
        duel("zealot", "zealot", CLOSE, shield=0.0),
        # The shield absorbs half of the first hit: 4, then 4 - 1, then 8 - 1.
        duel("zealot", "zealot", CLOSE, shield=4.0),
        duel("zealot", "zealot", CLOSE, shield=8.0),
        duel("colossus", "stalker", FAR, shield=15.0),
    ]
    expected = [14, 14, 4 + 3 + 7, 8 + 7, 10 + 5 + 4]
    assert np.allclose(first_volleys(duels), expected, atol=1e-4)


def test_a_hit_on_health_costs_at_least_half_a_point():
    rest = [duel("marine", "zealot", FAR, shield=shield) for shield in (5.2, 5.9, 6.0)]
    expected = [5.2 + 0.5, 5.9 + 0.5, 6.0]
    assert np.allclose(first_volleys(rest), expected, atol=1e-4)


def test_a_victim_loses_no_more_than_it_has():
    duels = [
        duel("spine_crawler", "marine", FAR, health=3.0),
        duel("colossus", "zealot", FAR, health=0.5, shield=1.0),
    ]
    assert np.allclose(first_volleys(duels), [3.0, 1.5], atol=1e-4)


def test_two_units_can_kill_each_other():
    case, one, other = duel("marine", "marine", FAR, health=6.0, cooldown=0.0)
    case.changes[one]["health"] = 6.0
    trace = arena().run([case])
    assert not trace.state.health[-1, 0, [one, other]].any()


@pytest.mark.parametrize("name", GROUND_ONLY)
def test_weapons_against_the_ground_never_hurt_flyers(name):
    case, one, medivac = duel(name, "medivac", CLOSE)
    hostile = arena().case()
    target = hostile.ally("medivac", CENTER, CENTER)
    hostile.enemy(name, CENTER + CLOSE, CENTER, cooldown=0.0)
    trace = arena().run([case, hostile], steps=4)
    assert trace.lost(0, medivac) == trace.lost(1, target) == 0
    assert trace.state.health[-1, 0, one] > 0


@pytest.mark.parametrize("name", ["zealot", "marine", "scout"])
def test_a_colossus_is_hit_as_ground_and_as_air(name):
    case, _, colossus = duel(name, "colossus", 1.5)
    assert arena().run([case]).lost(0, colossus) > 0


def test_a_weapon_against_the_air_hits_no_ground_unit():
    duels = [duel("scout", name, FAR) for name in ("marine", "stalker", "medivac")]
    assert np.allclose(first_volleys(duels), [0, 0, 17])


@pytest.mark.parametrize("margin", [-0.01, 0.0, 0.01])
def test_a_range_is_from_edge_to_edge(margin):
    """A unit at its reach fires in the first tick; one beyond it walks first."""
    reach = {
        ("marine", "marauder"): 5 + 0.375 + 0.5625,
        ("zealot", "colossus"): 0.1 + 0.5 + 1.0,
        ("stalker", "spine_crawler"): 6 + 0.625 + 1.125,
        ("baneling", "zergling"): 0.25 + 0.375 + 0.375,
    }
    duels = [
        duel(attacker, victim, apart + margin)
        for (attacker, victim), apart in reach.items()
    ]
    trace = arena().run([case for case, *_ in duels])
    for b, (_, one, other) in enumerate(duels):
        stood = not trace.walk(b, one).any()
        assert stood == (margin <= 0)
        assert trace.lost(b, other) > 0


@pytest.mark.parametrize(("cooldown", "count"), [(0.861, 1), (0.563, 1), (0.5, 8)])
def test_each_shot_of_a_step_has_a_random_part_of_its_own(cooldown, count):
    """Weapons that fire at most once in a step need one draw for all of its ticks."""
    text = f"""
units: {{marine: {{cooldown: {cooldown}}}}}
allies: [{{units: {{marine: 2}}, at: [9, 16]}}]
enemies: [{{units: {{zealot: 1, baneling: 1}}, at: [16, 16]}}]
"""
    facts = Facts(scenario_file.parse(text, "b.yaml", "b"), SmacConfig())
    keys = jax.random.split(jax.random.key(0), 3)
    deviations = np.asarray(smac_battle._deviations(facts, keys))
    assert deviations.shape == (8, 4, 3)
    assert len(np.unique(deviations)) == count * 4 * 3
    assert (np.ptp(deviations, axis=0) == 0).all() == (count == 1)


def test_a_cooldown_deviates_by_minus_one_to_two_loops():
    cases, shooters, expected = [], [], []
    for _ in range(BATCH // len(COOLDOWNS)):
        for name, cooldown in COOLDOWNS.items():
            apart = CLOSE if name in ("zealot", "zergling") else FAR
            case, one, _ = duel(name, "colossus", apart)
            cases.append(case)
            shooters.append(one)
            expected.append(cooldown)
    deviations = []
    for seed in range(8):
        state = arena().run(cases, seed=seed).state
        cooldown = state.cooldown[-1, np.arange(BATCH), shooters]
        # The shot fell in the first of 8 loops.
        deviations.append((cooldown + 0.5 - expected) / LOOP)
    assert np.min(deviations) == pytest.approx(-1, abs=0.1)
    assert np.max(deviations) == pytest.approx(2, abs=0.1)
    assert np.mean(deviations) == pytest.approx(0.5, abs=5 * 3 / np.sqrt(12 * 256))


def marine_duels(steps: int, seed: int = 0):
    """Return the health of the victims of a marine before and after each step."""
    duels = [duel("marine", "marine", FAR)] * BATCH
    trace = arena().run([case for case, *_ in duels], steps=steps, seed=seed)
    return trace.state.health[:, :, duels[0][2]]


def test_a_marine_kills_a_marine_with_8_shots():
    health = marine_duels(steps=15)
    shots = -np.diff(health, axis=0) / 6
    assert set(np.round(shots, 3).ravel()) == {0.0, 0.5, 1.0}
    assert ((shots > 0).sum(0) == 8).all()


def test_a_marine_kills_a_marine_in_12_to_13_steps():
    """The seven cooldowns last 12.5 steps on average, and a tenth of the duels one step more.

    Step n lasts from n - 1 to n, and a shot falls on average 9/16 of a step before its end.
    """
    steps = np.stack([(marine_duels(14, seed) > 0).sum(0) for seed in range(4)])
    assert set(steps.ravel()) <= {12, 13, 14}
    assert np.mean(steps <= 13) > 0.8
    assert 12.25 < np.mean(steps) - 9 / 16 < 12.75


def test_an_ally_on_stop_never_acts():
    case = arena().case()
    case.enemy("spine_crawler", CENTER, CENTER)
    around = {
        "marine": 4,
        "stalker": -4,
        "colossus": 6,
        "zealot": 1.7,
        "baneling": -1.7,
    }
    allies = [case.ally(name, CENTER + x, CENTER) for name, x in around.items()]
    marine = case.ally("marine", 4.0, 20.0, health=10.0)
    medivac = case.ally("medivac", 5.0, 20.0)
    allies += [marine, medivac]
    state = arena().run([case], steps=6).state
    assert (state.health[:, 0] == state.health[0, 0]).all()
    assert (state.position[:, 0, allies] == state.position[0, 0, allies]).all()
    assert (state.last_target[-1, 0, allies] == -1).all()
    assert state.energy[-1, 0, medivac] > 50.0
