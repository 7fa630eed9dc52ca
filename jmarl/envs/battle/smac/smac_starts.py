"""Starts of episodes: the drawn battle, its units, their places and times."""

from __future__ import annotations

import functools
import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jmarl.envs.battle.combat.unit_table import RACES, REDRAWN
from jmarl.envs.battle.scenarios.battle_spec import (
    Battle,
    DrawnBattle,
    Group,
    Steps,
    team_size,
)
from jmarl.envs.battle.scenarios.terrain import Terrain, walkable
from jmarl.envs.battle.smac.smac_facts import (
    MAP_SIZE,
    NEVER,
    Cast,
    Facts,
    drawn_kinds,
)
from jmarl.envs.battle.smac.smac_state import Start


TRIES = 4
"""Draws of a team, of which the first valid one is taken."""
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
    draws = [partial(_draw_battle, f, rank) for rank in range(len(f.choices))]
    if len(draws) == 1:
        start = draws[0](start_key)
    else:
        choice = jax.random.randint(choice_key, (), 0, len(draws))
        start = lax.switch(choice, draws, start_key).replace(choice=choice)
    if f.config.shuffle_slots:
        start = _shuffle(f, slot_key, start)
    if f.hides_enemies:
        luck = jax.random.bernoulli(luck_key, f.config.prob_obs_enemy, (f.n, f.m))
        start = start.replace(luck=luck)
    return start


def _draw_battle(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    battle = f.choices[rank]
    is_drawn = isinstance(battle, DrawnBattle)
    return _draw_smacv2(f, rank, key) if is_drawn else _draw_fixed(f, rank, key)


def _shuffle(f: Facts, key: Key[Array, ""], start: Start) -> Start:
    """Permute the slots of both teams."""
    ally_key, enemy_key = jax.random.split(key)
    enemies = jax.random.permutation(enemy_key, f.m)
    units = jnp.concatenate([jax.random.permutation(ally_key, f.n), f.n + enemies])
    assert start.cast is not None
    return start.replace(
        position=start.position[units],
        destination=start.destination[enemies],
        cast=Cast(start.cast.row[units], start.cast.order[enemies]),
        arrives=None if start.arrives is None else start.arrives[units],
        leaves=None if start.leaves is None else start.leaves[units],
    )


def _fill(f: Facts, battle: Battle | DrawnBattle, values: Any, absent: Any) -> Array:
    """Extend values of all units of a battle to all slots, those of absent units included."""
    values = jnp.asarray(values)
    padding = [(0, 0)] * (values.ndim - 1)
    fill = partial(jnp.pad, constant_values=absent)
    n, m = battle.n_allies, battle.n_enemies
    allies = fill(values[:n], [(0, f.n - n), *padding])
    return jnp.concatenate([allies, fill(values[n:], [(0, f.m - m), *padding])])


# Battles between given teams.


def _draw_fixed(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    """Place the units of each group in random order in its rings, with jitter."""
    battle = f.choices[rank]
    assert isinstance(battle, Battle)
    order_key, jitter_key, place_key, time_key = jax.random.split(key, 4)
    position = _draw_places(battle, order_key)
    jitter = _jitter(jitter_key, position.shape)
    fill = partial(_fill, f, battle)
    destination = _draw_destinations(battle, place_key)
    destination = jnp.pad(destination, ((0, f.m - len(destination)), (0, 0)))
    arrives, leaves = _draw_times(f, battle, time_key)
    return Start(
        position=fill(position + jitter, 0.0),
        destination=destination,
        cast=None if f.cast else Cast(*map(jnp.asarray, f.casts[rank])),
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
    along = jax.random.uniform(key, (len(groups), 1))
    place = segments[:, :2] + along * (segments[:, 2:] - segments[:, :2])
    return place[np.asarray([group for _, group in battle.roster(groups)])]


def _draw_times(f: Facts, battle: Battle, key: Key[Array, ""]) -> tuple[Any, Any]:
    """Draw the steps at which the units of each group arrive and leave."""
    if not f.has_times:
        return None, None
    never = Steps(NEVER, NEVER)
    members = np.asarray(_groups(battle))
    groups = [*battle.allies, *battle.enemies]
    arrive_key, leave_key = jax.random.split(key)
    fill = partial(_fill, f, battle)
    arrives = _draw_steps(arrive_key, [group.arrives for group in groups])
    leaves = _draw_steps(leave_key, [group.leaves or never for group in groups])
    return fill(arrives[members], NEVER), fill(leaves[members], NEVER)


def _draw_steps(key: Key[Array, ""], steps: list[Steps]) -> Int[Array, "G"]:
    first, last = np.asarray(steps).T
    return jax.random.randint(key, (len(steps),), first, last + 1)


def _groups(battle: Battle) -> list[int]:
    """Return the group of each unit; groups of enemies are counted after those of allies."""
    allies = [group for _, group in battle.roster(battle.allies)]
    enemies = [group for _, group in battle.roster(battle.enemies)]
    return [*allies, *(len(battle.allies) + group for group in enemies)]


def _draw_places(battle: Battle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place the units of each group in random order in rings around its place."""
    members = np.asarray(_groups(battle))
    places = jnp.zeros((len(members), 2))
    for rank, tables in enumerate(_tables(battle)):
        key, point_key, order_key = jax.random.split(key, 3)
        point = jax.random.randint(point_key, (), 0, len(tables))
        slots = jax.random.permutation(order_key, jnp.asarray(tables)[point])
        places = places.at[members == rank].set(slots)
    return places


@functools.cache
def _tables(battle: Battle) -> list[np.ndarray]:
    """Return the slots of each group for each point at which it may start, ``[P, K, 2]``."""
    groups: list[Group] = [*battle.allies, *battle.enemies]
    return [_group_table(battle, group) for group in groups]


def _group_table(battle: Battle, group: Group) -> np.ndarray:
    """Return the slots of a group, in which its largest bodies touch."""
    names = [name for name, _ in group.units]
    spacing = 2 * max(row.separation for row in battle.units if row.name in names)
    size = team_size((group,))
    points = group.at.points()
    return np.stack([_ring_slots(battle.terrain, p, spacing, size) for p in points])


@functools.cache
def _ring_slots(
    terrain: Terrain, center: tuple[float, float], spacing: float, count: int
) -> np.ndarray:
    """Return slots of rings around a center, on ground that can be walked on, ``[count, 2]``.

    Bodies touch. If the ground is too small, they overlap by as little as possible.
    """
    cells = walkable(terrain)
    rings = math.ceil(2 * MAP_SIZE / spacing)
    around = (
        (center[0] + length * math.cos(angle), center[1] + length * math.sin(angle))
        for ring, length in enumerate(np.arange(rings) * spacing)
        for angle in _angles(ring)
    )
    free = (slot for slot in around if _has_room(cells, *slot))
    slots = list(itertools.islice(free, count))
    if len(slots) < count:
        return _ring_slots(terrain, center, CLOSER * spacing, count)
    return np.asarray(slots, np.float32)


def _angles(ring: int) -> list[float]:
    """Return the directions of the slots of a ring."""
    count = max(1, 6 * ring)
    return [2 * math.pi * slot / count for slot in range(count)]


def _has_room(cells: np.ndarray, x: float, y: float) -> bool:
    if not (JITTER < x < MAP_SIZE - JITTER and JITTER < y < MAP_SIZE - JITTER):
        return False
    corners = [(x + dx, y + dy) for dx in (-JITTER, JITTER) for dy in (-JITTER, JITTER)]
    return all(cells[int(a), int(b)] for a, b in corners)


# Battles of SMACv2.


def _draw_smacv2(f: Facts, rank: int, key: Key[Array, ""]) -> Start:
    """Draw types, and positions of a mirror image or of a surround, as SMACv2 does."""
    battle = f.choices[rank]
    assert isinstance(battle, DrawnBattle)
    kind_key, side_key, mirror_key, surround_key = jax.random.split(key, 4)
    mirror = _mirror(battle, mirror_key)
    surround = _surround(battle, surround_key)
    position = jnp.where(jax.random.bernoulli(side_key), mirror, surround)
    rows = f.first_row(battle) + _draw_kinds(battle, kind_key)
    rows = rows.at[battle.n_allies :].add(len(f.unit_types))
    cast = Cast(_fill(f, battle, rows, f.nobody), jnp.asarray(f.casts[rank].order))
    return Start(_fill(f, battle, position, 0.0), jnp.zeros((f.m, 2)), cast=cast)


def _spacing(battle: DrawnBattle) -> float:
    """Return the distance of touching bodies of the largest type of a race."""
    return 2 * max(battle.units[kind].separation for kind in drawn_kinds(battle))


def _draw_kinds(battle: DrawnBattle, key: Key[Array, ""]) -> Int[Array, "U"]:
    """Draw the types of the allies; enemies have the same, and those in excess are drawn."""
    n, m = battle.n_allies, battle.n_enemies
    race = RACES[battle.race]
    share = jnp.asarray([share for _, share in race])
    # A team of one redrawn type is replaced by the next draw, and at last its first unit.
    drawn = jax.random.choice(key, len(race), (TRIES, max(n, m)), p=share)
    drawn = drawn.at[-1, 0].set(0)
    again = jnp.asarray([name in REDRAWN for name, _ in race])
    valid = ~again[drawn[:, : min(n, m)]].all(1)
    picked = jnp.asarray(drawn_kinds(battle))[drawn[jnp.argmax(valid)]]
    return jnp.concatenate([picked[:n], picked[:m]])


def _mirror(battle: DrawnBattle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place allies in the left part, and enemies as their mirror image."""
    n, m = battle.n_allies, battle.n_enemies
    center = MAP_SIZE / 2
    ally_key, extra_key = jax.random.split(key)
    allies = jax.random.uniform(ally_key, (n, 2))
    allies = allies * jnp.asarray([center - 1, MAP_SIZE])
    mirrored = jnp.stack([MAP_SIZE - allies[:, 0], allies[:, 1]], -1)[:m]
    extra = jax.random.uniform(extra_key, (max(m - n, 0), 2))
    extra = extra * jnp.asarray([center, MAP_SIZE]) + jnp.asarray([center, 0.0])
    return jnp.concatenate([allies, mirrored, extra])


def _surround(battle: DrawnBattle, key: Key[Array, ""]) -> Float[Array, "U 2"]:
    """Place the allies in the center and the enemies in groups on distinct diagonals.

    The units of a group stand in rings around its place, as on other maps.
    """
    count_key, group_key, place_key, diagonal_key, jitter_key = jax.random.split(key, 5)
    count = max(battle.n_allies, battle.n_enemies)
    n_groups = jax.random.randint(count_key, (), 1, 5)
    group = jax.random.randint(group_key, (battle.n_enemies,), 0, n_groups)
    corners = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]]) * MAP_SIZE
    center = MAP_SIZE / 2
    inner = center + 2 * jnp.sign(corners - center)
    fraction = jax.random.uniform(place_key, (4, 1))
    places = fraction * inner + (1 - fraction) * corners
    places = jax.random.permutation(diagonal_key, places)
    slots = _ring_slots(battle.terrain, (center, center), _spacing(battle), count)
    offsets = jnp.asarray(slots - center)
    same = group[:, None] == group
    rank = jnp.tril(same, -1).sum(1)
    enemies = jnp.clip(places[group] + offsets[rank], JITTER, MAP_SIZE - JITTER)
    positions = jnp.concatenate([center + offsets[: battle.n_allies], enemies])
    return positions + _jitter(jitter_key, positions.shape)
