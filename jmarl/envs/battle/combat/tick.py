"""Physics of one environment step under the rules of SMAC, in normal seconds.

Each tick has these phases, and each reads the results of those before: weapons fire, hits land,
units burst, support, recovery, moves, pushes, cooldowns. All arrays are batch-last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat import zones
from jmarl.envs.battle.combat.damage import (
    LEAST_DAMAGE,
    Vital,
    Volley,
    land,
    touched_by_line,
)
from jmarl.envs.battle.combat.support import Healers, Healing, HealRule, heal
from jmarl.envs.battle.combat.zones import Zones
from jmarl.envs.battle.unit_pairs import gather, push_apart, scatter_add
from jmarl.platforms import short_loop


GROUND, AIR, ABOVE = 0, 1, 2
"""Planes: units push each other within one plane, and not at all above it."""
CALM = 10.0
"""Seconds without damage after which shields recover."""
EDGE = 1e-3
"""Distance from the far borders of the map at which units stop."""
LARGEST_PUSH = 0.5
"""Largest push along an axis in a tick, so that a crowd pushes no unit through a wall."""
REACH_SLACK = 1e-3
"""Distance beyond its reach at which a unit is in reach, so that rounding does not keep it out."""
HEAL = HealRule(rate=9.0, per_energy=3.0, least_energy=5.0)


class Bodies(NamedTuple):
    """Physical state of units, ``[U, B]``; None for what no unit of the scenario has."""

    x: Float[Array, "U B"]
    y: Float[Array, "U B"]
    health: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]
    """Seconds until the weapon or the ability is ready. It is above -1 tick."""
    shield: Any = None
    calm: Any = None
    """Seconds since the last damage."""
    energy: Any = None
    healing: Any = None
    """Whether the unit healed in the last tick."""
    pending: Any = None
    """Whether the unit bursts in the next tick."""
    pace: Any = None
    """Speed in the last tick, of units that accelerate."""
    ward: Any = None
    """Seconds for which the unit has temporary armor."""
    ward_armor: Any = None
    """The last temporary armor."""


class Orders(NamedTuple):
    """Orders of all units during one environment step."""

    heading_x: Float[Array, "U B"]
    heading_y: Float[Array, "U B"]
    """Direction of a walk, a unit vector or zero."""
    length: Float[Array, "U B"]
    """Distance at which a walk ends."""
    target: Int[Array, "U B"]
    """Index of the unit to attack or to support; -1 if there is none."""
    wards: Any = None
    """Whether the order is to give the target temporary armor."""


class Events(NamedTuple):
    """Events of one environment step for each unit."""

    damage: Float[Array, "U B"]
    """Shield and health lost to hits and to zones."""
    healed: Float[Array, "U B"]
    """Health received from healers."""


class Slots(NamedTuple):
    """Slots of the units that may have a property, and other facts of a scenario."""

    bursts: np.ndarray
    lines: np.ndarray
    heals: np.ndarray
    shields: bool
    most_hits: int
    planes: bool
    """Whether pushes need to compare the planes of units."""


class Static(NamedTuple):
    """Properties of the units that do not change during a step."""

    speed: Array
    radius: Array
    separation: Array
    full_health: Array
    full_shield: Array
    armor: Array
    health_regen: Array
    shield_regen: Array
    energy_regen: Array
    full_energy: Array
    burst_radius: Array
    acceleration: Array
    cooldown: Array
    hits: Array
    plane: Array
    """Pushes are among units of one plane; nothing pushes ``ABOVE``, for a colossus."""
    line: Array
    """Whether the weapon hits a line across the shot."""
    walks: Array
    """Whether walls stop the unit."""
    grounded: Array
    """Whether zones affect the unit."""
    mobile: Array


class Ward(NamedTuple):
    """Properties of the units that give temporary armor."""

    reach: Array
    """Edge-to-edge reach."""
    armor: Array
    seconds: Array
    cooldown: Array


class Aim(NamedTuple):
    """Properties of each unit and its target, constant during a step."""

    index: Int[Array, "U B"]
    reach: Float[Array, "U B"]
    """Distance between centers up to which the order has its effect."""
    attacks: Bool[Array, "U B"]
    heals: Bool[Array, "U B"]
    wards: Bool[Array, "U B"] | None
    raw: Float[Array, "U B"]
    """Damage of one hit on the target."""
    armor: Float[Array, "U B"]
    """Armor of the target."""


class Field(NamedTuple):
    """Map of each environment, and its clock."""

    tick: float
    """Seconds."""
    map_size: float
    walkable: Any
    """Cells that can be walked on, a constant ``[terrain, x, y]``; None without walls."""
    terrain: Any
    """Index of the terrain."""
    zones: Zones


class Conditions(NamedTuple):
    """Everything that is constant during a step."""

    slots: Slots
    field: Field
    units: Static
    ward: Ward | None
    aim: Aim
    orders: Orders
    raw: Any
    """Damage of one hit of each unit on each other, ``[U, U, B]``.

    None unless shields or weapons with an area need it.
    """
    hostile: Bool[Array, "U U"]

    @property
    def tick(self) -> float:
        """Seconds in a tick."""
        return self.field.tick


class _Carry(NamedTuple):
    bodies: Bodies
    walked: Float[Array, "U B"]
    events: Events


def simulate(
    conditions: Conditions, bodies: Bodies, deviation: Float[Array, "ticks U B"]
) -> tuple[Bodies, Events]:
    """Advance every environment by one environment step.

    Args:
        conditions: everything that is constant during the step.
        bodies: units before the step.
        deviation: random part of the cooldown of a shot in each tick, in seconds.
    """
    zeros = jnp.zeros_like(bodies.x)

    def step(carry: _Carry, random: Array) -> tuple[_Carry, None]:
        return _tick(conditions, carry, random), None

    start = _Carry(bodies, zeros, Events(zeros, zeros))
    end, _ = lax.scan(step, start, deviation, unroll=short_loop())
    return end.bodies, end.events


class _Shot(NamedTuple):
    """Geometry and firing of one tick."""

    distance: Float[Array, "U B"]
    """Distance to the target."""
    dx: Float[Array, "U B"]
    dy: Float[Array, "U B"]
    target_alive: Bool[Array, "U B"]
    in_reach: Bool[Array, "U B"]
    fires: Bool[Array, "U B"]


def _tick(b: Conditions, carry: _Carry, deviation: Float[Array, "U B"]) -> _Carry:
    before = carry.bodies
    shot = _aim(b, before)
    vital = _burn(b, before, _hits(b, before, shot))
    vital, pending = _bursts(b, before, shot, vital)
    lost = before.health - vital.health
    if vital.shield is not None:
        lost = lost + before.shield - vital.shield
    healing = _support(b, before, shot, vital)
    after = _recover(b, before, vital, lost > 0, healing)
    moved, walked = _move(b, before, after, shot, carry.walked)
    pushed = _push(b, moved)
    # The tick of a shot counts towards its cooldown.
    # A weapon that fires as soon as it is ready keeps the fraction of the tick.
    added = jnp.where(shot.fires, b.units.cooldown + deviation, 0.0)
    waiting = before.cooldown + added
    after, waiting = _protect(b, before, pushed, shot, waiting)
    healed = healing.health - vital.health if healing else 0.0
    events = Events(
        damage=carry.events.damage + lost,
        healed=carry.events.healed + healed,
    )
    reloaded = jnp.where(waiting > 0, waiting - b.tick, 0.0)
    bodies = after._replace(cooldown=reloaded, pending=pending)
    return _Carry(bodies, walked, events)


def _burn(b: Conditions, bodies: Bodies, vital: Vital) -> Vital:
    """Return health after the damage of zones, which neither shields nor armor reduce."""
    if not zones.of("damage", b.field.zones):
        return vital
    rate = zones.damage_rate(b.field.zones, bodies.x, bodies.y, b.units.grounded)
    health = vital.health - rate * b.tick
    return vital._replace(health=jnp.maximum(health, 0.0))


def _protect(
    b: Conditions, before: Bodies, after: Bodies, shot: _Shot, waiting: Array
) -> tuple[Bodies, Array]:
    """Give temporary armor, and return the bodies and their cooldowns."""
    if b.ward is None or b.aim.wards is None:
        return after, waiting
    gives = b.aim.wards & shot.in_reach & shot.target_alive
    gives &= (after.health > 0) & (before.cooldown <= 0)
    lands = gives[:, None] & (b.aim.index[:, None] == _units(after))

    def best(values: Array) -> Array:
        received = jnp.where(lands, values[:, None], 0.0)
        return jnp.max(received, axis=0)

    seconds = best(b.ward.seconds)
    armor = best(b.ward.armor)
    left = jnp.maximum(after.ward - b.tick, 0.0)
    after = after._replace(
        ward=jnp.where(seconds > 0, seconds, left),
        ward_armor=jnp.where(seconds > 0, armor, after.ward_armor),
    )
    return after, jnp.where(gives, b.ward.cooldown, waiting)


def _units(bodies: Bodies) -> Int[Array, "U 1"]:
    return jnp.arange(bodies.x.shape[0])[:, None]


def _shelter(bodies: Bodies) -> Any:
    """Return the temporary armor of each unit."""
    if bodies.ward is None:
        return 0.0
    return jnp.where(bodies.ward > 0, bodies.ward_armor, 0.0)


def _aim(b: Conditions, bodies: Bodies) -> _Shot:
    """Measure the distance to the targets, and fire the weapons that can."""
    index = b.aim.index
    dx = gather(bodies.x, index) - bodies.x
    dy = gather(bodies.y, index) - bodies.y
    distance = jnp.sqrt(dx * dx + dy * dy)
    target_alive = gather(bodies.health, index) > 0
    in_reach = distance <= b.aim.reach + REACH_SLACK
    ready = (bodies.health > 0) & (bodies.cooldown <= 0)
    fires = b.aim.attacks & ready & target_alive & in_reach
    return _Shot(distance, dx, dy, target_alive, in_reach, fires)


def _hits(b: Conditions, bodies: Bodies, shot: _Shot) -> Vital:
    """Return health and shields after the weapons without and with a line have hit."""
    vital = Vital(bodies.health, bodies.shield)
    fires = shot.fires
    if b.slots.bursts.size:
        fires = fires & ~(b.units.burst_radius > 0)
    if b.slots.shields or b.slots.lines.size:
        volley = _volley(b, bodies, shot, fires)
        armor = b.units.armor + _shelter(bodies)
        return land(vital, armor, volley, b.slots.most_hits)
    armor = b.aim.armor
    if bodies.ward is not None:
        armor = armor + gather(_shelter(bodies), b.aim.index)
    each = jnp.maximum(b.aim.raw - armor, LEAST_DAMAGE)
    dealt = jnp.where(fires, each * b.units.hits, 0.0)
    health = scatter_add(vital.health, b.aim.index, -dealt)
    return vital._replace(health=jnp.maximum(health, 0.0))


def _volley(b: Conditions, bodies: Bodies, shot: _Shot, fires: Array) -> Volley:
    """Return the hits on all units, of weapons with a line on those along it."""
    lands = b.aim.index[:, None] == _units(bodies)  # [U, U, B]
    if b.slots.lines.size:
        on_line = _along_lines(b, bodies, shot)
        on_line = _spread(b.slots.lines, on_line, len(lands))
        lands = jnp.where(b.units.line[:, None], on_line, lands)
    alive = bodies.health > 0
    return Volley(
        lands=lands & fires[:, None] & alive,
        raw=b.raw,
        hits=b.units.hits,
    )


def _along_lines(b: Conditions, bodies: Bodies, shot: _Shot) -> Bool[Array, "L U B"]:
    """Return the hostile units on the ground that each line would touch."""
    slots = b.slots.lines
    x, y = bodies.x[slots], bodies.y[slots]
    target = x + shot.dx[slots], y + shot.dy[slots]
    position = bodies.x, bodies.y
    touched = touched_by_line((x, y), target, position, b.units.radius)
    hostile = b.hostile[slots][..., None]
    return touched & hostile & (b.units.plane != AIR)


def _bursts(
    b: Conditions, bodies: Bodies, shot: _Shot, vital: Vital
) -> tuple[Vital, Array | None]:
    """Let units burst that fired, died in this tick, or are due; return those due next, too."""
    slots = b.slots.bursts
    if not slots.size:
        return vital, None
    is_bomb = b.units.burst_radius > 0
    health = jnp.where(shot.fires & is_bomb, 0.0, vital.health)
    vital = vital._replace(health=health)
    died = (bodies.health > 0) & (vital.health <= 0)
    bursts = ((died | bodies.pending) & is_bomb)[slots]
    dx = bodies.x[slots][:, None] - bodies.x
    dy = bodies.y[slots][:, None] - bodies.y
    distance = jnp.sqrt(dx * dx + dy * dy)
    reach = b.units.burst_radius[slots][:, None] + b.units.radius
    lands = bursts[:, None] & (distance <= reach)
    hostile = b.hostile[slots][..., None]
    lands &= hostile & (b.units.plane != AIR) & (vital.health > 0)
    once = jnp.ones_like(bodies.x[slots])
    volley = Volley(lands, b.raw[slots], once)
    armor = b.units.armor + _shelter(bodies)
    after = land(vital, armor, volley, most_hits=1)
    due = (vital.health > 0) & (after.health <= 0) & is_bomb
    return after, due


def _support(
    b: Conditions, bodies: Bodies, shot: _Shot, vital: Vital
) -> Healing | None:
    """Heal, and return energy and healing for all units."""
    slots = b.slots.heals
    if not slots.size:
        return None
    assert bodies.energy is not None and bodies.healing is not None
    target = b.aim.index[slots]
    alive = vital.health > 0
    willing = (b.aim.heals & shot.in_reach & alive)[slots]
    willing &= gather(vital.health, target) > 0
    healers = Healers(
        willing=willing,
        target=target,
        energy=bodies.energy[slots],
        healing=bodies.healing[slots],
    )
    done = heal(HEAL, b.tick, healers, vital.health, b.units.full_health)
    count = len(bodies.energy)
    may_heal = np.isin(np.arange(count), slots)[:, None]
    energy = _spread(slots, done.energy, count)
    return Healing(
        health=done.health,
        energy=jnp.where(may_heal, energy, bodies.energy),
        heals=jnp.asarray(may_heal) & _spread(slots, done.heals, count),
    )


def _spread(slots: np.ndarray, values: Array, count: int) -> Array:
    """Return values of the units in some slots for all units, arbitrary for the others.

    Unlike a scatter, a gather from constant rows is fused with the operations around it.
    """
    if len(slots) == count:
        return values
    rank = np.searchsorted(slots, np.arange(count))
    return values[np.minimum(rank, len(slots) - 1)]


def _recover(
    b: Conditions,
    before: Bodies,
    vital: Vital,
    is_hurt: Bool[Array, "U B"],
    healing: Healing | None,
) -> Bodies:
    """Return the bodies after healing and recovery; only living units recover."""
    units = b.units
    health, energy = vital.health, before.energy
    if healing is not None:
        health = healing.health
        energy = healing.energy + units.energy_regen * b.tick
        energy = jnp.minimum(energy, units.full_energy)
        energy = jnp.where(vital.health > 0, energy, healing.energy)
    alive = vital.health > 0
    grown = jnp.minimum(health + units.health_regen * b.tick, units.full_health)
    health = jnp.where(alive, grown, health)
    shield, calm = vital.shield, before.calm
    if shield is not None:
        calm = jnp.where(is_hurt, 0.0, calm + b.tick)
        grown = jnp.minimum(shield + units.shield_regen * b.tick, units.full_shield)
        shield = jnp.where(alive & (calm >= CALM), grown, shield)
    return before._replace(
        health=health,
        shield=shield,
        calm=calm,
        energy=energy,
        healing=None if healing is None else healing.heals,
    )


def _move(
    b: Conditions,
    before: Bodies,
    after: Bodies,
    shot: _Shot,
    walked: Float[Array, "U B"],
) -> tuple[Bodies, Float[Array, "U B"]]:
    """Walk along a heading, or to a target out of reach; return the distance walked, too."""
    orders = b.orders
    approach = _approaches(b, shot)
    has_heading = (orders.heading_x != 0) | (orders.heading_y != 0)
    walks_on = has_heading & (walked < orders.length)
    moves = (after.health > 0) & (approach | walks_on)
    pace = _pace(b, before, moves)
    speed = pace * _ease(b, before)
    left = jnp.where(approach, shot.distance - b.aim.reach, orders.length - walked)
    longest = jnp.minimum(speed * b.tick, left)
    length = jnp.where(moves, longest, 0.0)
    distance = jnp.where(shot.distance > 0, shot.distance, 1.0)
    scale = length / distance
    dx = jnp.where(approach, shot.dx * scale, orders.heading_x * length)
    dy = jnp.where(approach, shot.dy * scale, orders.heading_y * length)
    x, y = _walk(b, before.x, before.y, dx, dy)
    if before.pace is not None:
        after = after._replace(pace=pace)
    along_heading = jnp.where(approach, 0.0, length)
    return after._replace(x=x, y=y), walked + along_heading


def _approaches(b: Conditions, shot: _Shot) -> Bool[Array, "U B"]:
    """Return the units that walk to a target out of reach."""
    affects = b.aim.attacks | b.aim.heals
    if b.aim.wards is not None:
        affects |= b.aim.wards
    return affects & shot.target_alive & ~shot.in_reach


def _pace(b: Conditions, before: Bodies, moves: Bool[Array, "U B"]) -> Any:
    """Return the speed before zones slow it; units that accelerate reach it by and by."""
    if before.pace is None:
        return b.units.speed
    faster = before.pace + b.units.acceleration * b.tick
    limited = jnp.minimum(faster, b.units.speed)
    return jnp.where(moves, limited, 0.0)


def _ease(b: Conditions, bodies: Bodies) -> Any:
    """Return the factor by which zones slow the units."""
    if not zones.of("slow", b.field.zones):
        return 1.0
    return zones.speed_factor(b.field.zones, bodies.x, bodies.y, b.units.grounded)


def _push(b: Conditions, bodies: Bodies) -> Bodies:
    plane = b.units.plane if b.slots.planes else None
    solid = (bodies.health > 0) & (b.units.plane != ABOVE)
    x, y = push_apart(bodies.x, bodies.y, solid, b.units.separation, plane)
    dx = jnp.clip(x - bodies.x, -LARGEST_PUSH, LARGEST_PUSH)
    dy = jnp.clip(y - bodies.y, -LARGEST_PUSH, LARGEST_PUSH)
    dx = jnp.where(b.units.mobile, dx, 0.0)
    dy = jnp.where(b.units.mobile, dy, 0.0)
    x, y = _walk(b, bodies.x, bodies.y, dx, dy)
    return bodies._replace(x=x, y=y)


def _walk(
    b: Conditions, x: Array, y: Array, dx: Array, dy: Array
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Move by an offset. Walls stop walkers, which then slide along one axis."""
    if b.field.walkable is not None:
        dx, dy = _slide(b, x, y, dx, dy)
    last = b.field.map_size - EDGE
    x = jnp.clip(x + dx, 0.0, last)
    y = jnp.clip(y + dy, 0.0, last)
    return x, y


def _slide(
    b: Conditions, x: Array, y: Array, dx: Array, dy: Array
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Return the part of an offset that walls allow: all of it, or that along one axis."""
    rectangle = _as_rectangle(b.field.walkable)
    if rectangle is not None:
        # In a rectangle, the axes do not depend on each other.
        low_x, high_x, low_y, high_y = rectangle
        free_x = (x + dx >= low_x) & (x + dx < high_x)
        free_y = (y + dy >= low_y) & (y + dy < high_y)
        flies = ~b.units.walks
        dx = jnp.where(free_x | flies, dx, 0.0)
        dy = jnp.where(free_y | flies, dy, 0.0)
        return dx, dy
    both = _is_free(b, x + dx, y + dy)
    only_x = _is_free(b, x + dx, y)
    only_y = _is_free(b, x, y + dy)
    dx = jnp.where(both | only_x, dx, 0.0)
    dy = jnp.where(both | (only_y & ~only_x), dy, 0.0)
    return dx, dy


def _as_rectangle(walkable: np.ndarray) -> tuple[float, ...] | None:
    """Return the bounds in x and in y if the only terrain is a rectangle.

    A side at the border of the map has no bound, because the map ends there anyway.
    """
    if len(walkable) > 1:
        return None
    cells = walkable[0]
    bounds = []
    size = 1
    for axis in (0, 1):
        used = np.flatnonzero(cells.any(1 - axis))
        low = int(used[0])
        high = int(used[-1]) + 1
        bounds.append(low or -np.inf)
        bounds.append(high if high < cells.shape[axis] else np.inf)
        size *= len(used)
    return tuple(bounds) if cells.sum() == size else None


def _is_free(b: Conditions, x: Array, y: Array) -> Bool[Array, "U B"]:
    """Return whether units may stand at a place; walls stop only walkers."""
    size = b.field.walkable.shape[-1]
    column = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, size - 1)
    row = jnp.clip(jnp.floor(y).astype(jnp.int32), 0, size - 1)
    first_column = b.field.terrain * size
    cell = (first_column + column) * size + row
    free = jnp.asarray(b.field.walkable.ravel())[cell]
    return free | ~b.units.walks
