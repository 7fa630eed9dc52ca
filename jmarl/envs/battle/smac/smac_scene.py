"""Rendering of a battle under the rules of SMAC as a scene."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from jmarl.envs.battle.combat.damage import DISC_RADIUS, DISC_SPACING, DISCS
from jmarl.envs.battle.combat.unit_table import UnitRow
from jmarl.envs.battle.drawing import (
    ALLY_COLOR,
    ENEMY_COLOR,
    HEALTH_COLOR,
    caption,
    connect,
    describe_outcome,
    member,
    team_legend,
    unit_name,
)
from jmarl.envs.battle.scenarios.terrain import Terrain, walkable
from jmarl.envs.battle.smac import smac_outcome
from jmarl.envs.battle.smac.smac_actions import DIRECTIONS, STOP, WARD, Action, layout
from jmarl.envs.battle.smac.smac_facts import MAP_SIZE, TICK, TICKS, Facts
from jmarl.envs.battle.smac.smac_observe import SIGHT
from jmarl.envs.battle.smac.smac_state import rows_of
from jmarl.envs.scene import (
    Bar,
    Disc,
    LegendEntry,
    Line,
    Mark,
    Rectangle,
    Scene,
    Sector,
    cell_areas,
)


STEP = TICK * TICKS
"""Seconds in a step."""
SHIELD_COLOR = "tab:cyan"
ENERGY_COLOR = "tab:purple"
BURST_COLOR = "tab:orange"
WARD_COLOR = "gold"
WALL_COLOR = "gray"
ZONE_COLORS = {"slow": "tab:brown", "conceal": "tab:olive", "damage": "tab:pink"}
SPLASH = DISCS * DISC_SPACING + DISC_RADIUS
"""Length of the area of a line weapon on either side of its target."""
HALO = 1.5
"""Radius of a halo, in radii of its unit."""
TURN = math.tau / DIRECTIONS
"""Angle between two directions of the view, and of the view itself."""
WINDS: dict[tuple[float, float], str] = {
    (0, 1): "north",
    (0, -1): "south",
    (1, 0): "east",
    (-1, 0): "west",
}


class _Units(NamedTuple):
    """Units that an episode has now, dead or alive."""

    f: Facts
    state: Any
    rows: dict[int, UnitRow]
    """Type of each unit, by its index."""

    def is_ally(self, unit: int) -> bool:
        return unit < self.f.n

    def is_alive(self, unit: int) -> bool:
        return bool(self.state.health[unit] > 0)


def scene(f: Facts, state: Any) -> Scene:
    """Return the scene of one environment.

    A line connects each living unit with its target. It is solid if the unit shot in the last
    step, dashed if it healed, and dotted otherwise. The range of a burst is drawn in the step of
    the burst. Dead units are empty rings, and absent units are not drawn.

    Args:
        f: Facts of the battle.
        state: ``State`` of NumPy arrays without the batch axis.
    """
    units = _Units(f, state, dict(_present(f, state)))
    discs = {unit: _disc(units, unit) for unit in units.rows}
    # Small units stay visible on top of a medivac or a colossus.
    ordered = sorted(discs.values(), key=lambda disc: -disc.radius)
    choice = 0 if state.choice is None else int(state.choice)
    terrain = f.choices[choice].terrain
    return Scene(
        MAP_SIZE,
        MAP_SIZE,
        tuple(ordered),
        tuple(_lines(units, discs)),
        _caption(units),
        (*_walls(terrain), *_zones(f), *_areas(units)),
        _legend(units),
        zoom=True,
    )


def _present(f: Facts, state: Any) -> Iterator[tuple[int, UnitRow]]:
    """Yield the units that have arrived and were not withdrawn, with their types."""
    rows = np.asarray(rows_of(f, state))
    shown = rows != f.nobody
    if state.arrives is not None:
        shown &= state.arrives <= state.steps
        shown &= state.leaves > state.steps
    for unit in np.flatnonzero(shown).tolist():
        yield unit, f.table[rows[unit]]


def _caption(units: _Units) -> str:
    sides = [units.is_ally(unit) for unit in units.rows if units.is_alive(unit)]
    outcome = _outcome(units) if units.state.ended else ""
    allies, enemies = sides.count(True), sides.count(False)
    return caption(int(units.state.steps), allies, enemies, outcome)


def _outcome(units: _Units) -> str:
    batch = jax.tree.map(lambda x: np.asarray(x)[None], units.state)
    allies_beaten, enemies_beaten = smac_outcome.beaten(units.f, batch)
    return describe_outcome(not allies_beaten[0], not enemies_beaten[0])


def _legend(units: _Units) -> tuple[LegendEntry, ...]:
    """Explain the units of an episode, and the colors that it may have."""
    f, types = units.f, units.rows.values()
    heals = any(row.heal for row in types)
    marks: list[tuple[bool, str, str, Mark]] = [
        (any(row.shield for row in types), "shield", SHIELD_COLOR, "bar"),
        (heals, "energy", ENERGY_COLOR, "bar"),
        (True, "shot", ALLY_COLOR, "solid"),
        (True, "aim", ALLY_COLOR, "dotted"),
        (heals, "heal", HEALTH_COLOR, "dashed"),
        (f.wards, "ward", WARD_COLOR, "dashed"),
        (any(row.weapon == "burst" for row in types), "burst", BURST_COLOR, "area"),
        (f.config.cone, "view", ALLY_COLOR, "area"),
        (f.walkable is not None, "wall", WALL_COLOR, "area"),
    ]
    zones = dict.fromkeys(zone.effect for zone in f.zones)
    return (
        *team_legend(types),
        *(LegendEntry(*mark[1:]) for mark in marks if mark[0]),
        *(LegendEntry(f"{name} zone", ZONE_COLORS[name]) for name in zones),
    )


# Units.


def _disc(units: _Units, unit: int) -> Disc:
    row, state = units.rows[unit], units.state
    x, y = state.position[unit].tolist()
    return Disc(
        x=x,
        y=y,
        radius=row.radius,
        color=ALLY_COLOR if units.is_ally(unit) else ENEMY_COLOR,
        label=row.letter,
        fill=float(state.health[unit]) / row.health,
        bars=tuple(_bars(units, unit)),
        name=unit_name(row.name, unit, units.f.n),
        details=tuple(_details(units, unit)),
        agent=unit if units.is_ally(unit) else None,
    )


def _bars(units: _Units, unit: int) -> Iterator[Bar]:
    """Yield the bars above that of health."""
    row, state = units.rows[unit], units.state
    if row.shield:
        yield Bar(float(state.shield[unit]) / row.shield, SHIELD_COLOR)
    if row.max_energy:
        yield Bar(float(state.energy[unit]) / row.max_energy, ENERGY_COLOR)


def _details(units: _Units, unit: int) -> Iterator[tuple[str, str]]:
    row, state = units.rows[unit], units.state
    yield "health", f"{state.health[unit]:.1f} / {row.health:g}"
    if row.shield:
        yield "shield", f"{state.shield[unit]:.1f} / {row.shield:g}"
    if row.max_energy:
        yield "energy", f"{state.energy[unit]:.1f} / {row.max_energy:g}"
    if row.cooldown:
        yield "reload", f"{state.cooldown[unit]:.2f} of {row.cooldown:g} s"
    yield "order", _order(units, unit)
    if row.targets:
        yield "weapon", _weapon(row)
    yield "armor", f"{row.armor:g}"


def _order(units: _Units, unit: int) -> str:
    """Return the order of a unit in the last step."""
    target = int(units.state.last_target[unit])
    if target >= 0:
        return f"{_verb(units, unit, target)} {member(target, units.f.n)}"
    if not units.is_ally(unit):
        return "-"
    action = _action(units, unit)
    if action.direction >= 0:
        return f"turn to {360 * action.direction // DIRECTIONS} degrees"
    wind = WINDS.get(action.heading, "")
    return f"{action.name} {wind}".strip().replace("_", "-")


def _action(units: _Units, ally: int) -> Action:
    return layout(units.f)[int(units.state.last_action[ally])]


def _verb(units: _Units, unit: int, target: int) -> str:
    """Return ``attack``, ``heal`` or ``ward``."""
    if units.is_ally(unit) != units.is_ally(target):
        return "attack"
    is_ward = units.is_ally(unit) and _action(units, unit).name == WARD
    return "ward" if is_ward else "heal"


def _weapon(row: UnitRow) -> str:
    damage = f"{row.damage:g}"
    if row.bonus:
        damage += f" (+{row.bonus:g} {row.bonus_against})"
    if row.hits > 1:
        damage += f" x {row.hits}"
    if row.weapon == "burst":
        return f"{damage}, bursts within {row.burst_radius:g}"
    return f"{damage}, range {row.attack_range:g}"


# Lines and areas.


def _lines(units: _Units, discs: dict[int, Disc]) -> Iterator[Line]:
    """Yield the lines from living units to their targets, and the splash across a shot."""
    for unit, disc in discs.items():
        target = int(units.state.last_target[unit])
        if not units.is_alive(unit) or target not in discs:
            continue
        line = connect(disc, discs[target], disc.color)
        if (verb := _verb(units, unit, target)) != "attack":
            yield _support(units, unit, verb, line)
        elif not _shot(units, unit):
            yield line._replace(style="dotted")
        else:
            yield line
            if units.rows[unit].weapon == "line":
                yield _splash(line)


def _support(units: _Units, unit: int, verb: str, line: Line) -> Line:
    if verb == "ward":
        return line._replace(color=WARD_COLOR, style="dashed")
    is_healing = units.rows[unit].heal and units.state.healing[unit]
    style = "dashed" if is_healing else "dotted"
    return line._replace(color=HEALTH_COLOR, style=style)


def _shot(units: _Units, unit: int) -> bool:
    """Return whether a unit shot in this step: its weapon has reloaded for at most a step.

    The random part of the cooldown can move a shot to the step before or after.
    """
    cooldown = units.rows[unit].cooldown
    waiting = float(units.state.cooldown[unit])
    return waiting > max(cooldown - STEP, 0)


def _splash(shot: Line) -> Line:
    """Return the line across the target of a shot that a line weapon hits."""
    dx, dy = shot.x1 - shot.x0, shot.y1 - shot.y0
    scale = SPLASH / (math.hypot(dx, dy) or 1)
    dx, dy = dx * scale, dy * scale
    x, y = shot.x1, shot.y1
    return Line(x + dy, y - dx, x - dy, y + dx, shot.color)


def _areas(units: _Units) -> Iterator[Sector]:
    """Yield bursts, halos of healed and warded units, and views."""
    state = units.state
    died = _died(units)
    healed = _healed(state)
    for unit, row in units.rows.items():
        area = functools.partial(Sector, *state.position[unit].tolist())
        if row.weapon == "burst" and died[unit]:
            yield area(row.burst_radius, BURST_COLOR, 0.25)
        if not units.is_alive(unit):
            continue
        if unit in healed:
            yield area(HALO * row.radius, HEALTH_COLOR)
        if state.ward is not None and state.ward[unit] > 0:
            yield area(HALO * row.radius, WARD_COLOR)
        if state.facing is not None and units.is_ally(unit):
            direction = float(state.facing[unit]) * TURN
            yield area(_sight(units, unit), ALLY_COLOR, 0.1, direction, TURN)


def _sight(units: _Units, ally: int) -> float:
    sight = units.rows[ally].sight_range if units.f.is_v2 else SIGHT
    extra = units.state.extra_sight
    return sight if extra is None else sight + float(extra[ally])


def _healed(state: Any) -> set[int]:
    """Return the units that were healed at the end of the last step."""
    if state.healing is None:
        return set()
    heals = state.healing & (state.health > 0)
    return set(state.last_target[heals].tolist())


def _died(units: _Units) -> Bool[np.ndarray, "U"]:
    """Return the units that died in the last step: they had an order, or were hit in it.

    An enemy without a target that dies is missed on maps without shields. It had no ally within
    five cells, so its burst hurts nobody.
    """
    state = units.state
    acted = state.last_target >= 0
    acted[: units.f.n] |= state.last_action >= STOP
    if state.calm is not None:
        acted |= state.calm < STEP
    return acted & (state.health <= 0) & (state.steps > 0)


@functools.cache
def _walls(terrain: Terrain) -> tuple[Rectangle, ...]:
    return cell_areas(~walkable(terrain), WALL_COLOR, 0.5)


def _zones(f: Facts) -> Iterator[Rectangle | Sector]:
    for zone in f.zones:
        color = ZONE_COLORS[zone.effect]
        if zone.shape == "rectangle":
            x0, y0, x1, y1 = zone.bounds
            yield Rectangle(x0, y0, x1, y1, color, 0.25)
        else:
            x, y, radius = zone.bounds
            yield Sector(x, y, radius, color, 0.25)
