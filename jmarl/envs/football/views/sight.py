"""Players and ball in the view of the agents, and the arrangement of features in rows.

A column is one feature of K rows, ``[K, *b]``. Thus every operation runs along the batch. Columns
become rows ``[*b, K, F]`` at the end, where the batch moves to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import NOBODY, Observable, expand
from jmarl.envs.football.scenarios.football_scenario import ROLES


N_MODES = 7
"""Number of GRF's game modes."""
SCALE = (1 / pitch.SCALE_X, 1 / pitch.SCALE_Y, 1.0)
"""GRF's units per meter along x, y and z."""


class Sight(NamedTuple):
    """An observable state as the agents see it, in the units of GRF.

    A unit of x is 54.4 m, one of y 83.6 m, and one of z 1 m. A velocity is the displacement in a
    step.
    """

    setup: Setup
    view: Observable
    """Numbers of GRF's raw observation."""
    owns: Bool[Array, "P *b"]
    """Mask of the player who owns the ball."""
    free: Bool[Array, "*b"]
    """Nobody owns the ball."""
    left: Bool[Array, "*b"]
    """The left team owns the ball."""
    right: Bool[Array, "*b"]
    """The right team owns the ball."""
    ball_x: Float[Array, "N *b"]
    """Vector from each agent to the ball."""
    ball_y: Float[Array, "N *b"]
    sees: Bool[Array, "N P *b"]
    """Players that each agent sees; a player who was sent off sees nobody."""
    sees_ball: Bool[Array, "N *b"]

    @property
    def n_batch(self) -> int:
        """Number of axes of the batch."""
        return self.view.owner.ndim

    def agents(self, x: Array) -> Array:
        """Return the values of the agents, ``[N, ...]``, from those of all players."""
        return x[1 : self.setup.n_left]

    def agents_first(
        self,
        x: Array,
        axis: int = 0,
    ) -> Array:
        """Reorder the players: the agents, their keeper, and the right team."""
        cuts = [1, self.setup.n_left]
        keeper, agents, right = jnp.split(x, cuts, axis)
        return jnp.concatenate([agents, keeper, right], axis)

    def by_slot(self, x: Array) -> Array:
        """Return the values of the players in the slots of each agent, ``[N, S, ...]``.

        The S = P - 1 slots are the other agents in order, the own keeper, and the right team.

        Args:
            x: Values of the players, ``[P, ...]``, or as each agent sees them, ``[N, P, ...]``.
        """
        if x.shape[0] == self.setup.n_players:
            x = x[None]
        x = self.agents_first(x, axis=1)
        before = _before_observer(self.setup)
        before = before.reshape(
            *before.shape,
            *[1] * (x.ndim - 2),
        )
        return jnp.where(
            before,
            x[:, :-1],
            x[:, 1:],
        )

    def to_front(self, x: Array) -> Array:
        """Move the batch, the last axes, to the front."""
        last = range(x.ndim - self.n_batch, x.ndim)
        return jnp.moveaxis(x, last, range(self.n_batch))

    def rows(
        self,
        columns: Sequence[Array],
    ) -> Float[Array, "*b *K F"]:
        """Stack columns as the last axis, and move the batch to the front.

        Columns of one value for all rows, ``[*b]``, are repeated.
        """
        floats = [x.astype(jnp.float32) for x in columns]
        wide = jnp.broadcast_arrays(*floats)
        axis = wide[0].ndim - self.n_batch
        return self.to_front(jnp.stack(wide, axis))

    @property
    def owner_team(self) -> list[Array]:
        """One-hot of the team that owns the ball: nobody, left, right, ``[*b]`` each."""
        return [self.free, self.left, self.right]

    @property
    def modes(self) -> list[Array]:
        """One-hot of the game mode, ``[*b]`` each."""
        return [self.view.mode == mode for mode in range(N_MODES)]


def look(setup: Setup, view: Observable) -> Sight:
    """Return what the agents see.

    Args:
        setup: Scenario and options.
        view: Observable state in meters, leaves ``[P, *b]``.
    """
    view = _in_grf_units(view)
    player = expand(np.arange(setup.n_players), view.x)
    agents = slice(1, setup.n_left)
    ball_x = view.ball[0] - view.x[agents]
    ball_y = view.ball[1] - view.y[agents]
    active = view.active[agents]
    is_left = view.owner < setup.n_left
    free = view.owner == NOBODY
    return Sight(
        setup=setup,
        view=view,
        owns=player == view.owner,
        free=free,
        left=is_left & ~free,
        right=~is_left,
        ball_x=ball_x,
        ball_y=ball_y,
        sees=_sees(setup, view),
        sees_ball=active & _is_near(setup, ball_x, ball_y),
    )


def _in_grf_units(view: Observable) -> Observable:
    """Return a view with the numbers of GRF's raw observation."""
    x, y, _ = SCALE
    step_x = pitch.STEP * x
    step_y = pitch.STEP * y
    scale = expand(
        np.asarray(SCALE, np.float32),
        view.ball,
    )
    return view.replace(
        x=x * view.x,
        y=y * view.y,
        vx=step_x * view.vx,
        vy=step_y * view.vy,
        ball=scale * view.ball,
        ball_v=pitch.STEP * scale * view.ball_v,
    )


def _sees(
    setup: Setup,
    view: Observable,
) -> Bool[Array, "N P *b"]:
    """Return the active players within ``env.view_radius`` of each active agent."""
    agents = slice(1, setup.n_left)
    seen = view.active[agents, None] & view.active
    x = view.x - view.x[agents, None]
    y = view.y - view.y[agents, None]
    return seen & _is_near(setup, x, y)


def _is_near(
    setup: Setup,
    x: Array,
    y: Array,
) -> Array | bool:
    """Return whether the ends of vectors are within ``env.view_radius``; 0 has no limit."""
    radius = setup.config.view_radius
    return meters(x, y) <= radius * SCALE[0] if radius else True


def meters(x: Array, y: Array) -> Array:
    """Return the length of a vector in units of 54.4 m."""
    y = y * (pitch.SCALE_Y / pitch.SCALE_X)
    return jnp.sqrt(x * x + y * y)


def append(
    rows: Float[Array, "*b K F"],
    constants: np.ndarray,
) -> Array:
    """Append constant columns ``[K, C]`` to rows."""
    shape = (
        *rows.shape[:-1],
        constants.shape[-1],
    )
    wide = jnp.broadcast_to(constants, shape)
    return jnp.concatenate([rows, wide], axis=-1)


def zero_unless(
    mask: Bool[Array, "*b K"],
    rows: Float[Array, "*b K F"],
) -> Array:
    """Set the rows outside of a mask to zero."""
    return jnp.where(mask[..., None], rows, 0.0)


def present(setup: Setup) -> np.ndarray:
    """Return the mask of the players that the episode has, ``[P]``."""
    return np.asarray([player.present for player in setup.players])


def roles(setup: Setup) -> np.ndarray:
    """Return the one-hot roles of the players, ``[P, 10]``."""
    return np.eye(len(ROLES), dtype=np.float32)[setup.role]


def slot_roles(setup: Setup) -> np.ndarray:
    """Return the one-hot roles of the players in each agent's slots, ``[N, S, 10]``."""
    keeper, agents, right = np.split(
        roles(setup),
        [1, setup.n_left],
    )
    players = np.concatenate([agents, keeper, right])
    before = _before_observer(setup)[..., None]
    return np.where(
        before,
        players[:-1],
        players[1:],
    )


def _before_observer(setup: Setup) -> np.ndarray:
    """Return whether slot e of agent i holds player e of ``agents_first``, or e + 1."""
    slot = np.arange(setup.n_players - 1)
    observer = np.arange(setup.n_left - 1)
    return slot < observer[:, None]
