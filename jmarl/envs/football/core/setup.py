"""Constants of a scenario for the functions of the core, and the start of an episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.world import FREE, NOBODY, RUNNING, World, expand
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios.football_scenario import ROLES, Player, Scenario


REST = 100.0
"""Seconds since the last touch of a player who has not touched the ball yet."""


class Setup(NamedTuple):
    """A scenario with the options of its environment. Hashable and equal by value."""

    scenario: Scenario
    config: FootballConfig

    @property
    def n_left(self) -> int:
        """Number of players of the left team, the keeper included."""
        return self.scenario.n_left

    @property
    def n_players(self) -> int:
        """Number of players P of both teams."""
        return self.scenario.n_players

    @property
    def players(self) -> tuple[Player, ...]:
        """Players of both teams, each in its own frame."""
        return self.scenario.left + self.scenario.right

    @property
    def side(self) -> np.ndarray:
        """Team of each player: 0 left, 1 right, ``[P]``."""
        return (np.arange(self.n_players) >= self.n_left).astype(np.int32)

    @property
    def sign(self) -> np.ndarray:
        """Sign of the x axis in which each player attacks, ``[P]``."""
        return (1 - 2 * self.side).astype(np.float32)

    @property
    def keeper(self) -> np.ndarray:
        """Mask of the keepers, ``[P]``: the first player of each team."""
        index = np.arange(self.n_players)
        return (index == 0) | (index == self.n_left)

    @property
    def agent(self) -> np.ndarray:
        """Mask of the agents, ``[P]``: the left team without its keeper."""
        index = np.arange(self.n_players)
        return (index > 0) & (index < self.n_left)

    @property
    def lazy(self) -> np.ndarray:
        """Mask of the players who do not move, ``[P]``."""
        return np.asarray([player.lazy for player in self.players])

    @property
    def role(self) -> np.ndarray:
        """Role of each player, an index of ``ROLES``, ``[P]``."""
        return np.asarray([ROLES.index(player.role) for player in self.players])

    @property
    def difficulty(self) -> np.ndarray:
        """Difficulty of each player's team, ``[P]``; the left team plays at 1."""
        opponent = self.config.opponent
        right = self.scenario.difficulty if opponent is None else opponent
        return np.where(self.side == 0, 1.0, right).astype(np.float32)

    @property
    def episode_limit(self) -> int:
        """Largest number of steps of an episode."""
        return self.config.episode_limit or self.scenario.limit

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the start of each player in meters, x and y, ``[P]``."""
        places = np.asarray(
            [(p.x, p.y) for p in self.players],
            np.float32,
        )
        x = places[:, 0] * pitch.FORMATION_X * self.sign
        y = places[:, 1] * pitch.FORMATION_Y * self.sign
        return x.astype(np.float32), y.astype(np.float32)


def first_world(
    setup: Setup, noise: Float[Array, "P 2 *b"], right_first: Bool[Array, "*b"]
) -> World:
    """Return the first state of episodes.

    Args:
        setup: Scenario and options.
        noise: Displacement of each player, in meters.
        right_first: The right team wins ties.
    """
    batch, players = right_first.shape, (setup.n_players, *right_first.shape)
    x, y = (_spread(value, players) for value in setup.start())
    start_x = jnp.clip(x + noise[:, 0], -pitch.HALF_LENGTH, pitch.HALF_LENGTH)
    start_y = jnp.clip(y + noise[:, 1], -pitch.HALF_WIDTH, pitch.HALF_WIDTH)
    there = np.asarray([player.present for player in setup.players])
    present = _spread(there, players)
    return World(
        x=jnp.where(present, start_x, 0.0),
        y=jnp.where(present, start_y, 0.0),
        active=present,
        present=present,
        face_x=_spread(setup.sign, players),
        anchor_x=x,
        anchor_y=y,
        ball=_spread(_first_ball(setup), (3, *batch)),
        ball_v=jnp.zeros((3, *batch)),
        right_first=right_first,
        **_players_at_rest(players),
        **_match_at_start(batch),
    )


def _first_ball(setup: Setup) -> np.ndarray:
    """Return the first position of the ball in meters, ``[3]``."""
    x, y = setup.scenario.ball
    place = x * pitch.SCALE_X, y * pitch.SCALE_Y, pitch.BALL_RADIUS
    return np.asarray(place, np.float32)


def _players_at_rest(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the fields of players who have done nothing yet, by name."""
    zeros = jnp.zeros(shape)
    codes = jnp.zeros(shape, jnp.int8)
    flags = jnp.zeros(shape, bool)
    names = ("vx", "vy", "tired", "face_y", "wish_x", "wish_y", "busy", "slide")
    kick = ("kick_time", "kick_held", "kick_x", "kick_y")
    return {
        **dict.fromkeys(names + kick, zeros),
        **dict.fromkeys(("yellow", "direction", "kick", "checkpoints"), codes),
        **dict.fromkeys(("sprint", "dribble"), flags),
        "kick_to": codes + NOBODY,
        "touched": jnp.full(shape, REST),
    }


def _match_at_start(batch: tuple[int, ...]) -> dict[str, Any]:
    """Return the fields of a match in which nothing has happened yet, by name."""
    code = jnp.zeros(batch, jnp.int8)
    return {
        **dict.fromkeys(("owner", "last_touch", "receiver"), code + NOBODY),
        "last_team": code + FREE,
        "score": jnp.zeros((2, *batch), jnp.int8),
        "mode": code,
        "steps": jnp.zeros(batch, jnp.int32),
        "bounced": code != 0,
        "held": jnp.zeros(batch),
        "luck": jnp.full(batch, 0.5),
        "end": code + RUNNING,
    }


def attack_sign(
    setup: Setup,
    who: Bool[Array, "P *b"],
) -> Float[Array, "*b"]:
    """Return the sign of the x axis in which a player attacks; zero if there is none."""
    return jnp.sum(jnp.where(who, expand(setup.sign, who), 0), axis=0)


def _spread(
    values: np.ndarray,
    shape: tuple[int, ...],
) -> Array:
    """Broadcast constants of the players over the batch."""
    ones = (1,) * (len(shape) - 1)
    return jnp.broadcast_to(
        jnp.asarray(values).reshape(values.shape + ones),
        shape,
    )
