"""Reference of battles: unit types, abilities and races.

Figures come from the unit table (``jmarl.envs.battle.combat.unit_table``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from docs.generate.markdown import code, join, table
from jmarl.envs.battle.combat.unit_table import (
    ABILITIES,
    ENEMY_DIFFERENCES,
    RACES,
    UNITS,
    UnitRow,
)


UNITS_TEXT = """\
# Units

These are the unit types of `smac_`, `smacv2_` and `env=battle`. Times are in *normal* seconds of 16
game loops, and distances are in cells of the map. [Rules of
battles](../../explanation/battle-rules.md) explains how the figures are used. [Write a
battle](../../how-to/write-a-battle.md#units) explains how to change them.

The letter names a type in compositions such as `smac_7m2M1d_vs_8m3M1d`."""

BODIES_TEXT = """\
## Bodies

The *radius* determines ranges. The *body* is a second radius: two units are pushed apart if they
are closer than the sum of their bodies."""

WEAPONS_TEXT = """\
## Weapons

A range is the distance between the edges of two units. The last two columns are distances between
centers under the rules of SMACv2. *Offered* is the distance up to which a target is available to an
agent, and *sight* is the distance up to which agents see. Under the rules of SMAC, they are 6 and 9
for all types."""

RECOVERY_TEXT = """\
## Recovery

Rates are per second. Shields recover after 10 s without damage. Healing costs energy."""

DIFFERENCES_TEXT = """\
## Enemies

In SMAC, the types of the allies are copies of older data. The types of the enemies differ in these
figures:"""

ABILITIES_TEXT = """\
## Abilities

jmarl adds two abilities, which no type of SMAC has. A scenario file can give them to unit types.
`ward` gives another ally temporary armor. `spot` increases the sight range of the allies within its
range. The amount is armor or distance."""

RACES_TEXT = """\
## Races of SMACv2

These are the types of each race with their probabilities. A team of only medivacs or only banelings
is drawn again."""

Column = tuple[str, Callable[[UnitRow], str]]
"""Header and text of a column."""


def page() -> str:
    """Return the page of unit types."""
    return join(
        UNITS_TEXT,
        BODIES_TEXT,
        unit_table(BODIES),
        WEAPONS_TEXT,
        unit_table(WEAPONS),
        RECOVERY_TEXT,
        unit_table(RECOVERY),
        DIFFERENCES_TEXT,
        table(("type", "field", "allies", "enemies"), difference_rows()),
        ABILITIES_TEXT,
        table(("ability", "for", "amount", "range", "lasts", "every"), ability_rows()),
        RACES_TEXT,
        table(("race", "types"), race_rows()),
    )


def unit_table(columns: tuple[Column, ...]) -> str:
    """Return a table with a row for each unit type."""
    header = ("type", *(title for title, _ in columns))
    rows = [(code(unit.name), *(text(unit) for _, text in columns)) for unit in UNITS]
    return table(header, rows)


def short(value: float) -> str:
    """Return all digits of a number of the unit table."""
    return "instant" if value == math.inf else f"{value:.6g}"


def figure(name: str) -> Callable[[UnitRow], str]:
    """Return a function from a unit type to the text of a field."""
    return lambda unit: short(getattr(unit, name))


def attributes(unit: UnitRow) -> str:
    """Return the attributes of a type, and whether it flies or is colossal."""
    special = [word for word in ("flies", "colossal") if getattr(unit, word)]
    return ", ".join([*sorted(unit.attributes), *special])


def damage(unit: UnitRow) -> str:
    """Return damage, hits and bonus of a weapon."""
    if not unit.targets:
        return "none"
    hits = f" x {unit.hits}" if unit.hits > 1 else ""
    bonus = f" (+{short(unit.bonus)} {unit.bonus_against})" if unit.bonus else ""
    return short(unit.damage) + hits + bonus


def weapon(unit: UnitRow) -> str:
    """Return the kind of a weapon."""
    if unit.heal:
        return "heals"
    radius = f" of {short(unit.burst_radius)}" if unit.burst_radius else ""
    return unit.weapon + radius


def planes(unit: UnitRow) -> str:
    """Return the planes that a weapon hits."""
    return {"both": "ground, air", "": "none"}.get(unit.targets, unit.targets)


def cooldown(unit: UnitRow) -> str:
    """Return the seconds between volleys of a weapon that fires more than once."""
    return short(unit.cooldown) if unit.cooldown else "none"


def energy(unit: UnitRow) -> str:
    """Return the energy at the start and at most."""
    if not unit.max_energy:
        return "none"
    return f"{short(unit.energy)} of {short(unit.max_energy)}"


BODIES: tuple[Column, ...] = (
    ("letter", lambda unit: code(unit.letter)),
    ("health", figure("health")),
    ("shield", figure("shield")),
    ("armor", figure("armor")),
    ("speed", figure("speed")),
    ("radius", figure("radius")),
    ("body", figure("separation")),
    ("attributes", attributes),
)
WEAPONS: tuple[Column, ...] = (
    ("weapon", weapon),
    ("hits", planes),
    ("damage (bonus)", damage),
    ("range", figure("attack_range")),
    ("cooldown", cooldown),
    ("offered", figure("smacv2_range")),
    ("sight", figure("sight_range")),
)
RECOVERY: tuple[Column, ...] = (
    ("health", figure("health_regen")),
    ("shield", figure("shield_regen")),
    ("energy", figure("energy_regen")),
    ("energy at the start", energy),
    ("acceleration", figure("acceleration")),
)


def difference_rows() -> Iterator[tuple[str, ...]]:
    """Yield the figures in which enemies differ from allies."""
    allies = {unit.name: unit for unit in UNITS}
    for row in ENEMY_DIFFERENCES:
        ours = getattr(allies[row.unit], row.field)
        yield code(row.unit), row.field, short(ours), short(row.value)


def ability_rows() -> Iterator[tuple[str, ...]]:
    """Yield each ability with its figures."""
    for ability in ABILITIES:
        figures = [ability.amount, ability.attack_range]
        seconds = [ability.duration, ability.cooldown]
        texts = [f"{short(value)} s" for value in seconds]
        yield code(ability.name), ability.targets, *map(short, figures), *texts


def race_rows() -> Iterator[tuple[str, str]]:
    """Yield each race with its types."""
    for race, shares in RACES.items():
        types = [f"{code(name)} {short(share)}" for name, share in shares]
        yield code(race), ", ".join(types)
