"""Maps of SMAC as files: teams, limits, rewards, widths and starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from smac_table import MAPS, OURS

from jmarl.envs.battle.scenarios.scenario_file import load_map, map_names
from jmarl.envs.battle.scenarios.terrain import is_walkable


RECORD = Path(__file__).parents[4] / "results" / "players.json"
PLAYED = json.loads(RECORD.read_text())


def test_the_maps_are_the_23_of_smac_and_four_of_the_uas_papers():
    assert len(MAPS) == 23
    assert set(map_names()) == {*MAPS, *OURS}


@pytest.mark.parametrize("name", [*MAPS, *OURS])
def test_a_map_has_the_limit_actions_and_maximal_reward_of_the_table(name):
    battle = load_map(name)
    limit, n_actions, *_, max_reward = (MAPS | OURS)[name]
    assert battle.limit == limit
    assert 6 + battle.n_enemies == n_actions
    assert battle.max_reward == max_reward
    assert (battle.enemy_scale == 1.0) == (name in MAPS)
    assert battle.rules == "smac"
    assert hash(battle) == hash(load_map(name))


@pytest.mark.parametrize("name", [*MAPS, *OURS])
def test_a_map_has_the_win_rates_of_the_record(name):
    """``results/players.json`` is what ``jmarl play`` has measured."""
    results = PLAYED["envs"][f"smac_{name}"]["results"]
    measured = {player: played["won"][0]["mean"] for player, played in results.items()}
    rates = dict(load_map(name).win_rates)
    assert rates == pytest.approx(measured, abs=5e-4)
    assert set(rates) == {"random", "nearest", "focus", "kite"}
    if name in OURS:
        assert 0.05 <= rates["focus"] <= 0.2


@pytest.mark.parametrize("name", [*MAPS, *OURS])
def test_starts_and_destinations_are_walkable(name):
    battle = load_map(name)
    places = [group.at for group in (*battle.allies, *battle.enemies)]
    orders = [group.order for group in battle.enemies if group.order]
    places += [order.place for order in orders if order.place]
    for place in places:
        assert is_walkable(battle.terrain, place.x, place.y)
        assert is_walkable(battle.terrain, place.to_x, place.to_y)


def _kinds(battle, groups):
    return [battle.units[kind] for kind, _ in battle.roster(groups)]


@pytest.mark.parametrize("name", list(MAPS))
def test_smacs_widths_follow_from_the_teams(name):
    """SMAC's formulas: types are encoded if the allies have several."""
    battle = load_map(name)
    allies, enemies = (_kinds(battle, g) for g in (battle.allies, battle.enemies))
    kinds = {kind.name for kind in allies}
    types = len(kinds) if len(kinds) > 1 else 0
    shield, foe_shield = (any(k.shield for k in t) for t in (allies, enemies))
    n, m = len(allies), len(enemies)
    own = 1 + shield + types
    obs = 4 + m * (5 + foe_shield + types) + (n - 1) * (4 + own) + own
    state = n * (3 + own) + m * (3 + foe_shield + types) + n * (6 + m)
    assert (obs, state) == (MAPS[name].obs_width, MAPS[name].state_width)


def test_agents_are_ordered_by_type():
    def types(name):
        battle = load_map(name)
        kinds = [battle.units[kind].name for kind, _ in battle.roster(battle.allies)]
        return list(dict.fromkeys(kinds))

    assert types("MMM") == ["marauder", "marine", "medivac"]
    assert types("1c3s5z") == ["colossus", "stalker", "zealot"]
    assert types("bane_vs_bane") == ["baneling", "zergling"]


def test_units_of_a_type_are_ordered_by_group():
    battle = load_map("2m_vs_1z")
    marine = [unit.name for unit in battle.units].index("marine")
    assert battle.roster(battle.allies) == [(marine, 0), (marine, 1)]
