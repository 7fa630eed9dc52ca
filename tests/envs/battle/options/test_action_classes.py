"""Actions that a unit class can ever take, and the entities at which actions are aimed."""

from __future__ import annotations

import numpy as np
import pytest
from option_worlds import Episodes, World
from smac_worlds import N_OWN_ACTIONS

from jmarl.envs import make
from jmarl.envs.battle.smac.smac_actions import layout


CLINIC = """
limit: 60
orders: hold
allies:
  - {units: {marine: 1, medivac: 1, guard: 1, spine_crawler: 1, scout: 1}, at: [16, 16]}
enemies:
  - {units: {marine: 2}, at: [18, 16]}
units:
  guard: {like: marauder, abilities: [ward]}
  scout: {like: marine, abilities: [spot], targets: none, damage: 0}
abilities:
  ward: {cooldown: 0}
"""


@pytest.fixture(scope="module")
def clinic() -> World:
    return World(CLINIC)


def class_named(world: Episodes, name: str) -> int:
    return [unit.name for unit in world.facts.unit_types].index(name)


def test_actions_are_own_then_enemies_then_one_block_for_each_support(clinic):
    names = [action.name for action in layout(clinic.facts)]
    own = ["no_op", "stop", "move", "move", "move", "move", "spot"]
    blocks = ["attack"] * clinic.m + ["heal"] * 4 + ["ward"] * 4
    assert names == own + blocks
    assert clinic.spec.n_actions == len(names)


def test_both_blocks_of_support_are_aimed_at_the_slots_of_the_allies(clinic):
    spec = clinic.spec
    allies, enemies = list(range(clinic.n - 1)), [4, 5]
    assert spec.action_target == (*[-1] * 7, *enemies, *allies, *allies)
    assert spec.action_kind == (*range(7), 0, 0, *[0] * 4, *[1] * 4)


def test_an_action_affects_the_ally_in_the_slot_at_which_it_is_aimed(clinic):
    """A ward on slot k reaches the ally whose features slot k shows."""
    case = clinic.case()
    units = [
        case.ally(name, 16 + x, 16, health=20)
        for name, x in (("marine", 0), ("medivac", 1), ("scout", 2), ("guard", 3))
    ]
    case.ally("spine_crawler", 16, 19)
    case.enemy("marine", 28, 28)
    cases = []
    for slot in range(4):
        aimed = clinic.case()
        aimed.changes = case.changes
        aimed.actions = {units[3]: clinic.named("ward")[slot]}
        aimed.last_actions = aimed.actions
        cases.append(aimed)
    obs, row = clinic.see(cases), clinic.run(cases)[0]
    for slot in range(4):
        seen = obs.rows[0][slot, units[3]]  # [slots, features]
        assert list(np.flatnonzero(seen[:, -1])) == [slot]
        kind = obs.unit_class[slot, int(row.state.ward[slot].argmax())]
        first_kind = 4  # after health, shield, gauge and ward
        assert seen[slot, first_kind + kind] == 1


@pytest.mark.parametrize(
    ("name", "own", "targeted"),
    [
        ("marine", {"no_op", "stop", "move"}, {"attack"}),
        ("medivac", {"no_op", "stop", "move"}, {"heal"}),
        ("guard", {"no_op", "stop", "move"}, {"attack", "ward"}),
        ("scout", {"no_op", "stop", "move", "spot"}, set()),
        ("spine_crawler", {"no_op", "stop"}, {"attack"}),
    ],
)
def test_a_class_has_the_actions_of_its_weapon_speed_and_abilities(
    clinic, name, own, targeted
):
    able = clinic.spec.class_actions[class_named(clinic, name)]
    assert able == tuple(row.name in own | targeted for row in layout(clinic.facts))


def test_classes_with_equal_actions_form_a_group(clinic):
    groups = clinic.spec.action_group
    names = ("marine", "zealot", "medivac", "guard", "scout", "spine_crawler")
    kinds = [class_named(clinic, name) for name in names]
    marine, zealot, *others = (groups[kind] for kind in kinds)
    assert marine == zealot
    assert len({marine, *others}) == 5
    assert sorted(set(groups)) == list(range(5))


def test_each_class_is_offered_all_its_actions_and_no_others(clinic):
    """Around a unit in the open with all targets near, nothing but the no-op is missing."""
    case = clinic.case()
    for name, x in (("marine", 0), ("medivac", 1), ("guard", 2), ("scout", 3)):
        case.ally(name, 14 + x, 16)
    case.ally("spine_crawler", 15, 18)
    for x in (15, 16):
        case.enemy("marine", x, 14)
    obs = clinic.see([case])
    able = np.asarray(clinic.spec.class_actions)[obs.unit_class[0]]
    able[:, 0] = False
    assert (obs.avail[0] == able).all()


def test_a_battle_without_abilities_has_the_actions_of_smac():
    spec = make("smac_3s5z").spec
    assert spec.n_actions == N_OWN_ACTIONS + 8
    groups = dict(zip(["stalker", "zealot"], [4, 5], strict=True))
    assert len({spec.action_group[kind] for kind in groups.values()}) == 1
