"""Actions of the agents as commands: sticky buttons, and requests to kick or slide."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import NOBODY, World


OWN_ACTIONS = tuple(a for a in range(len(game.ACTIONS)) if a not in game.PASSES)
"""Actions without a target, of ``env.passes=aimed``."""
WALK = 5.0
"""Speed of a player who presses a direction, m/s."""
SPRINT = 8.0
DRIBBLE = 3.5


class Commands(NamedTuple):
    """What every player wants in a step."""

    x: Float[Array, "P *b"]
    """Velocity at which the player wants to run with the ball, m/s."""
    y: Float[Array, "P *b"]
    off_x: Float[Array, "P *b"]
    """Velocity at which he wants to run without the ball, m/s."""
    off_y: Float[Array, "P *b"]
    kick: Int[Array, "P *b"]
    """Requested kick: 0 or the action (9 to 12), int8."""
    kick_x: Float[Array, "P *b"]
    """Direction of the kick: a unit vector."""
    kick_y: Float[Array, "P *b"]
    kick_to: Int[Array, "P *b"]
    """Player at whom a pass is aimed, or ``NOBODY``, int8."""
    slide: Bool[Array, "P *b"]
    """Requested slide."""
    sprint: Bool[Array, "P *b"]
    dribble: Bool[Array, "P *b"]
    delayed: Bool[Array, "P *b"]
    """The player reacts with a delay: agents whom the magnet does not move."""
    passive: Bool[Array, "P *b"]
    """The player goes elsewhere and tackles only if he runs into the ball."""


def n_actions(setup: Setup) -> int:
    """Return the number of actions."""
    return len(action_targets(setup))


def action_targets(setup: Setup) -> tuple[int, ...]:
    """Return ``Spec.action_target``: the slot of ``allies`` at which each action is aimed."""
    if setup.config.passes == "grf":
        return (-1,) * len(game.ACTIONS)
    # An agent observes as many allies as there are agents: the others and the keeper.
    slots = np.repeat(
        np.arange(setup.n_left - 1),
        len(game.PASSES),
    )
    return (-1,) * len(OWN_ACTIONS) + tuple(slots.tolist())


def decode(
    setup: Setup, action: Int[Array, "N *b"]
) -> tuple[Int[Array, "N *b"], Int[Array, "N *b"]]:
    """Return the action of GRF, and the player at whom a pass is aimed or ``NOBODY``.

    Args:
        setup: Scenario and options.
        action: Actions of the agents, 0 to ``n_actions``.
    """
    if setup.config.passes == "grf":
        return action, jnp.full_like(action, NOBODY)
    rank = action - len(OWN_ACTIONS)
    own = jnp.asarray(OWN_ACTIONS, action.dtype)[
        jnp.clip(action, 0, len(OWN_ACTIONS) - 1)
    ]
    own = jnp.where(action < 0, action, own)  # a scripted agent
    slot, kind = rank // len(game.PASSES), rank % len(game.PASSES)
    observer = jnp.arange(len(action)).reshape((-1,) + (1,) * (action.ndim - 1))
    mate = slot + (slot >= observer) + 1  # the observer has no slot
    target = jnp.where(slot == setup.n_left - 2, 0, mate)  # the last slot is the keeper
    is_aimed = rank >= 0
    return (
        jnp.where(is_aimed, game.LONG_PASS + kind, own),
        jnp.where(is_aimed, target, NOBODY),
    )


def press(
    setup: Setup,
    world: World,
    action: Int[Array, "N *b"],
) -> World:
    """Update the sticky buttons of the agents."""
    pad = ((1, setup.n_players - setup.n_left),) + ((0, 0),) * (action.ndim - 1)
    action = jnp.pad(action, pad)
    is_direction = (action > 0) & (action <= 8)
    direction = jnp.where(is_direction, action, world.direction)
    direction = jnp.where(action == game.RELEASE_DIRECTION, 0, direction)

    def toggled(
        on: Array,
        press: int,
        release: int,
    ) -> Array:
        return (on | (action == press)) & (action != release)

    return world.replace(
        direction=direction.astype(jnp.int8),
        sprint=toggled(world.sprint, game.SPRINT, game.RELEASE_SPRINT),
        dribble=toggled(world.dribble, game.DRIBBLE, game.RELEASE_DRIBBLE),
    )
