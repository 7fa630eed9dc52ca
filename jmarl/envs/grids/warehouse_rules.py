"""Rules of a warehouse, those of the package ``rware`` 2.0: state, step and observations.

Robots drive on a grid, pick shelves up and put them down. Some shelves are requested. A robot that
brings a requested shelf to a goal has a reward of 1, and another shelf is requested instead.
Robots without a load drive below shelves.

Shelves differ only in whether they are requested, so a grid of ``NO_SHELF``, ``SHELF`` and
``REQUESTED`` describes them, carried ones included.

Differs from ``rware``: the time limit truncates. Equally long chains of robots in small parts of a
crowd have another order (``warehouse_moves``).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl.envs.grids.cell_draws import pack, select_cell
from jmarl.envs.grids.warehouse_layout import Layout
from jmarl.envs.grids.warehouse_moves import mention_order, resolve


STAY, FORWARD, TURN_LEFT, TURN_RIGHT, TOGGLE_LOAD = range(5)
N_ACTIONS = 5
NO_SHELF, SHELF, REQUESTED = range(3)
TURNS = np.array(
    [
        [2, 3, 1, 0],
        [3, 2, 0, 1],
    ],
    np.int32,
)
"""Direction after a left and after a right turn, by direction (up, down, left, right)."""
OWN_WIDTH, CELL_WIDTH = 8, 7
OBS_WIDTH = OWN_WIDTH + 9 * CELL_WIDTH
"""Features of a robot: its own, and those of the nine cells around it."""


class State(struct.PyTreeNode):
    """State of one warehouse with N robots and C cells."""

    cell: Int[Array, "N"]
    """Cell of each robot, see ``Layout``."""
    direction: Int[Array, "N"]
    carrying: Bool[Array, "N"]
    shelves: Int[Array, "C"]
    """``NO_SHELF``, ``SHELF`` or ``REQUESTED`` of each cell."""
    delivered: Int[Array, ""]
    """Number of deliveries of the team in the episode."""


class Advance(NamedTuple):
    """Result of a step."""

    state: State
    reward: Float[Array, "N"]


def first_state(
    layout: Layout, n_agents: int, requests: int, key: Keys[Array, ""]
) -> State:
    """Draw the start of an episode: cells, directions and requests, each uniformly."""
    place_key, turn_key, request_key = jax.random.split(key, 3)
    floor = np.flatnonzero(layout.floor).astype(np.int32)
    homes = np.flatnonzero(~layout.highway).astype(np.int32)
    chosen = jax.random.permutation(request_key, homes)[:requests]
    shelves = jnp.asarray(
        np.where(layout.highway, NO_SHELF, SHELF),
        jnp.int32,
    )
    return State(
        cell=jax.random.permutation(place_key, floor)[:n_agents],
        direction=jax.random.randint(turn_key, (n_agents,), 0, 4),
        carrying=jnp.zeros(n_agents, bool),
        shelves=shelves.at[chosen].set(REQUESTED),
        delivered=jnp.int32(0),
    )


def advance(
    layout: Layout,
    state: State,
    action: Int[Array, "N"],
    draws: Float[Array, "2"],
    order: Int[Array, "N"] | None = None,
) -> Advance:
    """Advance a warehouse by one step.

    Args:
        layout: Floor of the warehouse.
        state: State before the step.
        action: ``STAY``, ``FORWARD``, ``TURN_LEFT``, ``TURN_RIGHT`` or ``TOGGLE_LOAD``.
        draws: Numbers in [0, 1) that select the next request after a delivery at each goal.
        order: Rank of the robots among equally long chains, by default ``mention_order``.
    """
    target = targets(layout, state, action)
    if order is None:
        order = mention_order(state.cell, target)
    moves = resolve(state.cell, target, order)
    cell = jnp.where(moves, target, state.cell)
    moved = state.replace(
        cell=cell,
        direction=_turn(state.direction, action),
        carrying=_load(layout, state, action),
        shelves=_carry(state, moves, cell),
    )
    return _deliver(layout, moved, draws)


def targets(
    layout: Layout,
    state: State,
    action: Int[Array, "N"],
) -> Int[Array, "N"]:
    """Return the cell that each robot wants to enter, or its own.

    A robot with a load does not try to enter a cell with a shelf, unless another robot carries it.
    """
    ahead = state.cell + jnp.asarray(layout.offsets)[state.direction]
    is_carried = ((ahead[:, None] == state.cell) & state.carrying).any(1)
    blocked = state.carrying & (state.shelves[ahead] != NO_SHELF) & ~is_carried
    enters = (action == FORWARD) & jnp.asarray(layout.floor)[ahead] & ~blocked
    return jnp.where(enters, ahead, state.cell)


def _turn(
    direction: Int[Array, "N"],
    action: Int[Array, "N"],
) -> Int[Array, "N"]:
    left, right = jnp.asarray(TURNS)
    turned = jnp.where(action == TURN_LEFT, left[direction], direction)
    return jnp.where(action == TURN_RIGHT, right[direction], turned)


def _load(
    layout: Layout,
    state: State,
    action: Int[Array, "N"],
) -> Bool[Array, "N"]:
    """Return the mask of robots with a load after picking up and putting down."""
    keeps = jnp.asarray(layout.highway)[state.cell]
    toggled = jnp.where(
        state.carrying,
        keeps,
        state.shelves[state.cell] != NO_SHELF,
    )
    return jnp.where(action == TOGGLE_LOAD, toggled, state.carrying)


def _carry(
    state: State, moves: Bool[Array, "N"], cell: Int[Array, "N"]
) -> Int[Array, "C"]:
    """Return the shelves after robots with a load have moved to ``cell``."""
    carries = state.carrying & moves
    own = state.shelves[state.cell]
    left = state.shelves.at[state.cell].set(jnp.where(carries, NO_SHELF, own))
    return left.at[cell].set(jnp.where(carries, own, left[cell]))


def _deliver(
    layout: Layout,
    state: State,
    draws: Float[Array, "2"],
) -> Advance:
    """Reward robots with a requested shelf on a goal, and request other shelves, goal by goal."""
    reward = jnp.zeros(state.cell.shape)
    shelves, delivered = state.shelves, state.delivered
    for goal, draw in zip(layout.goals, draws, strict=True):
        is_delivery = shelves[goal] == REQUESTED
        reward = reward + (is_delivery & (state.cell == goal))
        delivered = delivered + is_delivery
        free = (shelves == SHELF).reshape(-1, layout.stride)
        row, column = select_cell(pack(free), draw)
        new = row * layout.stride + column
        changed = shelves.at[goal].set(SHELF).at[new].set(REQUESTED)
        shelves = jnp.where(is_delivery, changed, shelves)
    return Advance(
        state.replace(shelves=shelves, delivered=delivered),
        reward,
    )


def observe(
    layout: Layout,
    state: State,
) -> Float[Array, "N F"]:
    """Return the features of ``rware`` for a sensor range of 1, with F = 71.

    Own features: x, y, load, direction as one-hot of four, highway. For each of the nine cells,
    row by row: robot, its direction, shelf, request. A cell without a robot has direction up.
    """
    facts = np.concatenate(
        [layout.place(np.arange(layout.n_cells)), layout.highway[:, None]], axis=1
    )
    x, y, highway = jnp.asarray(facts, jnp.float32)[state.cell].T
    heading = jax.nn.one_hot(state.direction, 4)
    own = [
        x[:, None],
        y[:, None],
        state.carrying[:, None],
        heading,
        highway[:, None],
    ]
    window = state.cell[:, None] + layout.window  # [N, 9]
    robots = (
        jnp.zeros(layout.n_cells, jnp.int32).at[state.cell].set(state.direction + 1)
    )
    seen = robots[window]
    shelf = state.shelves[window]
    cells = [
        seen[..., None] > 0,
        jnp.maximum(seen - 1, 0)[..., None] == jnp.arange(4),
        shelf[..., None] != NO_SHELF,
        shelf[..., None] == REQUESTED,
    ]
    around = jnp.concatenate(cells, axis=-1).reshape(len(state.cell), -1)
    return jnp.concatenate(
        [*own, around],
        axis=-1,
        dtype=jnp.float32,
    )
