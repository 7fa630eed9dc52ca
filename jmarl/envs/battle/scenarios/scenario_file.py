"""Scenario files: battles written as YAML, read into frozen values.

``parse`` reads the maps in ``maps/`` and users' files. Each error is one line with file, line, key,
value and fix. This module does not import JAX.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jmarl.config.errors import ConfigError, suggest
from jmarl.envs.battle.combat.unit_table import ABILITIES, ENEMY_UNITS, UNITS
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenario import MAX_TEAM_SIZE
from jmarl.envs.battle.scenarios.battle_spec import (
    Battle,
    Group,
    Order,
    Place,
    Steps,
    Weights,
    Zone,
    team_size,
)
from jmarl.envs.battle.scenarios.terrain import (
    MAP_SIZE,
    Terrain,
    is_walkable,
    load_terrains,
    read_terrain,
)
from jmarl.envs.battle.scenarios.unit_rows import read_abilities, read_units
from jmarl.envs.battle.scenarios.yaml_node import Node, read_yaml


MAPS_DIR = Path(__file__).parent / "maps"
RULES = ("smac", "smacv2", "smax")
PLAYERS = ("random", "nearest", "focus", "kite")
"""Scripted players whose win rates a file may record."""
MAX_LIMIT = 10_000
_KEYS = ("rules", "limit", "allies", "enemies", "units", "win_rates")
_SMAC_KEYS = ("terrain", "orders", "zones", "reward", "abilities", "enemy_scale")
"""Keys that SMAX's rules lack."""
_GROUP_KEYS = ("units", "at", "arrives", "leaves")
_EXAMPLE = "allies: [{units: {marine: 3}, at: [9, 16]}]"
_AT = "at: [9, 16]"
_TEAM = "[{units: {marine: 3}, at: [9, 16]}]"
_SMAX_PLACES = {"allies": Place.point(8.0, 16.0), "enemies": Place.point(24.0, 16.0)}
"""Centers of the starts that SMAX's rules fix."""
_EFFECTS = {"slow": (0.0, 1.0), "conceal": (0.0, 64.0), "damage": (0.0, 1e4)}
"""Least and largest amount of each effect of a zone."""
_SHAPES = {"rectangle": "[x, y, x, y]", "circle": "[x, y, radius]"}


class _Setting(NamedTuple):
    """Values that the checks of groups need."""

    rules: str
    terrain: Terrain
    limit: int
    units: tuple[Any, ...]


def load(path: str | Path) -> Battle:
    """Read a scenario file.

    Raises:
        ConfigError: If the file cannot be read or is wrong.
    """
    return parse(read_text(path), str(path), Path(path).stem)


def read_text(path: str | Path, where: str = "") -> str:
    """Return the text of a scenario file.

    Args:
        path: the file.
        where: name of the file in the error, if it is not the path.

    Raises:
        ConfigError: If the file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        fix = "give the path of a scenario file"
        where = where or str(path)
        raise ConfigError(f"{where}: cannot be read: {reason}; {fix}") from None


@functools.cache
def load_map(name: str) -> Battle:
    """Return one of the maps in ``maps/``."""
    return load(MAPS_DIR / f"{name}.yaml")


@functools.cache
def map_names() -> tuple[str, ...]:
    """Return the names of the maps in ``maps/``."""
    return tuple(sorted(path.stem for path in MAPS_DIR.glob("*.yaml")))


def parse(text: str, source: str, name: str) -> Battle:
    """Read the text of a scenario file.

    Args:
        text: content of the file.
        source: name of the file, for errors.
        name: name of the battle.

    Raises:
        ConfigError: If the text is wrong.
    """
    root = read_yaml(text, source)
    nodes = root.fields((*_KEYS, *_SMAC_KEYS), _EXAMPLE)
    for team in ("allies", "enemies"):
        root.check(team in nodes, f"{team} are missing; add {team}: {_TEAM}")
    rules = _read(nodes, "rules", lambda node: node.choice(RULES, "rule set"), "smac")
    if rules == "smax":
        _check_smax({key: nodes[key] for key in _SMAC_KEYS if key in nodes})
    return _read_battle(nodes, name, rules)


def _read(nodes: dict[str, Node], key: str, read: Callable[[Node], Any], default: Any):
    return read(nodes[key]) if key in nodes else default


def _check_smax(nodes: dict[str, Node]) -> None:
    for key, node in nodes.items():
        raise node.error(f"the smax rules have no {key}; use rules: smac")


def _read_battle(nodes: dict[str, Node], name: str, rules: str) -> Battle:
    abilities, units, enemy_units = _read_tables(nodes, rules)
    terrain = _read(nodes, "terrain", _read_terrain, load_terrains()["open"])
    limit = _read(nodes, "limit", lambda node: node.integer(1, MAX_LIMIT), 200)
    setting = _Setting(rules, terrain, limit, units)
    allies = _read_team(nodes["allies"], setting)
    order = _read_order(nodes.get("orders"), setting, allies)
    return Battle(
        name=name,
        rules=rules,
        terrain=terrain,
        limit=limit,
        allies=allies,
        enemies=_read_team(nodes["enemies"], setting, order),
        units=units,
        enemy_units=enemy_units,
        abilities=abilities,
        **_read_extras(nodes, allies),
    )


def _read_tables(nodes: dict[str, Node], rules: str) -> tuple[Any, Any, Any]:
    """Return the abilities and the unit tables of both teams."""
    is_smax = rules == "smax"
    abilities = read_abilities(nodes.get("abilities"), () if is_smax else ABILITIES)
    tables = [SMAX.units, SMAX.units] if is_smax else [UNITS, ENEMY_UNITS]
    units, enemy_units = read_units(nodes.get("units"), tables, abilities)
    return abilities, units, enemy_units


def _read_extras(nodes: dict[str, Node], allies: tuple[Group, ...]) -> dict[str, Any]:
    team_reward, reward = _read_reward(nodes.get("reward"), allies)
    return {
        "zones": _read(nodes, "zones", _read_zones, ()),
        "team_reward": team_reward,
        "reward": reward,
        "enemy_scale": _read(nodes, "enemy_scale", lambda n: n.number(0.01, 100), 1.0),
        "win_rates": _read(nodes, "win_rates", _read_rates, ()),
    }


def _read_terrain(node: Node) -> Terrain:
    if node.is_mapping:
        return read_terrain(node, "own terrain")
    return load_terrains()[node.choice(tuple(load_terrains()), "terrain")]


def _read_team(
    node: Node, setting: _Setting, order: Order | None = None
) -> tuple[Group, ...]:
    items = node.items(_TEAM)
    groups = tuple(_read_group(item, setting, order, node.key) for item in items)
    rule = f"a team must have 1 to {MAX_TEAM_SIZE} units, not {team_size(groups)}"
    node.check(1 <= team_size(groups) <= MAX_TEAM_SIZE, rule)
    starts = any(group.arrives == Steps(0, 0) for group in groups)
    node.check(starts, "nobody is there at step 0; leave out arrives in one group")
    kinds = {name for group in groups for name, _ in group.units}
    healers = {row.name for row in setting.units if getattr(row, "heal", False)}
    node.check(not kinds <= healers, "only healers lose at once; add another unit")
    return groups


def _read_group(node: Node, setting: _Setting, order: Order | None, team: str) -> Group:
    known = (*_GROUP_KEYS, "orders") if team == "enemies" else _GROUP_KEYS
    nodes = node.fields(known, "units: {marine: 3}")
    node.check("units" in nodes, "units are missing; add units: {marine: 3}")
    units = _read_counts(nodes["units"], setting)
    if setting.rules == "smax":
        _check_smax({key: nodes[key] for key in nodes if key != "units"})
        return Group(units, _SMAX_PLACES[team])
    node.check("at" in nodes, f"the start is missing; add {_AT}")
    at = _read_start(nodes["at"], units, setting)
    if "orders" in nodes:
        order = _read_order(nodes["orders"], setting, ())
    return Group(units, at, *_read_times(nodes, setting.limit), order)


def _read_times(nodes: dict[str, Node], limit: int) -> tuple[Steps, Steps | None]:
    """Read the steps at which a group arrives and leaves."""
    arrives, leaves = Steps(0, 0), None
    if "arrives" in nodes:
        arrives = _read_steps(nodes["arrives"], limit - 1)
    if "leaves" in nodes:
        leaves = _read_steps(nodes["leaves"], limit)
        later = leaves.first > arrives.last
        nodes["leaves"].check(later, f"must be after step {arrives.last}, the arrival")
    return arrives, leaves


def _read_counts(node: Node, setting: _Setting) -> tuple[tuple[str, int], ...]:
    names = [row.name for row in setting.units]
    counts = []
    for name, entry in node.entries("{marine: 3}").items():
        _check_unit(entry, name, names)
        counts.append((name, entry.integer(1, MAX_TEAM_SIZE)))
    node.check(counts != [], "no units; add {marine: 3}")
    return tuple(counts)


def _check_unit(node: Node, name: str, known: list[str]) -> None:
    fix = suggest(name, known, f"expected one of {', '.join(known)}")
    node.check(name in known, f"unknown unit; {fix}")


def _read_start(
    node: Node, units: tuple[tuple[str, int], ...], setting: _Setting
) -> Place:
    """Read a start. Only units that cross walls may start inside one."""
    return _read_place(node, setting.terrain if _walks(units, setting) else None)


def _walks(units: tuple[tuple[str, int], ...], setting: _Setting) -> bool:
    """Return whether walls stop one of the units."""
    rows = {row.name: row for row in setting.units}
    return not all(rows[name].flies or rows[name].colossal for name, _ in units)


def _read_place(node: Node, terrain: Terrain | None) -> Place:
    """Read a point or a segment. All of it must be walkable if a terrain is given."""
    items = node.items("[9, 16]")
    if any(item.is_list for item in items):
        node.check(len(items) == 2, "expected two points, such as [[9, 12], [9, 20]]")
        place = Place(*_read_point(items[0]), *_read_point(items[1]))
    else:
        place = Place.point(*_read_point(node))
    if terrain is not None:
        inside = all(is_walkable(terrain, x, y) for x, y in place.points())
        node.check(inside, f"inside a wall of {terrain.name}; choose a walkable point")
    return place


def _read_point(node: Node) -> tuple[float, float]:
    numbers = [item.number() for item in node.items("[9, 16]")]
    node.check(len(numbers) == 2, "expected x and y, such as [9, 16]")
    inside = all(0 <= number < MAP_SIZE for number in numbers)
    node.check(inside, f"off the map; x and y must lie in [0, {MAP_SIZE})")
    return numbers[0], numbers[1]


def _read_steps(node: Node, high: int) -> Steps:
    """Read a step, or a first and a last one between which it is drawn."""
    items = node.items("[20, 60]") if node.is_list else [node]
    node.check(len(items) in (1, 2), "expected a step, or [first, last]")
    steps = [item.integer(0, MAX_LIMIT) for item in items]
    late = f"after the limit; must be at most {high}"
    node.check(max(steps) <= high, late)
    node.check(steps[0] <= steps[-1], "the first step must not be after the last")
    return Steps(steps[0], steps[-1])


def _read_order(
    node: Node | None, setting: _Setting, allies: tuple[Group, ...]
) -> Order | None:
    """Read the enemies' order. The default depends on the rules."""
    if node is None:
        return _default_order(setting, allies)
    if not node.is_mapping:
        word = node.choice(("attack_move", "pursue", "hold"), "order")
        node.check(word != "attack_move", "where to? write {attack_move: [9, 16]}")
        return Order("hold" if word == "hold" else "pursue")
    nodes = node.fields(("attack_move",), "attack_move: [9, 16]")
    node.check(len(nodes) == 1, "no order; write {attack_move: [9, 16]}")
    return Order("attack_move", _read_place(nodes["attack_move"], setting.terrain))


def _default_order(setting: _Setting, allies: tuple[Group, ...]) -> Order | None:
    if setting.rules == "smac":
        # A group that flies may start inside a wall.
        walking = (group for group in allies if _walks(group.units, setting))
        return Order("attack_move", next(walking, allies[0]).at)
    return None if setting.rules == "smax" else Order("pursue")


def _read_zones(node: Node) -> tuple[Zone, ...]:
    items = node.items("[{slow: 0.5, circle: [16, 16, 3]}]")
    return tuple(map(_read_zone, items))


def _read_zone(node: Node) -> Zone:
    nodes = node.fields((*_EFFECTS, *_SHAPES), "slow: 0.5")
    effect, amount = _only(node, nodes, tuple(_EFFECTS), "effect")
    shape, bounds = _only(node, nodes, tuple(_SHAPES), "shape")
    value = amount.number(*_EFFECTS[effect])
    return Zone(effect, value, shape, _read_bounds(bounds, shape))  # pyright: ignore


def _only(
    node: Node, nodes: dict[str, Node], names: tuple[str, ...], kind: str
) -> tuple[str, Node]:
    given = [name for name in names if name in nodes]
    node.check(len(given) == 1, f"a zone needs one {kind} of {', '.join(names)}")
    return given[0], nodes[given[0]]


def _read_bounds(node: Node, shape: str) -> tuple[float, ...]:
    numbers = tuple(item.number(0, MAP_SIZE) for item in node.items(_SHAPES[shape]))
    fits = len(numbers) == _SHAPES[shape].count(",") + 1
    node.check(fits, f"expected {_SHAPES[shape]}")
    if shape == "circle":
        node.check(numbers[2] > 0, "the radius must be greater than 0")
    else:
        ordered = numbers[0] < numbers[2] and numbers[1] < numbers[3]
        node.check(ordered, "write the lower corner before the upper one")
    return numbers


def _read_reward(
    node: Node | None, allies: tuple[Group, ...]
) -> tuple[float, tuple[tuple[str, Weights], ...]]:
    """Read the share of the team reward, and the weights by unit type."""
    if node is None:
        return 1.0, ()
    nodes = node.entries("marine: {damage: 1}")
    team = nodes.pop("team", None)
    counts = itertools.chain.from_iterable(group.units for group in allies)
    names = list(dict(counts))
    for name, entry in nodes.items():
        _check_unit(entry, name, names)
    weights = tuple((name, _read_weights(entry)) for name, entry in nodes.items())
    return (team.number(0, 1) if team else 0.0), weights


def _read_weights(node: Node) -> Weights:
    nodes = node.fields(Weights._fields, "damage: 1")
    node.check(len(nodes) > 0, "no weights; write {damage: 1}")
    values = {name: entry.number(-100, 100) for name, entry in nodes.items()}
    return Weights(0.0, 0.0, 0.0)._replace(**values)


def _read_rates(node: Node) -> tuple[tuple[str, float], ...]:
    nodes = node.fields(PLAYERS, "focus: 0.1")
    return tuple((player, rate.number(0, 1)) for player, rate in nodes.items())
