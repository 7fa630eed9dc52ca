"""Reference of scenario files: every key with its type, default and meaning.

Fields of units and abilities come from their rows (``jmarl.envs.battle.combat.unit_table``) and
the bounds of the reader (``jmarl.envs.battle.scenarios.unit_rows``). ``tests/docs`` compares keys
and ranges with the reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from docs.generate.markdown import code, join, table
from docs.generate.schema import field_docs
from jmarl.envs.battle.combat.unit_table import (
    ABILITIES,
    ATTRIBUTES,
    UNITS,
    Ability,
    UnitRow,
)
from jmarl.envs.battle.rules import SMAX, UnitType
from jmarl.envs.battle.scenario import MAX_TEAM_SIZE
from jmarl.envs.battle.scenarios.battle_spec import Weights
from jmarl.envs.battle.scenarios.scenario_file import MAX_LIMIT, PLAYERS, RULES
from jmarl.envs.battle.scenarios.terrain import MAP_SIZE, load_terrains
from jmarl.envs.battle.scenarios.unit_rows import BOUNDS, CHOICES


class Key(NamedTuple):
    """A row of a table of keys."""

    key: str
    type: str
    default: str
    meaning: str


class Section(NamedTuple):
    """Keys at one place of a file."""

    title: str
    path: str
    """Place, such as ``allies[]`` for the items of a list; empty for the whole file."""
    text: str
    keys: tuple[Key, ...]


TEXT = """\
# Scenario files

These are the keys of a scenario file (`env=battle env.scenario=<file>`). [Write a
battle](../../how-to/write-a-battle.md) introduces them with examples. A wrong key or value is an
error that names the file, the line and the fix. A key with the default `none` is optional."""
HEADER = ("key", "type", "default", "meaning")
STEP = "whole number, or `[first, last]`"
PLACE = f"`[x, y]` with 0 <= x, y < {MAP_SIZE}, or two such points"
SEGMENT = "Between two points, a point is drawn in each episode"
MEANINGS: dict[type, dict[str, str]] = {
    UnitRow: {
        "health": "health at the start",
        "shield": "shield at the start; it takes damage before the health does",
        "attributes": "attributes, on which bonuses and healing depend",
        "flies": "true if walls, ground weapons and zones have no effect on the unit",
        "targets": "planes that the weapon hits; `none` without a weapon",
        "bonus_against": "attribute of the targets for which the bonus counts",
        "weapon": "`line` hits a strip; `burst` kills the unit and hits the enemies near it",
        "acceleration": "distance per second squared; most types reach their speed immediately",
        "heal": "true if the unit heals; a healer has no weapon",
        "max_energy": "maximum energy",
        "abilities": "[abilities](#abilities); enemies do not use them",
    },
    UnitType: {"radius": "radius for collisions"},
    Ability: {
        "targets": "`allies`: armor for another ally; `self`: more sight for allies in range",
        "amount": "armor, or increase of the sight range",
        "attack_range": "edge-to-edge range",
        "duration": "duration of the effect, in seconds",
        "cooldown": "seconds between uses, shared with the weapon",
    },
}
"""Meanings of fields, in place of the docstrings in the row."""


def bounded(kind: str, low: float, high: float) -> str:
    """Return the type of a number in a closed range."""
    return f"{kind} in [{low:.10g}, {high:.10g}]"


def number(low: float, high: float) -> str:
    """Return the type of a number in a closed range."""
    return bounded("number", low, high)


def whole(low: int, high: int) -> str:
    """Return the type of a whole number in a closed range."""
    return bounded("whole number", low, high)


def words(*known: str) -> str:
    """Return the type of a choice between words."""
    return " or ".join(map(code, known))


FILE = Section(
    "File",
    "",
    "",
    (
        Key("rules", words(*RULES), "`smac`", "rule set"),
        Key("limit", whole(1, MAX_LIMIT), "`200`", "steps of an episode"),
        Key(
            "terrain",
            f"{words(*load_terrains())}, or [rows](#terrain)",
            "`open`",
            "walkable cells",
        ),
        Key("allies", "list of [groups](#groups)", "required", "the agents"),
        Key("enemies", "list of [groups](#groups)", "required", "their opponents"),
        Key(
            "orders",
            "[order](#orders)",
            "see [orders](#orders)",
            "order of all enemies whose group has none",
        ),
        Key("zones", "list of [zones](#zones)", "none", "areas with an effect"),
        Key("reward", "[reward](#reward)", "that of SMAC", "reward of each agent"),
        Key("units", "[units](#units)", "none", "changed and new unit types"),
        Key("abilities", "[abilities](#abilities)", "none", "changed and new ones"),
        Key(
            "enemy_scale",
            number(0.01, 100),
            "`1`",
            "factor on the damage of the enemies",
        ),
        Key(
            "win_rates",
            "[win rates](#win-rates)",
            "none",
            "measured win rates, for readers of the file",
        ),
    ),
)

GROUP_KEYS = (
    Key(
        "units",
        f"counts by type: `{{marine: 3}}`, each a {whole(1, MAX_TEAM_SIZE)}",
        "required",
        "units of the group",
    ),
    Key("at", PLACE, "required", f"point around which the units start. {SEGMENT}"),
    Key(
        "arrives",
        STEP,
        "`0`",
        "step at which the group appears, less than the limit; drawn if two steps are given",
    ),
    Key(
        "leaves",
        STEP,
        "never",
        "step at which living units are withdrawn, after their arrival",
    ),
    Key(
        "orders", "[order](#orders)", "that of the file", "own order, for enemies only"
    ),
)
GROUPS_TEXT = f"""\
These are the keys of the items of `allies` and `enemies`. A team has 1 to {MAX_TEAM_SIZE} units,
and not only healers. At least one group must be present at step 0. A start must be walkable, unless
all units of the group can cross walls."""
GROUPS = Section("Groups", "enemies[]", GROUPS_TEXT, GROUP_KEYS)
ORDERS = Section(
    "Orders",
    "orders",
    """\
An order is the word `pursue` or `hold`, or a mapping with the key `attack_move`. With
`rules: smac`, the default is an attack-move to the start of the first group of allies that walks.
With `rules: smacv2`, it is `pursue`.

* `pursue`: attack the nearest ally until it is dead, at any distance.
* `hold`: stay, and attack allies within range.""",
    (
        Key(
            "attack_move",
            PLACE,
            "none",
            f"walk to a point, and attack allies near the way. {SEGMENT}",
        ),
    ),
)
ZONES = Section(
    "Zones",
    "zones[]",
    "A zone has one effect and one shape. It affects the units of both teams on the ground.",
    (
        Key("slow", number(0, 1), "none", "factor on the speed of a unit"),
        Key(
            "conceal",
            number(0, 64),
            "none",
            "distance up to which opponents see and target a unit",
        ),
        Key("damage", number(0, 1e4), "none", "health that a unit loses per second"),
        Key("rectangle", "`[x, y, x, y]`", "none", "lower left and upper right corner"),
        Key("circle", "`[x, y, radius]`", "none", "center and radius"),
    ),
)
REWARD = Section(
    "Reward",
    "reward",
    """\
This mapping has the share of SMAC's team reward, and the [weights](#weights-of-a-type) of unit
types. Unit types that it does not list have SMAC's weights.""",
    (
        Key(
            "team",
            number(0, 1),
            "`0`; `1` without `reward`",
            "share of SMAC's team reward; the rest is the agent's own",
        ),
    ),
)
RATES = Section(
    "Win rates",
    "win_rates",
    "These are measured win rates of scripted players. They have no effect.",
    tuple(Key(player, number(0, 1), "none", "win rate") for player in PLAYERS),
)


def weight_keys() -> Iterator[Key]:
    """Yield the weights of the reward."""
    for name, meaning in doc_meanings(Weights).items():
        yield Key(name, number(-100, 100), "`0`", meaning)


def row_keys(row: Any) -> Iterator[Key]:
    """Yield the fields of a unit type or an ability, and ``like``."""
    meanings = doc_meanings(type(row)) | MEANINGS[type(row)]
    yield Key("like", "name of a row", "none", "row that a new one copies")
    for name in row._fields[1:]:
        yield Key(name, row_type(row, name), "of the row", meanings[name])


def doc_meanings(cls: type) -> dict[str, str]:
    """Return the docstrings of fields as text in a table."""
    return {name: to_cell(text) for name, text in field_docs(cls).items()}


def to_cell(text: str) -> str:
    """Return a docstring as text in a table, which starts in lower case."""
    line = " ".join(text.split()).replace("``", "`").rstrip(".")
    return line[:1].lower() + line[1:]


def row_type(row: Any, name: str) -> str:
    """Return the type of a field of a row."""
    old = getattr(row, name)
    if isinstance(old, bool):
        return "true or false"
    if isinstance(old, int):
        return whole(1, 100)
    if isinstance(old, float):
        return number(*BOUNDS.get(name, (0.0, 1e5)))
    if isinstance(old, str):
        known = CHOICES.get((type(row), name))
        return words(*known) if known else "a letter"
    known = (
        [ability.name for ability in ABILITIES] if name == "abilities" else ATTRIBUTES
    )
    return f"list of {', '.join(map(code, known))}"


def sections() -> tuple[Section, ...]:
    """Return all tables of keys, in the order of the page."""
    return (
        FILE,
        GROUPS,
        ORDERS,
        ZONES,
        REWARD,
        Section("Weights of a type", "reward.<type>", WEIGHTS, tuple(weight_keys())),
        Section("Units", "units.<type>", UNITS_TEXT, tuple(row_keys(UNITS[0]))),
        Section(
            "Units of the smax rules",
            "units.<type>",
            SMAX_UNITS_TEXT,
            tuple(row_keys(SMAX.units[0])),
        ),
        Section(
            "Abilities",
            "abilities.<name>",
            ABILITIES_TEXT,
            tuple(row_keys(ABILITIES[0])),
        ),
        RATES,
    )


WEIGHTS = """\
All terms are scaled like SMAC's reward, by 20 over the maximum reward. A listed type has weight 0
for each missing key."""
UNITS_TEXT = """\
An entry changes a type of [the unit table](units.md) for both teams. With `like`, it adds a
type."""
SMAX_UNITS_TEXT = "With `rules: smax`, the types of SMAX have these fields."
ABILITIES_TEXT = """\
An entry changes an [ability](units.md#abilities). With `like`, it adds one. A type has at most one
ability with `targets: allies` and one with `targets: self`."""
TERRAIN = f"""\
## Terrain

`terrain` is the name of a [terrain](maps.md#terrains), or a mapping from rows of cells to lists of
spans: `8-23: [0-12, 20-32]`. A row is `y` or `y-y`, with y from 0 to {MAP_SIZE - 1}. A span is
`from-to` along x, with coordinates from 0 to {MAP_SIZE}: `0-12` is 12 cells. All other cells are
walls."""
SMAX_TEXT = """\
## The smax rules

With `rules: smax`, the other keys are `limit`, `allies`, `enemies`, `units` and `win_rates`. A
group has only `units`, because SMAX determines the starts. The options are those of `smax_`
environments."""


def page() -> str:
    """Return the page of all keys."""
    first, *rest = sections()
    return join(TEXT, render(first), TERRAIN, *map(render, rest), SMAX_TEXT)


def render(section: Section) -> str:
    """Return a section with its table."""
    rows = [(code(row.key), *row[1:]) for row in section.keys]
    return join(f"## {section.title}", section.text, table(HEADER, rows))
