"""Rules of level-based foraging, those of the package ``lbforaging`` 2.0.

Players walk on a grid and collect food. Food is collected if the players next to it who load it at
the same step have levels that sum to at least its own. They share its level as a reward by their
levels, normalized so that an episode in which all food is collected returns 1 to the team.

Differs from ``lbforaging``: the time limit truncates, and starts do not depend on the previous
episode, whose places the original avoids.

Axes ``*b`` of a batch come last in all arrays, so that CPUs vectorize over environments. A player
or an item is one integer for the same reason: arrays ``[B]`` need no transposition, and one
comparison of integers compares cells.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt

from jmarl.envs.batched import unfused
from jmarl.envs.grids.cell_draws import distinct, pack, select_cell, span
from jmarl.envs.grids.grid_names import ForagingSize


NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
N_ACTIONS = 6
MAX_PLAYER_LEVEL = 2
LIFTERS = 3
"""Number of players with the lowest levels whose sum is the largest level of food."""
WIDTH = 3
"""Features of an entity: row, column and level."""
MOST_CELLS = 2047
"""Largest number of rows and of columns, which have 12 bits of an entity."""
SHIFTS = np.array([20, 8, 0], np.int32)
"""Lowest bits of row, column and level in the integer of an entity."""
MASKS = np.array([4095, 4095, 255], np.int32)
DOWN, RIGHT = 1 << int(SHIFTS[0]), 1 << int(SHIFTS[1])
"""Differences of entities to those one row below, and one column to the right."""
STEPS = np.array([0, -DOWN, DOWN, -RIGHT, RIGHT, 0], np.int32)
"""Change of a player for each action."""


class State(struct.PyTreeNode):
    """State of tasks with P players and F food items, integers of ``entity``."""

    players: tuple[Int[Array, "*b"], ...]
    food: tuple[Int[Array, "*b"], ...]
    """Items, row by row; the level is 0 if it was collected, or if there was no place for it."""
    spawned: Int[Array, "*b"]
    """Sum of the levels of all items at the start."""


def entity(
    row: Int[Array, "..."], column: Int[Array, "..."], level: Int[Array, "..."]
) -> Int[Array, "..."]:
    """Return a player or an item of food as an integer."""
    return row * DOWN + column * RIGHT + level


def row_of(x: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return the row of an entity."""
    return x >> SHIFTS[0]


def column_of(x: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return the column of an entity."""
    return (x >> SHIFTS[1]) & MASKS[1]


def level_of(x: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return the level of an entity."""
    return x & MASKS[2]


def _cell(x: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return the place of an entity: row and column in one number."""
    return x >> SHIFTS[1]


def first_state(
    size: ForagingSize,
    draws: Float[Array, "2 P+F *b"],
) -> State:
    """Return the start of an episode: places of players and of food, and levels.

    Args:
        size: Sizes of the task.
        draws: Numbers in [0, 1) for places and for levels, of players and of food.
    """
    n = size.n_agents
    cells = distinct(draws[0, :n], size.rows * size.columns)
    row, column = jnp.divmod(cells, size.columns)
    level = 1 + jnp.floor(MAX_PLAYER_LEVEL * draws[1, :n]).astype(jnp.int32)
    places, exists = _food_places(size, (row, column), draws[0, n:])
    levels = jnp.where(exists, _food_levels(size, level, draws[1, n:]), 0)
    food = entity(places[0], places[1], levels)
    rank = _ranks(_cell(food))
    return State(
        players=tuple(entity(row, column, level)),
        food=tuple(_put(rank, food)),
        spawned=levels.sum(0),
    )


def _food_levels(
    size: ForagingSize, level: Int[Array, "P *b"], draws: Float[Array, "F *b"]
) -> Int[Array, "F *b"]:
    """Return levels up to the sum of the lowest levels of players, or that sum if ``coop``."""
    lifters = min(LIFTERS, size.n_agents)
    weak = jnp.minimum(
        (level == 1).sum(0),
        lifters,
    )
    most = MAX_PLAYER_LEVEL * lifters - weak
    drawn = 1 + jnp.floor(most * draws).astype(jnp.int32)
    return jnp.where(
        size.coop,
        most,
        jnp.minimum(drawn, most),
    )


def _food_places(
    size: ForagingSize,
    players: tuple[Int[Array, "P *b"], Int[Array, "P *b"]],
    draws: Float[Array, "F *b"],
) -> tuple[Int[Array, "2 F *b"], Bool[Array, "F *b"]]:
    """Draw places of food one after the other, and a mask of the items for which there was one.

    Food is not at the border, nor in the eight cells around other food or two cells from it.
    """
    inner = np.zeros((size.rows, size.columns), bool)
    inner[1:-1, 1:-1] = True
    free = pack(jnp.asarray(_align(inner, draws.ndim - 1)))
    for place in zip(*players, strict=True):
        free = free & ~_around(size, place, (0,))
    places, exists = [], []
    for draw in draws:
        exists.append((free != 0).any((0, 1)))
        row, column = select_cell(free, draw)
        places.append(jnp.stack([row, column]))
        free = free & ~_around(size, (row, column), (2, 1, 0))
    return jnp.stack(places, axis=1), jnp.stack(exists)


def _around(
    size: ForagingSize,
    at: tuple[Int[Array, "*b"], Int[Array, "*b"]],
    reach: tuple[int, ...],
) -> UInt[Array, "H K *b"]:
    """Return the cells up to ``reach[d]`` columns from a cell, in the rows d away from its own."""
    row, column = at
    rows = _align(np.arange(size.rows)[:, None], row.ndim)
    away = jnp.abs(rows - row)
    words = jnp.zeros((), jnp.uint32)
    for distance, wide in enumerate(reach):
        cells = span(size.columns, column - wide, column + wide)
        words = jnp.where(away == distance, cells, words)
    return words


def _align(
    x: np.ndarray,
    n: int,
) -> np.ndarray:
    """Return a constant with n axes of length 1 behind its own, for the axes of a batch."""
    return x.reshape(
        *x.shape,
        *[1] * n,
    )


def _stack(xs: Sequence[Int[Array, "*b"]]) -> Int[Array, "K *b"]:
    return unfused(jnp.stack(xs))


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, terms)


def _any(masks: Iterable[Array]) -> Array:
    return functools.reduce(operator.or_, masks)


def is_over(state: State) -> Bool[Array, "*b"]:
    """Return whether no food is left."""
    return ~_any(level_of(item) > 0 for item in state.food)


def valid_actions(
    size: ForagingSize,
    state: State,
) -> Bool[Array, "P A *b"]:
    """Return the mask of actions with an effect; the original replaces the others by ``NONE``."""
    steps = _align(STEPS[NORTH:LOAD], state.spawned.ndim)
    players = _stack(state.players)
    walks = _is_free(size, state, players[:, None] + steps)
    loads = _any(_is_beside(players, item) for item in state.food)[:, None]
    return jnp.concatenate([jnp.ones_like(loads), walks, loads], axis=1)


def _is_free(
    size: ForagingSize, state: State, x: Int[Array, "..."]
) -> Bool[Array, "..."]:
    """Return whether the cells of entities are inside the grid and without food."""
    # Column -1 is the last one that 12 bits can hold, and so outside as well.
    inside = (x >= 0) & (row_of(x) < size.rows) & (column_of(x) < size.columns)
    taken = ((_cell(x) == _cell(item)) & (level_of(item) > 0) for item in state.food)
    return inside & ~_any(taken)


def _is_beside(
    player: Int[Array, "..."], food: Int[Array, "..."]
) -> Bool[Array, "..."]:
    """Return whether players stand next to food that is left."""
    distance = jnp.abs(_cell(player) - _cell(food))
    is_beside = (distance == 1) | (distance == DOWN // RIGHT)
    return is_beside & (level_of(food) > 0)


def advance(
    size: ForagingSize, state: State, action: Int[Array, "P *b"]
) -> tuple[State, Float[Array, "P *b"]]:
    """Advance tasks by one step; return the state and the reward of each player.

    If several players want to be at the same cell, all of them stay. A player may enter the cell
    of another one who leaves it, and also of one who wants to leave but is stopped so.
    """
    actions = _align(np.arange(N_ACTIONS), state.spawned.ndim)
    steps = _align(STEPS, state.spawned.ndim)
    change = jnp.where(action[:, None] == actions, steps, 0).sum(1)
    wanted = [
        jnp.where(_is_free(size, state, player + step), player + step, player)
        for player, step in zip(state.players, change, strict=True)
    ]
    players = [
        jnp.where(_has_rival(wanted, i), player, wanted[i])
        for i, player in enumerate(state.players)
    ]
    return _collect(state.replace(players=tuple(players)), action == LOAD)


def _has_rival(wanted: list[Int[Array, "*b"]], i: int) -> Bool[Array, "*b"]:
    """Return whether another player wants the cell that player i wants."""
    users = _sum((_cell(x) == _cell(wanted[i])).astype(jnp.int32) for x in wanted)
    return users > 1


def _collect(
    state: State, loads: Bool[Array, "P *b"]
) -> tuple[State, Float[Array, "P *b"]]:
    """Remove food that the loading players can lift together, and reward them."""
    players, food = _stack(state.players)[:, None], _stack(state.food)
    lifts = loads[:, None] & _is_beside(players, food)  # [P, F, *b]
    total = jnp.where(lifts, level_of(players), 0).sum(0)
    level = level_of(food)
    is_lifted = (level > 0) & (total >= level)
    worth = jnp.where(is_lifted, level, 0) / (
        jnp.maximum(total, 1) * jnp.maximum(state.spawned, 1)
    )
    # The product is within the mask, or XLA takes its sum for a slow product of matrices.
    reward = jnp.where(lifts, level_of(players) * worth, 0).sum(1)
    left = [
        jnp.where(lifted, item - level_of(item), item)
        for lifted, item in zip(is_lifted, state.food, strict=True)
    ]
    return state.replace(food=tuple(left)), reward


def observe(
    size: ForagingSize,
    state: State,
) -> Int[Array, "P F *b"]:
    """Return the features of ``lbforaging``: row, column and level of food, then of players.

    Places count from the corner of the observed window within the grid. Observed food comes first,
    row by row, then -1, -1, 0 for each item that is not observed. So do players, the observing one
    first.
    """
    sight = size.sight
    players, food = _stack(state.players), _stack(state.food)
    row, column = row_of(players)[:, None], column_of(players)[:, None]
    top, left = jnp.maximum(row - sight, 0), jnp.maximum(column - sight, 0)
    corner = top * DOWN + left * RIGHT  # [P, 1, *b]
    down, right = jnp.abs(row - row_of(food)), jnp.abs(column - column_of(food))
    near = (down <= sight) & (right <= sight) & (level_of(food) > 0)
    # The original observes players up to twice the sight from the corner, so also some that are
    # farther away than the sight if the observer is near the upper or left border.
    down, right = row_of(players) - top, column_of(players) - left
    inside = (jnp.minimum(down, right) >= 0) & (jnp.maximum(down, right) <= 2 * sight)
    listed = [
        _list_seen(food - corner, near, np.arange(size.n_food)[None]),
        _list_seen(players - corner, inside, _self_first(size.n_agents)),
    ]
    features = _features(jnp.concatenate(listed, axis=1))
    return features.reshape(size.n_agents, -1, *state.spawned.shape)


def _self_first(n: int) -> Int[np.ndarray, "P P"]:
    """Return the position of each of n players in the list of each of them."""
    observer, other = np.arange(n)[:, None], np.arange(n)
    return np.where(other == observer, 0, other + (other < observer))


def _list_seen(
    x: Int[Array, "P K *b"],
    seen: Bool[Array, "P K *b"],
    position: Int[np.ndarray, "#P K"],
) -> Int[Array, "P K *b"]:
    """Return seen entities in the order of their positions, then 0 for the others.

    Rows and columns of the returned entities are higher by 1, so that none is 0.
    """
    n = seen.ndim - 2
    earlier = _align(position[:, None] < position[:, :, None], n)  # [#P, K, K]
    rank = (seen[:, None] & earlier).sum(2)
    slots = _align(np.arange(seen.shape[1])[:, None], n)
    is_at = seen[:, None] & (rank[:, None] == slots)  # [P, slot, K, *b]
    return jnp.where(is_at, x[:, None] + DOWN + RIGHT, 0).sum(2)


def _features(listed: Int[Array, "P K *b"]) -> Int[Array, "P K 3 *b"]:
    """Return row, column and level of entities of ``_list_seen``."""
    n = listed.ndim - 2
    fields = (listed[:, :, None] >> _align(SHIFTS, n)) & _align(MASKS, n)
    return fields - _align(np.array([1, 1, 0]), n)


def _ranks(keys: Int[Array, "K *b"]) -> Int[Array, "K *b"]:
    """Return the rank of each key; equal keys keep their order."""
    earlier = _align(np.tri(len(keys), k=-1, dtype=bool), keys.ndim - 1)
    is_lower = (keys < keys[:, None]) | ((keys == keys[:, None]) & earlier)
    return is_lower.sum(1)


def _put(rank: Int[Array, "K *b"], x: Int[Array, "K *b"]) -> Int[Array, "K *b"]:
    """Return the elements of x at their ranks."""
    slots = _align(np.arange(len(rank))[:, None], rank.ndim - 1)
    return jnp.where(rank == slots, x, 0).sum(1)
