"""Starts of episodes: the drawn battle, its units, their places and times."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jmarl.envs.battle.combat.paths import near_cells
from jmarl.envs.battle.combat.unit_table import RACES, REDRAWN
from jmarl.envs.battle.scenarios.battle_spec import (
    Battle,
    DrawnBattle,
    Group,
    Steps,
    team_size,
)
from jmarl.envs.battle.scenarios.terrain import Terrain, get_terrain
from jmarl.envs.battle.smac.smac_facts import (
    MAP_SIZE,
    NEVER,
    Cast,
    Facts,
    drawn_kinds,
)
from jmarl.envs.battle.smac.smac_state import Start


Place = tuple[float, float]
TRIES = 4
"""Draws of a team, of which the first valid one is taken."""
CENTER = MAP_SIZE / 2
JITTER = 0.05
"""Largest random offset of a start along an axis."""
CLOSER = 0.8
"""Factor on the distance of bodies if the ground is too small for them."""


def draw_starts(f: Facts, keys: Key[Array, "B"]) -> Start:
    """Draw a start per key."""
    return jax.vmap(partial(_draw, f))(keys)


def _draw(f: Facts, key: Key[Array, ""]) -> Start:
    """Draw one of the battles, its start, and the options that need random numbers."""
    start_key, choice_key, slot_key, luck_key = jax.random.split(key, 4)
    ranks = range(len(f.choices))
    draws = [partial(_draw_battle, f, rank) for rank in ranks]
    if len(draws) == 1:
        start = draws[0](start_key)
    else:
        choice = jax.random.randint(choice_key, (), 0, len(draws))
        start = lax.switch(choice, draws, start_key)
        start = start.replace(choice=choice)
    if f.config.shuffle_slots:
        start = _shuffle(f, slot_key, start)
    if f.hides_enemies:
        luck = jax.random.bernoulli(luck_key, f.config.prob_obs_enemy, (f.n, f.m))
        start = start.replace(luck=luck)
    return start


def _draw_battle(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    if isinstance(f.choices[rank], DrawnBattle):
        return _draw_smacv2(f, rank, key)
    return _draw_fixed(f, rank, key)


def _shuffle(f: Facts, key: Key[Array, ""], start: Start) -> Start:
    """Permute the slots of both teams."""
    ally_key, enemy_key = jax.random.split(key)
    enemies = jax.random.permutation(enemy_key, f.m)
    allies = jax.random.permutation(ally_key, f.n)
    units = jnp.concatenate([allies, f.n + enemies])
    assert start.cast is not None
    cast = Cast(
        row=start.cast.row[units],
        order=start.cast.order[enemies],
    )

    def permute(values: Array | None) -> Any:
        return None if values is None else values[units]

    return start.replace(
        position=start.position[units],
        destination=start.destination[enemies],
        cast=cast,
        arrives=permute(start.arrives),
        leaves=permute(start.leaves),
    )


def _fill(f: Facts, battle: Battle | DrawnBattle, values: Any, absent: Any) -> Array:
    """Extend values of all units of a battle to all slots, those of absent units included."""
    values = jnp.asarray(values)
    n = battle.n_allies
    allies = _pad(values[:n], f.n, absent)
    enemies = _pad(values[n:], f.m, absent)
    return jnp.concatenate([allies, enemies])


def _pad(values: Array, size: int, fill: Any) -> Array:
    """Extend values of a team along the first axis."""
    other_axes = [(0, 0)] * (values.ndim - 1)
    missing = size - len(values)
    return jnp.pad(values, [(0, missing), *other_axes], constant_values=fill)


# Battles between given teams.


def _draw_fixed(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    """Place the units of each group in random order in its rings, with jitter."""
    battle = f.choices[rank]
    assert isinstance(battle, Battle)
    order_key, jitter_key, place_key, time_key = jax.random.split(key, 4)
    position = _draw_places(battle, order_key)
    jitter = _jitter(jitter_key, position.shape)
    destination = _draw_destinations(battle, place_key)
    arrives, leaves = _draw_times(f, battle, time_key)
    cast = None
    if f.cast is None:
        cast = Cast(*map(jnp.asarray, f.casts[rank]))
    return Start(
        position=_fill(f, battle, position + jitter, 0.0),
        destination=_pad(destination, f.m, 0),
        cast=cast,
        arrives=arrives,
        leaves=leaves,
    )


def _jitter(key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-JITTER, maxval=JITTER)


def _draw_destinations(battle: Battle, key: Key[Array, ""]) -> Float[Array, "M 2"]:
    """Draw a destination for each group of enemies from a segment."""
    groups = battle.enemies
    ends = [(g.order and g.order.place) or g.at for g in groups]
    segments = jnp.asarray(ends, jnp.float32)  # [G, 4]
    extent = segments[:, 2:] - segments[:, :2]
    along = jax.random.uniform(key, (len(groups), 1))
    place = segments[:, :2] + along * extent
    members = [group for _, group in battle.roster(groups)]
    return place[np.asarray(members)]


def _draw_times(f: Facts, battle: Battle, key: Key[Array, ""]) -> tuple[Any, Any]:
    """Draw the steps at which the units of each group arrive and leave."""
    if not f.has_times:
        return None, None
    never = Steps(NEVER, NEVER)
    members = np.asarray(_groups(battle))
    groups = [*battle.allies, *battle.enemies]
    arrive_key, leave_key = jax.random.split(key)

    def draw(key: Array, steps: list[Steps]) -> Array:
        step = _draw_steps(key, steps)
        return _fill(f, battle, step[members], NEVER)

    arrives = draw(arrive_key, [group.arrives for group in groups])
    leaves = draw(leave_key, [group.leaves or never for group in groups])
    return arrives, leaves


def _draw_steps(key: Key[Array, ""], steps: list[Steps]) -> Int[Array, "G"]:
    first, last = np.asarray(steps).T
    return jax.random.randint(key, (len(steps),), first, last + 1)


def _groups(battle: Battle) -> list[int]:
    """Return the group of each unit; groups of enemies are counted after those of allies."""
    first_enemy = len(battle.allies)
    allies = [group for _, group in battle.roster(battle.allies)]
    enemies = [first_enemy + group for _, group in battle.roster(battle.enemies)]
    return [*allies, *enemies]


def _draw_places(battle: Battle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place the units of each group in random order in rings around its place."""
    places = []
    for tables in _tables(battle):
        key, point_key, order_key = jax.random.split(key, 3)
        point = jax.random.randint(point_key, (), 0, len(tables))
        table = jnp.asarray(tables)[point]
        places.append(jax.random.permutation(order_key, table))
    # The units of a group need not be consecutive.
    order = np.argsort(np.argsort(_groups(battle), kind="stable"))
    return jnp.concatenate(places)[order]


@functools.cache
def _tables(battle: Battle) -> list[np.ndarray]:
    """Return the slots of each group for each point at which it may start, ``[P, K, 2]``."""
    groups: list[Group] = [*battle.allies, *battle.enemies]
    return [_group_table(battle, group) for group in groups]


def _group_table(battle: Battle, group: Group) -> np.ndarray:
    """Return the slots of a group, in which its largest bodies touch."""
    names = [name for name, _ in group.units]
    rows = [row for row in battle.units if row.name in names]
    spacing = 2 * max(row.separation for row in rows)
    crosses = all(row.flies or row.colossal for row in rows)
    terrain = get_terrain("open") if crosses else battle.terrain
    size = team_size((group,))
    tables = []
    for point in group.at.points():
        slots = _ring_slots(terrain, point, spacing, size)
        tables.append(slots)
    return np.stack(tables)


@functools.cache
def _ring_slots(
    terrain: Terrain, center: Place, spacing: float, count: int
) -> np.ndarray:
    """Return slots of rings around a center, on ground near it, ``[count, 2]``.

    Bodies touch. If the ground is too small, they overlap by as little as possible.
    """
    cells = near_cells(terrain, int(center[0]), int(center[1]))
    around = _ring_places(center, spacing, _extent(cells, center))
    free = (place for place in around if _has_room(cells, *place))
    slots = list(itertools.islice(free, count))
    if len(slots) < count:
        return _ring_slots(terrain, center, CLOSER * spacing, count)
    return np.asarray(slots, np.float32)


def _extent(cells: np.ndarray, center: Place) -> float:
    """Return the distance from a center within which all of the cells lie."""
    offset = np.argwhere(cells) + 0.5 - center
    half_diagonal = math.sqrt(0.5)
    return float(np.linalg.norm(offset, axis=1).max()) + half_diagonal


def _ring_places(center: Place, spacing: float, extent: float) -> Iterator[Place]:
    """Yield the places in rings around a center, from the inside out."""
    x, y = center
    rings = math.ceil(extent / spacing)
    for ring, radius in enumerate(np.arange(rings) * spacing):
        for angle in _angles(ring):
            dx = radius * math.cos(angle)
            dy = radius * math.sin(angle)
            yield x + dx, y + dy


def _angles(ring: int) -> list[float]:
    """Return the directions of the slots of a ring."""
    count = max(1, 6 * ring)
    return [2 * math.pi * slot / count for slot in range(count)]


def _has_room(cells: np.ndarray, x: float, y: float) -> bool:
    """Return whether a unit may start around a place, with any jitter."""
    low = JITTER
    high = MAP_SIZE - JITTER
    if not (low < x < high and low < y < high):
        return False
    offsets = itertools.product((-JITTER, JITTER), repeat=2)
    return all(cells[int(x + dx), int(y + dy)] for dx, dy in offsets)


# Battles of SMACv2.


def _draw_smacv2(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    """Draw types, and positions of a mirror image or of a surround, as SMACv2 does."""
    battle = f.choices[rank]
    assert isinstance(battle, DrawnBattle)
    kind_key, side_key, mirror_key, surround_key = jax.random.split(key, 4)
    mirror = _mirror(battle, mirror_key)
    surround = _surround(battle, surround_key)
    is_mirror = jax.random.bernoulli(side_key)
    position = jnp.where(is_mirror, mirror, surround)
    rows = f.first_row(battle) + _draw_kinds(battle, kind_key)
    rows = rows.at[battle.n_allies :].add(len(f.unit_types))
    cast = Cast(
        row=_fill(f, battle, rows, f.nobody),
        order=jnp.asarray(f.casts[rank].order),
    )
    return Start(
        position=_fill(f, battle, position, 0.0),
        destination=jnp.zeros((f.m, 2)),
        cast=cast,
    )


def _spacing(battle: DrawnBattle) -> float:
    """Return the distance of touching bodies of the largest type of a race."""
    radii = [battle.units[kind].separation for kind in drawn_kinds(battle)]
    return 2 * max(radii)


def _draw_kinds(battle: DrawnBattle, key: Key[Array, ""]) -> Int[Array, "U"]:
    """Draw the types of the allies; enemies have the same, and those in excess are drawn."""
    n, m = battle.n_allies, battle.n_enemies
    race = RACES[battle.race]
    share = jnp.asarray([share for _, share in race])
    # A team of one redrawn type is replaced by the next draw, and at last its first unit.
    shape = (TRIES, max(n, m))
    drawn = jax.random.choice(key, len(race), shape, p=share)
    drawn = drawn.at[-1, 0].set(0)
    is_redrawn = jnp.asarray([name in REDRAWN for name, _ in race])
    shared = drawn[:, : min(n, m)]
    valid = ~is_redrawn[shared].all(1)
    first_valid = jnp.argmax(valid)
    kinds = jnp.asarray(drawn_kinds(battle))
    picked = kinds[drawn[first_valid]]
    return jnp.concatenate([picked[:n], picked[:m]])


def _mirror(battle: DrawnBattle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place allies in the left part, and enemies as their mirror image."""
    n, m = battle.n_allies, battle.n_enemies
    ally_key, extra_key = jax.random.split(key)
    allies = jax.random.uniform(ally_key, (n, 2))
    allies = allies * jnp.asarray([CENTER - 1, MAP_SIZE])
    x = MAP_SIZE - allies[:, 0]
    y = allies[:, 1]
    mirrored = jnp.stack([x, y], axis=-1)[:m]
    n_extra = max(m - n, 0)
    extra = jax.random.uniform(extra_key, (n_extra, 2))
    right_half = jnp.asarray([CENTER, MAP_SIZE])
    extra = extra * right_half + jnp.asarray([CENTER, 0.0])
    return jnp.concatenate([allies, mirrored, extra])


def _surround(battle: DrawnBattle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place the allies in the center and the enemies in groups on distinct diagonals.

    The units of a group stand in rings around its place, as on other maps.
    """
    count_key, group_key, place_key, diagonal_key, jitter_key = jax.random.split(key, 5)
    n_groups = jax.random.randint(count_key, (), 1, 5)
    group = jax.random.randint(group_key, (battle.n_enemies,), 0, n_groups)
    places = _draw_diagonals(place_key, diagonal_key)
    offsets = _ring_offsets(battle)
    same = group[:, None] == group
    rank = jnp.tril(same, -1).sum(1)
    allies = CENTER + offsets[: battle.n_allies]
    enemies = places[group] + offsets[rank]
    enemies = jnp.clip(enemies, JITTER, MAP_SIZE - JITTER)
    positions = jnp.concatenate([allies, enemies])
    return positions + _jitter(jitter_key, positions.shape)


def _draw_diagonals(
    place_key: Key[Array, ""], order_key: Key[Array, ""]
) -> Float[Array, "4 2"]:
    """Draw a place on each half diagonal of the map, in random order."""
    corners = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]]) * MAP_SIZE
    inner = CENTER + 2 * jnp.sign(corners - CENTER)
    fraction = jax.random.uniform(place_key, (4, 1))
    places = fraction * inner + (1 - fraction) * corners
    return jax.random.permutation(order_key, places)


def _ring_offsets(battle: DrawnBattle) -> Float[Array, "K 2"]:
    """Return the slots of rings around the center of the map, relative to it."""
    count = max(battle.n_allies, battle.n_enemies)
    center = (CENTER, CENTER)
    slots = _ring_slots(battle.terrain, center, _spacing(battle), count)
    return jnp.asarray(slots - CENTER)
