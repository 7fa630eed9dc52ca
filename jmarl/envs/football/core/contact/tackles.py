"""Tackles of the carrier, and free balls that bounce off a body.

Rates and probabilities are fits to measured duels and traps of Google Research Football (GRF).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import vectors
from jmarl.envs.football.core.contact import possession
from jmarl.envs.football.core.contact.dribble import REFRACTORY
from jmarl.envs.football.core.contact.possession import FOOT_HEIGHT
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand, pick, pick_vector


CHALLENGE_RATE = 55.0
"""Tackles per second of an opponent who stands at the ball."""
CHALLENGE_REACH, CHALLENGE_FADE = 1.0, 0.5
"""Distance from which an opponent tackles, and that over which the rate rises, in meters."""
SHIELD, SHIELDED = 0.6, 0.1
"""Further distance than the carrier's at which a tackle is least likely, in meters, and its factor
of the rate there."""
SKILL_BASE, SKILL_GAIN = 0.3, 0.7
"""Skill of a player at difficulty 0, and its growth (GRF's factor of all ratings)."""
SKILL_EXPONENT = 1.75
"""Power of the skill in the rate of tackles, from the duration of duels by difficulty."""
TRAP_SPEED, TRAP_RANGE = 13.5, 1.5
"""Relative speed from which a ball can bounce off its receiver, and the range above it in which
the probability rises, m/s."""
MISTRAP, HIGH_MISTRAP = 0.9, 0.25
"""Probability that a fast ball bounces off, and that by which it is larger above the foot."""
BOUNCE_SPEED = 0.2
"""Factor of the horizontal velocity of a ball that bounces off a body."""
BOUNCE_BACK = 1.6
"""Factor of its velocity into the body that the bounce subtracts; 1 stops it, 2 reflects it."""
BOUNCE_LIFT = 0.15
"""Upward speed of that ball per vertical speed before."""
BOUNCE_RISE = 1.5
"""Largest further upward speed, drawn at random, m/s."""
POKE_SPEED, POKE_RISE = 4.0, 1.0
"""Speeds of a ball that a tackle plays away, horizontal and upward, m/s."""
POKE_ANGLE = 0.5
"""Largest angle between the player and that ball, in units of 180 degrees."""


def tackles(
    setup: Setup, world: World, carries: Array, apart: Array, draw: Array, h: float
) -> Bool[Array, "P *b"]:
    """Return the opponents of the carrier who play the ball in this substep.

    The rate grows with nearness. A carrier between the opponent and the ball shields it.

    Args:
        setup: Scenario and options.
        world: Current state.
        carries: Mask of the carrier.
        apart: Distance of each player to the ball, meters.
        draw: Uniform draw.
        h: Seconds of the substep.
    """
    carrier_way = pick(possession.distance(world), carries)
    nearness = jnp.clip(
        (CHALLENGE_REACH - apart) / CHALLENGE_FADE,
        0.0,
        1.0,
    )
    ahead = jnp.clip(
        1.0 - (apart - carrier_way) / SHIELD,
        SHIELDED,
        1.0,
    )
    skill = SKILL_BASE + SKILL_GAIN * expand(setup.difficulty, apart)
    rate = CHALLENGE_RATE * skill**SKILL_EXPONENT * nearness * ahead
    ready = (world.touched > REFRACTORY) & (world.ball[2] < FOOT_HEIGHT)
    return (draw < rate * h) & ready & ~carries & (nearness > 0)


def trap_chance(
    speed: Float[Array, "*b"],
    height: Float[Array, "*b"],
) -> Array:
    """Return the probability that a player gets a free ball under control.

    Args:
        speed: Speed of the ball relative to the player, m/s.
        height: Height of the ball, meters.
    """
    hard = MISTRAP * jnp.clip((speed - TRAP_SPEED) / TRAP_RANGE, 0.0, 1.0)
    hard += HIGH_MISTRAP * (height > FOOT_HEIGHT)
    return jnp.clip(1 - hard, 0.0, 1.0)


def deflection(
    world: World,
    who: Bool[Array, "P *b"],
    draw: Array,
) -> tuple[Vector, Array]:
    """Return the velocity of a ball that bounces off a body, slower and sideways.

    Args:
        world: Current state.
        who: Mask of the player.
        draw: Uniform draw.

    Returns:
        The horizontal velocity and the upward speed, m/s.
    """
    away = vectors.minus(world.ball_place, pick_vector(world.place, who))
    x, y = vectors.direction(away)
    vx, vy = world.roll
    into = jnp.minimum(vx * x + vy * y, 0.0)
    flat = (
        BOUNCE_SPEED * (vx - BOUNCE_BACK * into * x),
        BOUNCE_SPEED * (vy - BOUNCE_BACK * into * y),
    )
    return flat, BOUNCE_LIFT * jnp.abs(world.ball_v[2]) + BOUNCE_RISE * draw


def poke(
    world: World,
    who: Bool[Array, "P *b"],
    draw: Array,
) -> Vector:
    """Return the horizontal velocity of a ball that a tackle plays away, m/s."""
    angle = 2 * jnp.pi * (draw - 0.5) * POKE_ANGLE
    x, y = vectors.rotated(
        pick_vector(world.face, who),
        jnp.cos(angle),
        jnp.sin(angle),
    )
    return POKE_SPEED * x, POKE_SPEED * y
