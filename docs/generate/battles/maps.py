"""Reference of battles: maps of SMAC, scenarios of SMACv2, compositions and terrains.

Figures come from the files of the maps and from the shapes of the environments
(``jmarl.envs.battle.scenarios`` and ``jmarl.envs.battle.smac``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from docs.generate.battles.units import short
from docs.generate.markdown import code, details, fence, join, table
from jmarl.envs.battle.combat.unit_table import UNITS
from jmarl.envs.battle.scenarios.battle_spec import Battle, DrawnBattle
from jmarl.envs.battle.scenarios.naming import SMAC, SMACV2, names, parse_name
from jmarl.envs.battle.scenarios.scenario_file import load_map, map_names
from jmarl.envs.battle.scenarios.terrain import Terrain, load_terrains, walkable
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_observe import spec
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.types import Spec


OF_PAPERS = ("6m2m_15m", "8m3m_21m", "8m4m_23m", "12m4m_30m")
"""Maps of papers that SMAC does not have."""

TEXT = """\
# Maps

Use a name as `env=<name>`, for example `env=smac_MMM2`. Every system accepts these names. [Train on
SMAC and SMACv2](../../how-to/train-on-smac.md) has presets of published experiments. The columns:

* *limit*: time limit of an episode, in steps.
* *actions*: number of actions. *Clash* is the number with `env.layout=clash`, as in SMAC.
* *observation*, *state*: width of an agent's observation and of the central state as flat vectors.
  They differ from SMAC's widths, because jmarl has [other
  features](../../explanation/battle-rules.md#observations).
* *reward*: maximum sum of SMAC's rewards before they are scaled to 20."""

SMAC_TEXT = """\
## Maps of SMAC

Each map is a file in `jmarl/envs/battle/scenarios/maps/`. Maps without a name in SMAC come from
papers, which state only their teams. jmarl chooses their terrain, starts and limits."""

SMACV2_TEXT = """\
## Scenarios of SMACv2

Each episode draws unit types and starts. Other team sizes are available as `smacv2_<race>_NvM`. The
[races](units.md#races-of-smacv2) have different unit types."""

COMPOSITIONS_TEXT = """\
## Compositions

`smac_<team>_vs_<team>` is a battle between any two teams on the terrain `strip`. A team is written
as counts and letters: `7m2M1d` has 7 marines, 2 marauders and 1 medivac. A single team, as in
`smac_5m`, fights a team with the same units.

Names of maps take precedence, and SMAC uses other letters: `smac_3s_vs_5z` is a map with zealots,
but `smac_3s_vs_6z` is a composition with zerglings."""

JOINED_TEXT = """\
`+` joins names of one rule set, such as `smac_3m+8m` or `smacv2_terran_5v5+10v10`. Each episode
draws one of the battles. The largest teams determine the shapes, and smaller teams have [absent
agents](../glossary.md). MAT, MAM and Sable need a fixed team and do not accept such
names."""

PLAYERS_TEXT = """\
## Scripted players

These are measured win rates of scripted players. The scale is `enemy_scale`, the factor on the
damage of the enemies."""

TERRAINS_TEXT = """\
## Terrains

A dot is a walkable cell, and `#` is a wall. A map has 32 x 32 cells, and north is up. The lower
left corner is (0, 0). A scenario file can use one of these terrains by its name."""

SHAPES = ("actions", "clash", "observation", "state")
MAP_HEADER = ("name", "teams", "terrain", "limit", *SHAPES, "reward", "SMAC's name")
DRAWN_HEADER = ("name", "limit", *SHAPES, "SMACv2's name")


def page() -> str:
    """Return the page of maps and terrains."""
    return join(
        TEXT,
        SMAC_TEXT,
        table(MAP_HEADER, map_rows()),
        players_text(),
        SMACV2_TEXT,
        table(DRAWN_HEADER, drawn_rows()),
        COMPOSITIONS_TEXT,
        table(("letter", "type"), [(code(u.letter), code(u.name)) for u in UNITS]),
        JOINED_TEXT,
        TERRAINS_TEXT,
        *map(picture, load_terrains().values()),
    )


def maps() -> list[Battle]:
    """Return the maps of SMAC, small ones first."""
    battles = map(load_map, map_names())
    return sorted(battles, key=lambda battle: battle.n_allies + battle.n_enemies)


def map_rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each map of SMAC."""
    for battle in maps():
        teams = battle.describe().partition(";")[0]
        place = code(battle.terrain.name), str(battle.limit)
        reward = short(battle.max_reward)
        theirs = "none" if battle.name in OF_PAPERS else code(battle.name)
        yield code(SMAC + battle.name), teams, *place, *shapes(battle), reward, theirs


def drawn_rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each listed scenario of SMACv2."""
    for name, _ in names():
        battle = parse_name(name) if name.startswith(SMACV2) else None
        if isinstance(battle, DrawnBattle):
            theirs = f"{battle.race}_{battle.n_allies}_vs_{battle.n_enemies}"
            yield code(name), str(battle.limit), *shapes(battle), code(theirs)


def shapes(battle: Battle | DrawnBattle) -> tuple[str, ...]:
    """Return the number of actions in both layouts, and the widths of flat vectors."""
    ours = spec(Facts(battle, SmacConfig()))
    clash = spec(Facts(battle, SmacConfig(layout="clash")))
    sizes = ours.n_actions, clash.n_actions, obs_width(ours), state_width(ours)
    return tuple(map(str, sizes))


def obs_width(shape: Spec) -> int:
    """Return the width of an agent's observation as a flat vector."""
    return shape.own_width + sum(group.size * group.width for group in shape.groups)


def state_width(shape: Spec) -> int:
    """Return the width of the central state as a flat vector."""
    widths = [group.state_size * group.state_width for group in shape.groups]
    return shape.global_width + sum(widths)


def players_text() -> str:
    """Return the section of measured win rates, or nothing if no map has any."""
    measured = [battle for battle in maps() if battle.win_rates]
    players = dict.fromkeys(name for battle in measured for name, _ in battle.win_rates)
    rows = [player_row(battle, players) for battle in measured]
    header = ("name", "scale", *players)
    return join(PLAYERS_TEXT, table(header, rows)) if rows else ""


def player_row(battle: Battle, players: Iterable[str]) -> tuple[str, ...]:
    """Return name, scale and the win rate of each player."""
    rates = dict(battle.win_rates)
    found = [short(rates[name]) if name in rates else "" for name in players]
    return code(SMAC + battle.name), short(battle.enemy_scale), *found


def picture(terrain: Terrain) -> str:
    """Return the cells of a terrain as text, which opens on a click."""
    rows = walkable(terrain).T[::-1]
    lines = ["".join("." if cell else "#" for cell in row) for row in rows]
    return details(terrain.name, fence("\n".join(lines)))
