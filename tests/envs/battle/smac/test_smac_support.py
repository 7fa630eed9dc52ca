"""Healing, and recovery of shields, health and energy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from smac_worlds import Case, arena

from jmarl.envs import make


CENTER = 16.0
REACH = 4 + 0.75 + 0.375
"""Distance of centers up to which a medivac heals a marine."""
PER_STEP = 4.5
REGEN = 0.5625 / 2
"""Energy that a healer regains in a step."""


def patient(name: str = "marine", apart: float = 2.0, **state: float):
    """Return a case in which a medivac heals a wounded ally."""
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER)
    wounded = case.ally(name, CENTER + apart, CENTER, **{"health": 10.0, **state})
    case.aim(medivac, wounded)
    return case, medivac, wounded


def gain(state, case: int, unit: int) -> float:
    """Return the change of a unit's health."""
    return float(state.health[-1, case, unit] - state.health[0, case, unit])


def test_a_medivac_heals_45_a_step_for_15_energy():
    case, medivac, marine = patient()
    state = arena().run([case], steps=2).state
    assert gain(state, 0, marine) == pytest.approx(2 * PER_STEP)
    spent = state.energy[0, 0, medivac] - state.energy[-1, 0, medivac]
    assert state.energy[0, 0, medivac] == 50.0
    assert spent == pytest.approx(2 * (1.5 - REGEN))


def test_50_energy_last_for_41_steps():
    """A medivac heals for 50 / (3 - 0.5625) = 20.5 s, and then as fast as it regains energy."""
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER)
    marauder = case.ally("marauder", CENTER + 2.0, CENTER, health=1.0)
    case.aim(medivac, marauder)
    # 125 health heal in 27 steps, so the energy is that after the first 20 of 41 steps.
    case.changes[medivac]["energy"] = 50.0 - 20 * (1.5 - REGEN)
    state = arena().run([case], steps=23).state
    healed = np.diff(state.health[:, 0, marauder])
    assert healed[:20] == pytest.approx(PER_STEP)
    assert PER_STEP - 0.3 < healed[20] < PER_STEP
    assert healed[22] == pytest.approx(3 * REGEN, abs=1e-3)


def test_healing_ends_at_full_health_and_costs_a_third_of_it():
    case, medivac, marine = patient(health=44.0)
    state = arena().run([case]).state
    assert gain(state, 0, marine) == pytest.approx(1.0)
    energy = state.energy[-1, 0, medivac]
    assert energy == pytest.approx(50 - 1 / 3 + REGEN)


def test_two_medivacs_do_not_stack_on_one_target():
    case, medivac, marine = patient()
    other = case.ally("medivac", CENTER + 4.0, CENTER)
    case.aim(other, marine)
    state = arena().run([case]).state
    assert gain(state, 0, marine) == pytest.approx(PER_STEP)
    energy = state.energy[-1, 0, [medivac, other]]
    assert energy == pytest.approx([50 - 1.5 + REGEN, 50 + REGEN])


def test_two_medivacs_heal_two_targets():
    case, _, marine = patient()
    other = case.ally("medivac", CENTER + 4.0, CENTER)
    second = case.ally("zealot", CENTER + 4.0, CENTER - 2.0, health=10.0)
    case.aim(other, second)
    state = arena().run([case]).state
    assert gain(state, 0, marine) == gain(state, 0, second) == pytest.approx(PER_STEP)


def test_the_second_medivac_heals_when_the_first_cannot():
    case, medivac, marine = patient()
    case.changes[medivac]["energy"] = 0.0
    other = case.ally("medivac", CENTER + 4.0, CENTER)
    case.aim(other, marine)
    assert gain(arena().run([case]).state, 0, marine) == pytest.approx(PER_STEP)


def self_healing() -> tuple[Case, int, int]:
    """Return a case of a medivac whose index of a target is its own; no action has it."""
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER, health=10.0)
    return case, medivac, medivac


NOT_HEALED = {
    "full": lambda: patient(health=45.0),
    "mechanical": lambda: patient("stalker"),
    "mechanical colossus": lambda: patient("colossus"),
    "flying": lambda: patient("medivac"),
    "dead": lambda: patient(health=0.0),
    "oneself": self_healing,
}


@pytest.mark.parametrize("kind", list(NOT_HEALED))
def test_a_medivac_does_not_heal(kind):
    case, medivac, target = NOT_HEALED[kind]()
    state = arena().run([case], steps=2).state
    assert gain(state, 0, target) == 0
    assert state.energy[-1, 0, medivac] == pytest.approx(50 + 2 * REGEN)


def test_no_action_heals_oneself():
    """The allies of an observer are the targets of the last N - 1 actions."""
    spec = arena().engine.spec
    slots = spec.action_target[-(arena().n - 1) :]
    assert spec.n_slots == arena().n - 1 + arena().m
    assert slots == tuple(range(arena().n - 1))


def test_an_action_that_is_not_available_neither_heals_enemies_nor_hurts_friends():
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER)
    enemy = case.enemy("marine", CENTER + 2.0, CENTER, health=10.0)
    marine = case.ally("marine", CENTER, CENTER + 3.0)
    case.aim(medivac, enemy)
    case.aim(marine, medivac)
    state = arena().run([case]).state
    assert gain(state, 0, enemy) == gain(state, 0, medivac) == 0


def test_healing_begins_at_5_energy():
    cases = [patient() for _ in range(2)]
    for (case, medivac, _), energy in zip(cases, (4.7, 5.0), strict=True):
        # 0.28 energy regained in a step are not enough to reach 5.
        case.changes[medivac]["energy"] = energy
    state = arena().run([case for case, *_ in cases]).state
    assert gain(state, 0, cases[0][2]) == 0
    assert gain(state, 1, cases[1][2]) == pytest.approx(PER_STEP)


def continued(target_changes: bool):
    """Return a case of a medivac with 4 energy that healed a marine in the last tick."""
    case, medivac, marine = patient()
    healed = case.ally("marine", CENTER - 2.0, CENTER) if target_changes else marine
    case.changes[medivac] |= {"energy": 4.0, "healing": 1, "last_target": healed}
    return case, medivac, marine


def test_below_5_energy_a_medivac_goes_on_with_the_same_target_only():
    cases = [continued(False), continued(True)]
    state = arena().run([case for case, *_ in cases]).state
    gains = [gain(state, b, marine) for b, (*_, marine) in enumerate(cases)]
    assert gains == pytest.approx([PER_STEP, 0.0])


@pytest.mark.parametrize("margin", [-0.01, 0.01])
def test_healing_reaches_4_from_edge_to_edge(margin):
    case, medivac, marine = patient(apart=REACH + margin)
    trace = arena().run([case])
    assert bool(trace.walk(0, medivac).any()) == (margin > 0)
    assert gain(trace.state, 0, marine) > 0


def test_a_medivac_flies_to_a_patient_out_of_reach():
    case, medivac, marine = patient(apart=REACH + 0.8)
    trace = arena().run([case], steps=3)
    assert trace.walk(0, medivac)[0] == pytest.approx(0.8, abs=2e-3)
    assert gain(trace.state, 0, marine) > 0
    assert trace.state.health[1, 0, marine] == 10.0


def test_energy_is_at_most_200():
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER, energy=199.9)
    assert arena().run([case]).state.energy[-1, 0, medivac] == 200.0


def test_enemy_healers_heal_the_most_wounded_nearby():
    case = arena().case()
    case.ally("marine", 1.0, 1.0)
    case.enemy("medivac", CENTER, CENTER)
    slightly = case.enemy("marine", CENTER + 2.0, CENTER, health=30.0)
    badly = case.enemy("marauder", CENTER - 2.0, CENTER, health=60.0)
    far = case.enemy("marine", CENTER, CENTER + 6.0, health=1.0)
    state = arena().run([case]).state
    gains = [gain(state, 0, unit) for unit in (slightly, badly, far)]
    assert gains == pytest.approx([0, PER_STEP, 0])


def test_an_episode_counts_the_health_that_its_own_healers_restored():
    case, *_ = patient()
    case.enemy("medivac", 28.0, 28.0)
    case.enemy("marauder", 28.0, 26.0, health=60.0)
    idle = arena().case()
    idle.ally("medivac", CENTER, CENTER)
    idle.ally("zergling", CENTER + 1.0, CENTER, health=10.0)
    trace = arena().run([case, idle], steps=3)
    assert trace.state.healed[-1, :2] == pytest.approx([3 * PER_STEP, 0])
    last = jax.tree.map(lambda x: x[-1], trace.state)
    outcomes = arena().engine.outcomes(last)
    assert outcomes["healed"] is last.healed
    assert set(outcomes) == set(arena().engine.spec.outcomes) == {"won", "healed"}
    assert make("smac_3m").spec.outcomes == ("won",)
    assert make("smac_3m_vs_2m1d").spec.outcomes == ("won",)


def resting(calm: float, **state: float):
    case = arena().case()
    zealot = case.ally(
        "zealot", CENTER, CENTER, **{"shield": 20.0, "calm": calm, **state}
    )
    return case, zealot


def test_shields_recover_after_10_s_without_damage_and_not_before():
    (early, zealot), (late, _) = resting(calm=8.5), resting(calm=9.0)
    shield = arena().run([early, late], steps=3).state.shield[:, :2, zealot]
    # 10 s have passed after 3 steps in the first case, and after 2 in the second.
    assert shield[:, 0] == pytest.approx([20, 20, 20, 20.125])
    assert shield[:, 1] == pytest.approx([20, 20, 20.125, 21.125])


def test_shields_recover_up_to_their_maximum():
    case, zealot = resting(calm=20.0, shield=49.5)
    shield = arena().run([case]).state.shield[-1, 0, zealot]
    assert shield == 50.0


def test_any_damage_delays_the_shield():
    shielded, zealot = resting(calm=60.0)
    shielded.enemy("marine", CENTER + 3.0, CENTER, cooldown=0.0)
    trace = arena().run([shielded])
    assert trace.state.shield[-1, 0, zealot] == 14.0
    assert trace.state.calm[-1, 0, zealot] == pytest.approx(7 / 16)


def test_health_of_zerg_recovers_always_and_of_others_never():
    names = ("zergling", "baneling", "hydralisk", "spine_crawler", "marine", "zealot")
    case = arena().case()
    units = [
        case.ally(name, 4.0 + 4 * k, 8.0, health=20.0) for k, name in enumerate(names)
    ]
    state = arena().run([case], steps=4).state
    gains = state.health[-1, 0, units] - 20.0
    assert gains == pytest.approx([4 * 0.2734 / 2] * 4 + [0, 0], abs=1e-4)


def test_the_dead_recover_nothing():
    case = arena().case()
    case.ally("marine", 4.0, 4.0)
    units = [
        case.ally(name, CENTER, CENTER, health=0.0) for name in ("zergling", "zealot")
    ]
    case.changes[units[1]] |= {"shield": 0.0, "calm": 30.0}
    state = arena().run([case], steps=2).state
    assert not state.health[-1, 0, units].any()
    assert not state.shield[-1, 0, units[1]]
