"""Scenario files: every part of a battle, defaults, and one-line errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from jmarl import envs
from jmarl.config.errors import ConfigError
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenarios.battle_spec import (
    Battle,
    Order,
    Place,
    Steps,
    Weights,
)
from jmarl.envs.battle.scenarios.scenario_file import load, parse
from jmarl.envs.battle.scenarios.terrain import get_terrain, is_connected, walkable


EXAMPLE = Path(__file__).parents[4] / "docs" / "examples" / "ford.yaml"


def test_a_40_line_battle_has_everything():
    battle = load(EXAMPLE)
    assert (battle.name, battle.n_allies, battle.n_enemies) == ("ford", 11, 21)
    assert battle.allies[1].leaves == Steps(120, 120)
    assert battle.allies[2].arrives == Steps(30, 50)
    assert battle.allies[2].at == Place(4, 8, 4, 24)
    assert battle.enemies[0].order == Order("attack_move", Place.point(8, 16))
    assert battle.enemies[2].order == Order("hold")
    assert [zone.effect for zone in battle.zones] == ["slow", "conceal"]
    assert battle.zones[1].bounds == (6, 10, 2)
    assert battle.team_reward == 0.5
    marine, medivac = battle.reward
    assert marine == ("marine", Weights(1.0, 1.0, 0.0))
    assert medivac == ("medivac", Weights(0, 0, 0, healing=1.0, survival=0.2))
    guard = battle.units[-1]
    assert (guard.name, guard.health, guard.shield) == ("guard", 150, 50)
    assert guard.abilities == ("ward",)
    assert battle.abilities[0].amount == 2
    strength = 18 * 35 + 2 * 30 + 300
    assert battle.max_reward == 10 * 21 + 200 + strength
    assert is_connected(walkable(battle.terrain))
    assert hash(battle) == hash(load(EXAMPLE))


SMALL = """\
allies:
  - units: {marine: 3}
    at: [9, 16]
enemies:
  - units: {zealot: 1}
    at: [23, 16]
"""


def _parse(text: str) -> Battle:
    return parse(text, "b.yaml", "b")


def test_defaults_are_smacs():
    battle = _parse(SMALL)
    assert battle.terrain == get_terrain("open")
    assert (battle.rules, battle.limit, battle.team_reward) == ("smac", 200, 1.0)
    assert battle.enemies[0].order == Order("attack_move", Place.point(9, 16))
    assert _parse(SMALL + "rules: smacv2").enemies[0].order == Order("pursue")


def test_enemies_walk_to_the_first_group_that_walks():
    """A group that flies may start inside a wall, to which nobody can walk."""
    flyers = "allies:\n  - {units: {medivac: 1}, at: [9, 2]}"
    battle = _parse("terrain: strip\n" + SMALL.replace("allies:", flyers))
    assert battle.enemies[0].order == Order("attack_move", Place.point(9, 16))
    alone = SMALL.replace("marine: 3", "colossus: 2")
    assert _parse(alone).enemies[0].order == Order("attack_move", Place.point(9, 16))


def test_an_own_figure_replaces_the_enemies_difference_too():
    battle = _parse(SMALL + "units: {hydralisk: {health: 85}, medivac: {armor: 2}}")
    tables = [{u.name: u for u in t} for t in (battle.units, battle.enemy_units)]
    assert [table["hydralisk"].health for table in tables] == [85, 85]
    assert [table["medivac"].speed for table in tables] == [2.75, 2.5]


def test_only_units_that_cross_walls_start_inside_one():
    text = SMALL.replace("marine: 3", "colossus: 1").replace("[9, 16]", "[9, 2]")
    assert _parse(text + "terrain: strip\norders: pursue").n_allies == 1


def test_smax_files_use_smaxs_table():
    text = (
        "rules: smax\nallies: [{units: {marine: 2}}]\nenemies: [{units: {zealot: 1}}]"
    )
    battle = _parse(text + "\nunits: {marine: {health: 50}}")
    assert battle.units[0].health == 50
    assert len(battle.units) == len(SMAX.units)
    assert battle.max_reward == 360


# Edits of ``SMALL``, and the whole error.
BAD_FILES = {
    "unknown unit": (
        ("marine: 3", "marin: 3"),
        "b.yaml:2: allies[0].units.marin=3: unknown unit; did you mean marine?",
    ),
    "unknown key": (
        ("enemies", "limt: 100\nenemies"),
        "b.yaml:4: limt=100: unknown key; did you mean limit?",
    ),
    "unknown group key": (
        ("    at: [9", "    att: [9"),
        "b.yaml:3: allies[0].att=[9, 16]: unknown key; did you mean at?",
    ),
    "unknown terrain": (
        ("allies", "terrain: corridr\nallies"),
        "b.yaml:1: terrain=corridr: unknown terrain; did you mean corridor?",
    ),
    "unknown rules": (
        ("allies", "rules: smaac\nallies"),
        "b.yaml:1: rules=smaac: unknown rule set; did you mean smac?",
    ),
    "unknown player": (
        ("allies", "win_rates: {focuss: 0.5}\nallies"),
        "b.yaml:1: win_rates.focuss=0.5: unknown key; did you mean focus?",
    ),
    "start inside a wall": (
        ("[9, 16]", "[9, 2]\nterrain: strip"),
        "b.yaml:3: allies[0].at=[9, 2]: inside a wall of strip; "
        "choose a walkable point",
    ),
    "start off the map": (
        ("[23, 16]", "[23, 32]"),
        "b.yaml:6: enemies[0].at=[23, 32]: off the map; x and y must lie in [0, 32)",
    ),
    "segment through a wall": (
        ("[9, 16]", "[[5, 16], [11, 8]]\nterrain: {4-20: [2-7, 9-30]}"),
        "b.yaml:3: allies[0].at=[[5, 16], [11, 8]]: inside a wall of own terrain; "
        "choose a walkable point",
    ),
    "count of 0": (
        ("marine: 3", "marine: 0"),
        "b.yaml:2: allies[0].units.marine=0: must lie in [1, 1280]",
    ),
    "team of 0": (
        ("zealot: 1", ""),
        "b.yaml:5: enemies[0].units: no units; add {marine: 3}",
    ),
    "no groups": (
        ("allies:\n  - units: {marine: 3}\n    at: [9, 16]", "allies: []"),
        "b.yaml:1: allies=[]: a team must have 1 to 1280 units, not 0",
    ),
    "no enemies": (
        ("enemies", "units"),
        "b.yaml:1: enemies are missing; add "
        "enemies: [{units: {marine: 3}, at: [9, 16]}]",
    ),
    "team too large": (
        ("marine: 3", "marine: 1280, zealot: 1"),
        "b.yaml:1: allies: a team must have 1 to 1280 units, not 1281",
    ),
    "only healers": (
        ("marine: 3", "medivac: 3"),
        "b.yaml:1: allies: only healers lose at once; add another unit",
    ),
    "weapon without targets": (
        ("allies", "units: {marine: {targets: none}}\nallies"),
        "b.yaml:1: units.marine: a weapon without targets; "
        "write targets: ground, air or both",
    ),
    "line weapon against flyers": (
        ("allies", "units: {colossus: {targets: both}}\nallies"),
        "b.yaml:1: units.colossus: a line hits the ground only; "
        "write targets: ground, or weapon: plain",
    ),
    "two shots in a step of smax": (
        ("allies", "rules: smax\nunits: {marine: {cooldown: 0.4}}\nallies"),
        "b.yaml:2: units.marine: a smax weapon fires at most once in a step; "
        "write cooldown: 0.5 or more",
    ),
    "ability without targets": (
        ("allies", "abilities: {ward: {targets: none}}\nallies"),
        "b.yaml:1: abilities.ward: no targets; write targets: allies or self",
    ),
    "abilities for the same targets": (
        (
            "allies",
            "abilities: {bless: {like: ward}}\n"
            "units:\n  guard:\n    like: zealot\n    abilities: [ward, spot, bless]\n"
            "allies",
        ),
        "b.yaml:5: units.guard.abilities=[ward, spot, bless]: "
        "ward and bless both have targets: allies; leave one out",
    ),
    "abilities for the unit itself": (
        (
            "allies",
            "abilities: {ward: {targets: self}}\n"
            "units: {marine: {abilities: [ward, spot]}}\nallies",
        ),
        "b.yaml:2: units.marine.abilities=[ward, spot]: "
        "ward and spot both have targets: self; leave one out",
    ),
    "negative cooldown": (
        ("allies", "units:\n  marine:\n    cooldown: -1\nallies"),
        "b.yaml:3: units.marine.cooldown=-1.0: must lie in [0, 100000]",
    ),
    "negative range": (
        ("allies", "abilities: {ward: {attack_range: -2}}\nallies"),
        "b.yaml:1: abilities.ward.attack_range=-2.0: must lie in [0, 64]",
    ),
    "unknown field": (
        ("allies", "units: {marine: {healht: 3}}\nallies"),
        "b.yaml:1: units.marine.healht=3: unknown key; did you mean health?",
    ),
    "new unit without like": (
        ("allies", "units: {sniper: {damage: 3}}\nallies"),
        "b.yaml:1: units.sniper: unknown name; add like: <name> for a new one",
    ),
    "field that smax lacks": (
        ("allies", "rules: smax\nunits: {marine: {shield: 3}}\nallies"),
        "b.yaml:2: units.marine.shield=3: the smax rules have no shield; "
        "use rules: smac",
    ),
    "key that smax lacks": (
        ("allies", "rules: smax\nterrain: strip\nallies"),
        "b.yaml:2: terrain=strip: the smax rules have no terrain; use rules: smac",
    ),
    "arrival after the limit": (
        ("    at: [23", "    arrives: 200\n    at: [23"),
        "b.yaml:6: enemies[0].arrives=200: after the limit; must be at most 199",
    ),
    "withdrawal before the arrival": (
        (
            "[23, 16]",
            "[23, 16]\n  - {units: {zealot: 1}, at: [2, 2], arrives: 9, leaves: 5}",
        ),
        "b.yaml:7: enemies[1].leaves=5: must be after step 9, the arrival",
    ),
    "nobody at the start": (
        ("    at: [23", "    arrives: 20\n    at: [23"),
        "b.yaml:4: enemies: nobody is there at step 0; leave out arrives in one group",
    ),
    "limit": (
        ("allies", "limit: 0\nallies"),
        "b.yaml:1: limit=0: must lie in [1, 10000]",
    ),
    "limit as text": (
        ("allies", "limit: long\nallies"),
        "b.yaml:1: limit=long: expected a whole number in [1, 10000]",
    ),
    "not a number": (
        ("[9, 16]", "[9, nan]"),
        "b.yaml:3: allies[0].at[1]=nan: expected a finite number",
    ),
    "order": (
        ("allies", "orders: pursuit\nallies"),
        "b.yaml:1: orders=pursuit: unknown order; did you mean pursue?",
    ),
    "order without a place": (
        ("allies", "orders: attack_move\nallies"),
        "b.yaml:1: orders=attack_move: where to? write {attack_move: [9, 16]}",
    ),
    "zone without a shape": (
        ("allies", "zones:\n  - slow: 0.5\nallies"),
        "b.yaml:2: zones[0]: a zone needs one shape of rectangle, circle",
    ),
    "zone turned over": (
        ("allies", "zones:\n  - slow: 0.5\n    rectangle: [5, 5, 2, 9]\nallies"),
        "b.yaml:3: zones[0].rectangle=[5, 5, 2, 9]: "
        "write the lower corner before the upper one",
    ),
    "reward of an absent unit": (
        ("allies", "reward: {medivac: {healing: 1}}\nallies"),
        "b.yaml:1: reward.medivac: unknown unit; expected one of marine",
    ),
    "unknown weight": (
        ("allies", "reward: {marine: {heal: 1}}\nallies"),
        "b.yaml:1: reward.marine.heal=1: unknown key; did you mean healing?",
    ),
    "row off the map": (
        ("allies", "terrain:\n  30-32: [0-32]\nallies"),
        "b.yaml:2: terrain.30-32=[0-32]: rows are y or y-y with y in [0, 31], "
        "such as 8-23: [0-32]",
    ),
    "row given twice": (
        ("allies", "terrain:\n  3-5: [0-32]\n  5: [2-3]\nallies"),
        "b.yaml:3: terrain.5=[2-3]: a row of cells is given twice",
    ),
    "span": (
        ("allies", "terrain:\n  3: [5-5]\nallies"),
        "b.yaml:2: terrain.3[0]=5-5: expected from-to with 0 <= from < to <= 32, "
        "such as 0-32",
    ),
    "key given twice": (
        ("enemies", "allies: 3\nenemies"),
        "b.yaml:4: allies=3: given twice; leave one out",
    ),
    "syntax": (
        ("[9, 16]", "[9, 16"),
        "b.yaml:4: cannot be read as YAML: did not find expected ',' or ']'",
    ),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_a_wrong_file_is_one_line_with_line_key_and_fix(case):
    (old, new), message = BAD_FILES[case]
    assert old in SMALL
    with pytest.raises(ConfigError) as caught:
        _parse(SMALL.replace(old, new, 1))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["", "3", "- 1", "{", "\x00", "a: &a [*a]", "? [a]\n: b", "allies: *b"]
)
def test_any_text_that_is_no_battle_is_one_line(text):
    with pytest.raises(ConfigError) as caught:
        _parse(text)
    assert str(caught.value).startswith("b.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read: "):
            load(path)


def test_a_missing_file_of_an_environment_names_the_key_and_the_fix(tmp_path):
    path = tmp_path / "nothing.yaml"
    with pytest.raises(ConfigError) as caught:
        envs.make("battle", scenario=str(path))
    assert str(caught.value) == (
        f"env.scenario={path}: cannot be read: No such file or directory; "
        "give the path of a scenario file"
    )
