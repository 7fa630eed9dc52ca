"""Names of battles: maps, compositions, drawn teams, joins, and one-line errors."""

from __future__ import annotations

import pytest

from jmarl.config.errors import ConfigError
from jmarl.envs.battle.scenarios.battle_spec import DrawnBattle, JoinedBattle
from jmarl.envs.battle.scenarios.naming import describe, matches, names, parse_name
from jmarl.envs.battle.scenarios.scenario_file import load_map, map_names


def test_a_map_comes_before_a_composition():
    assert parse_name("smac_3m") is load_map("3m")
    battle = parse_name("smac_3s_vs_3z")
    assert battle is load_map("3s_vs_3z")
    assert "3 zealot" in battle.describe()


def test_a_composition_has_the_letters_of_the_unit_table():
    battle = parse_name("smac_7m2M1d_vs_8m3M1d")
    mmm2 = load_map("MMM2")
    for team in ("allies", "enemies"):
        ours, theirs = getattr(battle, team), getattr(mmm2, team)
        assert battle.roster(ours) == mmm2.roster(theirs)
        assert ours[0].at == theirs[0].at
    assert battle.enemies[0].order == mmm2.enemies[0].order
    assert parse_name("smac_4m").n_enemies == 4


@pytest.mark.parametrize("name", ["smacv2_terran_5v5", "smacv2_terran_5_vs_5"])
def test_smacv2s_names_have_two_spellings(name):
    assert parse_name(name) == DrawnBattle("terran", 5, 5)


def test_parts_are_joined():
    joined = parse_name("smac_3m+smac_8m+2m1d_vs_3m")
    assert isinstance(joined, JoinedBattle)
    assert [battle.name for battle in joined.choices] == ["3m", "8m", "2m1d_vs_3m"]
    drawn = parse_name("smacv2_zerg_5v5+10v11+smacv2_terran_20v23")
    assert [b.name for b in drawn.choices] == ["zerg_5v5", "zerg_10v11", "terran_20v23"]


def test_the_listing_has_27_maps_and_15_drawn_battles():
    listed = dict(names())
    assert sum(name.startswith("smacv2_") for name in listed) == 15
    assert sum(name.removeprefix("smac_") in map_names() for name in listed) == 27
    assert all(matches(name) and describe(name) == text for name, text in names())
    assert listed["smac_3m"] == "3 marine v 3 marine; strip, 60 steps"


BAD_NAMES = {
    "smac_MMM3": "smac_MMM3: unknown map MMM3; did you mean smac_MMM?",
    "smac_coridor": "smac_coridor: unknown map coridor; did you mean smac_corridor?",
    "smac_": "smac_: no map given; expected a map or a composition such as "
    "smac_7m2M1d_vs_8m3M1d",
    "smac_0m_vs_3m": "smac_0m_vs_3m: a team must have 1 to 1280 units, not 0",
    "smac_1281m": "smac_1281m: a team must have 1 to 1280 units, not 1281",
    "smac_2d_vs_3m": "smac_2d_vs_3m: 2d has only healers; add another unit",
    "smac_7m2m_vs_9m": "smac_7m2m_vs_9m: letter m is given twice; use M marauder, "
    "m marine, d medivac, c colossus, s stalker, Z zealot, b baneling, z zergling, "
    "h hydralisk, x spine_crawler",
    "smac_3q_vs_3m": "smac_3q_vs_3m: unknown unit letter q; use M marauder, "
    "m marine, d medivac, c colossus, s stalker, Z zealot, b baneling, z zergling, "
    "h hydralisk, x spine_crawler",
    "smacv2_teran_5v5": "smacv2_teran_5v5: unknown race teran; did you mean terran?",
    "smacv2_5v5": "smacv2_5v5: no race given; expected one of terran, protoss, zerg",
    "smacv2_zerg_0v5": "smacv2_zerg_0v5: a team must have 1 to 1280 units, not 0",
    "smacv2_zerg": "smacv2_zerg: cannot be read; expected smacv2_<race>_NvM",
    "smac_3m+smacv2_zerg_5v5": "smac_3m+smacv2_zerg_5v5: smac_... and smacv2_... "
    "have different rules and cannot be joined",
    "3m": "3m: unknown battle; expected smac_... or smacv2_...",
}


@pytest.mark.parametrize("name", list(BAD_NAMES))
def test_a_wrong_name_is_one_line_with_the_nearest(name):
    with pytest.raises(ConfigError) as caught:
        parse_name(name)
    assert str(caught.value) == BAD_NAMES[name]
