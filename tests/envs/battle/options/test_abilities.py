"""Abilities that SMAC lacks: ``ward`` gives temporary armor, ``spot`` lets allies see farther."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import World, world_of_abilities
from smac_worlds import Case


AMOUNT, DURATION, COOLDOWN = 2, 1.5, 2.0
REACH = 5 + 0.5625 + 0.375
"""Distance of centers up to which a guard wards a marine or a wall."""
TICK, TICKS, STEP = 1 / 16, 8, 0.5
SEEN, UNSEEN = 12.9, 13.1
"""Distances just below and above the sight of 9 with the 4 that spotting adds."""
ACTING = {"cooldown": 0.0}


@pytest.fixture(scope="module")
def scouts() -> World:
    return world_of_abilities()


def shot_at(scouts: World, name: str, enemy: str, **state: float) -> tuple[Case, int]:
    """Return a case in which an enemy attacks an ally, and the ally."""
    case = scouts.case()
    ally = case.ally(name, 10, 16, **state)
    case.enemy(enemy, 10.9, 16, **ACTING)
    return case, ally


def losses(scouts: World, cases: list[tuple[Case, int]]) -> list[float]:
    """Return the health that each ally loses in a step."""
    before = scouts.arena.state([case for case, _ in cases])
    after = scouts.run([case for case, _ in cases])[0].state
    lost = np.asarray(before.health) - after.health
    return [float(lost[b, ally]) for b, (_, ally) in enumerate(cases)]


@pytest.mark.parametrize(
    ("enemy", "damage", "hits"),
    [("marine", 6, 1), ("zealot", 8, 2), ("baneling", 35, 1)],
)
def test_a_ward_reduces_each_hit_down_to_half_a_point(scouts, enemy, damage, hits):
    wards = [(0, 3), (1, 3), (1, 100), (0, 0)]
    cases = [
        shot_at(scouts, "marine", enemy, ward=seconds, ward_armor=armor)
        for seconds, armor in wards
    ]
    expected = [max(damage - armor * (s > 0), 0.5) * hits for s, armor in wards]
    assert losses(scouts, cases) == pytest.approx(expected)


def test_a_ward_protects_health_but_no_shield(scouts):
    state = {"ward": 1, "ward_armor": 3}
    case, stalker = shot_at(scouts, "stalker", "marine", shield=4, **state)
    assert losses(scouts, [(case, stalker)]) == [0.5]  # 2 are left, less than the armor
    assert scouts.run([case])[0].state.shield[0, stalker] == 0


def warded(scouts: World, guards: int) -> tuple[Case, int, list[int]]:
    """Return a case in which guards ward a wall at which a gun fires in each tick."""
    case, wall = shot_at(scouts, "wall", "gun")
    placed = [case.ally("guard", 10, 14.5 + 3 * k) for k in range(guards)]
    for guard in placed:
        scouts.aim(case, guard, "ward", wall)
    return case, wall, placed


def test_wards_last_reload_and_do_not_stack(scouts):
    """A ward holds for the 24 ticks after its tick, and the next one is given in tick 32."""
    expected, until, ready = [], 0, 0
    for tick in range(6 * TICKS):
        expected.append(6 - AMOUNT * (tick < until))
        if tick >= ready:
            until, ready = tick + 1 + DURATION / TICK, tick + COOLDOWN / TICK
    damage = np.reshape(expected, (6, TICKS)).sum(1)
    assert set(damage) > {8 * 4}
    cases = [warded(scouts, guards) for guards in (1, 2)]
    record = scouts.run([case for case, *_ in cases], steps=6)
    for b, (_, wall, guards) in enumerate(cases):
        health = [5000, *(row.state.health[b, wall] for row in record)]
        assert -np.diff(health) == pytest.approx(damage)
        cooldown = [row.state.cooldown[b, guards] for row in record[:4]]
        left = COOLDOWN - STEP * np.arange(1, 5)
        assert np.asarray(cooldown) == pytest.approx(
            np.broadcast_to(left[:, None], (4, len(guards)))
        )


def test_a_guard_walks_into_its_reach(scouts):
    cases = []
    for distance in (REACH, REACH + 1):
        case = scouts.case()
        guard, marine = case.ally("guard", 4, 4), case.ally("marine", 4 + distance, 4)
        case.enemy("marine", 28, 28)
        scouts.aim(case, guard, "ward", marine)
        cases.append(case)
    first, second = scouts.run(cases, steps=2)
    assert list(first.state.ward[:2, marine] > 0) == [True, False]
    assert list(second.state.ward[:2, marine] > 0) == [True, True]
    walked = second.state.position[:2, guard, 0] - 4
    assert walked == pytest.approx([0, 1], abs=2e-3)


def test_a_ward_needs_a_living_target_and_a_ready_unit(scouts):
    cases = []
    for health, cooldown in ((45, 0), (0, 0), (45, 1)):
        case = scouts.case()
        marine = case.ally("marine", 8, 16, health=health)
        guard = case.ally("guard", 10, 16, cooldown=cooldown)
        case.enemy("marine", 28, 28)
        scouts.aim(case, guard, "ward", marine)
        cases.append(case)
    state = scouts.run(cases)[0].state
    assert list(state.ward[:3, marine] > 0) == [True, False, False]
    assert state.cooldown[:3, guard] == pytest.approx([1.5, 0, 0.5])


def test_a_unit_that_wards_does_not_shoot_until_it_is_ready(scouts):
    case, _, (guard,) = warded(scouts, 1)
    ready = scouts.case()
    for c in (case, ready):
        target = c.enemy("zealot", 12, 16, shield=50)
    other = ready.ally("guard", 10, 14.5)
    assert other == guard
    scouts.aim(ready, guard, "attack", target)
    warding = scouts.run([case])[0].state
    state = warding.replace(steps=np.zeros_like(warding.steps))
    attack = scouts.stop(len(state.steps))
    attack[:, guard] = scouts.named("attack")[target - scouts.n]
    shield = [
        scouts.run([ready])[0].state.shield[0, target],
        scouts.step(state, attack).state.shield[0, target],
    ]
    assert shield == [40, 50]


def test_wards_are_offered_for_other_living_allies_near(scouts):
    case = scouts.case()
    guard = case.ally("guard", 10, 16)
    near = [case.ally("marine", 12, 16), case.ally("medivac", 10, 12)]
    case.ally("stalker", 16.1, 16)
    case.ally("wall", 11, 16, health=0)
    case.enemy("marine", 28, 28)
    obs = scouts.see([case])
    others = [unit for unit in range(scouts.n) if unit != guard]
    offered = [u for u in others if scouts.offers(obs, 0, guard, "ward", u)]
    assert offered == sorted(near)
    wards = scouts.named("ward")
    assert not np.delete(obs.avail[0], guard, axis=0)[:, wards].any()


def test_a_healer_with_a_ward_heals_no_healer(scouts):
    case = scouts.case()
    priest, medivac = case.ally("priest", 10, 16), case.ally("medivac", 12, 16)
    marine = case.ally("marine", 8, 16)
    obs = scouts.see([case])
    offers = [
        [scouts.offers(obs, 0, priest, name, unit) for unit in (medivac, marine)]
        for name in ("heal", "ward")
    ]
    assert offers == [[False, True], [True, True]]
    assert not scouts.offers(obs, 0, medivac, "ward", marine)


def test_the_features_show_a_ward(scouts):
    case = scouts.case()
    guard = case.ally("guard", 10, 16)
    marine = case.ally("marine", 12, 16, ward=0.25, ward_armor=2)
    case.enemy("marine", 28, 28)
    obs = scouts.see([case])
    assert obs.own[0, [guard, marine], 3] == pytest.approx([0, 0.25])
    assert obs.rows[0][0, guard, scouts.rank(guard, marine), 3] == 0.25
    assert obs.state.rows[0][0, marine, 3] == 0.25


def test_spotting_lets_allies_near_see_farther_for_a_time(scouts):
    """The sight is longer in the observations of 1.5 s. The next use is possible after 3 s."""
    case = scouts.case()
    scout, near = case.ally("scout", 2, 16), case.ally("marine", 2, 16 + 6.7)
    far = case.ally("stalker", 2, 16 - 7.1)
    enemies = [
        case.enemy(name, 2 + dx, y)
        for name, dx, y in (
            ("marine", SEEN, 16),
            ("zealot", UNSEEN, 16),
            ("baneling", SEEN, 22.7),
            ("gun", SEEN - 1, 8.9),
        )
    ]
    case.actions[scout] = scouts.named("spot")[0]
    obs = scouts.see([case])
    pairs = [(scout, enemies[0]), (scout, enemies[1]), (near, enemies[2])]
    pairs.append((far, enemies[3]))
    assert not any(scouts.sees(obs, 0, *pair) for pair in pairs)
    record = scouts.run([case], steps=9)
    seen = [[scouts.sees(row.obs, 0, *pair) for pair in pairs] for row in record]
    spotting = [True] * 3 + [False] * 3 + [True] * 3
    assert seen == [[now, False, now, False] for now in spotting]


def test_two_spotters_do_not_see_farther_than_one(scouts):
    case = scouts.case()
    pair = [case.ally("scout", 2, 16), case.ally("scout", 2, 18)]
    enemy = case.enemy("marine", 2 + UNSEEN, 16)
    for scout in pair:
        case.actions[scout] = scouts.named("spot")[0]
    row = scouts.run([case])[0]
    assert not scouts.sees(row.obs, 0, pair[0], enemy)
    assert row.state.extra_sight[0, pair] == pytest.approx(4)


def test_only_living_units_with_the_ability_can_spot(scouts):
    case = scouts.case()
    scout, _ = case.ally("scout", 2, 16), case.ally("scout", 2, 18, health=0)
    case.ally("marine", 4, 16)
    obs = scouts.see([case])
    (spot,) = scouts.named("spot")
    assert list(np.flatnonzero(obs.avail[0, :, spot])) == [scout]


def test_an_ability_of_one_s_own_is_a_row(scouts):
    case = scouts.case()
    priest, marine = case.ally("priest", 10, 16), case.ally("marine", 12, 16)
    case.enemy("marine", 28, 28)
    scouts.aim(case, priest, "ward", marine)
    state = scouts.run([case])[0].state
    assert state.ward_armor[0, marine] == 9
    assert state.ward[0, marine] == pytest.approx(DURATION - STEP + TICK)
