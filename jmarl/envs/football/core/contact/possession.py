"""Distances to the ball, its last toucher, the player who runs with it, and its owner."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import vectors
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    members,
    pick,
    pick_vector,
)


CONTROL = 2.6
"""Distance up to which the last toucher runs after the ball, in meters."""
CONTROL_SPEED = 6.5
"""Speed relative to the player beyond which the ball has left him, m/s."""
CONTROL_HEIGHT = 1.0
"""Height from which the ball has left him, in meters."""
FOOT_HEIGHT, HEAD_HEIGHT = 0.6, 1.9
"""Heights of the ball up to which a foot and a head play it, in meters."""
OWNER_RANGE = 5.0
"""Largest distance of the ball from its owner, in meters (GRF's test, as the next four)."""
OWNER_HEIGHT = 0.5
"""Largest height of an owned ball, in meters."""
OWNER_SPEED = 6.0
"""Largest speed of the ball relative to its owner, m/s."""
OWNER_LEAD = 1.0
"""Largest distance of the ball from a point ahead of its owner, in meters."""
AHEAD_TIME, AHEAD_FACE = 0.05, 0.1
"""That point: way of the player in seconds, and a way in his direction in meters."""


def to_ball(world: World) -> Vector:
    """Return the way of each player to the ball, in meters."""
    return vectors.minus(world.ball_place, world.place)


def distance(world: World) -> Float[Array, "P *b"]:
    """Return the horizontal distance of each player to the ball, in meters."""
    return vectors.length(to_ball(world))


def swept_distance(
    world: World,
    before: Float[Array, "3 *b"],
) -> Float[Array, "P *b"]:
    """Return the least distance of each player to the path of the ball in the substep."""
    nearest = nearest_point(world, before)
    return vectors.length(vectors.minus(world.place, nearest))


def nearest_point(world: World, before: Float[Array, "3 *b"]) -> Vector:
    """Return the point of the path of the ball in the substep nearest to each player."""
    way = world.ball[:2] - before[:2]
    square = jnp.maximum(
        jnp.sum(way**2, axis=0),
        1e-9,
    )
    dx, dy = world.x - before[0], world.y - before[1]
    part = jnp.clip(
        (dx * way[0] + dy * way[1]) / square,
        0.0,
        1.0,
    )
    return before[0] + part * way[0], before[1] + part * way[1]


def relative_speed(
    world: World,
    who: Bool[Array, "P *b"],
) -> Float[Array, "*b"]:
    """Return the horizontal speed of the ball relative to a player, m/s."""
    velocity = pick_vector(world.velocity, who)
    return vectors.length(vectors.minus(world.roll, velocity))


def rolls_faster(world: World, speed: float) -> Bool[Array, "*b"]:
    """Return whether the horizontal speed of the ball exceeds a value in m/s."""
    return jnp.sum(world.ball_v[:2] ** 2, axis=0) > speed**2


def last_toucher(world: World) -> Bool[Array, "P *b"]:
    """Return the mask of the player who touched the ball last."""
    return members(world.last_touch, len(world.x))


def carrier(world: World) -> Bool[Array, "P *b"]:
    """Return the mask of the player who runs with the ball: he has played it and is near."""
    last = last_toucher(world)
    near = pick(distance(world), last) < CONTROL
    slow = relative_speed(world, last) < CONTROL_SPEED
    high = world.ball[2] >= CONTROL_HEIGHT
    free = world.bounced | (world.held > 0) | high
    return last & near & slow & ~free


def owner(world: World) -> Array:
    """Return the index of the player who owns the ball, or ``NOBODY``, int8.

    The owner is the last toucher as long as the ball is near and slow relative to him, or a keeper
    who holds it (GRF's test).
    """
    last = last_toucher(world)
    way_x, way_y = to_ball(world)
    ahead_x = way_x - AHEAD_TIME * world.vx - AHEAD_FACE * world.face_x
    ahead_y = way_y - AHEAD_TIME * world.vy - AHEAD_FACE * world.face_y
    lead = pick(vectors.length((ahead_x, ahead_y)), last)
    owns = pick(distance(world), last) <= OWNER_RANGE
    owns &= (world.ball[2] <= OWNER_HEIGHT) & (lead <= OWNER_LEAD)
    owns &= relative_speed(world, last) <= OWNER_SPEED
    owns = (owns & (world.last_touch >= 0) & ~world.bounced) | (world.held > 0)
    return jnp.where(owns, world.last_touch, NOBODY).astype(jnp.int8)
