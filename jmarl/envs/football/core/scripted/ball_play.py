"""Play of a scripted player at the ball: he shoots, passes, or dribbles around opponents."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import keeper, pitch, vectors
from jmarl.envs.football.core.contact import possession
from jmarl.envs.football.core.player_commands import SPRINT, Commands
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import NOBODY, World, expand


SHOOT_RANGE = 20.0
"""Distance from which a scripted player shoots, in meters."""
SHOOT_CHANCE = 0.5
"""Probability per step that he shoots within this distance."""
PRESSURE = 4.0
"""Distance of an opponent under whose pressure a scripted player passes, in meters."""
PASS_CHANCE = 0.15
"""Probability per step that he passes under pressure."""
LEAD = 1.2
"""Distance of the ball from which a dribbling player only runs after it, in meters."""
REPEL = 10.0
"""Range of the force by which opponents repel a dribbling player, in meters."""
REPEL_FORCE = 6.2
"""Largest strength of that force, as a multiple of the pull towards the goal."""
NEAREST_GAP = 0.5
"""Distance of an opponent below which the force grows no further, in meters."""


def on_ball(
    setup: Setup,
    world: World,
    carries: Bool[Array, "P *b"],
    run: Vector,
    draws: Float[Array, "D P *b"],
) -> Commands:
    """Return the commands of all players, with dribbles, shots and passes of the carrier.

    Args:
        setup: Scenario and options.
        world: Current state.
        carries: Mask of the carrier.
        run: Velocity of each player off the ball, m/s.
        draws: Two uniform draws for each player: shot, pass.
    """
    to_goal = expand(setup.sign, world.x) * pitch.HALF_LENGTH - world.x, -world.y
    aim = vectors.direction(to_goal)
    ahead, nearest = _dribble(setup, world, aim)
    kick = _choose_kick(
        setup,
        world,
        vectors.length(to_goal),
        nearest,
        draws,
    )
    lazy = expand(setup.lazy, nearest)
    kick = jnp.where(carries & ~lazy, kick, 0)
    stays = lazy | _holds(setup, world)
    rests = lazy | (stays & carries)
    off = jnp.zeros_like(carries)
    return Commands(
        x=jnp.where(stays, 0.0, SPRINT * ahead[0]),
        y=jnp.where(stays, 0.0, SPRINT * ahead[1]),
        off_x=jnp.where(rests, 0.0, run[0]),
        off_y=jnp.where(rests, 0.0, run[1]),
        kick=kick.astype(jnp.int8),
        kick_x=aim[0],
        kick_y=aim[1],
        kick_to=jnp.full(carries.shape, NOBODY, jnp.int8),
        slide=off,
        sprint=carries,
        dribble=off,
        delayed=off,
        passive=off,
    )


def _holds(setup: Setup, world: World) -> Bool[Array, "P *b"]:
    """Return the keepers, while one of them holds the ball."""
    return expand(setup.keeper, world.x) & (world.held > 0)


def _choose_kick(
    setup: Setup,
    world: World,
    way: Float[Array, "P *b"],
    nearest: Float[Array, "P *b"],
    draws: Float[Array, "D P *b"],
) -> Array:
    """Return the kick of each player if he has the ball; 0 for none.

    Args:
        setup: Scenario and options.
        world: Current state.
        way: Distance to the goal, meters.
        nearest: Distance of the nearest opponent, meters.
        draws: Two uniform draws for each player: shot, pass.
    """
    is_keeper = expand(setup.keeper, way)
    mates = _has_mates(setup, world)
    shoots = (way < SHOOT_RANGE) & (draws[0] < SHOOT_CHANCE)
    passes = (nearest < PRESSURE) & (draws[1] < PASS_CHANCE) & mates & ~is_keeper
    waits = world.held > keeper.HOLD_TIME
    passes |= is_keeper & jnp.where(world.held > 0, waits, True) & mates
    kick = jnp.where(shoots & ~is_keeper, game.SHOT, 0)
    kick = jnp.where(
        (kick == 0) & passes,
        game.SHORT_PASS,
        kick,
    )
    throws = _holds(setup, world) & passes
    return jnp.where(throws, game.HIGH_PASS, kick)


def _has_mates(setup: Setup, world: World) -> Bool[Array, "P *b"]:
    """Return whether each player's team has several outfield players."""
    is_keeper = expand(setup.keeper, world.x)
    mates = jnp.zeros_like(is_keeper)
    for team in (0, 1):
        is_team = expand(setup.side, world.x) == team
        several = jnp.sum(world.active & is_team & ~is_keeper, axis=0) > 1
        mates = mates | (several & is_team)
    return mates


def _dribble(
    setup: Setup,
    world: World,
    to_goal: Vector,
) -> tuple[Vector, Array]:
    """Return the direction of a dribble, and the distance of the nearest opponent."""
    side = setup.side
    rivals = expand(side[:, None] != side[None], world.x) & world.active[None]
    dx = world.x[:, None] - world.x[None]
    dy = world.y[:, None] - world.y[None]
    gap = vectors.length((dx, dy))
    gap = jnp.where(rivals, gap, np.inf)
    force = jnp.clip(1 - gap / REPEL, 0.0, None) ** 2 / jnp.maximum(gap, NEAREST_GAP)
    push_x = jnp.sum(jnp.where(rivals, force * dx, 0.0), axis=1)
    push_y = jnp.sum(jnp.where(rivals, force * dy, 0.0), axis=1)
    ahead = to_goal[0] + REPEL_FORCE * push_x, to_goal[1] + REPEL_FORCE * push_y
    # The force does not turn or stop a player whose ball has rolled out of reach.
    to_ball = possession.to_ball(world)
    runs = vectors.length(to_ball) > LEAD
    ahead = vectors.where(runs, vectors.direction(to_ball), ahead)
    return vectors.direction(ahead, 1.0), jnp.min(gap, axis=1)
