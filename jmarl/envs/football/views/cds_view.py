"""The vectors of CDS's wrapper of Google Research Football.

Each agent sees its own x and y | those of the other agents relative to it | its direction | those
of the other agents | x and y of the right team relative to it | their directions | x and y of the
ball relative to it, and z | its direction. The own keeper is left out.

The central state has the agents' x and y | their directions | those of the right team | the ball |
its direction, in absolute coordinates. Players who are not active or out of sight are zero.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.views.flat_view import FlatView
from jmarl.envs.football.views.sight import Sight


BALL_WIDTH = 6


def _width(setup: Setup) -> int:
    """Return two positions and two velocities of each player, and the ball."""
    shown = setup.n_players - 1  # the own keeper is left out
    return 4 * shown + BALL_WIDTH


def _own(sight: Sight) -> Float[Array, "*b N F"]:
    """Return the vector of each agent."""
    position, velocity = _motion(sight)  # [P, 2, *b] each
    origin = sight.agents(position)
    seen = sight.by_slot(sight.sees)[:, :, None]
    relative = sight.by_slot(position) - origin[:, None]
    positions = jnp.where(seen, relative, 0.0)  # [N, S, 2, *b]
    velocities = jnp.where(seen, sight.by_slot(velocity), 0.0)
    n = sight.setup.scenario.n_agents
    mates = slice(0, n - 1)
    right = slice(n, None)
    parts = [
        origin,
        positions[:, mates],
        sight.agents(velocity),
        velocities[:, mates],
        positions[:, right],
        velocities[:, right],
        _relative_ball(sight),
    ]
    batch = sight.view.owner.shape
    flat = [part.reshape(n, -1, *batch) for part in parts]
    return sight.to_front(jnp.concatenate(flat, axis=1))


def _motion(sight: Sight) -> tuple[Array, Array]:
    """Return position and velocity of all players, ``[P, 2, *b]`` each."""
    view = sight.view
    position = jnp.stack(
        [view.x, view.y],
        axis=1,
    )
    velocity = jnp.stack(
        [view.vx, view.vy],
        axis=1,
    )
    return position, velocity


def _relative_ball(sight: Sight) -> Float[Array, "N 6 *b"]:
    """Return the ball relative to each agent, its height, and its direction."""
    x, y = sight.ball_x, sight.ball_y
    view = sight.view
    columns = jnp.broadcast_arrays(
        x,
        y,
        view.ball[2],
        *view.ball_v,
    )
    ball = jnp.stack(columns, axis=1)
    return jnp.where(
        sight.sees_ball[:, None],
        ball,
        0.0,
    )


def _central(sight: Sight) -> Float[Array, "*b F"]:
    """Return the players but the own keeper, and the ball, in absolute coordinates."""
    view = sight.view
    left = slice(1, sight.setup.n_left)
    right = slice(sight.setup.n_left, None)
    active = view.active[:, None]
    shown = [jnp.where(active, x, 0.0) for x in _motion(sight)]
    players = [x[team] for team in (left, right) for x in shown]
    parts = [*players, view.ball, view.ball_v]
    flat = [part.reshape(-1, *view.owner.shape) for part in parts]
    return sight.to_front(jnp.concatenate(flat))


VIEW = FlatView(_width, _width, _own, _central)
