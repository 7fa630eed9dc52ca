"""The scripted players: the right team, both keepers, and agents whom a script plays.

Outfield players go to the ball if they are nearest to it, to a place between the ball and their
goal if the opponents have it, and forward otherwise. The player at the ball shoots, passes or
dribbles. Differs from Google Research Football (GRF): its formations, man marking and ratings of
passes are simplified to what its recordings show.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import ball as free_ball
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import keeper, pitch, touch
from jmarl.envs.football.core.player_commands import SPRINT, Commands
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    expand,
    first_of,
    is_opening,
    pick,
)


REACH = 0.28
"""Distance at which a player has reached the ball, in meters."""
CHASE_SPEED = 6.0
"""Speed that the race to the ball expects of a player, m/s."""
REACHABLE = 2.0
"""Height up to which a player reaches the ball, in meters."""
MEET = 8.0
"""Distance of the carrier to the line of a defender's place at which he is attacked, in meters."""
HUNT = 6.5
"""Distance within which a defender attacks the carrier, in meters.

Differs from GRF's source: it does not depend on the difficulty, because the duration of measured
duels does not.
"""
CLOSE = 1.2
"""Distance to the ball at which any player goes to it, in meters."""
HUNTER_REACH = 3.0
"""The same for the defender who attacks the carrier."""
OVERTAKE = 8.0
"""Distance within which a defender overtakes the carrier, and that to which he does, in meters."""
OVERTAKEN = 2.5
"""Distance by which he is nearer to his goal than the carrier when he attacks, in meters."""
MARK = 0.15
"""Part of the way from a marked attacker to the goal at which his marker stands."""
GOAL_SIDE = 0.8
"""Distance by which a defender stays on the side of his goal, in meters."""
BACK = 0.7
"""Part of the way from the own goal to the ball at which a single defender stands.

A team of five and more is farther from its goal and follows the ball by 0.6 m per meter.
"""
WIDTH = 0.82
"""Factor of the width of the formation."""
BALL_SIDE = 0.1
"""Part of the y of the ball by which the formation shifts."""
FREE_RANGE = 30.0
"""Distance from the goal within which an attacker counts as free, in meters."""
RUSH_RANGE = 45.0
"""Distance of the ball to the goal line up to which a keeper rushes at it, in meters."""
SHOOT_RANGE = 20.0
"""Distance from which a scripted player shoots, in meters."""
PRESSURE = 4.0
"""Distance of an opponent under whose pressure a scripted player passes, in meters."""
LEAD = 1.2
"""Distance of the ball from which a dribbling player only runs after it, in meters."""
REPEL = 10.0
"""Range of the force by which opponents repel a dribbling player, in meters."""
REPEL_FORCE = 6.2
"""Largest strength of that force, as a multiple of the pull towards the goal."""
STROLL = 1.5
"""Speed off the ball of the team that has it, beyond the speed of its carrier, m/s."""
REPLAN = 0.02
"""Part by which a player off the ball corrects his run per step."""
NEAREST_REPLAN = 0.15
"""The same for the defender who is nearest to the carrier."""
MARKING_REPLAN = 1.0
"""The same for defenders who mark an attacker."""
ARRIVE = 2.6
"""Speed per meter that a player is out of place, 1/s."""
LATE = 0.3
"""Seconds by which a player may be later than the opponents and still goes to the ball."""


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


class Defense(NamedTuple):
    """What each player does while the opponents have the ball."""

    nearest: Bool[Array, "P *b"]
    """The player of his team nearest to the carrier."""
    hunts: Bool[Array, "P *b"]
    """He attacks the carrier."""
    marks: Bool[Array, "P *b"]
    """He marks a free attacker."""
    x: Float[Array, "P *b"]
    """Where he goes, meters."""
    y: Float[Array, "P *b"]


def race(setup: Setup, world: World) -> Race:
    """Forecast who reaches the ball first."""
    path = free_ball.forecast(world.ball, world.ball_v)
    times = free_ball.TIMES.reshape((-1,) + (1,) * world.x.ndim)
    dx = path.x[:, None] - world.x - 0.2 * world.vx
    dy = path.y[:, None] - world.y - 0.2 * world.vy
    way = jnp.sqrt(dx**2 + dy**2) - REACH
    needed = jnp.maximum(times, way / CHASE_SPEED)  # [J, P, *b]
    needed += 3.0 * (path.z[:, None] > REACHABLE)
    least = jnp.min(needed, axis=0)
    chosen = needed == least
    count = jnp.sum(chosen, axis=0)
    x = jnp.sum(jnp.where(chosen, path.x[:, None], 0.0), axis=0) / count
    y = jnp.sum(jnp.where(chosen, path.y[:, None], 0.0), axis=0) / count
    # The player to whom a pass was played does not wait for a nearer one.
    receives = jnp.arange(len(world.x)).reshape((-1,) + (1,) * (world.x.ndim - 1))
    time = least - 0.3 * (receives == world.receiver)
    able = world.active & (world.busy <= 0.1)
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


def plan(
    setup: Setup, world: World, sprint: Race, draws: Float[Array, "D P *b"]
) -> Commands:
    """Return the commands of all players as if none of them were an agent.

    Args:
        setup: Scenario and options.
        world: Current state.
        sprint: The race to the ball.
        draws: Two uniform draws for each player.
    """
    carries = touch.carrier(world) | _holder(world)
    side = expand(setup.side, world.x)
    ours = jnp.any(
        carries & (side == 0),
        axis=0,
    )
    theirs = jnp.any(
        carries & (side == 1),
        axis=0,
    )
    own = jnp.where(side == 0, ours, theirs)
    foreign = jnp.where(side == 0, theirs, ours)
    goal = keeper.own_goal(setup, world)
    defense = _defend(setup, world, goal, carries, foreign)
    x, y = defense.x, defense.y
    forward_x, forward_y = _support(setup, world)
    x, y = jnp.where(own, forward_x, x), jnp.where(own, forward_y, y)
    pace = jnp.sqrt(pick(world.vx, carries) ** 2 + pick(world.vy, carries) ** 2)
    stroll = jnp.minimum(pace + STROLL, SPRINT)
    vx, vy = _arrive(world, x, y, jnp.where(own, stroll, SPRINT))
    untouched = (world.last_touch == NOBODY) & (world.ball_v[0] == 0)
    eager = (defense.nearest & ~own) | untouched
    part = jnp.where(eager, NEAREST_REPLAN, REPLAN)
    part = jnp.where(defense.marks, MARKING_REPLAN, part)
    part = jnp.where(defense.hunts, 1.0, part)
    vx = world.wish_x + part * (vx - world.wish_x)
    vy = world.wish_y + part * (vy - world.wish_y)
    near = touch.distance(world) < jnp.where(defense.hunts, HUNTER_REACH, CLOSE)
    # A marker leaves a free ball to the opponents unless he wins the race to it.
    goes = jnp.where(defense.marks, sprint.wins, sprint.ahead)
    chase = sprint.first & ~own & ((goes & ~foreign) | near)
    to_x, to_y = _to_ball(world, sprint)
    vx, vy = jnp.where(chase, to_x, vx), jnp.where(chase, to_y, vy)
    # In the recordings of GRF everybody runs to the ball at first, and a keeper far from his goal
    # waits.
    opens = is_opening(world) & ~expand(setup.keeper, vx)
    vx, vy = jnp.where(opens, to_x, vx), jnp.where(opens, to_y, vy)
    guard_x, guard_y = _guard(setup, world, goal, carries, sprint)
    guards = expand(setup.keeper, vx) & ~carries
    vx, vy = jnp.where(guards, guard_x, vx), jnp.where(guards, guard_y, vy)
    commands = _on_ball(setup, world, carries, (vx, vy), draws)
    return commands._replace(passive=defense.marks)


def _holder(world: World) -> Bool[Array, "P *b"]:
    return touch.members_last(world) & (world.held > 0)


def _to_ball(
    world: World,
    sprint: Race,
) -> tuple[Array, Array]:
    """Return the velocity of a player who runs to where he reaches the ball."""
    dx, dy = sprint.x - world.x, sprint.y - world.y
    way = jnp.maximum(
        jnp.sqrt(dx**2 + dy**2),
        1e-3,
    )
    speed = jnp.minimum(SPRINT, 1.0 + 4.0 * way)
    return speed * dx / way, speed * dy / way


def _arrive(
    world: World,
    x: Array,
    y: Array,
    limit: Array,
) -> tuple[Array, Array]:
    """Return the velocity of a player who goes to a place at a limited speed."""
    dx, dy = x - world.x, y - world.y
    way = jnp.maximum(
        jnp.sqrt(dx**2 + dy**2),
        1e-3,
    )
    speed = jnp.where(
        way < 0.5,
        0.0,
        jnp.minimum(limit, ARRIVE * way),
    )
    return speed * dx / way, speed * dy / way


def _defend(
    setup: Setup, world: World, goal: keeper.Goal, carries: Array, foreign: Array
) -> Defense:
    """Return what each player does while the opponents have the ball.

    The nearest one attacks the carrier if his teammates suffice for the other attackers: he runs
    to the point of the carrier's way to the goal that both reach at the same time. If they do not
    suffice, the defenders leave the carrier and mark the free attacker who is nearest to the goal.
    """
    spot_x, spot_y = _formation(setup, world, goal)
    cx, cy = pick(world.x, carries), pick(world.y, carries)
    cvx, cvy = pick(world.vx, carries), pick(world.vy, carries)
    gx, gy = goal.x - cx, -cy
    length = jnp.maximum(
        jnp.sqrt(gx**2 + gy**2),
        1e-3,
    )
    ux, uy = gx / length, gy / length
    dx, dy = world.x - cx, world.y - cy
    square = dx**2 + dy**2
    ahead = jnp.maximum(
        ux * dx + uy * dy,
        0.3 * jnp.sqrt(square) + 1e-3,
    )
    way = jnp.clip(square / (2 * ahead), 0.0, length) + GOAL_SIDE
    meet_x = cx + way * ux + 0.14 * cvx
    meet_y = cy + way * uy + 0.14 * cvy
    outfield = world.active & ~expand(setup.keeper, dx)
    side = expand(setup.side, dx)
    nearest = spare = marks = jnp.zeros_like(outfield)
    for team in (0, 1):
        mates, others = outfield & (side == team), outfield & (side != team)
        nearest |= first_of(square, mates)
        free = others & ~carries & _is_near_goal(setup, world)
        enough = jnp.sum(mates, axis=0) > jnp.sum(free, axis=0)
        spare |= enough & (side == team)
        way_to_goal = jnp.hypot((1 - 2 * team) * pitch.HALF_LENGTH + world.x, world.y)
        marked = first_of(way_to_goal, free)
        mark_x, mark_y = pick(world.x, marked), pick(world.y, marked)
        now = mates & ~enough & jnp.any(marked, axis=0)
        spot_x = jnp.where(now, mark_x + MARK * (goal.x - mark_x), spot_x)
        spot_y = jnp.where(now, (1 - MARK) * mark_y, spot_y)
        marks |= now
    meets = jnp.abs(spot_x - cx) < MEET
    goal_side = jnp.abs(goal.x - world.x) < jnp.abs(gx) - OVERTAKEN
    hunts = foreign & nearest & spare & meets & goal_side & (square < HUNT**2)
    # A defender behind the carrier overtakes him before he attacks.
    overtakes = nearest & spare & ~goal_side & (square < OVERTAKE**2)
    spot_x = jnp.where(overtakes, cx + jnp.sign(gx) * OVERTAKE, spot_x)
    spot_y = jnp.where(overtakes, world.y, spot_y)
    return Defense(
        nearest,
        hunts,
        marks,
        jnp.where(hunts, meet_x, spot_x),
        jnp.where(hunts, meet_y, spot_y),
    )


def _formation(
    setup: Setup,
    world: World,
    goal: keeper.Goal,
) -> tuple[Array, Array]:
    """Return the place of each player in the formation that defends."""
    middle_x, middle_y = _middle(setup, world)
    outfield = world.active & ~expand(setup.keeper, world.x)
    side = expand(setup.side, world.x)
    counts = [jnp.sum(outfield & (side == team), axis=0) for team in (0, 1)]
    share = jnp.clip(
        (jnp.where(side == 0, *counts) - 1) / 4,
        0.0,
        1.0,
    )
    follow, back = BACK - 0.1 * share, 1 - BACK - 0.24 * share
    x = follow * world.ball[0] + back * goal.x + 0.5 * (world.anchor_x - middle_x)
    y = WIDTH * (world.anchor_y - middle_y) + BALL_SIDE * world.ball[1]
    limit_x, limit_y = pitch.HALF_LENGTH - 1.0, pitch.HALF_WIDTH - 1.0
    return jnp.clip(x, -limit_x, limit_x), jnp.clip(y, -limit_y, limit_y)


def _support(
    setup: Setup,
    world: World,
) -> tuple[Array, Array]:
    """Return the place of each player while his team has the ball."""
    sign = expand(setup.sign, world.x)
    middle_x, middle_y = _middle(setup, world)
    x = world.ball[0] + sign * 4.0 + 0.7 * (world.anchor_x - middle_x)
    y = WIDTH * (world.anchor_y - middle_y) + BALL_SIDE * world.ball[1]
    limit_x, limit_y = pitch.HALF_LENGTH - 3.0, pitch.HALF_WIDTH - 1.0
    return jnp.clip(x, -limit_x, limit_x), jnp.clip(y, -limit_y, limit_y)


def _middle(
    setup: Setup,
    world: World,
) -> tuple[Array, Array]:
    """Return the mean place in the formation of each player's team, without the keeper."""
    outfield = world.active & ~expand(setup.keeper, world.x)
    side = expand(setup.side, world.x)
    x = y = jnp.zeros_like(world.x)
    for team in (0, 1):
        mates = outfield & (side == team)
        count = jnp.maximum(
            jnp.sum(mates, axis=0),
            1,
        )
        mean_x = jnp.sum(jnp.where(mates, world.anchor_x, 0.0), axis=0) / count
        mean_y = jnp.sum(jnp.where(mates, world.anchor_y, 0.0), axis=0) / count
        x = jnp.where(side == team, mean_x, x)
        y = jnp.where(side == team, mean_y, y)
    return x, y


def _is_near_goal(
    setup: Setup,
    world: World,
) -> Bool[Array, "P *b"]:
    """Return whether each player is near the goal that he attacks."""
    way = pitch.HALF_LENGTH - expand(setup.sign, world.x) * world.x
    return way < FREE_RANGE


def _guard(
    setup: Setup, world: World, goal: keeper.Goal, carries: Array, sprint: Race
) -> tuple[Array, Array]:
    """Return the velocity of each player as a keeper."""
    outfield = world.active & ~expand(setup.keeper, world.x)
    side = expand(setup.side, world.x)
    alone = jnp.zeros_like(outfield)
    for team in (0, 1):
        mates, others = outfield & (side == team), outfield & (side != team)
        carrier_way = pitch.HALF_LENGTH + (1 - 2 * team) * world.ball[0]
        covers = jnp.any(
            mates & (jnp.abs(goal.x - world.x) < carrier_way),
            axis=0,
        )
        free = jnp.any(
            others & ~carries & _is_near_goal(setup, world),
            axis=0,
        )
        alone |= ~covers & ~free & (side == team)
    ours = [jnp.any(carries & (side == team), axis=0) for team in (0, 1)]
    alone &= ~jnp.where(side == 0, *ours)
    alone &= jnp.abs(goal.x - world.ball[0]) < RUSH_RANGE
    x, y = keeper.place(setup, world, goal, alone)
    vx, vy = keeper.pace(world, x, y)
    loose = ~jnp.any(carries, axis=0)
    far = is_opening(world) & (jnp.abs(goal.x - world.x) > pitch.HALF_LENGTH)
    vx, vy = jnp.where(far, 0.0, vx), jnp.where(far, 0.0, vy)
    takes = sprint.first & sprint.ahead & loose & ~goal.threatened
    to_x, to_y = _to_ball(world, sprint)
    return jnp.where(takes, to_x, vx), jnp.where(takes, to_y, vy)


def _on_ball(
    setup: Setup,
    world: World,
    carries: Bool[Array, "P *b"],
    velocity: tuple[Array, Array],
    draws: Float[Array, "D P *b"],
) -> Commands:
    """Add dribbles, shots and passes of the player at the ball."""
    sign = expand(setup.sign, world.x)
    gx, gy = sign * pitch.HALF_LENGTH - world.x, -world.y
    way = jnp.maximum(
        jnp.sqrt(gx**2 + gy**2),
        1e-3,
    )
    ux, uy, nearest = _dribble(
        setup,
        world,
        gx / way,
        gy / way,
    )
    shoots = (way < SHOOT_RANGE) & (draws[0] < 0.5)
    is_keeper = expand(setup.keeper, way)
    mates = jnp.zeros_like(is_keeper)
    for team in (0, 1):
        is_team = expand(setup.side, way) == team
        several = jnp.sum(world.active & is_team & ~is_keeper, axis=0) > 1
        mates = mates | (several & is_team)
    waits = world.held > keeper.HOLD_TIME
    passes = (nearest < PRESSURE) & (draws[1] < 0.15) & mates & ~is_keeper
    passes |= is_keeper & jnp.where(world.held > 0, waits, True) & mates
    kick = jnp.where(shoots & ~is_keeper, game.SHOT, 0)
    kick = jnp.where(
        (kick == 0) & passes,
        game.SHORT_PASS,
        kick,
    )
    stays = is_keeper & (world.held > 0)
    kick = jnp.where(stays & passes, game.HIGH_PASS, kick)
    kick = jnp.where(carries, kick, 0)
    lazy = expand(setup.lazy, way)
    kick = jnp.where(lazy, 0, kick)
    stays |= lazy
    rests = lazy | (stays & carries)
    dribble_x, dribble_y = (
        jnp.where(stays, 0.0, SPRINT * ux),
        jnp.where(stays, 0.0, SPRINT * uy),
    )
    off = jnp.zeros_like(carries)
    return Commands(
        x=dribble_x,
        y=dribble_y,
        off_x=jnp.where(rests, 0.0, velocity[0]),
        off_y=jnp.where(rests, 0.0, velocity[1]),
        kick=kick.astype(jnp.int8),
        kick_x=gx / way,
        kick_y=gy / way,
        kick_to=jnp.full(carries.shape, NOBODY, jnp.int8),
        slide=off,
        sprint=carries,
        dribble=off,
        delayed=off,
        passive=off,
    )


def _dribble(
    setup: Setup, world: World, ux: Array, uy: Array
) -> tuple[Array, Array, Array]:
    """Return the direction of a dribble, and the distance of the nearest opponent."""
    side = setup.side
    rivals = expand(side[:, None] != side[None], world.x) & world.active[None]
    dx = world.x[:, None] - world.x[None]
    dy = world.y[:, None] - world.y[None]
    gap = jnp.sqrt(dx**2 + dy**2)
    gap = jnp.where(rivals, gap, np.inf)
    force = jnp.clip(1 - gap / REPEL, 0.0, None) ** 2 / jnp.maximum(gap, 0.5)
    ux += REPEL_FORCE * jnp.sum(
        jnp.where(rivals, force * dx, 0.0),
        axis=1,
    )
    uy += REPEL_FORCE * jnp.sum(
        jnp.where(rivals, force * dy, 0.0),
        axis=1,
    )
    # The force does not turn or stop a player whose ball has rolled out of reach.
    away = touch.distance(world)
    runs = away > LEAD
    ux = jnp.where(runs, (world.ball[0] - world.x) / away, ux)
    uy = jnp.where(runs, (world.ball[1] - world.y) / away, uy)
    length = jnp.maximum(
        jnp.sqrt(ux**2 + uy**2),
        1.0,
    )
    return ux / length, uy / length, jnp.min(gap, axis=1)
