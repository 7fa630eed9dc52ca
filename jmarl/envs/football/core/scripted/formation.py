"""Places in the formation of a scripted team, in defense and in attack.

They are fits to the recordings of Google Research Football (GRF).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jmarl.envs.football.core import keeper, pitch
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand


BACK = 0.7
"""Part of the way from the own goal to the ball at which a single defender stands.

A team of five and more is farther from its goal and follows the ball by 0.6 m per meter.
"""
FOLLOW_LOSS, BACK_LOSS = 0.1, 0.24
"""Parts by which such a team follows the ball, and its goal, less than a single defender."""
LARGE_TEAM = 5
DEFENSE_LENGTH, ATTACK_LENGTH = 0.5, 0.7
"""Factors of the length of the formation."""
WIDTH = 0.82
"""Factor of the width of the formation."""
BALL_SIDE = 0.1
"""Part of the y of the ball by which the formation shifts."""
AHEAD = 4.0
"""Distance of the middle of the formation in attack ahead of the ball, in meters."""
DEFENSE_MARGIN, ATTACK_MARGIN, SIDE_MARGIN = 1.0, 3.0, 1.0
"""Least distances of a place from the goal lines and from the touch lines, in meters."""
FREE_RANGE = 30.0
"""Distance from the goal within which an attacker counts as free, in meters."""


def outfield_players(setup: Setup, world: World) -> Bool[Array, "P *b"]:
    """Return the mask of the players on the pitch without the keepers."""
    return world.active & ~expand(setup.keeper, world.x)


def in_defense(
    setup: Setup,
    world: World,
    goal: keeper.Goal,
) -> Vector:
    """Return the place of each player in the formation that defends, in meters."""
    middle_x, middle_y = _middle(setup, world)
    outfield = outfield_players(setup, world)
    side = expand(setup.side, world.x)
    counts = [jnp.sum(outfield & (side == team), axis=0) for team in (0, 1)]
    share = jnp.clip(
        (jnp.where(side == 0, *counts) - 1) / (LARGE_TEAM - 1),
        0.0,
        1.0,
    )
    follow, back = BACK - FOLLOW_LOSS * share, 1 - BACK - BACK_LOSS * share
    x = follow * world.ball[0] + back * goal.x
    x += DEFENSE_LENGTH * (world.anchor_x - middle_x)
    y = WIDTH * (world.anchor_y - middle_y) + BALL_SIDE * world.ball[1]
    return _on_pitch((x, y), DEFENSE_MARGIN)


def in_attack(setup: Setup, world: World) -> Vector:
    """Return the place of each player while his team has the ball, in meters."""
    sign = expand(setup.sign, world.x)
    middle_x, middle_y = _middle(setup, world)
    x = world.ball[0] + sign * AHEAD + ATTACK_LENGTH * (world.anchor_x - middle_x)
    y = WIDTH * (world.anchor_y - middle_y) + BALL_SIDE * world.ball[1]
    return _on_pitch((x, y), ATTACK_MARGIN)


def _on_pitch(place: Vector, margin: float) -> Vector:
    limit_x, limit_y = pitch.HALF_LENGTH - margin, pitch.HALF_WIDTH - SIDE_MARGIN
    x, y = place
    return jnp.clip(x, -limit_x, limit_x), jnp.clip(y, -limit_y, limit_y)


def _middle(setup: Setup, world: World) -> Vector:
    """Return the mean place in the formation of each player's team, without the keeper."""
    outfield = outfield_players(setup, world)
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


def is_near_goal(
    setup: Setup,
    world: World,
) -> Bool[Array, "P *b"]:
    """Return whether each player is near the goal that he attacks."""
    way = pitch.HALF_LENGTH - expand(setup.sign, world.x) * world.x
    return way < FREE_RANGE
