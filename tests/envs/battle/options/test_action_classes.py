"""Actions that a unit class can ever take, and the entities at which actions are aimed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from option_worlds import World, world_of_abilities
from smac_worlds import N_OWN_ACTIONS, Case

from jmarl import load_config
from jmarl.envs import make
from jmarl.envs.battle.smac.smac_actions import layout
from jmarl.networks.heads import masked_categorical
from jmarl.training.build import build_run


OWN = {"no_op", "stop", "move"}
CLASSES = {
    "marine": OWN | {"attack"},
    "zealot": OWN | {"attack"},
    "medivac": OWN | {"heal"},
    "guard": OWN | {"attack", "ward"},
    "scout": OWN | {"spot"},
    "priest": OWN | {"heal", "ward"},
    "spine_crawler": {"no_op", "stop", "attack"},
}
"""Actions of unit types by their weapon, speed and abilities."""
MARINES = """
allies: [{units: {marine: 3}, at: [16, 16]}]
enemies: [{units: {marine: 3}, at: [18, 16]}]
"""


@pytest.fixture(scope="module")
def clinic() -> World:
    return world_of_abilities()


def class_named(clinic: World, name: str) -> int:
    """Return the unit class of a type."""
    return [unit.name for unit in clinic.facts.unit_types].index(name)


def test_actions_are_own_then_enemies_then_one_block_for_each_support(clinic):
    names = [action.name for action in layout(clinic.facts)]
    others = clinic.n - 1
    own = ["no_op", "stop", "move", "move", "move", "move", "spot"]
    blocks = ["attack"] * clinic.m + ["heal"] * others + ["ward"] * others
    assert names == own + blocks
    assert clinic.spec.n_actions == len(names)


def test_both_blocks_of_support_are_aimed_at_the_slots_of_the_allies(clinic):
    spec, others = clinic.spec, clinic.n - 1
    allies, enemies = range(others), range(others, others + clinic.m)
    assert spec.action_target == (*[-1] * 7, *enemies, *allies, *allies)
    kinds = (*range(7), *[0] * clinic.m, *[0] * others, *[1] * others)
    assert spec.action_kind == kinds


def full_team(clinic: World) -> Case:
    """Return a case with all units close together."""
    case = clinic.case()
    for unit, name in enumerate(clinic.arena.names[: clinic.n]):
        health = {"wall": 4000.0}.get(name, 20.0)
        case.ally(name, 14 + unit % 4, 14 + unit // 4, health=health)
    for k, name in enumerate(clinic.arena.names[clinic.n :]):
        case.enemy(name, 14 + k, 17.5)
    return case


def test_an_action_affects_the_ally_in_the_slot_at_which_it_is_aimed(clinic):
    """A ward on slot k reaches the ally whose features slot k shows."""
    guard = clinic.arena.names.index("guard")
    cases = []
    for ward in clinic.named("ward"):
        case = full_team(clinic)
        case.actions = case.last_actions = {guard: ward}
        cases.append(case)
    obs, row = clinic.see(cases), clinic.run(cases)[0]
    for slot in range(clinic.n - 1):
        seen = obs.rows[0][slot, guard]  # [slots, features]
        assert list(np.flatnonzero(seen[:, -1])) == [slot]
        (unit,) = np.flatnonzero(row.state.ward[slot])
        assert slot == clinic.rank(guard, unit)
        first_kind = 4  # after health, shield, gauge and ward
        assert seen[slot, first_kind + obs.unit_class[slot, unit]] == 1


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_actions_of_its_weapon_speed_and_abilities(clinic, name):
    able = clinic.spec.class_actions[class_named(clinic, name)]
    assert able == tuple(row.name in CLASSES[name] for row in layout(clinic.facts))


def test_classes_with_equal_actions_form_a_group(clinic):
    groups = clinic.spec.action_group
    found = {name: groups[class_named(clinic, name)] for name in CLASSES}
    for name, group in found.items():
        equal = [other for other in found if found[other] == group]
        assert equal == [other for other in CLASSES if CLASSES[other] == CLASSES[name]]
    assert sorted(set(groups)) == list(range(6))


def test_each_class_is_offered_all_its_actions_and_no_others(clinic):
    """With all targets near, a unit lacks the no-op and its own kind as a patient of healers."""
    obs = clinic.see([full_team(clinic)])
    classes = obs.unit_class[0]
    able = np.asarray(clinic.spec.class_actions)[classes]
    able[:, 0] = False
    healers = [
        unit
        for unit in range(clinic.n)
        if clinic.arena.names[unit] in ("medivac", "priest")
    ]
    for unit in healers:
        for other in set(healers) - {unit}:
            able[unit, clinic.named("heal")[clinic.rank(unit, other)]] = False
    assert (obs.avail[0] == able).all()


def test_a_battle_without_abilities_has_the_actions_of_smac():
    spec = make("smac_3s5z").spec
    assert spec.n_actions == N_OWN_ACTIONS + 8
    stalker, zealot = 4, 5
    assert spec.action_group[stalker] == spec.action_group[zealot]


RACES = ("terran", "protoss", "zerg")


OPTION = ("env=smacv2_{race}_3v3", "env.heal_actions=true")
PRESET = ("experiment=smacv2_{race}_5v5",)


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("hpn_qmix", OPTION),
        ("updet_qmix", OPTION),
        ("qmix", OPTION),
        ("hpn_qmix", PRESET),
    ],
)
def test_with_actions_that_heal_the_parameters_of_all_races_have_equal_shapes(
    system, options
):
    def shapes(race: str) -> list[tuple[int, ...]]:
        config = load_config(system, [text.format(race=race) for text in options])
        built = build_run(config)
        params = jax.eval_shape(built.system.init, jax.random.key(0)).params
        return [leaf.shape for leaf in jax.tree.leaves(params)]

    first, *others = map(shapes, RACES)
    assert all(other == first for other in others)


def test_actions_that_heal_are_never_offered_without_healers():
    plain, spec = make("smac_3m").spec, make("smac_3m", heal_actions=True).spec
    assert spec.n_actions == plain.n_actions + 2
    assert spec.action_target == (*plain.action_target, 0, 1)
    world = World(MARINES, heal_actions=True)
    case = world.case()
    for x in (14, 15, 16):
        case.ally("marine", x, 16, health=20)
    case.enemy("marine", 18, 16)
    avail = world.see([case]).avail[0]
    assert avail[:, : spec.n_actions - 2].any()
    assert not avail[:, world.named("heal")].any()


BATCH, STEPS = 100, 100
FOUR_GROUPS = """
allies: [{units: {marine: 2, medivac: 1, guard: 1, spotter: 1}, at: [8, 16]}]
enemies: [{units: {marine: 4}, at: [20, 16]}]
units:
  guard: {like: zealot, abilities: [ward]}
  spotter: {like: marine, damage: 0, targets: none, abilities: [spot]}
limit: 40
"""


def battle(name, folder):
    if name != "four_groups":
        return make(name)
    file = folder / "four.yaml"
    file.write_text(FOUR_GROUPS)
    return make("battle", scenario=str(file))


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("four_groups", 4),
        pytest.param("smac_MMM2", 2, marks=pytest.mark.slow),
        pytest.param("smacv2_terran_5v5", 2, marks=pytest.mark.slow),
    ],
)
def test_random_players_never_leave_the_actions_of_their_class(name, groups, tmp_path):
    """10,000 steps: available actions are of the class, and others have probability 0."""
    env = battle(name, tmp_path)
    able = jnp.asarray(env.spec.class_actions)
    assert len(env.spec.group_actions) == groups

    def step(carry, key):
        state, obs, worst = carry
        keys = jax.random.split(key, 3)
        logits = 10.0 * jax.random.normal(keys[0], obs.avail.shape)
        dist = masked_categorical(logits, obs.avail)
        probs = jax.nn.softmax(dist.logits)
        of_class = able[obs.unit_class]
        outside = obs.avail & ~of_class
        worst = jnp.maximum(worst, jnp.max(jnp.where(of_class, 0.0, probs)))
        taken = dist.sample(keys[1])
        state, timestep = env.step(keys[2], state, taken)
        return (state, timestep.obs, worst), (outside.any(), taken, obs.unit_class)

    @jax.jit
    def play(key):
        state, timestep = env.reset(key, BATCH)
        carry = state, timestep.obs, jnp.zeros(())
        keys = jax.random.split(key, STEPS)
        (_, _, worst), rows = jax.lax.scan(step, carry, keys)
        return worst, rows

    worst, (outside, taken, classes) = play(jax.random.key(0))
    assert worst == 0.0
    assert not outside.any()
    assert np.asarray(able)[classes, taken].all()
    assert len(np.unique(taken)) > env.spec.n_actions // 2


def test_joined_battles_have_the_action_groups_of_their_parts():
    """Their unit tables differ, because the damage of the enemies does."""
    spec = make("smac_6m2m_15m+8m3m_21m").spec
    assert spec.agent_classes == make("smac_6m2m_15m").spec.agent_classes
    assert len(spec.group_actions) == 2
