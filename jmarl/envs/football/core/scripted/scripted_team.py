"""The scripted players: the right team, both keepers, and agents whom a script plays.

Outfield players go to the ball if they are nearest to it, to a place between the ball and their
goal if the opponents have it, and forward otherwise. The player at the ball shoots, passes or
dribbles. Differs from Google Research Football (GRF): its formations, man marking and ratings of
passes are simplified to what its recordings show.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import keeper, pitch, vectors
from jmarl.envs.football.core.contact import possession
from jmarl.envs.football.core.player_commands import SPRINT, Commands
from jmarl.envs.football.core.scripted import formation
from jmarl.envs.football.core.scripted.ball_play import on_ball
from jmarl.envs.football.core.scripted.defense import Defense, defend
from jmarl.envs.football.core.scripted.race import Race, chase
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    expand,
    is_opening,
    pick_vector,
)


CLOSE = 1.2
"""Distance to the ball at which any player goes to it, in meters."""
HUNTER_REACH = 3.0
"""The same for the defender who attacks the carrier."""
RUSH_RANGE = 45.0
"""Distance of the ball to the goal line up to which a keeper rushes at it, in meters."""
STROLL = 1.5
"""Speed off the ball of the team that has it, beyond the speed of its carrier, m/s."""
REPLAN = 0.02
"""Part by which a player off the ball corrects his run per step."""
NEAREST_REPLAN = 0.15
"""The same for the defender who is nearest to the carrier."""
MARKING_REPLAN = 1.0
"""The same for defenders who mark an attacker."""
HUNTING_REPLAN = 1.0
"""The same for the defender who attacks the carrier."""
ARRIVE = 2.6
"""Speed per meter that a player is out of place, 1/s."""
IN_PLACE = 0.5
"""Distance from his place at which a player stands still, in meters."""


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
    carries = possession.carrier(world) | _holder(world)
    own, foreign = _teams_with_ball(setup, carries)
    goal = keeper.own_goal(setup, world)
    defense = defend(setup, world, goal, carries, foreign)
    run = _run_to_place(setup, world, defense, own, carries)
    to_ball = chase(world, sprint)
    goes = _goes_to_ball(world, sprint, defense, own, foreign)
    run = vectors.where(goes, to_ball, run)
    # In the recordings of GRF everybody runs to the ball at first, and a keeper far from his goal
    # waits.
    is_keeper = expand(setup.keeper, world.x)
    run = vectors.where(is_opening(world) & ~is_keeper, to_ball, run)
    guard = _guard(setup, world, goal, carries, sprint)
    run = vectors.where(is_keeper & ~carries, guard, run)
    commands = on_ball(setup, world, carries, run, draws)
    return commands._replace(passive=defense.marks)


def _holder(world: World) -> Bool[Array, "P *b"]:
    return possession.last_toucher(world) & (world.held > 0)


def _teams_with_ball(
    setup: Setup, carries: Bool[Array, "P *b"]
) -> tuple[Bool[Array, "P *b"], Bool[Array, "P *b"]]:
    """Return whether each player's team has the ball, and whether his opponents have it."""
    side = expand(setup.side, carries)
    ours, theirs = (jnp.any(carries & (side == team), axis=0) for team in (0, 1))
    own = jnp.where(side == 0, ours, theirs)
    foreign = jnp.where(side == 0, theirs, ours)
    return own, foreign


def _run_to_place(
    setup: Setup,
    world: World,
    defense: Defense,
    own: Bool[Array, "P *b"],
    carries: Bool[Array, "P *b"],
) -> Vector:
    """Return the velocity of a player off the ball, who corrects his run little by little."""
    support = formation.in_attack(setup, world)
    place = vectors.where(own, support, defense.place)
    pace = vectors.length(pick_vector(world.velocity, carries))
    stroll = jnp.minimum(pace + STROLL, SPRINT)
    vx, vy = vectors.approach(
        vectors.minus(place, world.place),
        limit=jnp.where(own, stroll, SPRINT),
        gain=ARRIVE,
        stop=IN_PLACE,
    )
    untouched = (world.last_touch == NOBODY) & (world.ball_v[0] == 0)
    eager = (defense.nearest & ~own) | untouched
    part = jnp.where(eager, NEAREST_REPLAN, REPLAN)
    part = jnp.where(defense.marks, MARKING_REPLAN, part)
    part = jnp.where(defense.hunts, HUNTING_REPLAN, part)
    return (
        world.wish_x + part * (vx - world.wish_x),
        world.wish_y + part * (vy - world.wish_y),
    )


def _goes_to_ball(
    world: World, sprint: Race, defense: Defense, own: Array, foreign: Array
) -> Bool[Array, "P *b"]:
    """Return the mask of the players who run to the ball: the first of a team, at most."""
    reach = jnp.where(defense.hunts, HUNTER_REACH, CLOSE)
    near = possession.distance(world) < reach
    # A marker leaves a free ball to the opponents unless he wins the race to it.
    goes = jnp.where(defense.marks, sprint.wins, sprint.ahead)
    return sprint.first & ~own & ((goes & ~foreign) | near)


def _guard(
    setup: Setup, world: World, goal: keeper.Goal, carries: Array, sprint: Race
) -> Vector:
    """Return the velocity of each player as a keeper."""
    alone = _is_alone(setup, world, goal, carries)
    run = keeper.pace(world, keeper.place(setup, world, goal, alone))
    loose = ~jnp.any(carries, axis=0)
    far = is_opening(world) & (jnp.abs(goal.x - world.x) > pitch.HALF_LENGTH)
    run = jnp.where(far, 0.0, run[0]), jnp.where(far, 0.0, run[1])
    takes = sprint.first & sprint.ahead & loose & ~goal.threatened
    return vectors.where(takes, chase(world, sprint), run)


def _is_alone(
    setup: Setup,
    world: World,
    goal: keeper.Goal,
    carries: Array,
) -> Bool[Array, "P *b"]:
    """Return whether no teammate is left between the carrier and each player's goal.

    A free opponent keeps the keeper on his line: the carrier could pass to him.
    """
    outfield = formation.outfield_players(setup, world)
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
            others & ~carries & formation.is_near_goal(setup, world),
            axis=0,
        )
        alone |= ~covers & ~free & (side == team)
    own, _ = _teams_with_ball(setup, carries)
    return alone & ~own & (jnp.abs(goal.x - world.ball[0]) < RUSH_RANGE)
