"""Rules of level-based foraging, those of the package ``lbforaging`` 2.0.

Players walk on a grid and collect food. Food is collected if the players next to it who load it at
the same step have levels that sum to at least its own. They share its level as a reward by their
levels, normalized so that an episode in which all food is collected returns 1 to the team.

Differs from ``lbforaging``: the time limit truncates, and starts do not depend on the previous
episode, whose places the original avoids.

Axes ``*b`` of a batch come last in all arrays, so that CPUs vectorize over environments.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt

from jmarl.envs.grids.cell_draws import distinct, pack, select_cell, span
from jmarl.envs.grids.grid_names import ForagingSize


NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
N_ACTIONS = 6
STEPS = np.array(
    [
        (0, 0),
        (-1, 0),
        (1, 0),
        (0, -1),
        (0, 1),
        (0, 0),
    ],
    np.int32,
)
"""Change of row and column for each action."""
MAX_PLAYER_LEVEL = 2
LIFTERS = 3
"""Number of players with the lowest levels whose sum is the largest level of food."""
WIDTH = 3
"""Features of an entity: row, column and level."""
UNSEEN = np.array(
    [-1, -1, 0],
    np.int32,
)


class State(struct.PyTreeNode):
    """State of tasks with P players and F food items."""

    place: Int[Array, "P 2 *b"]
    """Row and column of each player."""
    level: Int[Array, "P *b"]
    food: Int[Array, "F 2 *b"]
    """Row and column of each item, row by row."""
    food_level: Int[Array, "F *b"]
    """Level of each item; 0 if it was collected, or if there was no place for it."""
    spawned: Int[Array, "*b"]
    """Sum of the levels of all items at the start."""


def first_state(
    size: ForagingSize,
    draws: Float[Array, "2 P+F *b"],
) -> State:
    """Return the start of an episode: places of players and of food, and levels.

    Args:
        size: Sizes of the task.
        draws: Numbers in [0, 1) for places and for levels, of players and of food.
    """
    players = size.n_agents
    cells = distinct(
        draws[0, :players],
        size.rows * size.columns,
    )
    place = jnp.stack(
        jnp.divmod(cells, size.columns),
        axis=1,
    )
    level = 1 + jnp.floor(MAX_PLAYER_LEVEL * draws[1, :players]).astype(jnp.int32)
    food, exists = _food_places(
        size,
        place,
        draws[0, players:],
    )
    food_level = jnp.where(
        exists,
        _food_levels(
            size,
            level,
            draws[1, players:],
        ),
        0,
    )
    ordered = jnp.concatenate(
        [food, food_level[:, None]],
        axis=1,
    )
    ordered = _put(
        _ranks(food[:, 0] * size.columns + food[:, 1]),
        ordered,
    )
    return State(
        place,
        level,
        ordered[:, :2],
        ordered[:, 2],
        food_level.sum(0),
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
    size: ForagingSize, place: Int[Array, "P 2 *b"], draws: Float[Array, "F *b"]
) -> tuple[Int[Array, "F 2 *b"], Bool[Array, "F *b"]]:
    """Draw places of food one after the other, and a mask of the items for which there was one.

    Food is not at the border, nor in the eight cells around other food or two cells from it.
    """
    inner = np.zeros((size.rows, size.columns), bool)
    inner[1:-1, 1:-1] = True
    free = pack(jnp.asarray(_align(inner, place.ndim - 2)))
    for row, column in place:
        free = free & ~_around(size, (row, column), (0,))
    places, exists = [], []
    for draw in draws:
        exists.append((free != 0).any((0, 1)))
        row, column = select_cell(free, draw)
        places.append(jnp.stack([row, column]))
        free = free & ~_around(size, (row, column), (2, 1, 0))
    return jnp.stack(places), jnp.stack(exists)


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


def valid_actions(
    size: ForagingSize,
    state: State,
) -> Bool[Array, "P A *b"]:
    """Return the mask of actions with an effect; the original replaces the others by ``NONE``."""
    n = state.spawned.ndim
    to = state.place[:, None] + _align(STEPS[NORTH:LOAD], n)  # [P, 4, 2, *b]
    shape = _align(
        np.array([size.rows, size.columns]),
        n,
    )
    inside = ((to >= 0) & (to < shape)).all(2)
    is_food = (to[:, :, None] == state.food).all(3) & (state.food_level > 0)
    walks = inside & ~is_food.any(2)
    loads = _is_beside_food(state).any(1, keepdims=True)
    return jnp.concatenate(
        [jnp.ones_like(loads), walks, loads],
        axis=1,
    )


def _is_beside_food(state: State) -> Bool[Array, "P F *b"]:
    distance = jnp.abs(state.place[:, None] - state.food).sum(2)
    return (distance == 1) & (state.food_level > 0)


def advance(
    size: ForagingSize, state: State, action: Int[Array, "P *b"]
) -> tuple[State, Float[Array, "P *b"]]:
    """Advance tasks by one step; return the state and the reward of each player.

    If several players want to be at the same cell, all of them stay. A player may enter the cell
    of another one who leaves it, and also of one who wants to leave but is stopped so.
    """
    actions = _align(
        np.arange(N_ACTIONS),
        state.spawned.ndim,
    )
    takes = (action[:, None] == actions) & valid_actions(size, state)  # [P, A, *b]
    steps = [
        takes[:, plus].astype(jnp.int32) - takes[:, minus]
        for plus, minus in (
            (SOUTH, NORTH),
            (EAST, WEST),
        )
    ]
    wanted = state.place + jnp.stack(steps, axis=1)
    rivals = (wanted[:, None] == wanted).all(2).sum(1, keepdims=True) - 1
    place = jnp.where(rivals > 0, state.place, wanted)
    return _collect(
        state.replace(place=place),
        takes[:, LOAD],
    )


def _collect(
    state: State, loads: Bool[Array, "P *b"]
) -> tuple[State, Float[Array, "P *b"]]:
    """Remove food that the loading players can lift together, and reward them."""
    lifts = loads[:, None] & _is_beside_food(state)
    strength = jnp.where(lifts, state.level[:, None], 0)  # [P, F, *b]
    total = strength.sum(0)
    is_lifted = (state.food_level > 0) & (total >= state.food_level)
    worth = jnp.where(is_lifted, state.food_level, 0) / (
        jnp.maximum(total, 1) * jnp.maximum(state.spawned, 1)
    )
    food_level = jnp.where(is_lifted, 0, state.food_level)
    return state.replace(food_level=food_level), (strength * worth).sum(1)


def observe(
    size: ForagingSize,
    state: State,
) -> Float[Array, "P F *b"]:
    """Return the features of ``lbforaging``: row, column and level of food, then of players.

    Places count from the corner of the observed window within the grid. Observed food comes first,
    row by row, then -1, -1, 0 for each item that is not observed. So do players, the observing one
    first.
    """
    corner = jnp.maximum(state.place - size.sight, 0)[:, None]  # [P, 1, 2, *b]
    near = jnp.abs(state.place[:, None] - state.food).max(2) <= size.sight
    food = _list_seen(
        state.food - corner, state.food_level, near & (state.food_level > 0)
    )
    # The original observes players up to twice the sight from the corner, so also some that are
    # farther away than the sight if the observer is near the upper or left border.
    order = _self_first(size.n_agents)
    place = state.place[order] - corner  # [P, P, 2, *b]
    seen = ((place >= 0) & (place <= 2 * size.sight)).all(2)
    players = _list_seen(place, state.level[order], seen)
    features = jnp.concatenate([food, players], axis=1)
    merged = features.reshape(
        size.n_agents,
        -1,
        *features.shape[3:],
    )
    return merged.astype(jnp.float32)


def _self_first(n: int) -> Int[np.ndarray, "P P"]:
    """Return the order in which each of n players lists all of them."""
    others = [[j for j in range(n) if j != i] for i in range(n)]
    return np.array([[i, *rest] for i, rest in enumerate(others)])


def _list_seen(
    place: Int[Array, "P K 2 *b"],
    level: Int[Array, "*P K *b"],
    seen: Bool[Array, "P K *b"],
) -> Int[Array, "P K 3 *b"]:
    """Return the features of seen entities without gaps, then ``UNSEEN`` for the others."""
    levels = jnp.broadcast_to(level, seen.shape)[:, :, None]
    unseen = _align(UNSEEN, seen.ndim - 2)
    features = jnp.concatenate([place, levels], axis=2) - unseen
    count = seen.shape[1]
    rank = jnp.where(
        seen,
        jnp.cumsum(seen, axis=1) - 1,
        count,
    )
    return jax.vmap(_put)(rank, features) + unseen


def _ranks(keys: Int[Array, "K *b"]) -> Int[Array, "K *b"]:
    """Return the rank of each key; equal keys keep their order."""
    earlier = _align(
        np.tri(
            len(keys),
            k=-1,
            dtype=bool,
        ),
        keys.ndim - 1,
    )
    is_lower = (keys < keys[:, None]) | ((keys == keys[:, None]) & earlier)
    return is_lower.sum(1)


def _put(
    rank: Int[Array, "K *b"],
    x: Int[Array, "K F *b"],
) -> Int[Array, "K F *b"]:
    """Return the rows of x at their ranks; a row with rank K is left out."""
    slots = _align(
        np.arange(len(rank))[:, None],
        rank.ndim - 1,
    )
    is_at = (rank == slots)[:, :, None]  # [slot, K, 1, *b]
    return jnp.where(is_at, x, 0).sum(1)
