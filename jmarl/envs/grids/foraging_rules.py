"""Rules of level-based foraging, those of the package ``lbforaging`` 2.0.

Players walk on a grid and collect food. Food is collected if the players next to it who load it at
the same step have levels that sum to at least its own. They share its level as a reward by their
levels, normalized so that an episode in which all food is collected returns 1 to the team.

Differs from ``lbforaging``: the time limit truncates, and starts do not depend on the previous
episode, whose places the original avoids.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl.envs.grids.cell_draws import distinct, select_cell
from jmarl.envs.grids.grid_names import ForagingSize


NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
N_ACTIONS = 6
STEPS = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)], np.int32)
"""Change of row and column for each action."""
MAX_PLAYER_LEVEL = 2
LIFTERS = 3
"""Number of players with the lowest levels whose sum is the largest level of food."""
WIDTH = 3
"""Features of an entity: row, column and level."""
UNSEEN = np.array([-1, -1, 0], np.int32)


class State(struct.PyTreeNode):
    """State of one task with P players and F food items."""

    place: Int[Array, "P 2"]
    """Row and column of each player."""
    level: Int[Array, "P"]
    food: Int[Array, "F 2"]
    """Row and column of each item, row by row."""
    food_level: Int[Array, "F"]
    """Level of each item; 0 if it was collected, or if there was no place for it."""
    spawned: Int[Array, ""]
    """Sum of the levels of all items at the start."""


def first_state(size: ForagingSize, key: Keys[Array, ""]) -> State:
    """Draw the start of an episode: places of players and of food, and levels."""
    players, items = size.n_agents, size.n_food
    draws = jax.random.uniform(key, (2, players + items))
    cells = distinct(draws[0, :players], size.rows * size.columns)
    place = jnp.stack(jnp.divmod(cells, size.columns), axis=-1)
    level = 1 + jnp.floor(MAX_PLAYER_LEVEL * draws[1, :players]).astype(jnp.int32)
    food, exists = _food_places(size, place, draws[0, players:])
    most = jnp.sort(level)[:LIFTERS].sum()
    share = jnp.ones(items) if size.coop else draws[1, players:]
    drawn = jnp.minimum(1 + jnp.floor(most * share).astype(jnp.int32), most)
    food_level = jnp.where(exists, drawn, 0)
    by_cell = jnp.argsort(food[:, 0] * size.columns + food[:, 1])
    return State(place, level, food[by_cell], food_level[by_cell], food_level.sum())


def _food_places(
    size: ForagingSize, place: Int[Array, "P 2"], draws: Float[Array, "F"]
) -> tuple[Int[Array, "F 2"], Bool[Array, "F"]]:
    """Draw places of food one after the other, and a mask of the items for which there was one.

    Food is not at the border, nor in the eight cells around other food or two cells from it.
    """
    rows, columns = np.arange(size.rows)[:, None], np.arange(size.columns)
    inner = (rows % (size.rows - 1) > 0) & (columns % (size.columns - 1) > 0)
    free = jnp.asarray(inner)
    for row, column in place:
        free = free & ~((rows == row) & (columns == column))
    places, exists = [], []
    for draw in draws:
        exists.append(free.any())
        row, column = select_cell(free, draw)
        places.append(jnp.stack([row, column]))
        down, across = jnp.abs(rows - row), jnp.abs(columns - column)
        is_near = (down <= 1) & (across <= 1)
        is_in_line = (down * across == 0) & (down + across <= 2)
        free = free & ~(is_near | is_in_line)
    return jnp.stack(places), jnp.stack(exists)


def valid_actions(size: ForagingSize, state: State) -> Bool[Array, "P A"]:
    """Return the mask of actions with an effect; the original replaces the others by ``NONE``."""
    to = state.place[:, None] + jnp.asarray(STEPS)  # [P, A, 2]
    inside = ((to >= 0) & (to < jnp.array([size.rows, size.columns]))).all(-1)
    is_food = (to[:, :, None] == state.food).all(-1) & (state.food_level > 0)
    walks = inside & ~is_food.any(-1)
    loads = _is_beside_food(state).any(-1)
    return walks.at[:, NONE].set(True).at[:, LOAD].set(loads)


def _is_beside_food(state: State) -> Bool[Array, "P F"]:
    distance = jnp.abs(state.place[:, None] - state.food).sum(-1)
    return (distance == 1) & (state.food_level > 0)


def advance(
    size: ForagingSize, state: State, action: Int[Array, "P"]
) -> tuple[State, Float[Array, "P"]]:
    """Advance a task by one step; return the state and the reward of each player.

    If several players want to be at the same cell, all of them stay. A player may enter the cell
    of another one who leaves it, and also of one who wants to leave but is stopped so.
    """
    is_valid = jnp.take_along_axis(valid_actions(size, state), action[:, None], axis=1)[
        :, 0
    ]
    action = jnp.where(is_valid, action, NONE)
    wanted = state.place + jnp.asarray(STEPS)[action]
    rivals = (wanted[:, None] == wanted).all(-1).sum(1) - 1
    place = jnp.where(rivals[:, None] > 0, state.place, wanted)
    return _collect(state.replace(place=place), action == LOAD)


def _collect(state: State, loads: Bool[Array, "P"]) -> tuple[State, Float[Array, "P"]]:
    """Remove food that the loading players can lift together, and reward them."""
    lifts = loads[:, None] & _is_beside_food(state)
    strength = jnp.where(lifts, state.level[:, None], 0)  # [P, F]
    total = strength.sum(0)
    is_lifted = (state.food_level > 0) & (total >= state.food_level)
    worth = jnp.where(is_lifted, state.food_level, 0) / (
        jnp.maximum(total, 1) * jnp.maximum(state.spawned, 1)
    )
    food_level = jnp.where(is_lifted, 0, state.food_level)
    return state.replace(food_level=food_level), (strength * worth).sum(1)


def observe(size: ForagingSize, state: State) -> Float[Array, "P F"]:
    """Return the features of ``lbforaging``: row, column and level of food, then of players.

    Places count from the corner of the observed window within the grid. Observed food comes first,
    row by row, then -1, -1, 0 for each item that is not observed. So do players, the observing one
    first.
    """
    corner = jnp.maximum(state.place - size.sight, 0)[:, None]  # [P, 1, 2]
    near = jnp.abs(state.place[:, None] - state.food).max(-1) <= size.sight
    food = _list_seen(
        state.food - corner, state.food_level, near & (state.food_level > 0)
    )
    # The original observes players up to twice the sight from the corner, so also some that are
    # farther away than the sight if the observer is near the upper or left border.
    place = state.place - corner
    seen = (place >= 0).all(-1) & (place <= 2 * size.sight).all(-1)
    order = _self_first(size.n_agents)
    players = _list_seen(
        jnp.take_along_axis(place, order[..., None], axis=1),
        state.level[order],
        jnp.take_along_axis(seen, order, axis=1),
    )
    features = jnp.concatenate([food, players], axis=1)
    return features.reshape(size.n_agents, -1).astype(jnp.float32)


def _self_first(n: int) -> Int[np.ndarray, "P P"]:
    """Return the order in which each of n players lists all of them."""
    others = [[j for j in range(n) if j != i] for i in range(n)]
    return np.array([[i, *rest] for i, rest in enumerate(others)])


def _list_seen(
    place: Int[Array, "P K 2"], level: Int[Array, "*P K"], seen: Bool[Array, "P K"]
) -> Int[Array, "P K 3"]:
    """Return the features of seen entities without gaps, then ``UNSEEN`` for the others."""
    levels = jnp.broadcast_to(level, seen.shape)[..., None]
    features = jnp.concatenate([place, levels], axis=-1) - UNSEEN
    count = seen.shape[1]
    rank = jnp.cumsum(seen, axis=1) - 1
    is_at = seen[:, None] & (rank[:, None] == jnp.arange(count)[:, None])  # [P, K, K]
    return UNSEEN + jnp.where(is_at[..., None], features[:, None], 0).sum(2)
