"""SPECTra's vectors: own 21 | ball 18 | mates and own keeper 16 each | right team 16 each.

The central state is the left team 18 each | right team 17 each | ball 15, with the keepers first.

Differs from the public code: the distance to a player is that from the observer, the flag of
sticky actions in the central state is the player's own sprint, and a player of the right team has
his own role. Rows of players who are not active or out of sight are zero.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.views.flat_view import FlatView
from jmarl.envs.football.views.sight import (
    Sight,
    append,
    roles,
    slot_roles,
    zero_unless,
)
from jmarl.envs.football.views.spectra_columns import (
    BALL_SPEED,
    ball_columns,
    grf_length,
    own_columns,
    slot_columns,
)


REACH = 0.03
"""Distance beyond which the ball is far: 1.6 m along x, 2.5 m along y."""
OWN_WIDTH = 21
BALL_WIDTH = 18
ROW_WIDTH = 16
LEFT_WIDTH = 18
RIGHT_WIDTH = 17
BALL_STATE_WIDTH = 15
STICKY = 6
"""Column of the flag of sticky actions in the left team's rows of the central state."""


def _width(setup: Setup) -> int:
    slots = setup.n_players - 1
    return OWN_WIDTH + BALL_WIDTH + ROW_WIDTH * slots


def _global_width(setup: Setup) -> int:
    left = LEFT_WIDTH * len(setup.scenario.left)
    right = RIGHT_WIDTH * len(setup.scenario.right)
    return left + right + BALL_STATE_WIDTH


def _own(sight: Sight) -> Float[Array, "*b N F"]:
    """Return the vector of each agent."""
    far = grf_length(sight.ball_x, sight.ball_y) > REACH
    own = sight.rows(own_columns(sight, far, grf_length))
    ball = sight.rows(ball_columns(sight, grf_length, BALL_SPEED, seen=True))
    players = sight.rows(slot_columns(sight, grf_length, scale=1.0))
    players = append(players, slot_roles(sight.setup))
    seen = sight.to_front(sight.by_slot(sight.sees))
    parts = [
        append(
            own,
            roles(sight.setup)[sight.setup.agent],
        ),
        zero_unless(sight.to_front(sight.sees_ball), ball),
        _merge_last(zero_unless(seen, players)),
    ]
    return jnp.concatenate(parts, axis=-1)


def _merge_last(rows: Float[Array, "*b E F"]) -> Float[Array, "*b E*F"]:
    """Return rows as one vector, one after the other."""
    return rows.reshape(
        *rows.shape[:-2],
        -1,
    )


def _central(sight: Sight) -> Float[Array, "*b F"]:
    """Return the players and the ball in absolute coordinates."""
    view = sight.view
    to_ball = view.ball[0] - view.x, view.ball[1] - view.y
    columns = [
        view.x,
        view.y,
        view.vx,
        view.vy,
        grf_length(view.vx, view.vy),
        view.tired,
        view.sprint,
        grf_length(*to_ball),
    ]
    rows = append(
        sight.rows(columns),
        roles(sight.setup),
    )
    rows = zero_unless(sight.to_front(view.active), rows)
    left, right = jnp.split(
        rows,
        [sight.setup.n_left],
        axis=-2,
    )
    right = jnp.delete(right, STICKY, axis=-1)
    ball = sight.rows(ball_columns(sight, grf_length, BALL_SPEED, seen=False))
    parts = [_merge_last(left), _merge_last(right), ball]
    return jnp.concatenate(parts, axis=-1)


VIEW = FlatView(_width, _global_width, _own, _central)
