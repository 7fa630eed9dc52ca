"""Dribbles: where a carrier runs, when he plays the ball, and how he plays it.

He plays the ball ahead, runs after it and plays it again, as in Google Research Football (GRF):
the direction changes only with a touch. The numbers are fits to measurements of GRF's dribbles.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import vectors
from jmarl.envs.football.core.ball import DRAG, GRASS_DRAG, GRASS_FRICTION
from jmarl.envs.football.core.contact import possession
from jmarl.envs.football.core.contact.possession import FOOT_HEIGHT
from jmarl.envs.football.core.player_commands import SPRINT, Commands
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World


REACH = 0.95
"""Distance at which a player plays a ball that he carries, in meters."""
REFRACTORY = 0.2
"""Least seconds between two touches of a player."""
SPRINT_INTERVAL, WALK_INTERVAL, DRIBBLE_INTERVAL = 0.74, 0.25, 0.36
"""Seconds between the touches of a carrier; the first is the largest at a sprint."""
LEAST_SPRINT_INTERVAL = 0.45
"""Least seconds between the touches of a carrier who begins to sprint."""
INTERVAL_GROWTH = 0.6
"""Further seconds between the touches at the speed of a sprint; they grow with its square."""
CARRIER_SPRINT, CARRIER_DRIBBLE = 7.6, 3.84
"""Speeds of a carrier, m/s."""
SPRINTS, DRIBBLES = 6.0, 4.5
"""Speeds above which a carrier sprints, and below which he runs with the dribble key, m/s."""
LEAD = 0.55
"""Distance of the ball to which a touch of a carrier leads, in meters."""
NEAREST_LEAD, LEAD_MARGIN = 0.45, 0.1
"""Distance to the ball that a runner keeps, and that by which he may fall short, in meters."""
LEAST_LEAD = 0.35
"""Distance below which a runner plays the ball early, in meters."""
STOP_LEAD = 0.47
"""Distance to the ball at which a carrier without a command stands, in meters."""
STOP_GAIN, STOP_PACE = 3.0, 5.0
"""Speed of such a carrier per meter of further distance, 1/s, and its limit, m/s."""
SLOW_TURN = 0.4
"""Seconds from a touch with the dribble key to one that turns."""
STOP_INTERVAL = 0.55
"""Seconds from a touch at a sprint to one that stops the ball."""
CATCH_UP = 6.0
"""Speed relative to the ball per meter of further distance, 1/s."""
LEAST_PACE = 2.0
"""Speed up to which a runner may always run, m/s."""
AIM_TIME = 0.25
"""Seconds of his run by which a runner aims beyond the ball."""
STRAIGHT = 0.87
"""Cosine of the angle beyond which a touch is a turn."""
TURNS_FROM = 1.5
"""Speed of a player from which a touch can be a turn, m/s."""
ANTICIPATION = 7.0
"""Acceleration that a touch expects of its player, m/s^2."""
KNOCK_ON = 1.35
"""Factor of a touch with sprint and dribble."""
TURN_SPEED = 0.95
"""Speed of the ball after a turn, as a part of the speed at which its player wants to run."""
TURN_BACK = 0.65
"""Part of that speed that a turn straight back loses."""
STOP_SPEED, STOP_SLOPE = 3.2, 1.3
"""Speed of a player above which a touch without a command leaves the ball rolling, m/s, and
growth of the ball's speed with the player's."""
ROLLS, ROLLS_ON, CREEPS, RESTS = 2.0, 1.0, 0.5, 0.1
"""Speeds above which the ball has a direction, rolls on, is followed without a command, and is
stopped without one, m/s."""
STICKY_MIN, STICKY_MAX = 0.924, -0.588
"""Cosines of 22.5 and 126 degrees, between which a sprinting carrier turns by 22.5 degrees."""
STICKY_TURN = (0.9239, 0.3827)
"""Cosine and sine of 22.5 degrees."""
TIME_ROUNDING = 1e-4
"""Seconds by which a sum of substeps may fall short."""


def carrier_wish(
    world: World, commands: Commands, carries: Bool[Array, "P *b"]
) -> tuple[Float[Array, "P *b"], Float[Array, "P *b"]]:
    """Return desired velocities in which the carrier runs after the ball.

    Args:
        world: Current state.
        commands: Commands of all players.
        carries: Mask of the carrier.
    """
    to_ball = possession.to_ball(world)
    way = vectors.length(to_ball)
    ahead, speed = _run(world, commands)
    moves = speed > 0
    beyond = possession.rolls_faster(world, ROLLS_ON) | (way < REACH)
    beyond = jnp.where(beyond, AIM_TIME * speed, 0.0)
    aim = to_ball[0] + beyond * ahead[0], to_ball[1] + beyond * ahead[1]
    aim = vectors.where(moves, aim, to_ball)
    pace = jnp.where(
        moves,
        _behind_ball(world, ahead, speed),
        _pace_to_stop(world, way),
    )
    return vectors.where(
        carries,
        vectors.resized(aim, pace),
        (commands.off_x, commands.off_y),
    )


def _run(world: World, commands: Commands) -> tuple[Vector, Array]:
    """Return the direction and the speed at which a carrier runs until the next touch."""
    ahead, speed = _wanted_run(world, commands)
    # With the dribble key a carrier turns only after the touch that turns the ball.
    way = _way(world)
    slow = commands.dribble & ~commands.sprint
    follows = slow & (vectors.dot(ahead, way) < STRAIGHT)
    return vectors.where(follows, way, ahead), speed


def _behind_ball(
    world: World,
    ahead: Vector,
    speed: Array,
) -> Array:
    """Return the speed of a runner, limited so that he does not overtake the ball."""
    to_ball = possession.to_ball(world)
    lead = vectors.dot(to_ball, ahead)
    limit = jnp.maximum(
        vectors.dot(world.roll, ahead) + CATCH_UP * (lead - NEAREST_LEAD + LEAD_MARGIN),
        LEAST_PACE,
    )
    limited = (lead > 0) & (vectors.length(to_ball) < REACH)
    return jnp.where(
        limited,
        jnp.minimum(speed, limit),
        speed,
    )


def _pace_to_stop(world: World, way: Array) -> Array:
    """Return the speed of a carrier without a command, who stops at the ball."""
    pace = jnp.clip(
        STOP_GAIN * (way - STOP_LEAD),
        0.0,
        STOP_PACE,
    )
    roll = vectors.length(world.roll)
    return jnp.where(
        roll > CREEPS,
        jnp.maximum(pace, roll),
        pace,
    )


def _wanted_run(world: World, commands: Commands) -> tuple[Vector, Array]:
    """Return the direction and the speed at which a carrier wants to run.

    A sprinting carrier turns by at most 22.5 degrees per touch: between touches he follows the
    ball.
    """
    command = commands.x, commands.y
    wish = vectors.length(command)
    ahead = vectors.direction_or(command, 0.0, world.face)
    limited = _is_sticky(world, commands, ahead)
    ahead = vectors.where(limited, _way(world), ahead)
    slow = commands.dribble & ~commands.sprint
    cap = jnp.where(slow, CARRIER_DRIBBLE, CARRIER_SPRINT)
    # GRF's dribble key is a little faster at the ball than without it.
    speed = jnp.where(
        slow & (wish > 0),
        CARRIER_DRIBBLE,
        jnp.minimum(wish, cap),
    )
    return ahead, speed


def _way(world: World) -> Vector:
    """Return the direction in which the ball rolls; that of each player if it hardly does."""
    return vectors.direction_or(world.roll, ROLLS, world.face)


def _is_sticky(
    world: World,
    commands: Commands,
    ahead: Vector,
) -> Array:
    """Return whether a carrier sprints and turns by more than a touch allows."""
    cosine = vectors.dot(ahead, _way(world))
    sprints = vectors.length(world.velocity) > SPRINTS
    turns = (cosine < STICKY_MIN) & (cosine > STICKY_MAX)
    return turns & commands.sprint & sprints


def carrier_plays(
    world: World,
    commands: Commands,
) -> Bool[Array, "P *b"]:
    """Return whether each player would play the ball now if he carried it."""
    apart = possession.distance(world)
    interval = jnp.where(
        apart < LEAST_LEAD,
        REFRACTORY,
        _interval(world, commands),
    )
    near = (apart < REACH) & (world.ball[2] < FOOT_HEIGHT)
    return near & (world.touched >= interval - TIME_ROUNDING)


def _interval(
    world: World,
    commands: Commands,
) -> Float[Array, "P *b"]:
    """Return the seconds from the last touch of each carrier to the next."""
    ahead, speed = _wanted_run(world, commands)
    pace = vectors.length(world.velocity)
    slow = (speed > 0) & (speed < DRIBBLES)
    straight = jnp.where(
        speed > SPRINTS,
        _sprint_interval(pace),
        WALK_INTERVAL,
    )
    straight = jnp.where(slow, DRIBBLE_INTERVAL, straight)
    turns = vectors.dot(ahead, world.face) < STRAIGHT
    turns |= (speed == 0) & possession.rolls_faster(world, RESTS)
    stops_fast = (speed == 0) & (pace > SPRINTS)
    turning = jnp.where(slow, SLOW_TURN, REFRACTORY)
    turning = jnp.where(stops_fast, STOP_INTERVAL, turning)
    return jnp.where(turns, turning, straight)


def _sprint_interval(pace: Array) -> Array:
    """Return the seconds between the touches of a player who sprints, or begins to."""
    interval = WALK_INTERVAL + INTERVAL_GROWTH * (pace / SPRINT) ** 2
    return jnp.clip(
        interval,
        LEAST_SPRINT_INTERVAL,
        SPRINT_INTERVAL,
    )


def dribble_velocity(
    world: World,
    commands: Commands,
) -> Vector:
    """Return the horizontal velocity that each player would give to the ball, m/s.

    A straight touch makes the ball roll as far as its player runs until the next touch, and
    corrects its lead in part. A touch that turns plays it in the new direction.
    """
    wish = vectors.length((commands.x, commands.y))
    ahead, speed = _wanted_run(world, commands)
    ahead = _limited_turn(world, commands, ahead, wish)
    pace = vectors.length(world.velocity)
    along = vectors.dot(world.velocity, ahead)
    cosine = along / jnp.maximum(pace, 1e-3)
    amount = jnp.where(
        (cosine < STRAIGHT) & (pace > TURNS_FROM),
        _turned(cosine, speed),
        _straight(world, commands, ahead, speed),
    )
    stopped = jnp.clip(
        STOP_SLOPE * (pace - STOP_SPEED),
        0.0,
        None,
    )
    amount = jnp.where(wish > 0, amount, stopped)
    return amount * ahead[0], amount * ahead[1]


def _limited_turn(
    world: World,
    commands: Commands,
    ahead: Vector,
    wish: Array,
) -> Vector:
    """Turn the direction of a sprinting carrier by 22.5 degrees towards his command."""
    wanted = vectors.direction((commands.x, commands.y), 1e-6)
    limited = _is_sticky(world, commands, wanted) & (wish > 0)
    way = _way(world)
    side = jnp.sign(way[0] * wanted[1] - way[1] * wanted[0])
    cosine, sine = STICKY_TURN
    turned = vectors.rotated(way, cosine, sine * side)
    return vectors.where(limited, turned, ahead)


def _turned(cosine: Array, speed: Array) -> Array:
    """Return the speed of the ball after a touch that turns.

    Args:
        cosine: Cosine of the angle between the run and the new direction.
        speed: Speed at which the carrier wants to run, m/s.
    """
    kept = jnp.where(cosine < 0, 1 + TURN_BACK * cosine, 1.0)
    return TURN_SPEED * speed * kept


def _straight(
    world: World,
    commands: Commands,
    ahead: Vector,
    speed: Array,
) -> Array:
    """Return the speed of the ball after a touch that does not turn."""
    slow = jnp.where(speed < DRIBBLES, DRIBBLE_INTERVAL, WALK_INTERVAL)
    interval = jnp.where(
        speed > SPRINTS,
        _sprint_interval(vectors.length(world.velocity)),
        slow,
    )
    along = vectors.dot(world.velocity, ahead)
    mean = along + (speed - along) * _part_of_change(speed - along, interval)
    friction = (GRASS_FRICTION + (DRAG + GRASS_DRAG) * mean**2) * interval / 2
    lead = vectors.dot(possession.to_ball(world), ahead)
    straight = jnp.maximum(mean + friction + LEAD - lead, 0.0)
    return straight * jnp.where(
        commands.sprint & commands.dribble,
        KNOCK_ON,
        1.0,
    )


def _part_of_change(change: Array, interval: Array) -> Array:
    """Return the mean of a change of speed over an interval, as a part of the whole change."""
    time = jnp.maximum(
        jnp.abs(change) / ANTICIPATION,
        1e-3,
    )
    return jnp.where(
        time < interval,
        1 - time / (2 * interval),
        interval / (2 * time),
    )
