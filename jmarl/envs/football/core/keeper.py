"""The keeper: where he stands, how he rushes at the ball, and what he saves.

The position is a law of Google Research Football (GRF); reach and saves are fits to measurements
of shots against its keeper.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch, vectors
from jmarl.envs.football.core.ball import GRAVITY
from jmarl.envs.football.core.player_commands import SPRINT
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand, pick_vector


BASE = pitch.HALF_LENGTH - 0.7
"""|x| of the point in front of which a keeper stands, in meters."""
LEAST_DEPTH = 0.7
"""Least distance from that point, in meters."""
IDLE_DEPTH = 8.7
"""Further distance while the ball is far, in meters."""
NEAR, FAR = 30.0, 45.0
"""Distances of the ball to the goal line between which a keeper comes out, in meters."""
NEAR_POST = 2.7
"""Factor of the shift to the near post."""
GAIN = 2.6
"""Speed per meter that a keeper is out of place, 1/s."""
DEAD_ZONE = 0.25
"""Distance from his place at which a keeper stands still, in meters."""
RUSH_GAP = 0.5
"""Distance to the ball to which a rushing keeper goes, in meters."""
LARGEST_SHIFT = pitch.GOAL_HALF_WIDTH - 0.7
"""Largest shift to the near post, in meters."""
THREAT_RANGE, THREAT_SPEED = 32.0, 8.0
"""Distance of a shot to which a keeper reacts, in meters, and its least speed to the goal, m/s."""
THREAT_WIDTH, THREAT_HEIGHT = pitch.GOAL_HALF_WIDTH * 1.15, 3.2
"""|y| and height at the goal line up to which a keeper reacts, in meters: beyond the frame."""
REACH = 1.9
"""Distance that a keeper reaches with a dive, in meters."""
STANDING_REACH = 0.3
"""Distance that a keeper reaches without a dive, in meters."""
REACH_HEIGHT = 2.4
"""Height up to which a keeper reaches the ball, in meters."""
REFRACTORY = 0.3
"""Seconds since the keeper's last touch before he saves."""
DIVE_SPEED = 6.0
"""Growth of the reach after the reaction, m/s."""
REACTION = 0.3
"""Seconds after the kick before a keeper dives."""
SAVE = 0.53
"""Probability that a keeper stops a ball within reach, drawn once for each kick."""
SHOT_SPEED = 5.0
"""Least speed of the ball towards the goal line at which a keeper dives, m/s."""
HOLD_SPEED = 28.0
"""Relative speed from which a keeper cannot hold the ball, m/s."""
HOLD_TIME = 1.5
"""Seconds for which a scripted keeper holds the ball at least."""


class Goal(NamedTuple):
    """A team's own goal, seen by each player."""

    x: Float[Array, "P *b"]
    """x of the own goal line, meters."""
    threatened: Bool[Array, "P *b"]
    """The ball moves towards the goal, inside its frame."""
    cross_y: Float[Array, "P *b"]
    """y at which the ball crosses the line."""


def own_goal(setup: Setup, world: World) -> Goal:
    """Return the own goal of each player, and whether a shot threatens it."""
    sign = expand(setup.sign, world.x)
    x = -sign * pitch.HALF_LENGTH + jnp.zeros_like(world.x)
    closing = -sign * world.ball_v[0]
    way = jnp.abs(x - world.ball[0])
    time = way / jnp.maximum(closing, 1e-3)
    cross_y = world.ball[1] + world.ball_v[1] * time
    cross_z = world.ball[2] + world.ball_v[2] * time - GRAVITY / 2 * time**2
    bound = (jnp.abs(cross_y) < THREAT_WIDTH) & (cross_z < THREAT_HEIGHT)
    fast = (closing > THREAT_SPEED) & (way < THREAT_RANGE)
    return Goal(x, bound & fast, cross_y)


def place(
    setup: Setup,
    world: World,
    goal: Goal,
    alone: Bool[Array, "P *b"],
) -> Vector:
    """Return where each player would stand as a keeper.

    Args:
        setup: Scenario and options.
        world: Current state.
        goal: Own goals.
        alone: The opponent with the ball has no defender before him and no free teammate, so
            that a keeper rushes at him.
    """
    sign = expand(setup.sign, world.x)
    dx, by = jnp.abs(goal.x - world.ball[0]), world.ball[1]
    near = vectors.length((dx, jnp.abs(by) - pitch.GOAL_HALF_WIDTH))
    far = vectors.length((dx, jnp.abs(by) + pitch.GOAL_HALF_WIDTH))
    shift = NEAR_POST * pitch.GOAL_HALF_WIDTH * (far - near) / (far + near)
    base_x = -sign * BASE
    base_y = jnp.sign(by) * jnp.minimum(shift, LARGEST_SHIFT)
    to_ball = world.ball[0] - base_x, by - base_y
    idle = LEAST_DEPTH + IDLE_DEPTH * jnp.clip((dx - NEAR) / (FAR - NEAR), 0.0, 1.0)
    depth = jnp.where(
        alone,
        jnp.maximum(vectors.length(to_ball) - RUSH_GAP, LEAST_DEPTH),
        idle,
    )
    out_x, out_y = vectors.resized(to_ball, depth)
    return vectors.where(
        goal.threatened,
        nearest_on_path(world),
        (base_x + out_x, base_y + out_y),
    )


def pace(world: World, place: Vector) -> Vector:
    """Return the velocity of a keeper who goes to a place."""
    way = vectors.minus(place, world.place)
    apart = vectors.length(way)
    speed = jnp.where(
        apart < DEAD_ZONE,
        0.0,
        jnp.minimum(GAIN * apart, SPRINT),
    )
    ratio = speed / jnp.maximum(apart, vectors.LEAST_LENGTH)
    return way[0] * ratio, way[1] * ratio


def saves(
    setup: Setup,
    world: World,
    apart: Float[Array, "P *b"],
    since_kick: Float[Array, "*b"],
) -> Bool[Array, "P *b"]:
    """Return the mask of the keepers who stop the ball with their hands in this substep.

    Args:
        setup: Scenario and options.
        world: Current state.
        apart: Least distance of each player to the path of the ball in the substep, meters.
        since_kick: Seconds since the ball was last played.
    """
    sign = expand(setup.sign, apart)
    inside = (-sign * world.ball[0] > pitch.BOX_X) & (
        jnp.abs(world.ball[1]) < pitch.BOX_Y
    )
    dive = DIVE_SPEED * jnp.clip(since_kick - REACTION, 0.0, None)
    reach = jnp.minimum(STANDING_REACH + dive, REACH)
    able = expand(setup.keeper, apart) & world.active & (world.busy <= 0) & inside
    able &= (apart < reach) & (world.ball[2] < REACH_HEIGHT) & (world.held <= 0)
    comes = -sign * world.ball_v[0] > SHOT_SPEED
    return able & comes & (world.luck < SAVE) & (world.touched > REFRACTORY)


def holds(
    world: World,
    who: Bool[Array, "P *b"],
) -> Bool[Array, "*b"]:
    """Return whether a keeper catches the ball; otherwise he parries it."""
    dx, dy = vectors.minus(world.roll, pick_vector(world.velocity, who))
    return dx**2 + dy**2 < HOLD_SPEED**2


def nearest_on_path(world: World) -> Vector:
    """Return the point of the path of the ball that is nearest to each player."""
    vx, vy = world.roll
    square = jnp.maximum(vx**2 + vy**2, 1e-3)
    dx, dy = world.x - world.ball[0], world.y - world.ball[1]
    part = jnp.clip(
        (dx * vx + dy * vy) / square,
        0.0,
        None,
    )
    return world.ball[0] + part * vx, world.ball[1] + part * vy
