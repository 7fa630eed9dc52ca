"""Touches of the ball: dribbling, receiving, tackling, deflecting, and ownership.

The player at the ball plays it ahead, runs after it and plays it again, as in Google Research
Football (GRF): the direction changes only with a touch. The laws of a touch are fits to
measurements.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core.ball import DRAG, GRASS_DRAG, GRASS_FRICTION
from jmarl.envs.football.core.player_commands import SPRINT, Commands
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    expand,
    first_of,
    members,
    pick,
)


CONTROL = 2.6
"""Distance up to which the last toucher runs after the ball, in meters."""
CONTROL_SPEED = 6.5
"""Speed relative to the player beyond which the ball has left him, m/s."""
REACH = 0.95
"""Distance at which a player plays a ball that he carries, in meters."""
TRAP_REACH = 0.66
"""Distance at which a player gets a free ball, in meters."""
BODY_REACH = 0.42
"""The same for a ball that is too fast to be reached by a foot."""
BODY_SPEED = 18.0
"""Speed from which a ball is too fast, m/s."""
HEAD_REACH = 0.5
"""The same for a ball above the foot."""
FOOT_HEIGHT, HEAD_HEIGHT = 0.6, 1.9
REFRACTORY = 0.2
"""Least seconds between two touches of a player."""
KICKER_REFRACTORY = 0.4
SPRINT_INTERVAL, WALK_INTERVAL, DRIBBLE_INTERVAL = 0.74, 0.25, 0.36
"""Seconds between the touches of a carrier."""
CARRIER_SPRINT, CARRIER_DRIBBLE = 7.6, 3.84
"""Speeds of a carrier, m/s."""
LEAD = 0.55
"""Distance of the ball to which a touch of a carrier leads, in meters."""
NEAREST_LEAD = 0.45
"""Distance to the ball that a runner keeps, in meters."""
LEAST_LEAD = 0.35
"""Distance below which a runner plays the ball early, in meters."""
STOP_LEAD = 0.47
"""Distance to the ball at which a carrier without a command stands, in meters."""
SLOW_TURN = 0.4
"""Seconds from a touch with the dribble key to one that turns."""
STOP_INTERVAL = 0.55
"""Seconds from a touch at a sprint to one that stops the ball."""
CATCH_UP = 6.0
"""Speed relative to the ball per meter of further distance, 1/s."""
STRAIGHT = 0.87
"""Cosine of the angle beyond which a touch is a turn."""
ANTICIPATION = 7.0
"""Acceleration that a touch expects of its player, m/s^2."""
KNOCK_ON = 1.35
"""Factor of a touch with sprint and dribble."""
STICKY_MIN, STICKY_MAX = 0.924, -0.588
"""Cosines of 22.5 and 126 degrees, between which a sprinting carrier turns by 22.5 degrees."""
STICKY_TURN = (0.9239, 0.3827)
"""Cosine and sine of 22.5 degrees."""
TOUCH_DRAWS = 4
"""Uniform draws of a substep: tackle, clean tackle, trap, direction of a bounce."""
CHALLENGE_RATE = 55.0
"""Tackles per second of an opponent who stands at the ball."""
CHALLENGE_REACH = 1.0
PASSIVE = 0.5
"""Distance by which the reach of a passive player is shorter, in meters."""
SLIDE_REACH = 0.9
"""Distance at which a slide plays the ball, in meters."""
TIE = 0.02
"""Advantage of the team that wins ties, in meters."""
TRAP_SPEED, TRAP_RANGE = 13.5, 1.5
"""Relative speed from which a ball can bounce off its receiver, and the range above it in which
the probability rises, m/s."""
MISTRAP = 0.9
"""Probability that a fast ball bounces off."""
POKE_SPEED = 4.0
"""Speed of a ball that a tackle plays away, m/s."""
BEATEN = 0.5
"""Further seconds for which a player who lost the ball to a tackle cannot tackle."""
CLEAN = 0.7
"""Probability that a tackle wins the ball."""


class Contact(NamedTuple):
    """The player who touches the ball in a substep, if any."""

    who: Bool[Array, "P *b"]
    """Mask with at most one player."""
    controls: Bool[Array, "*b"]
    """He gets the ball under control; otherwise it bounces off him."""
    pokes: Bool[Array, "*b"]
    """He plays the ball away from its carrier."""


def distance(world: World) -> Float[Array, "P *b"]:
    """Return the horizontal distance of each player to the ball, in meters."""
    dx, dy = world.ball[0] - world.x, world.ball[1] - world.y
    return jnp.sqrt(dx**2 + dy**2)


def owner(world: World) -> Array:
    """Return the index of the player who owns the ball, or ``NOBODY``, int8.

    The owner is the last toucher as long as the ball is near and slow relative to him, or a keeper
    who holds it (GRF's test).
    """
    last = members(world.last_touch, len(world.x))
    apart = pick(distance(world), last)
    ahead_x = world.ball[0] - world.x - 0.05 * world.vx - 0.1 * world.face_x
    ahead_y = world.ball[1] - world.y - 0.05 * world.vy - 0.1 * world.face_y
    lead = pick(
        jnp.sqrt(ahead_x**2 + ahead_y**2),
        last,
    )
    low = world.ball[2] <= 0.5
    owns = (apart <= 5) & low & (lead <= 1) & (_relative_speed(world, last) <= 6)
    owns = (owns & (world.last_touch >= 0) & ~world.bounced) | (world.held > 0)
    return jnp.where(owns, world.last_touch, NOBODY).astype(jnp.int8)


def carrier(world: World) -> Bool[Array, "P *b"]:
    """Return the mask of the player who runs with the ball: he has played it and is near."""
    last = members(world.last_touch, len(world.x))
    near = pick(distance(world), last) < CONTROL
    slow = _relative_speed(world, last) < CONTROL_SPEED
    free = world.bounced | (world.held > 0) | (world.ball[2] >= 1.0)
    return last & near & slow & ~free


def carrier_wish(
    world: World, commands: Commands, carries: Bool[Array, "P *b"]
) -> tuple[Float[Array, "P *b"], Float[Array, "P *b"]]:
    """Return desired velocities in which the carrier runs after the ball.

    Args:
        world: Current state.
        commands: Commands of all players.
        carries: Mask of the carrier.
    """
    ux, uy, speed = _heading(world, commands)
    # With the dribble key a carrier turns only after the touch that turns the ball.
    way_x, way_y = _way(world)
    slow = commands.dribble & ~commands.sprint
    follows = slow & (ux * way_x + uy * way_y < STRAIGHT)
    ux, uy = jnp.where(follows, way_x, ux), jnp.where(follows, way_y, uy)
    ball_x, ball_y = world.ball[0] - world.x, world.ball[1] - world.y
    way = jnp.maximum(
        jnp.sqrt(ball_x**2 + ball_y**2),
        1e-3,
    )
    moves = speed > 0
    # A carrier without a command stops at the ball.
    pace = jnp.clip(
        3.0 * (way - STOP_LEAD),
        0.0,
        5.0,
    )
    roll = jnp.sqrt(world.ball_v[0] ** 2 + world.ball_v[1] ** 2)
    pace = jnp.where(
        roll > 0.5,
        jnp.maximum(pace, roll),
        pace,
    )
    rolls_on = jnp.sum(world.ball_v[:2] ** 2, axis=0) > 1.0
    ahead = jnp.where(rolls_on | (way < REACH), 0.25 * speed, 0.0)
    aim_x = jnp.where(moves, ball_x + ahead * ux, ball_x)
    aim_y = jnp.where(moves, ball_y + ahead * uy, ball_y)
    length = jnp.maximum(
        jnp.sqrt(aim_x**2 + aim_y**2),
        1e-3,
    )
    # A runner does not overtake the ball.
    lead = ball_x * ux + ball_y * uy
    rolls = world.ball_v[0] * ux + world.ball_v[1] * uy
    limit = jnp.maximum(
        rolls + CATCH_UP * (lead - NEAREST_LEAD + 0.1),
        2.0,
    )
    limited = (lead > 0) & (way < REACH)
    speed = jnp.where(
        limited,
        jnp.minimum(speed, limit),
        speed,
    )
    pace = jnp.where(moves, speed, pace)
    return (
        jnp.where(carries, pace * aim_x / length, commands.off_x),
        jnp.where(carries, pace * aim_y / length, commands.off_y),
    )


def contact(
    setup: Setup,
    world: World,
    commands: Commands,
    before: Float[Array, "3 *b"],
    draws: Float[Array, "D *b"],
    h: float,
) -> Contact:
    """Find the player who touches the ball.

    Args:
        setup: Scenario and options.
        world: State after the motion of the substep.
        commands: Commands of all players.
        before: Position of the ball before the substep.
        draws: Uniform draws, ``TOUCH_DRAWS`` of them.
        h: Seconds of the substep.
    """
    carries = carrier(world)
    free = world.active & (world.busy <= 0)
    plays = free & carries & _carrier_plays(world, commands)
    apart = swept_distance(world, before)
    waits = jnp.where(
        world.touched < KICKER_REFRACTORY,
        members_last(world),
        False,
    )
    low = world.ball[2] < FOOT_HEIGHT
    reach = jnp.where(low, TRAP_REACH, HEAD_REACH)
    fast = jnp.sum(world.ball_v[:2] ** 2, axis=0) > BODY_SPEED**2
    reach = jnp.where(fast, BODY_REACH, reach)
    gets = free & ~carries & ~waits & (apart < reach) & (world.ball[2] < HEAD_HEIGHT)
    tackles = free & _tackles(
        setup,
        world,
        carries,
        apart + PASSIVE * commands.passive,
        draws[0],
        h,
    )
    slides = (world.slide > 0) & world.active & (apart < SLIDE_REACH) & low
    tackles |= slides
    carried = jnp.any(carries, axis=0)
    mates = expand(setup.sign, apart) == pick(
        jnp.broadcast_to(expand(setup.sign, apart), apart.shape), carries
    )
    gets &= ~carried  # a teammate leaves the ball to the carrier
    candidates = jnp.where(
        carried,
        plays | (tackles & ~mates),
        gets | slides,
    )
    cost = apart + TIE * (expand(setup.sign, apart) > 0) * jnp.where(
        world.right_first, 1.0, -1.0
    )
    cost = jnp.where(tackles & carried, cost - 1.0, cost)
    who = first_of(cost, candidates)
    pokes = jnp.any(who & tackles, axis=0) & carried & (draws[1] > CLEAN)
    pokes |= jnp.any(who & slides, axis=0)
    traps = draws[2] < _trap_chance(
        _relative_speed(world, who),
        world.ball[2],
    )
    return Contact(who, (carried | traps) & ~pokes, pokes)


def members_last(world: World) -> Bool[Array, "P *b"]:
    """Return the mask of the last toucher."""
    return members(world.last_touch, len(world.x))


def play(
    world: World, commands: Commands, now: Contact, draws: Float[Array, "D *b"]
) -> World:
    """Apply a touch to the ball.

    Args:
        world: Current state.
        commands: Commands of all players.
        now: The toucher.
        draws: Uniform draws, ``TOUCH_DRAWS`` of them.
    """
    touches = jnp.any(now.who, axis=0)
    dribble_x, dribble_y = _dribble_velocity(world, commands)
    played = pick(dribble_x, now.who), pick(dribble_y, now.who)
    away = _deflection(world, now, draws[3])
    poke = _poke(world, now, draws[3])
    flat = [
        jnp.where(
            now.controls,
            p,
            jnp.where(now.pokes, k, a),
        )
        for p, k, a in zip(
            played,
            poke,
            away[:2],
            strict=True,
        )
    ]
    rise = jnp.where(
        now.controls,
        0.0,
        jnp.where(now.pokes, 1.0, away[2]),
    )
    velocity = jnp.where(
        touches,
        jnp.stack([*flat, rise]),
        world.ball_v,
    )
    index = jnp.argmax(now.who, axis=0).astype(jnp.int8)
    drop = jnp.where(
        touches & now.controls & (world.ball[2] > FOOT_HEIGHT),
        0.6,
        1.0,
    )
    beaten = carrier(world) & touches & ~now.who
    touched = jnp.where(beaten, -BEATEN, world.touched)
    return world.replace(
        ball_v=velocity,
        ball=world.ball.at[2].multiply(drop),
        last_touch=jnp.where(touches, index, world.last_touch),
        receiver=jnp.where(touches, NOBODY, world.receiver).astype(jnp.int8),
        bounced=jnp.where(touches, ~(now.controls | now.pokes), world.bounced),
        touched=jnp.where(now.who, 0.0, touched),
    )


def _relative_speed(
    world: World,
    who: Bool[Array, "P *b"],
) -> Float[Array, "*b"]:
    """Return the speed of the ball relative to a player."""
    dx = world.ball_v[0] - pick(world.vx, who)
    dy = world.ball_v[1] - pick(world.vy, who)
    return jnp.sqrt(dx**2 + dy**2)


def swept_distance(
    world: World,
    before: Float[Array, "3 *b"],
) -> Float[Array, "P *b"]:
    """Return the least distance of each player to the path of the ball in the substep."""
    x, y = _nearest_point(world, before)
    return jnp.sqrt((world.x - x) ** 2 + (world.y - y) ** 2)


def stop_ball(
    world: World, before: Float[Array, "3 *b"], who: Bool[Array, "P *b"]
) -> World:
    """Return the ball to the point of its path in the substep that is nearest to a player.

    Args:
        world: Current state.
        before: Position of the ball before the substep.
        who: Mask of the player, or of none.
    """
    stops = jnp.any(who, axis=0)
    x, y = _nearest_point(world, before)
    ball_x = jnp.where(
        stops,
        pick(x, who),
        world.ball[0],
    )
    ball_y = jnp.where(
        stops,
        pick(y, who),
        world.ball[1],
    )
    return world.replace(ball=jnp.stack([ball_x, ball_y, world.ball[2]]))


def _nearest_point(
    world: World, before: Float[Array, "3 *b"]
) -> tuple[Float[Array, "P *b"], Float[Array, "P *b"]]:
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


def _heading(
    world: World,
    commands: Commands,
) -> tuple[Array, Array, Array]:
    """Return the direction and the speed at which a carrier wants to run.

    A sprinting carrier turns by at most 22.5 degrees per touch: between touches he follows the
    ball.
    """
    wish = jnp.sqrt(commands.x**2 + commands.y**2)
    ux = jnp.where(
        wish > 0,
        commands.x / jnp.maximum(wish, 1e-6),
        world.face_x,
    )
    uy = jnp.where(
        wish > 0,
        commands.y / jnp.maximum(wish, 1e-6),
        world.face_y,
    )
    limited = _is_sticky(world, commands, ux, uy)
    way_x, way_y = _way(world)
    ux, uy = jnp.where(limited, way_x, ux), jnp.where(limited, way_y, uy)
    slow = commands.dribble & ~commands.sprint
    cap = jnp.where(slow, CARRIER_DRIBBLE, CARRIER_SPRINT)
    # GRF's dribble key is a little faster at the ball than without it.
    speed = jnp.where(
        slow & (wish > 0),
        CARRIER_DRIBBLE,
        jnp.minimum(wish, cap),
    )
    return ux, uy, speed


def _way(world: World) -> tuple[Array, Array]:
    """Return the direction in which the ball rolls; that of each player if it hardly does."""
    roll = jnp.sqrt(world.ball_v[0] ** 2 + world.ball_v[1] ** 2)
    rolls = roll > 2.0
    roll = jnp.maximum(roll, 1e-3)
    return (
        jnp.where(
            rolls,
            world.ball_v[0] / roll,
            world.face_x,
        ),
        jnp.where(
            rolls,
            world.ball_v[1] / roll,
            world.face_y,
        ),
    )


def _is_sticky(
    world: World,
    commands: Commands,
    ux: Array,
    uy: Array,
) -> Array:
    way_x, way_y = _way(world)
    cosine = ux * way_x + uy * way_y
    speed = jnp.sqrt(world.vx**2 + world.vy**2)
    turns = (cosine < STICKY_MIN) & (cosine > STICKY_MAX)
    return turns & commands.sprint & (speed > 6.0)


def _carrier_plays(
    world: World,
    commands: Commands,
) -> Bool[Array, "P *b"]:
    """Return whether each player would play the ball now if he carried it."""
    ux, uy, speed = _heading(world, commands)
    fast = speed > 6.0
    slow = (speed > 0) & (speed < 4.5)
    pace = jnp.sqrt(world.vx**2 + world.vy**2)
    interval = jnp.where(fast, _sprint_interval(pace), WALK_INTERVAL)
    interval = jnp.where(slow, DRIBBLE_INTERVAL, interval)
    turns = ux * world.face_x + uy * world.face_y < STRAIGHT
    turns |= (speed == 0) & (jnp.sum(world.ball_v[:2] ** 2, axis=0) > 0.01)
    stops_fast = (speed == 0) & (pace > 6.0)
    turning = jnp.where(slow, SLOW_TURN, REFRACTORY)
    turning = jnp.where(stops_fast, STOP_INTERVAL, turning)
    interval = jnp.where(turns, turning, interval)
    apart = distance(world)
    interval = jnp.where(apart < LEAST_LEAD, REFRACTORY, interval)
    near = (apart < REACH) & (world.ball[2] < FOOT_HEIGHT)
    return near & (world.touched >= interval - 1e-4)


def _sprint_interval(pace: Array) -> Array:
    """Return the seconds between the touches of a player who sprints, or begins to."""
    interval = WALK_INTERVAL + 0.6 * (pace / SPRINT) ** 2
    return jnp.clip(interval, 0.45, SPRINT_INTERVAL)


def _dribble_velocity(
    world: World,
    commands: Commands,
) -> tuple[Array, Array]:
    """Return the velocity that each player would give to the ball.

    A straight touch makes the ball roll as far as its player runs until the next touch, and
    corrects its lead in part. A touch that turns plays it in the new direction.
    """
    wish = jnp.sqrt(commands.x**2 + commands.y**2)
    ux, uy, speed = _heading(world, commands)
    ux, uy = _limited_turn(world, commands, ux, uy, wish)
    along = world.vx * ux + world.vy * uy
    pace = jnp.sqrt(world.vx**2 + world.vy**2)
    slow = jnp.where(speed < 4.5, DRIBBLE_INTERVAL, WALK_INTERVAL)
    interval = jnp.where(
        speed > 6.0,
        _sprint_interval(pace),
        slow,
    )
    change = jnp.maximum(
        jnp.abs(speed - along) / ANTICIPATION,
        1e-3,
    )
    part = jnp.where(
        change < interval, 1 - change / (2 * interval), interval / (2 * change)
    )
    mean = along + (speed - along) * part
    friction = (GRASS_FRICTION + (DRAG + GRASS_DRAG) * mean**2) * interval / 2
    lead = (world.ball[0] - world.x) * ux + (world.ball[1] - world.y) * uy
    straight = jnp.maximum(mean + friction + LEAD - lead, 0.0)
    straight *= jnp.where(
        commands.sprint & commands.dribble,
        KNOCK_ON,
        1.0,
    )
    cosine = along / jnp.maximum(pace, 1e-3)
    turned = (
        0.95
        * speed
        * jnp.where(
            cosine < 0,
            1 + 0.65 * cosine,
            1.0,
        )
    )
    amount = jnp.where(
        (cosine < STRAIGHT) & (pace > 1.5),
        turned,
        straight,
    )
    stopped = jnp.clip(
        1.3 * (pace - 3.2),
        0.0,
        None,
    )
    amount = jnp.where(wish > 0, amount, stopped)
    return amount * ux, amount * uy


def _limited_turn(
    world: World, commands: Commands, ux: Array, uy: Array, wish: Array
) -> tuple[Array, Array]:
    """Turn the direction of a sprinting carrier by 22.5 degrees towards his command."""
    wx, wy = commands.x / jnp.maximum(wish, 1e-6), commands.y / jnp.maximum(wish, 1e-6)
    limited = _is_sticky(world, commands, wx, wy) & (wish > 0)
    way_x, way_y = _way(world)
    side = jnp.sign(way_x * wy - way_y * wx)
    cosine, sine = STICKY_TURN[0], STICKY_TURN[1] * side
    turned_x = cosine * way_x - sine * way_y
    turned_y = cosine * way_y + sine * way_x
    return jnp.where(limited, turned_x, ux), jnp.where(limited, turned_y, uy)


def _tackles(
    setup: Setup, world: World, carries: Array, apart: Array, draw: Array, h: float
) -> Bool[Array, "P *b"]:
    """Return the opponents of the carrier who play the ball in this substep.

    The rate grows with nearness. A carrier between the opponent and the ball shields it.
    """
    carrier_way = pick(distance(world), carries)
    nearness = jnp.clip(
        (CHALLENGE_REACH - apart) / 0.5,
        0.0,
        1.0,
    )
    ahead = jnp.clip(
        1.0 - (apart - carrier_way) / 0.6,
        0.1,
        1.0,
    )
    skill = 0.3 + 0.7 * expand(setup.difficulty, apart)
    rate = CHALLENGE_RATE * skill**1.75 * nearness * ahead
    ready = (world.touched > REFRACTORY) & (world.ball[2] < FOOT_HEIGHT)
    return (draw < rate * h) & ready & ~carries & (nearness > 0)


def _trap_chance(
    speed: Float[Array, "*b"],
    height: Float[Array, "*b"],
) -> Array:
    """Return the probability that a player gets a free ball under control."""
    hard = MISTRAP * jnp.clip((speed - TRAP_SPEED) / TRAP_RANGE, 0.0, 1.0)
    hard += 0.25 * (height > FOOT_HEIGHT)
    return jnp.clip(1 - hard, 0.0, 1.0)


def _deflection(
    world: World,
    now: Contact,
    draw: Array,
) -> Float[Array, "3 *b"]:
    """Return the velocity of a ball that bounces off a body, slower and sideways."""
    dx = world.ball[0] - pick(world.x, now.who)
    dy = world.ball[1] - pick(world.y, now.who)
    apart = jnp.maximum(
        jnp.sqrt(dx**2 + dy**2),
        1e-3,
    )
    nx, ny = dx / apart, dy / apart
    into = jnp.minimum(
        world.ball_v[0] * nx + world.ball_v[1] * ny,
        0.0,
    )
    vx = 0.2 * (world.ball_v[0] - 1.6 * into * nx)
    vy = 0.2 * (world.ball_v[1] - 1.6 * into * ny)
    rise = 0.15 * jnp.abs(world.ball_v[2]) + 1.5 * draw
    return jnp.stack([vx, vy, rise])


def _poke(
    world: World,
    now: Contact,
    draw: Array,
) -> tuple[Array, Array]:
    """Return the horizontal velocity of a ball that a tackle plays away."""
    angle = 2 * jnp.pi * (draw - 0.5) * 0.5
    x, y = pick(world.face_x, now.who), pick(world.face_y, now.who)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return POKE_SPEED * (x * cosine - y * sine), POKE_SPEED * (y * cosine + x * sine)
