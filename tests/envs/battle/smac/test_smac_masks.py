"""Masks of actions and observations: moves, targets, sight, and columns of the features."""

from __future__ import annotations

import numpy as np
import pytest
from smac_worlds import EAST, N_OWN_ACTIONS, NORTH, SOUTH, WEST, Case, arena


CENTER = 16.0
MOVES = [NORTH, SOUTH, EAST, WEST]
RANGES = {
    "marine": 5,
    "marauder": 6,
    "medivac": 4,
    "stalker": 6,
    "zealot": 2,
    "colossus": 7,
    "zergling": 2,
    "baneling": 2,
    "hydralisk": 5,
}
"""Distance up to which SMACv2 offers targets."""
SIGHTS = {
    "marine": 9,
    "marauder": 10,
    "medivac": 11,
    "stalker": 10,
    "zealot": 9,
    "colossus": 10,
    "zergling": 8,
    "baneling": 8,
    "hydralisk": 9,
}
"""Sight in SMACv2."""


def facing(name: str, apart: float, rules: str = "smac") -> tuple[Case, int, int]:
    """Return a case of an ally and a unit that it may attack or heal at a distance."""
    case = arena(rules=rules).case()
    unit = case.ally(name, 4.0, CENTER)
    if name == "medivac":
        return case, unit, case.ally("marine", 4.0 + apart, CENTER)
    return case, unit, case.enemy("medivac", 4.0 + apart, CENTER)


def offered(cases: list[tuple[Case, int, int]], rules: str = "smac") -> list[bool]:
    """Return whether each unit may aim at its target."""
    avail = arena(rules=rules).observe([case for case, *_ in cases]).avail
    action = arena(rules=rules).action
    pairs = enumerate(cases)
    return [bool(avail[b, unit, action(unit, other)]) for b, (_, unit, other) in pairs]


@pytest.mark.parametrize("apart", [0.0, 5.999, 6.0, 6.001])
def test_targets_are_offered_up_to_6_for_every_type(apart):
    """The plane does not matter: a zealot is offered a medivac."""
    cases = [facing(name, apart) for name in RANGES]
    assert offered(cases) == [apart <= 6] * len(cases)


@pytest.mark.parametrize("margin", [-0.001, 0.001])
def test_smacv2_offers_targets_within_the_range_of_the_type(margin):
    cases = [facing(name, r + margin, "smacv2") for name, r in RANGES.items()]
    assert offered(cases, "smacv2") == [margin < 0] * len(cases)


def test_a_healer_is_offered_living_allies_that_are_no_healers():
    """Those at full health and mechanical ones are offered, too; enemies are not."""
    case = arena().case()
    medivac = case.ally("medivac", CENTER, CENTER)
    allies = {
        case.ally("marine", CENTER + 1, CENTER): True,
        case.ally("stalker", CENTER + 2, CENTER): True,
        case.ally("colossus", CENTER + 3, CENTER): True,
        case.ally("medivac", CENTER, CENTER + 1): False,
        case.ally("marine", CENTER + 1, CENTER, health=0.0): False,
        case.ally("marine", CENTER + 6.01, CENTER): False,
        case.enemy("marine", CENTER - 1, CENTER): False,
    }
    avail = arena().observe([case]).avail[0, medivac]
    chosen = {unit: bool(avail[arena().action(medivac, unit)]) for unit in allies}
    assert chosen == allies
    assert avail[N_OWN_ACTIONS:].sum() == 3


def test_fighters_are_offered_enemies_only():
    case = arena().case()
    marine = case.ally("marine", CENTER, CENTER)
    case.ally("marine", CENTER + 1, CENTER, health=5.0)
    enemy = case.enemy("zealot", CENTER - 1, CENTER)
    case.enemy("zealot", CENTER - 1, CENTER, health=0.0)
    avail = arena().observe([case]).avail[0, marine]
    targets = np.flatnonzero(avail[N_OWN_ACTIONS:]) + N_OWN_ACTIONS
    assert targets.tolist() == [arena().action(marine, enemy)]


def test_the_dead_have_no_op_alone_and_the_living_never():
    case = arena().case()
    alive = case.ally("marine", CENTER, CENTER)
    dead = case.ally("marine", CENTER, CENTER + 1, health=0.0)
    case.enemy("marine", CENTER + 2, CENTER)
    avail = arena().observe([case]).avail[0]
    assert np.flatnonzero(avail[dead]).tolist() == [0]
    assert avail[alive, :N_OWN_ACTIONS].tolist() == [False] + [True] * 5


# Terrain, position, and the directions that are offered: cells are int(x +- 1), int(y +- 1).
MOVE_MASKS = [
    ("strip", 16.0, 23.5, [SOUTH, EAST, WEST]),
    ("strip", 16.0, 22.99, MOVES),
    ("strip", 31.2, 8.2, [NORTH, WEST]),
    ("strip", 0.5, 12.0, MOVES),
    ("strip", 31.0, 12.0, [NORTH, SOUTH, WEST]),
    ("open", 16.0, 31.5, [SOUTH, EAST, WEST]),
    ("open", 16.0, 0.5, MOVES),
    ("ravine", 16.0, 11.01, [SOUTH, EAST, WEST]),
    ("ravine", 2.5, 11.5, MOVES),
    ("ravine", 16.0, 13.5, [NORTH, EAST, WEST]),
    ("ravine", 3.5, 12.5, [NORTH, SOUTH, WEST]),
]


@pytest.mark.parametrize("terrain", ["strip", "open", "ravine"])
def test_moves_to_walkable_cells_are_offered(terrain):
    rows = [row for row in MOVE_MASKS if row[0] == terrain]
    cases = []
    for _, x, y, _ in rows:
        case = arena(terrain).case()
        marine = case.ally("marine", x, y)
        cases.append(case)
    avail = arena(terrain).observe(cases).avail
    for b, (*_, moves) in enumerate(rows):
        assert [a for a in MOVES if avail[b, marine, a]] == moves, rows[b]


@pytest.mark.parametrize("name", ["medivac", "colossus"])
def test_units_that_cross_walls_are_offered_all_moves_on_the_map(name):
    case = arena("ravine").case()
    inside = case.ally(name, 16.0, 11.01)
    corner = case.ally(name, 31.5, 31.5)
    avail = arena("ravine").observe([case]).avail[0]
    assert avail[inside, MOVES].all()
    assert [a for a in MOVES if avail[corner, a]] == [SOUTH, WEST]


def seen(cases: list[tuple[Case, int, int]], rules: str = "smac") -> list[bool]:
    """Return whether each unit sees its target."""
    observer = arena(rules=rules)
    mask = observer.observe([case for case, *_ in cases]).mask
    result = []
    for b, (_, unit, other) in enumerate(cases):
        is_enemy = other >= observer.n
        slot = other - observer.n if is_enemy else other - (other > unit)
        result.append(bool(mask[int(is_enemy)][b, unit, slot]))
    return result


@pytest.mark.parametrize("apart", [8.999, 9.0, 9.001])
def test_sight_is_9_strictly_for_every_type(apart):
    cases = [facing(name, apart) for name in SIGHTS]
    assert seen(cases) == [apart < 9] * len(cases)


@pytest.mark.parametrize("margin", [-0.001, 0.0])
def test_smacv2_has_the_sight_of_the_type(margin):
    cases = [facing(name, sight + margin, "smacv2") for name, sight in SIGHTS.items()]
    assert seen(cases, "smacv2") == [margin < 0] * len(cases)


def test_the_dead_see_nothing_and_are_not_seen():
    case = arena().case()
    alive = case.ally("marine", CENTER, CENTER)
    dead = case.ally("marine", CENTER + 1, CENTER, health=0.0)
    case.enemy("marine", CENTER + 2, CENTER, health=0.0)
    obs = arena().observe([case])
    assert not any(mask[0, [alive, dead]].any() for mask in obs.mask)
    assert not any(rows[0].any() for rows in obs.rows)
    assert not obs.own[0, dead].any()
    assert obs.own[0, alive].any()
    assert obs.alive[0].sum() == obs.state.mask[0][0].sum() == 1


def features(rules: str = "smac"):
    """Return the observation of a stalker of a zealot (3, -4) from it, and their indices."""
    case = arena(rules=rules).case()
    stalker = case.ally("stalker", 8.0, 12.0, shield=20.0, cooldown=0.935)
    zealot = case.enemy("zealot", 11.0, 8.0, health=50.0, shield=25.0, cooldown=0.6875)
    medivac = case.ally("medivac", 8.0, 17.0, energy=80.0)
    obs = arena(rules=rules).observe([case])
    return obs, stalker, zealot - arena().n, medivac


def test_rows_have_smacs_features():
    obs, stalker, zealot, medivac = features()
    types = [unit.name for unit in arena().facts.battle.units]
    row = obs.rows[1][0, stalker, zealot]
    body, kind, relation = np.split(row, [3, 3 + len(types)])
    assert body == pytest.approx([0.5, 0.5, 0.6875 * 16 / 22])
    assert types[int(kind.argmax())] == "zealot" and kind.sum() == 1
    # Relative position and distance over the sight, in reach, and aimed at.
    assert relation == pytest.approx([3 / 9, -4 / 9, 5 / 9, 1, 0])
    # A medivac shows energy / 200 instead of a cooldown.
    slot = medivac - (medivac > stalker)
    healer = obs.rows[0][0, stalker, slot]
    assert healer[:3] == pytest.approx([1, 0, 0.4])
    assert healer[3 + len(types) :] == pytest.approx([0, 5 / 9, 5 / 9, 0, 0])
    assert obs.own[0, stalker, :3] == pytest.approx([1, 0.25, 0.935 * 16 / 35])


def test_distances_are_fractions_of_the_own_sight_in_smacv2():
    obs, stalker, zealot, _ = features("smacv2")
    relation = obs.rows[1][0, stalker, zealot][-5:]
    assert relation == pytest.approx([0.3, -0.4, 0.5, 1, 0])


def test_the_own_position_is_observed_in_smacv2_and_by_option():
    obs, stalker, *_ = features("smacv2")
    assert obs.own[0, stalker, -2:] == pytest.approx([8 / 32, 12 / 32])
    plain = arena().engine.spec.own_width
    assert arena(rules="smacv2").engine.spec.own_width == plain + 2
    assert arena(own_position=True).engine.spec.own_width == plain + 2


COOLDOWN_SCALES = {
    "marine": 15,
    "marauder": 25,
    "stalker": 35,
    "zealot": 22,
    "colossus": 24,
    "hydralisk": 10,
    "zergling": 11,
    "baneling": 1,
    "spine_crawler": 15,
}


def test_cooldowns_have_smacs_scale():
    case = arena().case()
    loops = {"baneling": 0.5}
    units = {
        name: case.ally(name, 2.0 + 3 * k, 4.0, cooldown=loops.get(name, 5.0) / 16)
        for k, name in enumerate(COOLDOWN_SCALES)
    }
    own = arena().observe([case]).own[0]
    gauges = {name: own[unit, 2] for name, unit in units.items()}
    expected = {
        name: loops.get(name, 5.0) / scale for name, scale in COOLDOWN_SCALES.items()
    }
    assert gauges == pytest.approx(expected)


def test_the_last_action_is_observed_as_a_bit():
    """Own actions are bits of the own features; a target is a bit of its row."""
    case = arena().case()
    mover = case.ally("marine", 8.0, 8.0)
    shooter = case.ally("marine", 8.0, 10.0)
    healer = case.ally("medivac", 8.0, 12.0)
    enemy = case.enemy("spine_crawler", 12.0, 10.0)
    case.move(mover, WEST)
    case.aim(shooter, enemy)
    case.aim(healer, shooter)
    battle = arena()
    case.last_actions = case.actions
    obs = battle.observe([case])
    bits = obs.own[0, :, 3 + len(battle.facts.battle.units) :]
    assert np.flatnonzero(bits[mover]).tolist() == [WEST]
    assert not bits[shooter].any()
    assert obs.rows[1][0, shooter, enemy - battle.n, -1] == 1
    assert obs.rows[0][0, healer, shooter - (shooter > healer), -1] == 1
    assert obs.rows[1][0, mover, :, -1].sum() == 0
