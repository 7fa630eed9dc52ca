"""Unit types and abilities that a scenario file changes or adds.

Each entry names a row of the table and the fields to replace. A new row starts as a copy of the row
``like``. This module does not import JAX.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from jmarl.config.errors import suggest
from jmarl.envs.battle.combat.unit_table import ATTRIBUTES, Ability, UnitRow
from jmarl.envs.battle.scenarios.yaml_node import Node


BOUNDS: dict[str, tuple[float, float]] = {
    "health": (0.1, 1e5),
    "speed": (0.0, 8.0),
    "acceleration": (1e-3, 1e6),
    "radius": (0.01, 4.0),
    "separation": (0.01, 4.0),
    "attack_range": (0.0, 64.0),
    "sight_range": (0.0, 64.0),
    "smacv2_range": (0.0, 64.0),
    "cooldown_scale": (0.01, 1e4),
    "amount": (0.01, 1e5),
    "duration": (0.01, 1e5),
}
"""Minimum and maximum of a field; 0 and 1e5 for other fields."""
CHOICES: dict[tuple[type, str], tuple[str, ...]] = {
    (UnitRow, "targets"): ("ground", "air", "both", "none"),
    (UnitRow, "weapon"): ("plain", "line", "burst"),
    (UnitRow, "bonus_against"): (*ATTRIBUTES, "none"),
    (Ability, "targets"): ("allies", "self", "none"),
}
"""Words of a field; ``none`` is stored as an empty word."""
SMAX_COOLDOWN = 0.5
"""Least cooldown under the rules of SMAX, whose weapons fire at most once in a step."""
RESERVED = ("team",)
"""Keys of ``reward`` that are not unit types."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EXAMPLE = "marine: {health: 55}"


def read_abilities(
    node: Node | None, table: tuple[Ability, ...]
) -> tuple[Ability, ...]:
    """Return the abilities with the changes of a file."""
    entries = _entries(node)
    rows = _change(entries, table, ())
    for row in rows:
        if row.name in entries:
            where = entries[row.name]
            where.check(row.targets != "", "no targets; write targets: allies or self")
    return rows


def read_units(
    node: Node | None, tables: Sequence[tuple[Any, ...]], abilities: Sequence[Ability]
) -> list[tuple[Any, ...]]:
    """Return unit tables, each with the changes of a file."""
    entries = _entries(node)
    names = [ability.name for ability in abilities]
    changed = [_change(entries, table, names) for table in tables]
    for row in changed[0]:
        if row.name in entries and isinstance(row, UnitRow):
            _check_weapon(entries[row.name], row)
            _check_abilities(entries[row.name], row, abilities)
        elif row.name in entries:
            _check_smax(entries[row.name], row)
    return changed


def _entries(node: Node | None) -> dict[str, Node]:
    return node.entries(_EXAMPLE) if node else {}


def _change(
    entries: dict[str, Node], table: tuple[Any, ...], words: Sequence[str]
) -> tuple[Any, ...]:
    """Return a table with changed and added rows; ``words`` are the known abilities."""
    rows = {row.name: row for row in table}
    for name, entry in entries.items():
        fields = _fields(entry, table[0])
        base = _base(name, entry, fields.pop("like", None), rows)
        values = {key: _value(field, base, key, words) for key, field in fields.items()}
        rows[name] = base._replace(name=name, **values)
    return tuple(rows.values())


def _fields(entry: Node, row: Any) -> dict[str, Node]:
    known = (*row._fields[1:], "like")
    rules = "smac" if isinstance(row, UnitRow) else "smax"
    for name, node in entry.entries("health: 55").items():
        lacks = rules == "smax" and name in UnitRow._fields and name not in row._fields
        node.check(not lacks, f"the smax rules have no {name}; use rules: smac")
    return entry.fields(known, "health: 55")


def _base(name: str, entry: Node, like: Node | None, rows: dict[str, Any]) -> Any:
    if like is not None:
        entry.check(name not in rows, "like is for new names; choose another name")
        entry.check(_NAME.fullmatch(name) is not None, "use letters a-z, digits and _")
        entry.check(name not in RESERVED, "the name is reserved; choose another")
        return rows[like.choice(tuple(rows), "row")]
    fix = suggest(name, rows, "add like: <name> for a new one")
    entry.check(name in rows, f"unknown name; {fix}")
    return rows[name]


def _value(node: Node, row: Any, name: str, words: Sequence[str]) -> Any:
    old = getattr(row, name)
    if isinstance(old, bool):
        return node.flag()
    if isinstance(old, int):
        return node.integer(1, 100)
    if isinstance(old, float):
        return node.number(*BOUNDS.get(name, (0.0, 1e5)))
    if isinstance(old, str):
        return _word(node, type(row), name)
    known = words if name == "abilities" else ATTRIBUTES
    items = node.items(f"[{', '.join(known[:1])}]")
    return type(old)(item.choice(known, name) for item in items)


def _word(node: Node, cls: type, name: str) -> str:
    if (cls, name) not in CHOICES:  # the letter of a unit
        node.check(node.text().isalpha() and len(node.text()) == 1, "expected a letter")
        return node.text()
    if node.text() == "":
        return ""
    return node.choice(CHOICES[cls, name], name).replace("none", "")


def _check_abilities(node: Node, row: UnitRow, abilities: Sequence[Ability]) -> None:
    """Check that each ability of a unit has targets of its own, which select its effect."""
    where = node.entries(_EXAMPLE).get("abilities", node)
    targets = {ability.name: ability.targets for ability in abilities}
    for first, second in itertools.combinations(row.abilities, 2):
        same = targets[first] == targets[second]
        rule = (
            f"{first} and {second} both have targets: {targets[first]}; leave one out"
        )
        where.check(not same, rule)


def _check_smax(node: Node, row: Any) -> None:
    rule = "a smax weapon fires at most once in a step"
    is_slow = row.cooldown >= SMAX_COOLDOWN
    node.check(is_slow, f"{rule}; write cooldown: {SMAX_COOLDOWN} or more")


def _check_weapon(node: Node, row: UnitRow) -> None:
    armed = row.damage > 0
    fix = "write targets: ground, air or both"
    node.check(row.targets != "" or not armed, f"a weapon without targets; {fix}")
    node.check(armed or not row.targets, "targets without damage; write targets: none")
    node.check(not (armed and row.heal), "a healer has no weapon; write damage: 0")
    needs = "a bonus needs bonus_against, such as light"
    node.check(row.bonus == 0 or row.bonus_against != "", needs)
    on_ground = row.weapon == "plain" or row.targets in ("ground", "")
    rule = f"a {row.weapon} hits the ground only"
    node.check(on_ground, f"{rule}; write targets: ground, or weapon: plain")
    is_burst = row.weapon == "burst"
    node.check(not is_burst or row.burst_radius > 0, "a burst needs a burst_radius")
    node.check(row.energy <= row.max_energy, "energy must be at most max_energy")
