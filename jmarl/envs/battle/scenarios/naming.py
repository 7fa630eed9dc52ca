"""Names of battles: ``smac_<map>``, ``smac_<team>_vs_<team>`` and ``smacv2_<race>_NvM``.

If parts are joined by ``+``, each episode draws one of these battles. This module does not import
JAX.
"""

from __future__ import annotations

import re

from jmarl.config.errors import ConfigError, suggest
from jmarl.envs.battle.combat.unit_table import ABILITIES, ENEMY_UNITS, RACES, UNITS
from jmarl.envs.battle.scenario import MAX_TEAM_SIZE
from jmarl.envs.battle.scenarios.battle_spec import (
    AnyBattle,
    Battle,
    DrawnBattle,
    Group,
    JoinedBattle,
    Order,
    Place,
)
from jmarl.envs.battle.scenarios.scenario_file import load_map, map_names
from jmarl.envs.battle.scenarios.terrain import get_terrain


SMAC, SMACV2 = "smac_", "smacv2_"
SMACV2_SIZES = ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))
"""Team sizes of SMACv2's published scenarios."""
LEFT, RIGHT = Place.point(9.0, 16.0), Place.point(23.0, 16.0)
"""Starts of compositions, as on most maps of SMAC."""
COMPOSITION_LIMIT = 200
"""Step limit of compositions. SMAC has none."""
_EXAMPLES = ("smac_7m2M1d_vs_8m3M1d", "smac_3m+8m")
_TEAM = re.compile(r"(?:\d{1,6}[a-zA-Z])+")
_MEMBERS = re.compile(r"(\d+)([a-zA-Z])")
_DRAWN = re.compile(r"(?:([a-zA-Z]+)_)?(\d{1,6})(?:v|_vs_)(\d{1,6})")


def matches(name: str) -> bool:
    """Return whether a name has the prefix of these battles. ``parse_name`` checks the rest."""
    return name.startswith((SMAC, SMACV2))


def parse_name(name: str) -> AnyBattle:
    """Return the battle of a name. Parts joined by ``+`` are battles to draw from.

    Args:
        name: full name with its prefix. The prefix and the race may be left out after a ``+``.

    Raises:
        ConfigError: If a part of the name is unknown. The message has the nearest name.
    """
    if not matches(name):
        raise ConfigError(f"{name}: unknown battle; expected {SMAC}... or {SMACV2}...")
    parse = _parse_drawn if name.startswith(SMACV2) else _parse_fixed
    battles = parse(name)
    return battles[0] if len(battles) == 1 else JoinedBattle(battles)


def names() -> list[tuple[str, str]]:
    """Return the names and one-line descriptions of the listed battles.

    Other compositions and sizes can be built without being listed.
    """
    listed = [SMAC + name for name in map_names()]
    sizes = [(race, n, m) for race in RACES for n, m in SMACV2_SIZES]
    listed += [f"{SMACV2}{race}_{n}v{m}" for race, n, m in sizes]
    return [(name, describe(name)) for name in (*listed, *_EXAMPLES)]


def describe(name: str) -> str:
    """Return the one-line description of a name."""
    return parse_name(name).describe()


def _parse_fixed(name: str) -> tuple[Battle, ...]:
    _check_prefixes(name, SMACV2)
    parts = [part.removeprefix(SMAC) for part in name.split("+")]
    return tuple(_parse_part(name, part) for part in parts)


def _parse_part(name: str, part: str) -> Battle:
    """Return a map or a composition. The names of maps come first."""
    if part in map_names():
        return load_map(part)
    teams = part.split("_vs_")
    if len(teams) > 2 or not all(map(_TEAM.fullmatch, teams)):
        known = [SMAC + known for known in map_names() if part]
        pattern = f"expected a map or a composition such as {_EXAMPLES[0]}"
        fix = suggest(SMAC + part, known, pattern)
        raise ConfigError(f"{name}: {_unknown('map', part)}; {fix}")
    allies, enemies = (_parse_team(name, team) for team in (teams[0], teams[-1]))
    return Battle(
        name=part,
        rules="smac",
        terrain=get_terrain("strip"),
        limit=COMPOSITION_LIMIT,
        allies=(Group(allies, LEFT),),
        enemies=(Group(enemies, RIGHT, order=Order("attack_move", LEFT)),),
        units=UNITS,
        enemy_units=ENEMY_UNITS,
        abilities=ABILITIES,
    )


def _parse_team(name: str, team: str) -> tuple[tuple[str, int], ...]:
    units = {unit.letter: unit for unit in UNITS}
    counts: dict[str, int] = {}
    for count, letter in _MEMBERS.findall(team):
        _check_letter(name, letter, counts)
        _check_size(name, int(count))
        counts[letter] = int(count)
    _check_size(name, sum(counts.values()))
    if all(units[letter].heal for letter in counts):
        raise ConfigError(f"{name}: {team} has only healers; add another unit")
    return tuple((units[letter].name, count) for letter, count in counts.items())


def _check_letter(name: str, letter: str, counts: dict[str, int]) -> None:
    letters = ", ".join(f"{unit.letter} {unit.name}" for unit in UNITS)
    if letter not in [unit.letter for unit in UNITS]:
        raise ConfigError(f"{name}: unknown unit letter {letter}; use {letters}")
    if letter in counts:
        raise ConfigError(f"{name}: letter {letter} is given twice; use {letters}")


def _check_size(name: str, size: int) -> None:
    if not 1 <= size <= MAX_TEAM_SIZE:
        rule = f"a team must have 1 to {MAX_TEAM_SIZE} units"
        raise ConfigError(f"{name}: {rule}, not {size}")


def _parse_drawn(name: str) -> tuple[DrawnBattle, ...]:
    _check_prefixes(name, SMAC)
    battles: list[DrawnBattle] = []
    for part in name.split("+"):
        match = _DRAWN.fullmatch(part.removeprefix(SMACV2))
        if match is None:
            raise ConfigError(f"{name}: cannot be read; expected smacv2_<race>_NvM")
        race = match[1] or (battles[-1].race if battles else "")
        _check_race(name, race)
        sizes = int(match[2]), int(match[3])
        for size in sizes:
            _check_size(name, size)
        battles.append(DrawnBattle(race, *sizes))
    return tuple(battles)


def _check_race(name: str, race: str) -> None:
    if race not in RACES:
        fix = suggest(race, RACES, f"expected one of {', '.join(RACES)}")
        raise ConfigError(f"{name}: {_unknown('race', race)}; {fix}")


def _check_prefixes(name: str, other: str) -> None:
    if any(part.startswith(other) for part in name.split("+")):
        rule = f"{SMAC}... and {SMACV2}... have different rules and cannot be joined"
        raise ConfigError(f"{name}: {rule}")


def _unknown(kind: str, word: str) -> str:
    return f"unknown {kind} {word}" if word else f"no {kind} given"
