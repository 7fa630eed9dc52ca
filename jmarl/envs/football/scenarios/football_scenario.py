"""A scenario of football as data: who starts where, and what ends an episode.

This module does not import JAX, so that environments can be listed quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jmarl.config.errors import ConfigError, check, check_range


ROLES = ("GK", "CB", "LB", "RB", "DM", "CM", "LM", "RM", "AM", "CF")
"""Roles in the order of Google Research Football (GRF)."""
MAX_PLAYERS = 11
"""Largest number of players of a team, the keeper included."""


class Player(NamedTuple):
    """A player at the start of an episode.

    A team's own goal is at x = -1 and its opponents' goal at x = 1, for the right team too, as
    in GRF's scenario files: one unit of x is 55 m, and one of y 84.96 m.
    """

    role: str
    """One of ``ROLES``."""
    x: float
    y: float
    lazy: bool = False
    """The player does not move on his own."""
    present: bool = True
    """False for a slot of the team that this episode does not fill."""


@dataclass(frozen=True)
class Scenario:
    """Start and end of an episode. Both teams start with their keeper.

    Attributes:
        name: Name, without ``football_``.
        description: One line for ``jmarl envs``.
        ball: Start of the ball in the units of GRF's observations (x: 54.4 m, y: 83.6 m).
        left: Players of the left team. All but the keeper are agents, in this order.
        right: Players of the right team, in its own frame.
        limit: Largest number of steps of an episode.
        ends_with_goal: A goal of either team ends the episode.
        ends_with_out: The ball out of play ends the episode.
        ends_with_possession: A change of possession ends the episode.
        difficulty: Difficulty of the right team, from 0 to 1.

    Raises:
        ConfigError: If a team has no keeper in front or too many players, or a player or the
            ball is off the pitch.
    """

    name: str
    description: str
    ball: tuple[float, float]
    left: tuple[Player, ...]
    right: tuple[Player, ...]
    limit: int = 401
    ends_with_goal: bool = True
    ends_with_out: bool = True
    ends_with_possession: bool = True
    difficulty: float = 0.6

    def __post_init__(self) -> None:
        _check_team(self.name, "left", self.left, least=2)
        _check_team(self.name, "right", self.right, least=1)
        check_range(f"scenario {self.name}: limit", self.limit, 1)
        check_range(f"scenario {self.name}: difficulty", self.difficulty, 0.0, 1.0)
        x, y = self.ball
        check(
            abs(x) <= 55 / 54.4 and abs(y) <= 36 / 83.6,
            f"scenario {self.name}: ball",
            self.ball,
            "must be on the pitch: |x| at most 1.01, |y| at most 0.43",
        )

    @property
    def n_agents(self) -> int:
        """Number of agents N: the left team without its keeper."""
        return len(self.left) - 1

    @property
    def n_left(self) -> int:
        """Number of players of the left team, N + 1."""
        return len(self.left)

    @property
    def n_players(self) -> int:
        """Number of players P of both teams."""
        return len(self.left) + len(self.right)


def _check_team(name: str, side: str, team: Sequence[Player], least: int) -> None:
    """Check the number, the roles and the positions of a team."""
    key = f"scenario {name}: {side}"
    rule = f"must have {least} to {MAX_PLAYERS} players, the keeper included"
    check(least <= len(team) <= MAX_PLAYERS, key, f"{len(team)} players", rule)
    check(team[0].role == "GK", key, team[0].role, "the first player must be the GK")
    for index, player in enumerate(team):
        where = f"{key}[{index}]"
        check(
            player.role in ROLES,
            where,
            player.role,
            f"must be one of {', '.join(ROLES)}",
        )
        # A scenario is in units of the half-length 55 m and of 84.96 m: 36 m are 0.4237.
        on_pitch = abs(player.x) <= 1.0 and abs(player.y) <= 0.4237
        if not on_pitch:
            raise ConfigError(
                f"{where}={player.role}({player.x:g}, {player.y:g}): off the pitch; |x| must be "
                "at most 1, and |y| at most 0.4237"
            )
