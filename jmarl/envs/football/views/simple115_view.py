"""The vector ``simple115v2`` of Google Research Football, with its indices.

    0-21    x and y of the left team's 11 players        88-90   ball: x, y and z
    22-43   their directions                             91-93   its direction
    44-65   x and y of the right team                    94-96   owner: nobody, left, right
    66-87   their directions                             97-107  active player, one-hot
                                                         108-114 game mode, one-hot

Players that do not exist, were sent off or are out of sight are -1. So is a ball out of sight, of
which the owner is zero. The central state is the same vector without an active player.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.scenarios.football_scenario import MAX_PLAYERS
from jmarl.envs.football.views.flat_view import FlatView
from jmarl.envs.football.views.sight import Sight


WIDTH = 115
MISSING = -1.0


def _width(setup: Setup) -> int:
    return WIDTH


def _own(sight: Sight) -> Float[Array, "*b N F"]:
    """Return the vector of each agent."""
    n_left = sight.setup.n_left
    active = np.eye(MAX_PLAYERS)[1:n_left]
    return _vectors(sight, sight.sees, sight.sees_ball, active)


def _central(sight: Sight) -> Float[Array, "*b F"]:
    """Return the vector of an observer who sees everything and is no player."""
    sees = sight.view.active[None]
    sees_ball = jnp.ones_like(sight.free)[None]
    nobody = np.zeros((1, MAX_PLAYERS))
    vectors = _vectors(sight, sees, sees_ball, nobody)
    return vectors[..., 0, :]


def _vectors(
    sight: Sight,
    sees: Bool[Array, "K P *b"],
    sees_ball: Bool[Array, "K *b"],
    active: np.ndarray,
) -> Float[Array, "*b K F"]:
    """Return the vectors of K observers, given their indices as one-hots ``[K, 11]``."""
    view = sight.view
    positions = _block(sees, view.x, view.y)
    directions = _block(sees, view.vx, view.vy)
    left = slice(0, sight.setup.n_left)
    right = slice(sight.setup.n_left, None)
    ball = jnp.concatenate([view.ball, view.ball_v])
    sees_ball = sees_ball[:, None]
    ones = [1] * sight.n_batch
    parts = [
        _pad(positions[:, left]),
        _pad(directions[:, left]),
        _pad(positions[:, right]),
        _pad(directions[:, right]),
        jnp.where(sees_ball, ball, MISSING),
        sees_ball & jnp.stack(sight.owner_team),
        active.reshape(*active.shape, *ones),
        jnp.stack(sight.modes)[None],
    ]
    return sight.to_front(_join(parts, view.owner.shape))


def _join(
    parts: list,
    batch: tuple[int, ...],
) -> Float[Array, "K F *b"]:
    """Concatenate features ``[K or 1, f, *b or 1]``, for all observers and the whole batch."""
    n_observers = parts[0].shape[0]
    shapes = [(n_observers, part.shape[1], *batch) for part in parts]
    wide = map(jnp.broadcast_to, parts, shapes)
    floats = [x.astype(jnp.float32) for x in wide]
    return jnp.concatenate(floats, axis=1)


def _block(
    sees: Array,
    first: Array,
    second: Array,
) -> Float[Array, "K P 2 *b"]:
    """Return two values of each player; those of players out of sight are missing."""
    pairs = jnp.stack([first, second], axis=1)
    return jnp.where(
        sees[:, :, None],
        pairs,
        MISSING,
    )


def _pad(team: Float[Array, "K n 2 *b"]) -> Float[Array, "K 22 *b"]:
    """Return the pairs of a team in turn, filled up to eleven players."""
    n_observers, n, _, *batch = team.shape
    shape = (n_observers, MAX_PLAYERS - n, 2, *batch)
    missing = jnp.full(shape, MISSING)
    full = jnp.concatenate([team, missing], axis=1)
    return full.reshape(n_observers, 2 * MAX_PLAYERS, *batch)


VIEW = FlatView(_width, _width, _own, _central)
