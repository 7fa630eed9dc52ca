"""The worked example ``docs/examples/ford.yaml`` is a battle that does what its comments say."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from option_worlds import World
from smac_worlds import BATCH, EAST, NO_OP

from jmarl.envs import make
from jmarl.envs.conformance import check_env


FORD = Path(__file__).parents[4] / "docs" / "examples" / "ford.yaml"
MOST_LINES = 40
SAFE = (24.0, 24.0)
"""Place of an enemy that only keeps the battle going."""
IDLE = {"cooldown": 100.0}


@pytest.fixture(scope="module")
def ford() -> World:
    return World(FORD.read_text())


def units(ford: World, name: str) -> list[int]:
    """Return all units of a type."""
    return [unit for unit, other in enumerate(ford.arena.names) if other == name]


def test_it_has_at_most_40_lines():
    assert len(FORD.read_text().splitlines()) <= MOST_LINES


def test_it_is_an_environment():
    spec = make("battle", scenario=str(FORD)).spec
    assert (spec.n_agents, spec.episode_limit, spec.fixed_team) == (11, 150, False)


@pytest.mark.slow
def test_it_conforms():
    env = make("battle", scenario=str(FORD))
    check_env(env, jax.random.key(0), batch=2)


def test_the_river_can_be_crossed_at_the_ford_alone(ford):
    cases = []
    for y in (10, 15, 20):
        case = ford.case()
        case.move(marine := case.ally("marine", 13.7, y), EAST)
        case.enemy("zergling", *SAFE)
        cases.append(case)
    x = ford.run(cases)[0].state.position[:3, marine, 0]
    assert list(x > 14) == [False, True, False]


def test_the_marauders_arrive_at_a_random_step_and_place(ford):
    start = ford.arena.start
    marauders, guards = units(ford, "marauder")[:2], units(ford, "guard")
    place = start.position[:, marauders].mean(1)
    assert np.abs(place[:, 0] - 4).max() < 1
    assert place[:, 1].min() < 12 < 20 < place[:, 1].max()
    arrives = start.arrives[:, marauders]
    assert (arrives[:, 0] == arrives[:, 1]).all()
    assert 30 <= arrives.min() < 36 < 44 < arrives.max() <= 50
    assert (start.arrives[:, guards] == 0).all()
    soon = ford.arena.state([ford.case()]).replace(steps=arrives[:, 0] - 1)
    after = ford.step(soon, ford.stop(BATCH))
    assert after.obs.joined[:, marauders].all()
    assert (after.state.health[:, marauders] == 125).all()


def test_the_units_of_a_group_start_in_rings_of_touching_bodies(ford):
    """The spacing is that of the largest body of the group, not of the battle."""
    start = ford.arena.start.position
    first = units(ford, "zergling")[:10]
    for group, place, spacing, rings in (
        (first, (26, 16), 0.75, 2),
        (units(ford, "guard"), (10, 16), 0.75, 1),
        ([*units(ford, "marine"), *units(ford, "medivac")], (8, 16), 1.5, 1),
    ):
        offset = start[:, group] - place
        distance = np.linalg.norm(offset, axis=-1)
        ring = np.rint(distance / spacing)
        assert np.abs(distance - ring * spacing).max() < 0.1
        assert ring.max() == rings


def test_the_second_wave_arrives_at_step_40(ford):
    arrives = ford.arena.start.arrives[0]
    waves = arrives[units(ford, "zergling")]
    assert sorted(waves) == [0] * 10 + [40] * 8
    assert (arrives[units(ford, "baneling")] == 40).all()
    assert (arrives[units(ford, "spine_crawler")] == 0).all()


def test_the_guards_are_withdrawn_at_step_120(ford):
    case = ford.case()
    guard = case.ally("guard", 10, 16)
    case.ally("marine", 8, 16)
    case.enemy("zergling", *SAFE, **IDLE)
    case.steps = 118
    for step, withdrawn in zip(ford.run([case], steps=2), (False, True), strict=True):
        assert bool(step.obs.avail[0, guard, NO_OP]) == withdrawn
        assert (step.state.health[0, guard] == 0) == withdrawn
        assert not step.terminated[0]


def test_the_zerglings_attack_and_the_crawler_holds(ford):
    case = ford.case()
    case.ally("marine", 8, 16)
    zergling = case.enemy("zergling", 26, 16)
    crawler = case.enemy("spine_crawler", 24, 10)
    start, after = ford.arena.state([case]), ford.run([case])[0].state
    moved = after.position[0] - np.asarray(start.position)[0]
    assert moved[zergling] == pytest.approx((-2.953 / 2, 0), abs=1e-4)
    assert moved[crawler] == pytest.approx(0)


def test_the_ford_halves_the_speed(ford):
    case = ford.case()
    case.move(marine := case.ally("marine", 15, 16), EAST)
    case.enemy("zergling", *SAFE)
    x = ford.run([case])[0].state.position[0, marine, 0]
    assert x - 15 == pytest.approx(2.25 / 2 / 2)


def test_units_in_the_grove_are_seen_only_from_3_away(ford):
    cases = []
    for x in (9.1, 8.9):
        case = ford.case()
        marine = case.ally("marine", x, 10)
        zergling = case.enemy("zergling", 6, 10)
        cases.append(case)
    obs = ford.see(cases)
    seen = [ford.sees(obs, b, marine, zergling) for b in range(2)]
    assert seen == [False, True]


def test_half_of_the_reward_is_that_of_the_team(ford):
    """A marine has its own damage and kills, and a medivac its healing."""
    shoot, heal = ford.case(), ford.case()
    marine = shoot.ally("marine", 8, 16)
    ford.aim(shoot, marine, "attack", shoot.enemy("zergling", 12, 16, health=5))
    medivac, hurt = heal.ally("medivac", 8, 16), heal.ally("marine", 10, 16)
    heal.changes[hurt]["health"] = 20.0
    ford.aim(heal, medivac, "heal", hurt)
    for case in (shoot, heal):
        case.enemy("zergling", *SAFE)
    reward = ford.run([shoot, heal])[0].reward
    scale = 20 / ford.facts.battle.max_reward
    expected = [[scale * 15, scale * 0.5 * 15], [0, scale * 0.5 * 4.5]]
    assert reward[:2, [marine, medivac]] == pytest.approx(np.asarray(expected))


def test_a_guard_is_a_zealot_with_a_ward(ford):
    case = ford.case()
    guard, marine = case.ally("guard", 8, 16), case.ally("marine", 10, 16)
    case.enemy("zergling", *SAFE)
    ford.aim(case, guard, "ward", marine)
    state = ford.run([case])[0].state
    assert state.ward_armor[0, marine] == 2
    assert state.ward[0, marine] == pytest.approx(4 - 7 / 16)
    assert state.health[0, guard] == 150
    assert state.shield[0, guard] == 50


def test_enemies_deal_the_given_damage(ford):
    zergling = ford.facts.table[ford.facts.rows[units(ford, "zergling")[0]]]
    assert (zergling.health, zergling.damage) == pytest.approx((35, 1.6 * 5))
