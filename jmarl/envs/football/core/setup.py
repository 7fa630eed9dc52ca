"""Constants of a scenario for the functions of the core, and the start of an episode."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.world import FREE, NOBODY, RUNNING, World
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
    start = [_spread(value, players) for value in setup.start()]
    x = jnp.clip(
        start[0] + noise[:, 0],
        -pitch.HALF_LENGTH,
        pitch.HALF_LENGTH,
    )
    y = jnp.clip(
        start[1] + noise[:, 1],
        -pitch.HALF_WIDTH,
        pitch.HALF_WIDTH,
    )
    there = np.asarray([player.present for player in setup.players])
    ball_x, ball_y = setup.scenario.ball
    ball = np.asarray(
        [ball_x * pitch.SCALE_X, ball_y * pitch.SCALE_Y, pitch.BALL_RADIUS], np.float32
    )
    zeros = jnp.zeros(players)
    codes = jnp.zeros(players, jnp.int8)
    flags = jnp.zeros(players, bool)
    code = jnp.zeros(batch, jnp.int8)
    present = _spread(there, players)
    return World(
        x=jnp.where(present, x, 0.0),
        y=jnp.where(present, y, 0.0),
        vx=zeros,
        vy=zeros,
        active=present,
        tired=zeros,
        yellow=codes,
        direction=codes,
        sprint=flags,
        dribble=flags,
        ball=_spread(ball, (3, *batch)),
        ball_v=jnp.zeros((3, *batch)),
        owner=code + NOBODY,
        score=jnp.zeros((2, *batch), jnp.int8),
        mode=code,
        steps=jnp.zeros(batch, jnp.int32),
        present=present,
        face_x=_spread(setup.sign, players),
        face_y=zeros,
        wish_x=zeros,
        wish_y=zeros,
        kick=codes,
        kick_time=zeros,
        kick_held=zeros,
        kick_x=zeros,
        kick_y=zeros,
        kick_to=codes + NOBODY,
        busy=zeros,
        slide=zeros,
        touched=jnp.full(players, REST),
        last_touch=code + NOBODY,
        last_team=code + FREE,
        receiver=code + NOBODY,
        bounced=code != 0,
        held=jnp.zeros(batch),
        luck=jnp.full(batch, 0.5),
        right_first=right_first,
        anchor_x=start[0],
        anchor_y=start[1],
        checkpoints=codes,
        end=code + RUNNING,
    )


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
