"""The race to the ball: who reaches it first, and where."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import ball as free_ball
from jmarl.envs.football.core import vectors
from jmarl.envs.football.core.player_commands import SPRINT
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand, first_of, members


REACH = 0.28
"""Distance at which a player has reached the ball, in meters."""
CHASE_SPEED = 6.0
"""Speed that the race to the ball expects of a player, m/s."""
MOMENTUM = 0.2
"""Seconds for which a player runs on before he runs to the ball."""
REACHABLE = 2.0
"""Height up to which a player reaches the ball, in meters."""
TOO_HIGH = 3.0
"""Seconds that a place counts as later if the ball is higher there."""
EXPECTS = 0.3
"""Seconds by which the receiver of a pass counts as earlier."""
ALMOST_FREE = 0.1
"""Seconds of a slide or a kick after which a player may be the first, at most."""
LATE = 0.3
"""Seconds by which a player may be later than the opponents and still goes to the ball."""
LEAST_SPEED, SPEED_GAIN = 1.0, 4.0
"""Speed of a player at the ball to which he runs, m/s, and its growth with the distance, 1/s."""


class Race(NamedTuple):
    """The race to the ball."""

    x: Float[Array, "P *b"]
    """Where each player reaches it, meters."""
    y: Float[Array, "P *b"]
    first: Bool[Array, "P *b"]
    """Mask of the first player of each team."""
    ahead: Bool[Array, "P *b"]
    """The first player of the own team is there before the opponents, or hardly later."""
    wins: Bool[Array, "P *b"]
    """He is there before them."""


def race(setup: Setup, world: World) -> Race:
    """Forecast who reaches the ball first."""
    x, y, least = _meeting(world)
    # The player to whom a pass was played does not wait for a nearer one.
    time = least - EXPECTS * members(world.receiver, len(world.x))
    able = world.active & (world.busy <= ALMOST_FREE)
    teams = [able & (expand(setup.side, time) == side) for side in (0, 1)]
    best = [jnp.min(jnp.where(team, time, jnp.inf), axis=0) for team in teams]
    first = first_of(time, teams[0]) | first_of(time, teams[1])
    is_left = expand(setup.side, time) == 0
    margin = jnp.where(
        is_left,
        best[1] - best[0],
        best[0] - best[1],
    )
    return Race(x, y, first, margin > -LATE, margin > 0)


def _meeting(world: World) -> tuple[Array, Array, Array]:
    """Return the place at which each player reaches the ball, x and y, and the time."""
    path = free_ball.forecast(world.ball, world.ball_v)
    times = free_ball.TIMES.reshape((-1,) + (1,) * world.x.ndim)
    dx = path.x[:, None] - world.x - MOMENTUM * world.vx
    dy = path.y[:, None] - world.y - MOMENTUM * world.vy
    way = vectors.length((dx, dy)) - REACH
    needed = jnp.maximum(times, way / CHASE_SPEED)  # [J, P, *b]
    needed += TOO_HIGH * (path.z[:, None] > REACHABLE)
    least = jnp.min(needed, axis=0)
    chosen = needed == least
    count = jnp.sum(chosen, axis=0)
    x = jnp.sum(jnp.where(chosen, path.x[:, None], 0.0), axis=0) / count
    y = jnp.sum(jnp.where(chosen, path.y[:, None], 0.0), axis=0) / count
    return x, y, least


def chase(world: World, sprint: Race) -> Vector:
    """Return the velocity of a player who runs to where he reaches the ball."""
    return vectors.approach(
        vectors.minus((sprint.x, sprint.y), world.place),
        limit=SPRINT,
        gain=SPEED_GAIN,
        slowest=LEAST_SPEED,
    )
