"""Observations of the agents and the central state, as entities or as flat vectors."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.config.errors import check
from jmarl.envs.batched import batch_last, flat_spec
from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.game_actions import DIRECTIONS
from jmarl.envs.football.core.player_commands import action_targets, n_actions
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import Observable, observable
from jmarl.envs.football.scenarios.football_scenario import ROLES
from jmarl.envs.football.views import (
    cds_view,
    simple115_view,
    spectra_columns,
    spectra_view,
)
from jmarl.envs.football.views.available import REACH, available
from jmarl.envs.football.views.flat_view import FlatView
from jmarl.envs.football.views.sight import (
    N_MODES,
    Sight,
    append,
    look,
    meters,
    present,
    roles,
    slot_roles,
    zero_unless,
)
from jmarl.envs.football.views.spectra_columns import (
    BALL_SPEED,
    SPEED,
    ball_columns,
    own_columns,
    slot_columns,
)
from jmarl.types import CentralState, EntityObs, Group, Spec


FLAT: dict[str, FlatView] = {
    "simple115": simple115_view.VIEW,
    "spectra": spectra_view.VIEW,
    "cds": cds_view.VIEW,
}
"""Flat views by the value of ``env.obs``."""
OWN_NAMES = (*spectra_columns.OWN_NAMES, "owns", "toward_x", "toward_y")
"""Names of the observer's features before his role, in their order."""
OWN_WIDTH = len(OWN_NAMES) + len(ROLES)
"""Number of features of the observer."""
ROW_WIDTH = 8 + len(ROLES)
"""Number of features of an observed player."""
BALL_WIDTH = 18
PLAYER_WIDTH = 8 + len(ROLES)
"""Number of features of a player in the central state."""
STICKY_WIDTH = 4
"""Number of features of the buttons that a player of the left team holds."""
BALL_STATE_WIDTH = 15
TIME_COLUMN = 2
"""Column of the time in the features of the central state: the share of the episode."""
GLOBAL_WIDTH = 2 + 1 + 3 + N_MODES
UP = BALL_SPEED / pitch.SCALE_X
"""Scale of the ball's vertical velocity, which gives it the unit of the x axis."""


class ObsCodec(NamedTuple):
    """Codec of observations: ``types.ObsCodec`` for football."""

    setup: Setup

    def encode(self, state: Observable) -> Observable:
        """Return the fields of a state that determine the observations."""
        return observable(state)

    def decode(self, encoded_obs: Observable) -> EntityObs:
        """Return the observations of an encoded state."""
        return observe(self.setup, batch_last(encoded_obs))

    def empty(self, *batch: int) -> Observable:
        """Return zeros with the shapes of encoded observations."""

        def first() -> Observable:
            noise = jnp.zeros((self.setup.n_players, 2))
            right_first = jnp.zeros((), bool)
            return observable(first_world(self.setup, noise, right_first))

        def zeros(x: jax.ShapeDtypeStruct) -> Array:
            shape = (*batch, *x.shape)
            return jnp.zeros(shape, x.dtype)

        return jax.tree.map(zeros, jax.eval_shape(first))


def spec(setup: Setup) -> Spec:
    """Return the shapes and action targets of an environment.

    Raises:
        ConfigError: If passes are aimed at entities, but observations are flat vectors.
    """
    is_flat = setup.config.obs in FLAT
    shapes = _flat_spec(setup) if is_flat else _entity_spec(setup)
    is_there = present(setup)[setup.agent]
    return shapes._replace(
        outcomes=("won", "conceded"),
        obs_codec=ObsCodec(setup),
        fixed_team=bool(is_there.all()),
    )


def _flat_spec(setup: Setup) -> Spec:
    config = setup.config
    check(
        config.passes == "grf",
        "env.passes",
        config.passes,
        f"env.obs={config.obs} has no entities to aim at; use env.obs=entity",
    )
    flat = FLAT[config.obs]
    return flat_spec(
        n_agents=setup.scenario.n_agents,
        own_width=flat.width(setup),
        n_actions=n_actions(setup),
        episode_limit=setup.episode_limit,
        global_width=flat.global_width(setup),
    )


def _entity_spec(setup: Setup) -> Spec:
    n = setup.scenario.n_agents
    m = len(setup.scenario.right)
    in_state = PLAYER_WIDTH + STICKY_WIDTH
    return Spec(
        n_agents=n,
        n_actions=n_actions(setup),
        own_width=OWN_WIDTH,
        groups=(
            Group("allies", n, ROW_WIDTH, n + 1, in_state),
            Group("enemies", m, ROW_WIDTH, m, PLAYER_WIDTH),
            Group("ball", 1, BALL_WIDTH, 1, BALL_STATE_WIDTH),
        ),
        global_width=GLOBAL_WIDTH,
        episode_limit=setup.episode_limit,
        action_target=action_targets(setup),
    )


class Content(NamedTuple):
    """Part of the observations that depends on ``env.obs``."""

    own: Float[Array, "*b N F"]
    state: CentralState
    rows: tuple[Float[Array, "*b N E F"], ...] = ()
    mask: tuple[Bool[Array, "*b N E"], ...] = ()


def observe(setup: Setup, view: Observable) -> EntityObs:
    """Return the observations of all agents and the central state.

    Args:
        setup: Scenario and options.
        view: Observable state with the batch last, leaves ``[P, *b]``.

    Returns:
        Observations with the batch first, leaves ``[*b, N, ...]``.
    """
    sight = look(setup, view)
    is_flat = setup.config.obs in FLAT
    content = _flat(sight) if is_flat else _entities(sight)
    alive = sight.to_front(sight.agents(view.active))
    return EntityObs(
        own=zero_unless(alive, content.own),
        rows=content.rows,
        mask=content.mask,
        avail=sight.to_front(available(sight)),
        alive=alive,
        joined=jnp.zeros_like(alive),
        unit_class=jnp.zeros(alive.shape, jnp.int32),
        state=content.state,
    )


def _flat(sight: Sight) -> Content:
    """Return flat vectors without entities."""
    flat = FLAT[sight.setup.config.obs]
    features = flat.central(sight)
    state = CentralState(
        features=features,
        rows=(),
        mask=(),
    )
    return Content(flat.own(sight), state)


def _entities(sight: Sight) -> Content:
    """Return the groups of entities that each agent sees."""
    n = sight.setup.scenario.n_agents
    seen = sight.to_front(sight.by_slot(sight.sees))
    sees_ball = sight.to_front(sight.sees_ball[:, None])
    players = zero_unless(seen, _players(sight))
    ball = sight.rows(ball_columns(sight, meters, UP, seen=True))
    ball = zero_unless(sees_ball, ball[..., None, :])
    return Content(
        own=_own(sight),
        rows=(
            players[..., :n, :],
            players[..., n:, :],
            ball,
        ),
        mask=(
            seen[..., :n],
            seen[..., n:],
            sees_ball,
        ),
        state=_central(sight),
    )


def _own(sight: Sight) -> Float[Array, "*b N F"]:
    """Return the observers: SPECTra's features, owner, and sticky direction; their roles."""
    far = meters(sight.ball_x, sight.ball_y) > REACH
    columns = [
        *own_columns(sight, far, meters),
        sight.agents(sight.owns),
        *_directions(sight.agents(sight.view.direction)),
    ]
    own_roles = roles(sight.setup)[sight.setup.agent]
    return append(sight.rows(columns), own_roles)


def _directions(direction: Array) -> tuple[Array, Array]:
    """Return the unit vectors of sticky directions, x and y; zero for none."""
    index = direction.astype(jnp.int32)
    x, y = jnp.asarray(DIRECTIONS.T)
    return x[index], y[index]


def _players(sight: Sight) -> Float[Array, "*b N S F"]:
    """Return the players by slot: SPECTra's features, owner, and active players; their roles."""
    columns = [
        *slot_columns(sight, meters, SPEED),
        sight.by_slot(sight.owns),
        sight.by_slot(sight.view.active),
    ]
    return append(sight.rows(columns), slot_roles(sight.setup))


def _central(sight: Sight) -> CentralState:
    """Return the central state, in absolute coordinates."""
    n_left = sight.setup.n_left
    active = sight.to_front(sight.agents_first(sight.view.active))
    players = sight.agents_first(_absolute(sight), axis=-2)
    players = zero_unless(active, players)
    ball = sight.rows(ball_columns(sight, meters, UP, seen=False))
    ball = ball[..., None, :]
    right = players[..., n_left:, :PLAYER_WIDTH]
    ball_mask = jnp.ones(ball.shape[:-1], bool)
    return CentralState(
        features=_score_and_time(sight),
        rows=(
            players[..., :n_left, :],
            right,
            ball,
        ),
        mask=(
            active[..., :n_left],
            active[..., n_left:],
            ball_mask,
        ),
    )


def _score_and_time(sight: Sight) -> Float[Array, "*b F"]:
    """Return the goals of both teams, the time, the team that owns the ball, and the mode."""
    view = sight.view
    columns = [
        *view.score,
        view.steps / sight.setup.episode_limit,
        *sight.owner_team,
        *sight.modes,
    ]
    return sight.rows(columns)


def _absolute(sight: Sight) -> Float[Array, "*b P F"]:
    """Return the players: motion, fatigue, distance to the ball, owner; roles; buttons."""
    view = sight.view
    ball_x, ball_y, _ = view.ball
    columns = [
        view.x,
        view.y,
        SPEED * view.vx,
        SPEED * view.vy,
        SPEED * meters(view.vx, view.vy),
        view.tired,
        meters(ball_x - view.x, ball_y - view.y),
        sight.owns,
    ]
    rows = append(
        sight.rows(columns),
        roles(sight.setup),
    )
    buttons = sight.rows([*_directions(view.direction), view.sprint, view.dribble])
    return jnp.concatenate([rows, buttons], axis=-1)
