"""The academy scenarios of Google Research Football (GRF), and teams of other sizes.

Positions are those of GRF's scenario files. GRF's step counter starts at -1, so an episode with a
duration of 400 has 401 steps, in the recordings too. This module does not import JAX.
"""

from __future__ import annotations

import re

import numpy as np

from jmarl.config.errors import check_range
from jmarl.envs.football.scenarios.football_scenario import Player, Scenario


LIMIT = 401
"""Steps of an episode; GRF's duration is 400."""
MATCH_LIMIT = 3001
KEEPER = Player("GK", -1.0, 0.0)
FAR_KEEPER = Player("GK", 1.0, 0.0)
"""A keeper at the opponents' end of the pitch: his goal is empty."""
ATTACKERS, DEFENDERS = (2, 10), (0, 10)
"""Smallest and largest number of players of ``N_vs_M_with_keeper``, without the keepers."""
_SIZES = re.compile(r"([1-9]\d*)_vs_(0|[1-9]\d*)_with_keeper")
_LINE = 5
"""Largest number of players side by side in ``N_vs_M_with_keeper``."""

_RUNNER = (KEEPER, Player("CB", 0.0, 0.0))
_CHASERS = (
    Player("LB", 0.12, 0.2),
    Player("CB", 0.12, 0.1),
    Player("CM", 0.12, 0.0),
    Player("CB", 0.12, -0.1),
    Player("RB", 0.12, -0.2),
)
"""Five players behind a runner in the center."""
_PAIR = (KEEPER, Player("CB", 0.7, 0.0), Player("CB", 0.7, -0.3))
_PAIR_BALL = (0.7, -0.28)

_CORNER_LEFT = (
    KEEPER,
    Player("LB", 1.0, 0.42),
    Player("CB", 0.7, 0.15),
    Player("CB", 0.7, 0.05),
    Player("RB", 0.7, -0.05),
    Player("CM", 0.0, 0.0),
    Player("CM", 0.6, 0.35),
    Player("CM", 0.8, 0.07),
    Player("LM", 0.8, -0.03),
    Player("RM", 0.8, -0.13),
    Player("CF", 0.7, -0.3),
)
_CORNER_RIGHT = (
    KEEPER,
    Player("LB", -0.75, -0.18),
    Player("CB", -0.75, -0.08),
    Player("CB", -0.75, 0.02),
    Player("RB", -1.0, -0.1),
    Player("CM", -0.8, -0.25),
    Player("CM", -0.88, -0.07),
    Player("CM", -0.88, 0.03),
    Player("LM", -0.88, 0.13),
    Player("RM", -0.75, 0.25),
    Player("CF", -0.2, 0.0),
)
_COUNTER_LEFT = (
    KEEPER,
    Player("LB", -0.672, -0.19576),
    Player("CB", -0.75, -0.06356),
    Player("CB", -0.75, 0.063559),
    Player("RB", -0.672, 0.19576),
    Player("CM", -0.434, -0.10568),
    Player("CM", -0.434, 0.10568),
    Player("CM", 0.5, -0.3161),
    Player("LM", 0.25, -0.1),
    Player("RM", 0.25, 0.1),
    Player("CF", 0.35, 0.316102),
)
_LINE_UP = (
    Player("LB", -0.422, -0.19576),
    Player("CB", -0.5, -0.06356),
    Player("CB", -0.5, 0.063559),
    Player("RB", -0.422, 0.19576),
    Player("CM", -0.184212, -0.10568),
    Player("CM", -0.267574, 0.0),
    Player("CM", -0.184212, 0.10568),
    Player("LM", -0.01, -0.2161),
)
"""Players of a full team whose places do not depend on the kick-off."""
_FIRST_TEAM = (KEEPER, Player("RM", 0.0, 0.02), Player("CF", 0.0, -0.02), *_LINE_UP)
_SECOND_TEAM = (
    KEEPER,
    Player("RM", -0.05, 0.0),
    Player("CF", -0.01, 0.2161),
    *_LINE_UP,
)


def is_sized(name: str) -> bool:
    """Return whether a name has the form ``N_vs_M_with_keeper``."""
    return _SIZES.fullmatch(name) is not None


def sized(name: str) -> Scenario:
    """Return a scenario of the family ``N_vs_M_with_keeper``.

    ``3_vs_1_with_keeper`` is GRF's own, and the rule extends it. The first attacker has the ball
    22 m from the goal line. The others stand in lines of up to five, 34 m wide, the first one
    nearest to the goal. The defenders stand in lines of up to five, 8.5 m apart.

    Args:
        name: Name without ``football_``, with N from 2 to 10 and M from 0 to 10.

    Raises:
        ConfigError: If N or M is out of its range.
    """
    match = _SIZES.fullmatch(name)
    n, m = map(int, match.groups()) if match else (0, 0)
    check_range(f"scenario {name}: attackers", n, *ATTACKERS)
    check_range(f"scenario {name}: defenders", m, *DEFENDERS)
    return Scenario(
        name,
        f"{n} attackers near the goal, {m} defender{'s' * (m != 1)} and the keeper",
        ball=(0.62, 0.0),
        left=(KEEPER, Player("CM", 0.6, 0.0), *_mates(n - 1)),
        right=(KEEPER, *_defenders(m)),
        limit=LIMIT,
    )


def _mates(count: int) -> list[Player]:
    """Return the attackers without the ball; each line is 34 m wide."""
    players: list[Player] = []
    for x, size in zip((0.7, 0.5), _lines(count), strict=False):
        players += [Player("CM", x, y) for y in np.linspace(0.2, -0.2, size).tolist()]
    return players


def _defenders(count: int) -> list[Player]:
    players: list[Player] = []
    for x, size in zip((-0.75, -0.85), _lines(count), strict=False):
        half = 0.05 * (size - 1)
        players += [Player("CB", x, y) for y in np.linspace(-half, half, size).tolist()]
    return players


def _lines(count: int) -> list[int]:
    """Return the number of players in each line."""
    return [min(_LINE, count - done) for done in range(0, count, _LINE)]


def _counter_right(center_back: float) -> tuple[Player, ...]:
    """Return the defenders of a counterattack, given x of their first center-back."""
    return (
        KEEPER,
        Player("LB", 0.128, -0.19576),
        Player("CB", center_back, -0.06356),
        Player("CB", -0.4, 0.063559),
        Player("RB", 0.128, -0.19576),
        Player("CM", 0.365, -0.10568),
        Player("CM", 0.282, 0.0),
        Player("CM", 0.365, 0.10568),
        Player("LM", 0.54, -0.3161),
        Player("RM", 0.51, 0.0),
        Player("CF", 0.54, 0.316102),
    )


def _counterattack(name: str, description: str, center_back: float) -> Scenario:
    return Scenario(
        name,
        description,
        ball=(0.26, -0.11),
        left=_COUNTER_LEFT,
        right=_counter_right(center_back),
        limit=LIMIT,
    )


_LAZY = tuple(player._replace(lazy=True) for player in _SECOND_TEAM[1:])
_LISTED = (
    Scenario(
        "empty_goal_close",
        "one attacker in front of an empty goal",
        ball=(0.77, 0.0),
        left=(KEEPER, Player("CB", 0.75, 0.0)),
        right=(FAR_KEEPER,),
        limit=LIMIT,
    ),
    Scenario(
        "empty_goal",
        "one attacker in the center, an empty goal",
        ball=(0.02, 0.0),
        left=_RUNNER,
        right=(FAR_KEEPER,),
        limit=LIMIT,
    ),
    Scenario(
        "run_to_score",
        "one attacker in the center, five chasers, an empty goal",
        ball=(0.02, 0.0),
        left=_RUNNER,
        right=(FAR_KEEPER, *_CHASERS),
        limit=LIMIT,
    ),
    Scenario(
        "run_to_score_with_keeper",
        "one attacker in the center, five chasers and the keeper",
        ball=(0.02, 0.0),
        left=_RUNNER,
        right=(KEEPER, *_CHASERS),
        limit=LIMIT,
    ),
    Scenario(
        "pass_and_shoot_with_keeper",
        "two attackers, the defender covers the one with the ball, the keeper",
        ball=_PAIR_BALL,
        left=_PAIR,
        right=(KEEPER, Player("CB", -0.75, 0.3)),
        limit=LIMIT,
    ),
    Scenario(
        "run_pass_and_shoot_with_keeper",
        "two attackers, the defender stands between them, the keeper",
        ball=_PAIR_BALL,
        left=_PAIR,
        right=(KEEPER, Player("CB", -0.75, 0.1)),
        limit=LIMIT,
    ),
    sized("3_vs_1_with_keeper"),
    Scenario(
        "corner",
        "ten attackers at a corner kick against eleven",
        ball=(0.99, 0.41),
        left=_CORNER_LEFT,
        right=_CORNER_RIGHT,
        limit=LIMIT,
        ends_with_possession=False,
    ),
    _counterattack("counterattack_easy", "four attackers against one defender", 0.4),
    _counterattack("counterattack_hard", "four attackers against two defenders", -0.4),
    Scenario(
        "single_goal_versus_lazy",
        "a full team against a keeper and ten players who do not move",
        ball=(-0.48, -0.06356),
        left=_FIRST_TEAM,
        right=(KEEPER, *_LAZY),
        limit=MATCH_LIMIT,
    ),
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _LISTED}
"""Scenarios by name, from easy to hard; ``register`` adds one."""
