"""Maps of SMAC as environments: action counts, rewards, limits, layouts of actions, and starts."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from smac_table import MAPS
from smac_worlds import BATCH, N_OWN_ACTIONS, arena

from jmarl.envs import make
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.scenarios.scenario_file import load_map, map_names, parse
from jmarl.envs.battle.scenarios.terrain import walkable
from jmarl.envs.battle.smac import smac_battle, smac_state
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig


HEALERS = ("MMM", "MMM2")


@pytest.mark.parametrize("name", list(MAPS))
def test_a_map_has_smacs_actions_reward_and_limit(name):
    figures = MAPS[name]
    spec = make(f"smac_{name}", layout="clash").spec
    assert spec.n_actions == figures.n_actions
    assert spec.episode_limit == figures.limit
    assert load_map(name).max_reward == figures.max_reward


@pytest.mark.parametrize("name", list(MAPS))
def test_the_layout_matters_only_with_healers(name):
    battle = load_map(name)
    spec = make(f"smac_{name}").spec
    support = battle.n_allies - 1 if name in HEALERS else 0
    assert spec.n_actions == N_OWN_ACTIONS + battle.n_enemies + support
    first_enemy = battle.n_allies - 1
    enemies = tuple(first_enemy + j for j in range(battle.n_enemies))
    assert spec.action_target == (-1,) * 6 + enemies + tuple(range(support))


def test_a_healer_heals_ally_j_where_others_attack_enemy_j():
    battle = arena(layout="clash")
    case = battle.case()
    medivac = case.ally("medivac", 16.0, 16.0)
    marine = case.ally("marine", 18.0, 16.0, health=10.0)
    enemy = case.enemy("marauder", 20.0, 16.0)
    case.actions = {
        medivac: N_OWN_ACTIONS + marine,
        marine: N_OWN_ACTIONS + enemy - battle.n,
    }
    avail = battle.observe([case]).avail[0]
    offered = {
        unit: np.flatnonzero(avail[unit, N_OWN_ACTIONS:]) for unit in case.actions
    }
    assert offered[medivac].tolist() == [marine]
    assert offered[marine].tolist() == [enemy - battle.n]
    state = battle.run([case]).state
    assert state.health[-1, 0, marine] == pytest.approx(14.5)
    assert state.health[-1, 0, enemy] == 120.0


def test_a_healer_has_smacs_actions_even_if_the_enemies_are_fewer():
    """An action for each ally is needed, as SMAC's maps never are of this kind."""
    spec = make("smac_6m2d_vs_3m", layout="clash").spec
    assert spec.n_actions == N_OWN_ACTIONS + 8


def starts(name: str):
    """Draw starts of a map; return positions ``[B, U, 2]``, and the facts of the map."""
    return starts_of(parse_name(f"smac_{name}"))


def starts_of(battle):
    facts = Facts(battle, SmacConfig())
    engine = smac_battle.make_engine(facts)
    keys = jax.random.split(jax.random.key(0), BATCH)
    start = jax.jit(engine.draw_starts)(keys)
    return np.asarray(start.position), facts


def check_starts(name: str) -> None:
    """Check that units start on ground that they can leave, around the points of the map."""
    position, facts = starts(name)
    battle = load_map(name)
    assert position.min() >= 0
    assert position.max() < 32
    walks = [not (facts.table[r].flies or facts.table[r].colossal) for r in facts.rows]
    place = position[:, walks].astype(int)
    assert walkable(battle.terrain)[place[..., 0], place[..., 1]].all()
    team = position[:, : facts.n], position[:, facts.n :]
    for places, groups in zip(team, (battle.allies, battle.enemies), strict=True):
        points = np.asarray([group.at[:2] for group in groups])
        apart = np.linalg.norm(places[:, :, None] - points, axis=-1).min(-1)
        # Discs of the units' bodies fill about 0.6 of the disc around a point.
        largest = max(facts.table[row].separation for row in facts.rows)
        assert apart.max() < 2 * largest * (2 + np.sqrt(places.shape[1]))
        assert apart.min() < 0.1
    # Bodies hardly overlap, so that pushes do not throw units about.
    distance = np.linalg.norm(position[:, :, None] - position[:, None], axis=-1)
    assert distance[:, ~np.eye(len(facts.rows), dtype=bool)].min() > 0.2


@pytest.mark.parametrize("name", ["2m_vs_1z", "MMM"])
def test_units_start_around_their_points(name):
    check_starts(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", map_names())
def test_units_start_around_their_points_on_all_maps(name):
    check_starts(name)


def test_only_a_group_that_crosses_walls_starts_inside_one():
    text = """
terrain: strip
allies:
  - {units: {colossus: 1, medivac: 1}, at: [9, 3]}
  - {units: {marine: 1, medivac: 1}, at: [20, 8.1]}
enemies: [{units: {marine: 1}, at: [23, 16]}]
orders: pursue
"""
    position, facts = starts_of(parse(text, "b.yaml", "b"))
    names = [facts.table[row].name for row in facts.rows[: facts.n]]
    assert names == ["marine", "medivac", "medivac", "colossus"]
    assert position[:, 0, 1].min() >= 8
    apart = np.linalg.norm(position[:, [1, 3]] - (9, 3), axis=-1)
    assert apart.max() < 1.6


WALL = """
terrain: {0-23: [0-16, 17-32], 24-31: [0-32]}
allies: [{units: {marine: 40}, at: [15.5, 8]}]
enemies: [{units: {marine: 1}, at: [23, 16]}]
orders: pursue
"""
ROOM = WALL.replace("0-23:", "0-3: [12-16], 5-23:").replace("[15.5, 8]", "[14, 2]")


@pytest.mark.parametrize("text", [WALL, ROOM], ids=["thin wall", "closed room"])
def test_all_units_of_a_group_start_on_the_same_side_of_a_wall(text):
    """Bodies overlap in a room that is too small for them."""
    position, facts = starts_of(parse(text, "b.yaml", "b"))
    x, y = position[:, : facts.n].T
    assert x.max() < 16
    assert text == WALL or (y.max() < 4 and x.min() >= 12)


def test_equal_units_trade_places_between_episodes():
    position, facts = starts("3m")
    order = position[:, : facts.n, 0].argsort(axis=1)
    assert len(np.unique(order, axis=0)) == 6


def test_no_unit_has_moved_or_lost_anything_at_the_start():
    _, facts = starts("MMM")
    engine = smac_battle.make_engine(facts)
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.jit(lambda: engine.first_state(engine.draw_starts(keys)))()
    full = smac_state.trait(facts, facts.rows, "health")
    assert (np.asarray(state.health) == full).all()
    assert not np.asarray(state.cooldown).any()
    medivacs = [facts.table[row].heal for row in facts.rows]
    assert (np.asarray(state.energy)[:, medivacs] == 50).all()
