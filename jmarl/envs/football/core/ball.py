"""Free flight of the ball, its forecast, and the goal.

Gravity, drag, friction on grass and bounces follow the constants of Google Research Football
(GRF). Differs from GRF: the ball has no spin, so it does not swerve.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch, vectors


GRAVITY = 9.81
DRAG = 0.015
"""Deceleration by the air, per meter."""
GRASS_DRAG = 0.04
"""Deceleration by grass that grows with the square of the speed, per meter."""
GRASS_FRICTION = 1.6
"""Constant deceleration by grass, m/s^2."""
GRASS_HEIGHT = 0.025
"""Height below which grass slows the ball, in meters."""
GRASS_POWER = 0.7
"""Power of the depth of the ball in the grass, in units of that height, with which it slows."""
RESTITUTION = 0.62
"""Part of the vertical speed that a bounce keeps."""
REBOUND_LOSS = 0.06
"""Vertical speed that a bounce loses besides, m/s."""
POST_SPEED = 0.8
"""Fraction of the speed that remains after a hit of a post or the bar."""
POST_REACH = 0.07 + pitch.BALL_RADIUS
"""Distance between the axis of a post and the center of the ball at contact, in meters."""

TIMES = np.asarray(
    [0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0],
    np.float32,
)
"""Times of the forecast, in seconds."""

_ROLL = (GRASS_FRICTION / (DRAG + GRASS_DRAG)) ** 0.5
_RATE = (GRASS_FRICTION * (DRAG + GRASS_DRAG)) ** 0.5


class Forecast(NamedTuple):
    """Path of a ball that nobody touches, at ``TIMES``."""

    x: Float[Array, "J *b"]
    y: Float[Array, "J *b"]
    z: Float[Array, "J *b"]


def fly(
    ball: Float[Array, "3 *b"], velocity: Float[Array, "3 *b"], h: float
) -> tuple[Float[Array, "3 *b"], Float[Array, "3 *b"]]:
    """Advance a free ball.

    Args:
        ball: Position, meters.
        velocity: Velocity, m/s.
        h: Seconds.

    Returns:
        The position and the velocity.
    """
    speed = jnp.sqrt(jnp.sum(velocity**2, axis=0))
    keep = 1 / (1 + DRAG * speed * h)
    vx, vy, vz = velocity * keep
    height = ball[2] - pitch.BALL_RADIUS
    contact = jnp.clip(1 - height / GRASS_HEIGHT, 0.0, 1.0) ** GRASS_POWER
    flat = vectors.length((vx, vy))
    brake = contact * (GRASS_DRAG * flat**2 + GRASS_FRICTION) * h
    roll = jnp.maximum(flat - brake, 0.0) / jnp.maximum(flat, 1e-6)
    vx, vy = vx * roll, vy * roll
    vz = vz - GRAVITY * h
    x, y, z = ball[0] + vx * h, ball[1] + vy * h, ball[2] + vz * h
    hits = z < pitch.BALL_RADIUS
    rebound = jnp.maximum(
        RESTITUTION * jnp.abs(vz) - REBOUND_LOSS,
        0.0,
    )
    # A ball at rest gains this speed from gravity in one update: it must not hop.
    rebound = jnp.where(rebound > GRAVITY * h, rebound, 0.0)
    vz = jnp.where(hits, rebound, vz)
    z = jnp.maximum(z, pitch.BALL_RADIUS)
    return jnp.stack([x, y, z]), jnp.stack([vx, vy, vz])


def bounce_off_posts(
    before: Float[Array, "3 *b"],
    after: Float[Array, "3 *b"],
    velocity: Float[Array, "3 *b"],
) -> tuple[Float[Array, "3 *b"], Float[Array, "3 *b"]]:
    """Return the position and the velocity of a ball that may have hit a post or a bar."""
    y, z = _at_goal_line(before, after, pitch.HALF_LENGTH)
    crosses = jnp.abs(after[0]) > pitch.HALF_LENGTH
    crosses &= jnp.abs(before[0]) <= pitch.HALF_LENGTH
    post = (jnp.abs(jnp.abs(y) - pitch.GOAL_HALF_WIDTH) < POST_REACH) & (
        z < pitch.GOAL_HEIGHT + POST_REACH
    )
    bar = (jnp.abs(z - pitch.GOAL_HEIGHT) < POST_REACH) & (
        jnp.abs(y) < pitch.GOAL_HALF_WIDTH
    )
    hits = crosses & (post | bar)
    turn = POST_SPEED * jnp.asarray([-1.0, 1.0, 1.0])
    turn = turn.reshape((3,) + (1,) * (velocity.ndim - 1))
    inside = jnp.sign(after[0]) * (2 * pitch.HALF_LENGTH - jnp.abs(after[0]))
    ball = jnp.stack([jnp.where(hits, inside, after[0]), after[1], after[2]])
    return ball, jnp.where(hits, velocity * turn, velocity)


def goal_line(
    before: Float[Array, "3 *b"], after: Float[Array, "3 *b"]
) -> Bool[Array, "*b"]:
    """Return whether the ball went fully over a goal line inside the frame of the goal."""
    y, z = _at_goal_line(before, after, pitch.OUT_X)
    crosses = jnp.abs(after[0]) > pitch.OUT_X
    inside = (jnp.abs(y) < pitch.GOAL_HALF_WIDTH) & (z < pitch.GOAL_HEIGHT)
    return crosses & (jnp.abs(before[0]) <= pitch.OUT_X) & inside


def out_of_play(ball: Float[Array, "3 *b"]) -> Bool[Array, "*b"]:
    """Return whether the ball is fully over a line."""
    return (jnp.abs(ball[0]) > pitch.OUT_X) | (jnp.abs(ball[1]) > pitch.OUT_Y)


def forecast(
    ball: Float[Array, "3 *b"],
    velocity: Float[Array, "3 *b"],
) -> Forecast:
    """Forecast the path of a ball that nobody touches, in closed form, without bounces."""
    times = jnp.asarray(TIMES).reshape((-1,) + (1,) * (ball.ndim - 1))
    vx, vy, vz = velocity
    speed = jnp.maximum(
        vectors.length((vx, vy)),
        1e-6,
    )
    height = jnp.maximum(ball[2] - pitch.BALL_RADIUS, 0.0)
    flight = (vz + jnp.sqrt(vz**2 + 2 * GRAVITY * height)) / GRAVITY
    aloft = jnp.minimum(times, flight)
    way = jnp.log1p(DRAG * speed * aloft) / DRAG
    way += _roll(
        speed / (1 + DRAG * speed * flight),
        times - aloft,
    )
    z = ball[2] + vz * aloft - GRAVITY / 2 * aloft**2
    return Forecast(
        x=ball[0] + vx / speed * way,
        y=ball[1] + vy / speed * way,
        z=jnp.maximum(z, pitch.BALL_RADIUS),
    )


def _roll(
    speed: Float[Array, "*b"], time: Float[Array, "J *b"]
) -> Float[Array, "J *b"]:
    """Return the distance that a ball rolls on grass: the integral of the equation in ``fly``."""
    start = jnp.arctan(speed / _ROLL)
    angle = jnp.maximum(start - _RATE * time, 0.0)
    # cos(angle) / cos(start) is the ratio of sqrt(1 + (v / _ROLL)^2) at both ends.
    return jnp.log(jnp.cos(angle) / jnp.cos(start)) / (DRAG + GRASS_DRAG)


def _at_goal_line(
    before: Float[Array, "3 *b"], after: Float[Array, "3 *b"], x: float
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Return y and z where the segment crosses ``|x|``; arbitrary if it does not."""
    way = jnp.abs(after[0]) - jnp.abs(before[0])
    part = jnp.clip(
        (x - jnp.abs(before[0])) / jnp.maximum(way, 1e-6),
        0.0,
        1.0,
    )
    point = before + part * (after - before)
    return point[1], point[2]
