"""The pages on battles have every unit, map, key and range that the code has."""

import copy
import re

import pytest
import yaml
from test_pages import DOCS

from docs.generate import configuration
from docs.generate.battles import keys, maps, units
from jmarl.config.errors import ConfigError
from jmarl.envs import registry
from jmarl.envs.battle.combat import damage, tick
from jmarl.envs.battle.combat.unit_table import UNITS
from jmarl.envs.battle.scenarios.naming import names, parse_name
from jmarl.envs.battle.scenarios.scenario_file import map_names, parse
from jmarl.envs.battle.smac import smac_observe, smac_opponents, smac_starts


RULES = " ".join((DOCS / "explanation" / "battle-rules.md").read_text().split())
RANGE = re.compile(r"(whole )?number in \[(\S+), (\S+)\]")
OUT_OF_RANGE = r": must (lie in|be at most|be at least)"
KNOWN = re.compile(r"known keys: (.*)$")


TEAMS = {
    "allies": [{"units": {"marine": 3}, "at": [9, 16]}],
    "enemies": [{"units": {"zergling": 3}, "at": [23, 16]}],
}
SMAX_TEAMS = {
    "rules": "smax",
    "allies": [{"units": {"marine": 3}}],
    "enemies": [{"units": {"zergling": 3}}],
}


def with_value(section, key, value):
    """Return the text of a battle with a value at a place of the page."""
    tree = copy.deepcopy(SMAX_TEAMS if "smax" in section.title else TEAMS)
    place = tree
    for part in filter(None, section.path.split(".")):
        name = part.removesuffix("[]")
        name = {"<type>": "marine", "<name>": "ward"}.get(name, name)
        if part.endswith("[]"):
            [place] = place.setdefault(name, [{"circle": [16, 16, 3]}])
        else:
            place = place.setdefault(name, {})
    place[key] = value
    return yaml.safe_dump(tree)


def error_of(text):
    """Return the error of reading a battle, or nothing."""
    try:
        parse(text, "file", "battle")
    except ConfigError as error:
        return str(error)
    return ""


def known_keys(section):
    """Return the keys that the reader accepts, from the error for an unknown one."""
    error = error_of(with_value(section, "qqqq", 1))
    return set(KNOWN.search(error)[1].split(", "))


MAPPINGS = [s for s in keys.sections() if s.path != "reward"]
"""Sections whose keys are fixed. Those of ``reward`` are unit types."""


@pytest.mark.parametrize("section", MAPPINGS, ids=lambda section: section.title)
def test_the_reader_knows_the_keys_of_a_section_and_no_others(section):
    assert known_keys(section) == {key.key for key in section.keys}


def test_groups_of_allies_have_the_keys_of_enemies_except_orders():
    allies = keys.GROUPS._replace(path="allies[]")
    assert known_keys(allies) == known_keys(keys.GROUPS) - {"orders"}


@pytest.mark.parametrize(
    ("section", "key", "bounds"),
    [
        pytest.param(section, key.key, match.groups(), id=f"{section.title}: {key.key}")
        for section in keys.sections()
        for key in section.keys
        if (match := RANGE.fullmatch(key.type))
    ],
)
def test_the_reader_accepts_the_range_of_a_key_and_nothing_beyond(section, key, bounds):
    whole, low, high = bounds
    kind, step = (int, 1) if whole else (float, 1e-4)
    for bound, beyond in ((kind(low), -step), (kind(high), step)):
        assert not re.search(OUT_OF_RANGE, error_of(with_value(section, key, bound)))
        text = with_value(section, key, bound + beyond)
        assert re.search(OUT_OF_RANGE, error_of(text)), text


def test_every_key_has_a_type_and_a_meaning():
    for section in keys.sections():
        for key in section.keys:
            assert all(key), key


def test_every_unit_and_every_listed_battle_has_a_row():
    unit_rows = re.findall(r"^\| `(\w+)` \|", units.page(), re.MULTILINE)
    assert all(unit_rows.count(unit.name) >= 3 for unit in UNITS)
    page = maps.page().replace(maps.players_text(), "")
    map_rows = re.findall(r"^\| `(smac\w+)` \|", page, re.MULTILINE)
    examples = ("smac_7m2M1d_vs_8m3M1d", "smac_3m+8m")
    assert sorted(map_rows) == sorted(n for n, _ in names() if n not in examples)


def test_figures_of_a_unit_have_all_their_digits():
    rows = units.page().splitlines()
    [weapon] = [row for row in rows if row.startswith("| `stalker` | plain")]
    assert (
        weapon
        == "| `stalker` | plain | ground, air | 13 (+5 armored) | 6 | 1.87 | 6 | 10 |"
    )
    assert any(row.startswith("| `medivac` | 0 | 0 | 0.5625 |") for row in rows)


def test_shapes_of_a_map_are_those_of_its_environment():
    row, rates = [r for r in maps.page().splitlines() if "| `smac_MMM2` |" in r]
    spec = registry.make("smac_MMM2").spec
    clash = registry.make("smac_MMM2", layout="clash").spec
    assert f"| 180 | {spec.n_actions} | {clash.n_actions} |" in row
    assert clash.n_actions == 18  # SMAC's
    assert rates.startswith("| `smac_MMM2` | 1 | ")
    assert rates.count("|") == 7


def test_a_terrain_is_drawn_with_north_up():
    picture = maps.picture(maps.load_terrains()["corridor"]).splitlines()
    rows = [line.strip() for line in picture if re.fullmatch(r" *[.#]{32}", line)]
    assert len(rows) == 32
    assert rows[-2] == "##" + 12 * "." + 18 * "#"  # y = 1: x from 2 to 14


@pytest.mark.parametrize("options", configuration.OPTIONS, ids=lambda o: o.title)
def test_every_option_has_type_default_and_meaning(options):
    fields = options.config.__dataclass_fields__
    rows = list(configuration.option_rows(options.config))
    assert [row.key for row in rows] == [f"env.{name}" for name in fields]
    assert all(row.type and row.default and row.meaning for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        f"heals {tick.HEAL.rate:g} health per second",
        f"{tick.HEAL.per_energy:g} health cost 1 energy",
        f"needs {tick.HEAL.least_energy:g} energy",
        f"after {tick.CALM:g} s without damage",
        f"at least {damage.LEAST_DAMAGE:g} health",
        f"at most {tick.LARGEST_PUSH:g} along an axis",
        f"centers are at most {smac_observe.REACH:g} apart",
        f"less than {smac_observe.SIGHT:g} away",
        f"edge of at most {smac_opponents.SCAN:g},",
        f"at most {smac_starts.JITTER:g} along each axis",
        f"{2 * (damage.DISCS * damage.DISC_SPACING + damage.DISC_RADIUS):g} long and "
        f"{2 * damage.DISC_RADIUS:g} deep",
    ],
)
def test_the_rules_have_the_figures_of_the_code(text):
    assert text in RULES


def test_a_letter_of_a_composition_may_differ_from_that_of_a_map():
    kind = re.compile(r"`(smac_\w+)` is a (map|composition)\s+with\s+(\w+)s")
    examples = kind.findall(maps.COMPOSITIONS_TEXT)
    assert {what for _, what, _ in examples} == {"map", "composition"}
    for name, what, unit in examples:
        battle = parse_name(name)
        assert battle.describe().count(unit) == 1
        assert (name.removeprefix("smac_") in map_names()) == (what == "map")


def test_a_unit_that_cannot_walk_acquires_only_targets_in_reach():
    table = (next(unit for unit in UNITS if unit.speed == 0),)
    facts = smac_opponents.battle_facts(table, ())
    assert facts.scan == table[0].attack_range + table[0].radius
