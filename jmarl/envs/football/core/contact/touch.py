"""Touches of the ball: who touches it in a substep, and what the ball does then.

The player at the ball plays it ahead (``dribble``). Opponents tackle him, and a free ball is
received or bounces off a body (``tackles``).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import vectors
from jmarl.envs.football.core.contact import dribble, possession, tackles
from jmarl.envs.football.core.contact.possession import FOOT_HEIGHT, HEAD_HEIGHT
from jmarl.envs.football.core.player_commands import Commands
from jmarl.envs.football.core.setup import Setup, attack_sign
from jmarl.envs.football.core.world import (
    NOBODY,
    World,
    expand,
    first_of,
    pick_vector,
)


TRAP_REACH = 0.66
"""Distance at which a player gets a free ball, in meters."""
BODY_REACH = 0.42
"""The same for a ball that is too fast to be reached by a foot."""
BODY_SPEED = 18.0
"""Speed from which a ball is too fast, m/s."""
HEAD_REACH = 0.5
"""The same for a ball above the foot."""
KICKER_REFRACTORY = 0.4
"""Seconds after his own touch in which a player does not get a free ball."""
SLIDE_REACH = 0.9
"""Distance at which a slide plays the ball, in meters."""
PASSIVE = 0.5
"""Distance by which the reach of a passive player is shorter, in meters."""
TIE = 0.02
"""Advantage of the team that wins ties, in meters."""
TACKLER_FIRST = 1.0
"""Advantage of a tackler over the carrier, in meters: more than his reach."""
CLEAN = 0.7
"""Probability that a tackle wins the ball."""
BEATEN = 0.5
"""Further seconds for which a player who lost the ball to a tackle cannot tackle."""
DROP = 0.6
"""Factor of the height of a ball above the foot that is brought under control."""
TOUCH_DRAWS = 4
"""Uniform draws of a substep: tackle, clean tackle, trap, direction of a bounce."""


class Contact(NamedTuple):
    """The player who touches the ball in a substep, if any."""

    who: Bool[Array, "P *b"]
    """Mask with at most one player."""
    controls: Bool[Array, "*b"]
    """He gets the ball under control; otherwise it bounces off him."""
    pokes: Bool[Array, "*b"]
    """He plays the ball away from its carrier."""


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
    carries = possession.carrier(world)
    carried = jnp.any(carries, axis=0)
    free = world.active & (world.busy <= 0)
    apart = possession.swept_distance(world, before)
    plays = free & carries & dribble.carrier_plays(world, commands)
    gets = free & ~carries & _gets_free_ball(world, apart)
    slides = _slides(world, apart)
    reach = apart + PASSIVE * commands.passive
    challenges = slides | (
        free & tackles.tackles(setup, world, carries, reach, draws[0], h)
    )
    # A teammate leaves the ball to the carrier.
    mates = expand(setup.sign, apart) == attack_sign(setup, carries)
    candidates = jnp.where(
        carried,
        plays | (challenges & ~mates),
        gets | slides,
    )
    cost = _tie_broken(setup, world, apart) - TACKLER_FIRST * (challenges & carried)
    who = first_of(cost, candidates)
    pokes = jnp.any(who & challenges, axis=0) & carried & (draws[1] > CLEAN)
    pokes |= jnp.any(who & slides, axis=0)
    chance = tackles.trap_chance(
        possession.relative_speed(world, who),
        world.ball[2],
    )
    controls = carried | (draws[2] < chance)
    return Contact(who, controls & ~pokes, pokes)


def _gets_free_ball(
    world: World,
    apart: Float[Array, "P *b"],
) -> Bool[Array, "P *b"]:
    """Return whether each player reaches a ball without a carrier."""
    is_recent = world.touched < KICKER_REFRACTORY
    waits = is_recent & possession.last_toucher(world)
    low = world.ball[2] < FOOT_HEIGHT
    reach = jnp.where(low, TRAP_REACH, HEAD_REACH)
    fast = possession.rolls_faster(world, BODY_SPEED)
    reach = jnp.where(fast, BODY_REACH, reach)
    return ~waits & (apart < reach) & (world.ball[2] < HEAD_HEIGHT)


def _slides(
    world: World,
    apart: Float[Array, "P *b"],
) -> Bool[Array, "P *b"]:
    """Return whether each player plays the ball with a slide."""
    low = world.ball[2] < FOOT_HEIGHT
    return (world.slide > 0) & world.active & (apart < SLIDE_REACH) & low


def _tie_broken(
    setup: Setup,
    world: World,
    apart: Float[Array, "P *b"],
) -> Float[Array, "P *b"]:
    """Return distances that are a little shorter for the team that wins ties."""
    is_left = expand(setup.sign, apart) > 0
    return apart + TIE * is_left * jnp.where(world.right_first, 1.0, -1.0)


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
    index = jnp.argmax(now.who, axis=0).astype(jnp.int8)
    is_trapped = touches & now.controls & (world.ball[2] > FOOT_HEIGHT)
    drop = jnp.where(is_trapped, DROP, 1.0)
    beaten = possession.carrier(world) & touches & ~now.who
    touched = jnp.where(beaten, -BEATEN, world.touched)
    return world.replace(
        ball_v=jnp.where(
            touches,
            _velocity(world, commands, now, draws[3]),
            world.ball_v,
        ),
        ball=world.ball.at[2].multiply(drop),
        last_touch=jnp.where(touches, index, world.last_touch),
        receiver=jnp.where(touches, NOBODY, world.receiver).astype(jnp.int8),
        bounced=jnp.where(touches, ~(now.controls | now.pokes), world.bounced),
        touched=jnp.where(now.who, 0.0, touched),
    )


def _velocity(
    world: World, commands: Commands, now: Contact, draw: Float[Array, "*b"]
) -> Float[Array, "3 *b"]:
    """Return the velocity of the ball after a touch."""
    played = pick_vector(dribble.dribble_velocity(world, commands), now.who)
    poked = tackles.poke(world, now.who, draw)
    bounced, bounce_rise = tackles.deflection(world, now.who, draw)
    flat = vectors.where(now.pokes, poked, bounced)
    flat = vectors.where(now.controls, played, flat)
    rise = jnp.where(now.pokes, tackles.POKE_RISE, bounce_rise)
    rise = jnp.where(now.controls, 0.0, rise)
    return jnp.stack([*flat, rise])


def stop_ball(
    world: World, before: Float[Array, "3 *b"], who: Bool[Array, "P *b"]
) -> World:
    """Return the ball to the point of its path in the substep that is nearest to a player.

    Args:
        world: Current state.
        before: Position of the ball before the substep.
        who: Mask of the player, or of none.
    """
    nearest = possession.nearest_point(world, before)
    x, y = vectors.where(
        jnp.any(who, axis=0),
        pick_vector(nearest, who),
        world.ball_place,
    )
    return world.replace(ball=jnp.stack([x, y, world.ball[2]]))
