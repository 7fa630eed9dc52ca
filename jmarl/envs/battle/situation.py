"""Situations of teams, for scripted units, and their ways around walls.

A ``Situation`` is one team's view of a batch of battles. Its arrays are batch-last, like those of
the physics, because opponents choose targets in every step of training. Tactics then reduce over
the axis of units, and the inner loop runs over environments. Players transpose their observations
once per step.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat.combatants import Rows, take, take_pairs
from jmarl.envs.battle.combat.paths import DIRECT, next_cells
from jmarl.envs.battle.combat.tick import Bodies
from jmarl.envs.battle.scenarios.terrain import MAP_SIZE, Terrain, walkable


STEP = 0.5
"""Seconds of an environment step."""
LEAST_HEALTH = 1e-3
"""Least health in a denominator, for absent units."""


class BattleFacts(NamedTuple):
    """Facts that do not change: properties of unit types, and walls.

    Each array has a value for each of R rows of the unit table.
    """

    terrains: tuple[Terrain, ...]
    health: np.ndarray
    """Health at the start."""
    weapon_range: np.ndarray
    """Reach of the weapon, or of healing, from edge to edge."""
    radius: np.ndarray
    """Radius, which adds to ranges; 0 if ranges are between centers."""
    scan: np.ndarray
    """Distance to the edge of a target within which the unit looks for targets."""
    sight: np.ndarray
    """Distance between centers within which the unit sees others."""
    speed: np.ndarray
    healer: np.ndarray
    """Whether the type heals."""
    walks: np.ndarray
    """Whether walls stop the type."""
    damage: np.ndarray
    """Health that a volley of the first row takes from the second, ``[R, R]``."""
    hits: np.ndarray
    """Whether the weapon of the first row hits the second, ``[R, R]``."""
    heals: np.ndarray
    """Whether the first row can heal the second, ``[R, R]``."""


class Situation(NamedTuple):
    """View of a team with K own units on all U units, its own included.

    An axis ``*`` has size B, or 1 if the values are equal in all battles.
    """

    x: Float[Array, "K B"]
    """Position of the own units."""
    y: Float[Array, "K B"]
    dx: Float[Array, "K U B"]
    """Position of all units relative to an own unit."""
    dy: Float[Array, "K U B"]
    distance: Float[Array, "K U B"]
    attackable: Bool[Array, "K U B"]
    """Living enemies that the weapon of a living own unit hits, at any distance."""
    healable: Bool[Array, "K U B"]
    """Living, wounded teammates that a living own unit can heal, at any distance."""
    fighters: Bool[Array, "K U B"]
    """Other living teammates that do not heal."""
    damage: Float[Array, "K U *"]
    """Health or shield that a volley of the own unit takes from the unit, approximate."""
    reach: Float[Array, "K U *"]
    """Distance up to which the weapon or the healing of the own unit has its effect."""
    scan: Float[Array, "K U *"]
    """Distance within which an own unit acquires targets."""
    sight: Float[Array, "K 1 *"]
    """Distance within which an own unit sees others."""
    danger: Float[Array, "K U *"]
    """Distance up to which the weapon of the other unit has its effect on the own unit."""
    fraction: Float[Array, "U B"]
    """Health as a fraction of that at the start."""
    strength: Float[Array, "U B"]
    """Health and shield."""
    waiting: Float[Array, "K B"]
    """Seconds until the weapon is ready."""
    speed: Float[Array, "U *"]
    healer: Bool[Array, "U *"]
    """Whether a unit heals."""
    walks: Bool[Array, "K *"]
    """Whether walls stop an own unit."""
    own: slice
    """Indices of the own units among all units."""
    terrains: tuple[Terrain, ...]
    ground: Any
    """Index of the terrain of each battle, ``[B]``, or one index."""
    last_target: Int[Array, "K B"]
    """Index of the last target; -1 if there was none."""
    destination: tuple[Float[Array, "K B"], Float[Array, "K B"]]
    """Place to which the unit was ordered."""


class Choice(NamedTuple):
    """Targets of the own units."""

    target: Int[Array, "K B"]
    """Index of the unit to attack or to heal, walking to it if it is out of reach; or -1."""
    x: Float[Array, "K B"]
    """Place to which the unit walks if it has no target; its own position to stay."""
    y: Float[Array, "K B"]


class Way(NamedTuple):
    """Next part of the way of each own unit."""

    x: Float[Array, "K B"]
    """Place to walk to in a straight line."""
    y: Float[Array, "K B"]
    detour: Bool[Array, "K B"]
    """Whether walls are in the way to the goal."""


def look(
    facts: BattleFacts,
    rows: Rows,
    bodies: Bodies,
    own: slice,
    last_target: Int[Array, "K B"],
    destination: tuple[Array, Array],
    ground: Any = 0,
) -> Situation:
    """Return the situation of one team.

    Args:
        facts: properties of the unit types, and walls.
        rows: row of each unit, ``[U, 1]`` or ``[U, B]``.
        bodies: state of all units. Absent units have no health.
        own: indices of the own units; all others are enemies.
        last_target: last target of each own unit.
        destination: x and y of a place for each own unit, ``[K, B]``.
        ground: index of the terrain of each battle, ``[B]``, or one index.
    """
    mine = rows[own, None]
    theirs = rows[None]
    pairs = _pair_up(facts, mine, theirs, own)
    both_alive = _both_alive(bodies, own)
    full_health = jnp.maximum(take(facts.health, rows), LEAST_HEALTH)
    fraction = bodies.health / full_health
    shield = 0.0 if bodies.shield is None else bodies.shield
    healer = take(facts.healer, rows)
    radius = take(facts.radius, rows)
    span = take(facts.weapon_range, rows) + radius
    dx = bodies.x[None] - bodies.x[own, None]
    dy = bodies.y[None] - bodies.y[own, None]
    return Situation(
        x=bodies.x[own],
        y=bodies.y[own],
        dx=dx,
        dy=dy,
        distance=jnp.sqrt(dx * dx + dy * dy),
        attackable=both_alive & pairs.hits,
        healable=both_alive & (fraction < 1) & pairs.heals,
        fighters=both_alive & pairs.teammates & ~healer,
        damage=take_pairs(facts.damage, mine, theirs),
        reach=span[own, None] + radius,
        scan=take(facts.scan, mine) + radius,
        sight=take(facts.sight, mine),
        danger=jnp.where(pairs.is_hit, span + radius[own, None], -jnp.inf),
        fraction=fraction,
        strength=bodies.health + shield,
        waiting=bodies.cooldown[own],
        speed=take(facts.speed, rows),
        healer=healer,
        walks=take(facts.walks, rows[own]),
        own=own,
        terrains=facts.terrains,
        ground=ground,
        last_target=last_target,
        destination=destination,
    )


class _Pairs(NamedTuple):
    """Relations of own units to all units, whether they live or not."""

    teammates: np.ndarray
    """Whether the unit is another unit of the team."""
    hits: Bool[Array, "K U *"]
    """Whether the unit is an enemy that the weapon of the own unit hits."""
    is_hit: Bool[Array, "K U *"]
    """Whether the unit is an enemy whose weapon hits the own unit."""
    heals: Bool[Array, "K U *"]
    """Whether the unit is a teammate that the own unit can heal."""


def _pair_up(facts: BattleFacts, mine: Rows, theirs: Rows, own: slice) -> _Pairs:
    """Return the relations that follow from the rows of own units and of all units."""
    _, units, _ = theirs.shape
    team = np.zeros((units, 1), bool)
    team[own] = True
    is_self = np.eye(units, dtype=bool)[own, :, None]
    teammates = team & ~is_self  # [K, U, 1]
    return _Pairs(
        teammates=teammates,
        hits=take_pairs(facts.hits, mine, theirs) & ~team,
        is_hit=take_pairs(facts.hits, theirs, mine) & ~team,
        heals=take_pairs(facts.heals, mine, theirs) & teammates,
    )


def _both_alive(bodies: Bodies, own: slice) -> Bool[Array, "K U B"]:
    """Return whether both units of a pair live."""
    alive = bodies.health > 0
    own_alive = bodies.health[own] > 0
    return alive[None] & own_alive[:, None]


def goal(s: Situation, choice: Choice) -> tuple[Array, Array]:
    """Return the position of the target, or the place if there is no target, ``[K, B]``."""
    return place_of(s, choice.target, (choice.x, choice.y))


def place_of(
    s: Situation, index: Int[Array, "K B"], otherwise: tuple[Array, Array]
) -> tuple[Float[Array, "K B"], Float[Array, "K B"]]:
    """Return the positions of units, or other places where the index is negative."""
    is_unit = index >= 0
    at = jnp.maximum(index, 0)[:, None]

    def place(here: Array, offset: Array, other: Array) -> Array:
        offset = jnp.take_along_axis(offset, at, axis=1, mode="clip")[:, 0]
        return jnp.where(is_unit, here + offset, other)

    other_x, other_y = otherwise
    x = place(s.x, s.dx, other_x)
    y = place(s.y, s.dy, other_y)
    return x, y


def find_way(s: Situation, x: Array, y: Array) -> Way:
    """Return the way to a goal: straight, or to the next cell on the shortest path."""
    if not has_detours(s.terrains):
        return Way(x, y, jnp.zeros(x.shape, bool))
    cell = next_cell(s, (s.x, s.y), (x, y))
    detour = (cell != DIRECT) & s.walks
    x = jnp.where(detour, cell // MAP_SIZE + 0.5, x)
    y = jnp.where(detour, cell % MAP_SIZE + 0.5, y)
    return Way(x, y, detour)


def in_reach(s: Situation, target: Int[Array, "K B"]) -> Bool[Array, "K B"]:
    """Return whether the targets of the own units are in reach; arbitrary without a target."""
    inside = s.distance <= s.reach
    index = jnp.maximum(target, 0)[:, None]
    return jnp.take_along_axis(inside, index, axis=1, mode="clip")[:, 0]


def has_detours(terrains: tuple[Terrain, ...]) -> bool:
    """Return whether walls are in the way between some cells."""
    return any(next_cells(terrain) is not None for terrain in terrains)


def next_cell(
    s: Situation, here: tuple[Array, Array], there: tuple[Array, Array]
) -> Int[Array, "*shape B"]:
    """Return the next cell on the way between places of equal shapes, or ``DIRECT``."""
    cells = MAP_SIZE**2
    start = s.ground * cells + cell_of(*here)
    pair = start * cells + cell_of(*there)
    return take(_paths(s.terrains), pair).astype(jnp.int32)


@functools.cache
def _paths(terrains: tuple[Terrain, ...]) -> np.ndarray:
    """Return the tables of the next cells on all terrains, one after another."""
    straight = np.full((MAP_SIZE**2, MAP_SIZE**2), DIRECT, np.int16)
    tables = [next_cells(terrain) for terrain in terrains]
    full = [straight if table is None else table for table in tables]
    return np.concatenate([table.ravel() for table in full])


def is_free(s: Situation, x: Array, y: Array) -> Bool[Array, "*shape B"]:
    """Return whether places can be walked on."""
    cells = [walkable(terrain).ravel() for terrain in s.terrains]
    first_cell = s.ground * MAP_SIZE**2
    return take(np.concatenate(cells), first_cell + cell_of(x, y))


def cell_of(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Array:
    """Return the number of the cell of a place; places off the map are moved to its border."""
    column = jnp.clip(x.astype(jnp.int32), 0, MAP_SIZE - 1)
    row = jnp.clip(y.astype(jnp.int32), 0, MAP_SIZE - 1)
    return column * MAP_SIZE + row
