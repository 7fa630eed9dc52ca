"""Motion of the players: a fit to measurements of Google Research Football (GRF).

Differs from GRF: there are no animations. A player accelerates by a law of his speed, brakes by
another, and reacts to a command with a delay.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch, vectors
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand, is_opening


TOP_SPEED = 7.87
"""Mean over the ten profiles of GRF, m/s."""
LATENCY = 0.1
"""Seconds until a moving player reacts to a command."""
START_LATENCY = 0.04
"""Seconds until a player at rest reacts to a command."""
HEAD_START = 1.6
"""Factor of the first acceleration of an episode: GRF moves before its first observation."""
LEAST_WISH = 1e-3
"""Desired speed above which a player wants to move, m/s."""
REST_SPEED = 0.5
"""Speed below which a player is at rest, m/s."""
BRAKING = 26.0
"""Deceleration against and across the desired direction, m/s^2."""
STOPPING = 20.0
"""Deceleration of a player who wants to stop, m/s^2."""
CARRIER_BRAKING = 13.0
"""The same for the player who runs with the ball."""
SIDESTEP = 0.5
"""Ratio of the component of a push to the side to the one that separates two players."""
RADIUS = 0.36
"""Radius of a player, meters."""

SLOWEST = 0.94
"""Factor of the acceleration of a team at difficulty 0 (GRF scales the profiles of its players)."""

_SPEED = np.asarray(
    [0.0, 2.9, 3.25, 4.0, 4.9, 5.94, 6.8, 7.34, 7.87],
    np.float32,
)
_GAIN = np.asarray(
    [11.6, 10.0, 7.8, 6.6, 4.7, 3.9, 2.8, 1.5, 0.2],
    np.float32,
)


def acceleration(
    speed: Float[Array, "P *b"], difficulty: Float[Array, "P *b"]
) -> Float[Array, "P *b"]:
    """Return the acceleration in the desired direction, m/s^2.

    Args:
        speed: Component of the velocity in the desired direction, m/s.
        difficulty: Difficulty of the team, which scales the profile of its players.
    """
    gain = jnp.full_like(speed, _GAIN[0])
    slopes = np.diff(_GAIN) / np.diff(_SPEED)
    change = np.diff(slopes, prepend=0.0)
    for knot, bend in zip(_SPEED, change, strict=False):
        gain = gain + float(bend) * jnp.maximum(speed - float(knot), 0.0)
    return jnp.maximum(gain, 0.0) * (SLOWEST + (1 - SLOWEST) * difficulty)


def accelerate(
    setup: Setup,
    world: World,
    wish: Vector,
    carries: Bool[Array, "P *b"],
    h: float,
) -> World:
    """Advance velocities towards the desired ones, and positions.

    Args:
        setup: Scenario and options.
        world: Current state.
        wish: Desired velocity, m/s.
        carries: Mask of the player who runs with the ball.
        h: Seconds.
    """
    wish = _cut_at_lines(world, wish)
    target = vectors.length(wish)
    moves = target > LEAST_WISH
    ahead = vectors.direction_or(wish, LEAST_WISH, world.face)
    along, across = _components(world, ahead)
    brake = jnp.where(moves, BRAKING, STOPPING)
    brake = jnp.where(carries, CARRIER_BRAKING, brake) * h
    starts = is_opening(world) & (world.steps == 0)
    boost = jnp.where(starts, HEAD_START, 1.0)
    gain = acceleration(along, expand(setup.difficulty, along)) * boost * h
    gain = jnp.where(along < 0, brake, gain)
    limit = jnp.minimum(target, TOP_SPEED)
    along = jnp.where(
        along < limit,
        jnp.minimum(along + gain, limit),
        jnp.maximum(along - brake, limit),
    )
    across = jnp.sign(across) * jnp.maximum(jnp.abs(across) - brake, 0.0)
    vx, vy = vectors.rotated(ahead, along, across)
    vx, vy = jnp.where(world.active, vx, 0.0), jnp.where(world.active, vy, 0.0)
    face_x, face_y = vectors.direction_or((vx, vy), REST_SPEED, world.face)
    return world.replace(
        x=world.x + vx * h,
        y=world.y + vy * h,
        vx=vx,
        vy=vy,
        face_x=face_x,
        face_y=face_y,
    )


def _components(world: World, ahead: Vector) -> tuple[Array, Array]:
    """Return the components of the velocities in a direction and across it."""
    across = world.vy * ahead[0] - world.vx * ahead[1]
    return vectors.dot(world.velocity, ahead), across


def separate(world: World) -> World:
    """Push apart players who overlap, each by half of the overlap.

    The push has a component to the side, so that players who meet head-on pass each other.
    """
    dx, dy = world.x[:, None] - world.x[None], world.y[:, None] - world.y[None]
    gap = vectors.length((dx, dy))
    both = world.active[:, None] & world.active[None]
    others = ~np.eye(len(world.x), dtype=bool)
    overlap = jnp.maximum(2 * RADIUS - gap, 0.0) * (both & expand(others, world.x))
    push = overlap / (2 * jnp.maximum(gap, vectors.LEAST_LENGTH))
    push_x, push_y = dx - SIDESTEP * dy, dy + SIDESTEP * dx
    return world.replace(
        x=world.x + jnp.sum(push * push_x, axis=1),
        y=world.y + jnp.sum(push * push_y, axis=1),
    )


def _cut_at_lines(world: World, wish: Vector) -> Vector:
    """Remove the outward component of a command beyond the lines."""
    x, y = wish
    leaves_x = (jnp.abs(world.x) > pitch.HALF_LENGTH) & (x * world.x > 0)
    leaves_y = (jnp.abs(world.y) > pitch.HALF_WIDTH) & (y * world.y > 0)
    return jnp.where(leaves_x, 0.0, x), jnp.where(leaves_y, 0.0, y)
