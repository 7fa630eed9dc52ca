"""Features of SPECTra, which its flat vectors and the entities have in common.

They are in the units of GRF. A ``length`` measures vectors: SPECTra takes the norm of these units,
which are longer along y, and the entities take meters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from jmarl.envs.football.views.sight import Sight


Columns = list[Array]
"""Features of K rows, ``[K, *b]`` each, or ``[*b]`` if equal for all rows."""
Length = Callable[[Array, Array], Array]
"""Length of a vector, given by its x and y."""
BOX_X, MIDDLE_X, END_X = 0.64, 0.2, 1.0
"""Borders of the zones, in the units of GRF."""
BOX_Y, END_Y = 0.27, 0.42
SPEED = 100.0
"""Scale of the velocity of a player."""
BALL_SPEED = 20.0
"""Scale of the velocity of the ball."""

OWN_NAMES = (
    "x",
    "y",
    "vx",
    "vy",
    "speed",
    "to_touch_line",
    "to_goal_line",
    "far_ball",
    "tired",
    "dribble",
    "sprint",
)
"""Names of ``own_columns``, in their order."""


def grf_length(x: Array, y: Array) -> Array:
    """Return the norm of a vector in the units of GRF."""
    return jnp.sqrt(x * x + y * y)


def own_columns(
    sight: Sight,
    far: Array,
    length: Length,
) -> Columns:
    """Return the observers, without their roles.

    The features are x and y, velocity (2), speed, distances to the touch line and to the goal
    line, flag of a far ball, fatigue, flags of dribbling and of sprinting.
    """
    view = sight.view
    x = sight.agents(view.x)
    y = sight.agents(view.y)
    vx = sight.agents(view.vx)
    vy = sight.agents(view.vy)
    return [
        x,
        y,
        SPEED * vx,
        SPEED * vy,
        SPEED * length(vx, vy),
        END_Y - jnp.abs(y),
        END_X - jnp.abs(x),
        far,
        sight.agents(view.tired),
        sight.agents(view.dribble),
        sight.agents(view.sprint),
    ]


def slot_columns(
    sight: Sight,
    length: Length,
    scale: float,
) -> Columns:
    """Return the players in each agent's slots, without their roles.

    The features are relative x and y, relative velocity (2), distance, and fatigue.
    """
    view = sight.view
    x = _relative(sight, view.x)
    y = _relative(sight, view.y)
    vx = _relative(sight, view.vx)
    vy = _relative(sight, view.vy)
    tired = sight.by_slot(view.tired)
    return [
        x,
        y,
        scale * vx,
        scale * vy,
        length(x, y),
        tired,
    ]


def _relative(sight: Sight, x: Array) -> Array:
    observer = sight.agents(x)
    return sight.by_slot(x) - observer[:, None]


def ball_columns(
    sight: Sight,
    length: Length,
    up: float,
    *,
    seen: bool,
) -> Columns:
    """Return the ball.

    The features are x, y and z, the zone (6), the relative x and y, velocity (3), speed, the
    distance, and flags of a ball that is owned and that the left team owns.

    Args:
        sight: What the agents see.
        length: Length of a vector.
        up: Scale of the vertical velocity.
        seen: Include relative position and distance, which each agent has its own of.
    """
    vx, vy, vz = sight.view.ball_v
    relative = [sight.ball_x, sight.ball_y] if seen else []
    distance = [length(*relative)] if seen else []
    return [
        *sight.view.ball,
        *zones(sight),
        *relative,
        BALL_SPEED * vx,
        BALL_SPEED * vy,
        up * vz,
        BALL_SPEED * length(vx, vy),
        *distance,
        ~sight.free,
        sight.left,
    ]


def zones(sight: Sight) -> Columns:
    """Return the one-hot of the ball's zone, ``[*b]`` each.

    The zones are the own box, the rest of the own part, the middle, the opponents' box, the rest
    of their part, and the rest.
    """
    x, y, _ = sight.view.ball
    on_pitch = (jnp.abs(x) <= END_X) & (jnp.abs(y) < END_Y)
    in_box = on_pitch & (jnp.abs(y) < BOX_Y)
    own_box = in_box & (x < -BOX_X)
    other_box = in_box & (x > BOX_X)
    own = on_pitch & (x < -MIDDLE_X)
    other = on_pitch & (x > MIDDLE_X)
    middle = on_pitch & ~own & ~other
    return [
        own_box,
        own & ~own_box,
        middle,
        other_box,
        other & ~other_box,
        ~on_pitch,
    ]
