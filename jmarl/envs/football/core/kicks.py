"""Kicks: requests, delays, targets of passes, and launches.

Launch speeds and slopes of passes follow the laws of Google Research Football (GRF); delays,
limits of the speed and launches of shots are measured.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import pitch, vectors
from jmarl.envs.football.core.contact import possession
from jmarl.envs.football.core.player_commands import Commands
from jmarl.envs.football.core.setup import Setup, attack_sign
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    expand,
    first_of,
    pick,
    pick_vector,
)


DELAYS = np.asarray(
    [[0.4, 0.4, 0.3], [0.4, 0.3, 0.8], [0.4, 0.4, 0.3], [0.4, 0.3, 0.5]], np.float32
)
"""Seconds from the press to the kick: long, high and short pass and shot, by gait."""
HELD_LIMIT = 0.4
"""Largest extra delay of a button that is pressed for several steps, in seconds."""
EXPIRY = 2.0
"""Seconds after which a request is forgotten."""
WALK_SPEED, SPRINT_SPEED = 1.8, 6.0
"""Speeds that separate the gaits: standing, walking, sprinting; m/s."""
REACH = 1.05
"""Largest distance of the ball to a kicker, meters."""
REACH_HEIGHT = 1.2
GROUND_LIMIT = np.asarray(
    [26.2, 32.5, 21.0],
    np.float32,
)
"""Largest speed of a ground pass by gait, m/s."""
HIGH_LIMIT = 42.0
BACK_LIMIT = 16.5
"""Largest speed of a ground pass of a moving player to his back, m/s."""
CAPPED_SLOPE = 0.23
"""Slope of a ground pass whose speed is limited."""
PASS_SPREAD = 0.012
"""Standard deviation of the direction of a pass, in radians."""
BACK_SPREAD = 1.0
"""Further standard deviation of a high pass straight to the back, in radians."""
SHOT_SPEED = np.asarray(
    [29.1, 32.9, 32.6],
    np.float32,
)
"""Speed of a shot after one press, by gait, m/s."""
SHOT_SLOPE = np.asarray(
    [0.13, 0.067, 0.087],
    np.float32,
)
SHOT_SLOPE_SPREAD = np.asarray(
    [0.016, 0.017, 0.028],
    np.float32,
)
SHOT_SPREAD = np.asarray(
    [0.03, 0.03, 0.08],
    np.float32,
)
"""Standard deviation of the direction of a shot by gait, in radians."""
SHOT_TURN = np.asarray(
    [0.83, 0.88, 0.8],
    np.float32,
)
"""Part of the angle between the body and the aim by which a shot turns, by gait."""
SHOT_SPEED_SPREAD = 0.025
"""Standard deviation of the speed of a shot, as a part of the speed."""
SHOT_CORNER, SHOT_ANGLE_POWER = 0.9, 0.7
"""Largest |y| of the aim of a shot in half widths of the goal, and power of the angle between the
command and the way to the goal, in right angles (GRF's source)."""
TAP = 5.0
"""Distance of the point at which a pass is aimed, in meters."""
OFF_WEIGHT, OFF_RANGE, OFF_POWER = 0.8, 70.0, 0.8
"""Cost of a receiver's distance from that point: weight, unit in meters, and power (GRF's
source)."""
RUN_TIME, RUN_POWER = 0.7, 0.7
"""Longest time for which a receiver's run is expected, in seconds, and power of its share (GRF's
source, as the next two)."""
RUN_BASE, RUN_GAIN = 0.3, 0.05
"""Share of that time for a receiver at the kicker, and its growth per meter of distance."""
FURTHER = 0.2
"""Part of its way by which a long pass is played further towards the goal."""
ALONE = 10.0
"""Length of a pass without a teammate, in meters."""
NEAREST_PASS, FURTHEST_PASS = 0.5, 60.0
"""Distances between which the speed of a pass depends on the distance, in meters."""
PASS_SPEED, PASS_BASE = 36.0, 0.3
"""Unit of the speed of a pass, m/s, and its least value in these units (GRF's source, as the next
two)."""
PASS_POWER = 1.4
"""Power of the distance in the speed of a pass."""
GROUND_FACTOR, HIGH_FACTOR = 1.8, 1.15
"""Factors of that power for passes on the ground and high passes."""
GROUND_SLOPE = 0.11
"""Slope of a ground pass."""
HIGH_SLOPE, HIGH_SLOPE_LOSS = 0.45, 0.15
"""Slope of a near high pass, and its decrease at the largest distance."""
GAUGE = 0.426
"""Growth of the gauge of a shot while the button is pressed, 1/s."""
GAUGE_BASE, GAUGE_GAIN, GAUGE_POWER = 0.7, 0.3, 0.3
"""Factor of the speed of a shot: its value at no power, its growth, and the power of the gauge.

GRF's power is ``gauge ** 0.6``, and it multiplies the speed by ``0.7 + 0.3 * sqrt(power)``.
"""
LOGISTIC_SCALE, LARGEST_DRAW = 0.5513, 3.0
"""Inverse of the standard deviation of the logistic distribution, and bound of the draws."""
LEAST_QUANTILE = 1e-3
FOLLOW_THROUGH = 0.3
"""Seconds after a kick during which the kicker touches nothing."""
KICK_DRAWS = 4


class Ready(NamedTuple):
    """The player who kicks in this step, if any."""

    who: Bool[Array, "P *b"]
    """Mask with at most one player."""
    gait: tuple[Bool[Array, "*b"], Bool[Array, "*b"]]
    """The kicker walks or runs; he sprints."""


def request(
    world: World,
    commands: Commands,
    step: float,
) -> World:
    """Start, prolong or forget requests to kick.

    A request waits until the player touches the ball. Only a short pass replaces another one.

    Args:
        world: Current state.
        commands: Commands of all players.
        step: Seconds since the last call.
    """
    wanted = commands.kick
    pending = world.kick > 0
    is_new = (wanted > 0) & (
        ~pending | ((wanted == game.SHORT_PASS) & (world.kick != wanted))
    )
    is_new |= (
        (wanted > 0) & (wanted == world.kick) & (commands.kick_to != world.kick_to)
    )
    is_held = pending & (wanted == world.kick)
    time = world.kick_time + step
    held = world.kick_held + jnp.where(is_held, step, 0.0)
    forgotten = (time > EXPIRY) | ~world.active
    kick = jnp.where(
        is_new,
        wanted,
        jnp.where(forgotten, 0, world.kick),
    )
    aim = vectors.where(
        is_new | is_held,
        (commands.kick_x, commands.kick_y),
        (world.kick_x, world.kick_y),
    )
    return world.replace(
        kick=kick.astype(jnp.int8),
        kick_time=jnp.where(is_new, 0.0, time),
        kick_held=jnp.where(is_new, step, held),
        kick_x=aim[0],
        kick_y=aim[1],
        kick_to=jnp.where(is_new, commands.kick_to, world.kick_to).astype(jnp.int8),
    )


def ready(world: World) -> Ready:
    """Find the player whose delay has passed and who reaches the ball."""
    speed = vectors.length(world.velocity)
    walks = (speed >= WALK_SPEED) & (speed < SPRINT_SPEED)
    sprints = speed >= SPRINT_SPEED
    apart = possession.distance(world)
    last = possession.last_toucher(world)
    reaches = (apart < REACH) & (world.ball[2] < REACH_HEIGHT) & (world.held <= 0)
    # Nobody else kicks the ball of an owner, or one in a keeper's hands.
    reaches &= last | (world.owner == NOBODY)
    holds = (world.held > 0) & last
    able = world.active & (world.busy <= 0) & (world.kick > 0)
    # The request is looked at once per step, so a delay is rounded to the nearest step.
    delay = _delay(world, walks, sprints)
    able &= (world.kick_time > delay - pitch.STEP / 2) & (reaches | holds)
    who = first_of(apart, able)
    return Ready(
        who,
        (jnp.any(who & walks, axis=0), jnp.any(who & sprints, axis=0)),
    )


def _delay(
    world: World,
    walks: Array,
    sprints: Array,
) -> Float[Array, "P *b"]:
    """Return the seconds from the request of each player to the kick."""
    delay = jnp.zeros_like(world.kick_time)
    for row, kick in enumerate(range(game.LONG_PASS, game.SHOT + 1)):
        by_gait = _by_gait(DELAYS[row], walks, sprints)
        delay = jnp.where(world.kick == kick, by_gait, delay)
    return delay + jnp.clip(
        world.kick_held - pitch.STEP,
        0.0,
        HELD_LIMIT,
    )


def launch(
    setup: Setup, world: World, now: Ready, draws: Float[Array, "D *b"]
) -> World:
    """Kick the ball if a player is ready.

    Args:
        setup: Scenario and options.
        world: Current state.
        now: The kicker.
        draws: Uniform draws, ``KICK_DRAWS`` of them.
    """
    kicks = jnp.any(now.who, axis=0)
    kick = pick(world.kick, now.who)
    noise = normal(draws)
    receiver, passed = _pass(setup, world, now, kick, noise)
    shot = _shot(setup, world, now, noise)
    is_shot = kick == game.SHOT
    velocity = jnp.where(
        kicks,
        jnp.where(is_shot, shot, passed),
        world.ball_v,
    )
    index = jnp.argmax(now.who, axis=0).astype(jnp.int8)
    target = jnp.where(is_shot, NOBODY, receiver).astype(jnp.int8)
    return world.replace(
        ball_v=velocity,
        ball=world.ball.at[2].set(
            jnp.where(
                kicks & (world.held > 0),
                pitch.BALL_RADIUS,
                world.ball[2],
            )
        ),
        held=jnp.where(kicks, 0.0, world.held),
        luck=jnp.where(kicks, draws[3], world.luck),
        last_touch=jnp.where(kicks, index, world.last_touch),
        receiver=jnp.where(kicks, target, world.receiver),
        bounced=world.bounced & ~kicks,
        touched=jnp.where(now.who, 0.0, world.touched),
        kick=jnp.where(now.who, 0, world.kick).astype(jnp.int8),
        busy=jnp.where(now.who, FOLLOW_THROUGH, world.busy),
    )


def normal(draws: Float[Array, "D *b"]) -> Float[Array, "D *b"]:
    """Return values with the variance of a normal distribution and bounded tails.

    The logistic quantile is scaled and cut at 3: it needs one logarithm instead of an inverse
    error function.
    """
    uniform = jnp.clip(
        draws,
        LEAST_QUANTILE,
        1 - LEAST_QUANTILE,
    )
    return jnp.clip(
        jnp.log(uniform / (1 - uniform)) * LOGISTIC_SCALE,
        -LARGEST_DRAW,
        LARGEST_DRAW,
    )


def _pass(
    setup: Setup, world: World, now: Ready, kick: Array, noise: Float[Array, "D *b"]
) -> tuple[Array, Float[Array, "3 *b"]]:
    """Return the receiver of a pass and the velocity of the ball."""
    kicker = pick_vector(world.place, now.who)
    aim = pick_vector((world.kick_x, world.kick_y), now.who)
    sign = attack_sign(setup, now.who)
    mates = world.active & ~now.who & (expand(setup.sign, world.x) == sign)
    there = _run_ahead(world, kicker)
    to = first_of(
        _pass_cost(
            world,
            now,
            mates,
            vectors.minus(there, kicker),
            aim,
        ),
        mates,
    )
    anyone = jnp.any(to, axis=0)
    # Without a teammate the ball goes ahead.
    straight = kicker[0] + ALONE * aim[0], kicker[1] + ALONE * aim[1]
    target = vectors.where(anyone, pick_vector(there, to), straight)
    dx, dy = vectors.minus(target, world.ball_place)
    way = vectors.length((dx, dy))
    dx = dx + jnp.where(
        kick == game.LONG_PASS,
        FURTHER * way * sign,
        0.0,
    )
    face = pick_vector(world.face, now.who)
    backward = -vectors.dot(face, (dx, dy)) / jnp.maximum(way, NEAREST_PASS)
    velocity = _pass_velocity((dx, dy), kick, now, noise, backward)
    index = jnp.where(
        anyone,
        jnp.argmax(to, axis=0),
        NOBODY,
    )
    return index, velocity


def _run_ahead(world: World, kicker: Vector) -> Vector:
    """Return where each player will be when a pass reaches him."""
    apart = vectors.length(vectors.minus(world.place, kicker))
    share = jnp.clip(RUN_BASE + RUN_GAIN * apart, 0.0, 1.0) ** RUN_POWER
    time = RUN_TIME * share
    return world.x + world.vx * time, world.y + world.vy * time


def _pass_cost(
    world: World,
    now: Ready,
    mates: Bool[Array, "P *b"],
    way: Vector,
    aim: Vector,
) -> Float[Array, "P *b"]:
    """Return how little each teammate suits as the receiver: -1 for one at whom it is aimed.

    Args:
        world: Current state.
        now: The kicker.
        mates: Mask of his teammates.
        way: Way from him to each player, meters.
        aim: Direction of the kick, a unit vector.
    """
    dx, dy = way
    ux, uy = aim
    off = vectors.length((dx - TAP * ux, dy - TAP * uy))
    angle = jnp.arctan2(
        jnp.abs(dx * uy - dy * ux),
        vectors.dot(way, aim),
    )
    cost = OFF_WEIGHT * (off / OFF_RANGE) ** OFF_POWER + angle / jnp.pi
    target = jnp.sum(jnp.where(now.who, world.kick_to, 0), axis=0)
    players = jnp.arange(len(world.x)).reshape((-1,) + (1,) * target.ndim)
    return jnp.where((players == target) & mates, -1.0, cost)


def _pass_velocity(
    way: Vector, kick: Array, now: Ready, noise: Array, backward: Array
) -> Float[Array, "3 *b"]:
    """Return the velocity of a pass.

    Args:
        way: Way to the target, meters.
        kick: Kind of the pass.
        now: The kicker.
        noise: Standardized draws.
        backward: Cosine of the angle between the pass and the kicker's back.
    """
    far = jnp.maximum(vectors.length(way), NEAREST_PASS)
    far = jnp.minimum(far, FURTHEST_PASS) / FURTHEST_PASS
    is_high = kick == game.HIGH_PASS
    power = far**PASS_POWER * jnp.where(is_high, HIGH_FACTOR, GROUND_FACTOR)
    wanted = PASS_SPEED * (power + PASS_BASE)
    limit = jnp.where(
        is_high,
        HIGH_LIMIT,
        _by_gait(GROUND_LIMIT, *now.gait),
    )
    behind = jnp.clip(2 * backward - 1, 0.0, 1.0)
    moves = now.gait[0] | now.gait[1]
    limit = jnp.where(
        moves & (behind > 0) & ~is_high,
        jnp.minimum(limit, BACK_LIMIT),
        limit,
    )
    slope = jnp.where(wanted > limit, CAPPED_SLOPE, GROUND_SLOPE)
    slope = jnp.where(
        is_high,
        HIGH_SLOPE - HIGH_SLOPE_LOSS * far,
        slope,
    )
    spread = PASS_SPREAD + jnp.where(is_high, BACK_SPREAD * behind, 0.0)
    heading = jnp.arctan2(way[1], way[0]) + spread * noise[0]
    return _velocity(heading, slope, jnp.minimum(wanted, limit))


def _shot(
    setup: Setup, world: World, now: Ready, noise: Float[Array, "D *b"]
) -> Float[Array, "3 *b"]:
    """Return the velocity of a shot at the goal that the kicker attacks."""
    sign = attack_sign(setup, now.who)
    ux, uy = pick_vector((world.kick_x, world.kick_y), now.who)
    dx, dy = sign * pitch.HALF_LENGTH - world.ball[0], -world.ball[1]
    angle = jnp.arctan2(dx * uy - dy * ux, dx * ux + dy * uy) * sign
    share = jnp.clip(jnp.abs(angle) / (jnp.pi / 2), 0.0, 1.0)
    share = share**SHOT_ANGLE_POWER
    aim = jnp.sign(angle) * pitch.GOAL_HALF_WIDTH * SHOT_CORNER * share
    face_x, face_y = pick_vector(world.face, now.who)
    turn = jnp.arctan2(
        face_x * (aim + dy) - face_y * dx, face_x * dx + face_y * (aim + dy)
    )
    heading = jnp.arctan2(face_y, face_x) + _by_gait(SHOT_TURN, *now.gait) * turn
    heading += _by_gait(SHOT_SPREAD, *now.gait) * noise[0]
    slope = _by_gait(SHOT_SLOPE, *now.gait)
    slope += _by_gait(SHOT_SLOPE_SPREAD, *now.gait) * noise[1]
    speed = _by_gait(SHOT_SPEED, *now.gait) * _power(pick(world.kick_held, now.who))
    return _velocity(
        heading,
        slope,
        speed * (1 + SHOT_SPEED_SPREAD * noise[2]),
    )


def _power(held: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Return the factor by which a longer press strengthens a shot."""
    gauge = GAUGE * jnp.clip(
        held,
        pitch.STEP,
        HELD_LIMIT + pitch.STEP,
    )
    least = GAUGE_BASE + GAUGE_GAIN * (GAUGE * pitch.STEP) ** GAUGE_POWER
    return (GAUGE_BASE + GAUGE_GAIN * gauge**GAUGE_POWER) / least


def _velocity(
    heading: Array,
    slope: Array,
    speed: Array,
) -> Float[Array, "3 *b"]:
    """Return a velocity from its heading, the tangent of its elevation, and its amount."""
    flat = speed / jnp.sqrt(1 + slope**2)
    return jnp.stack([flat * jnp.cos(heading), flat * jnp.sin(heading), flat * slope])


def _by_gait(
    values: np.ndarray,
    walks: Array,
    sprints: Array,
) -> Array:
    """Return the entry for standing, walking or sprinting."""
    stands, walking, sprinting = values.tolist()
    return jnp.where(
        sprints,
        sprinting,
        jnp.where(walks, walking, stands),
    )
