"""Scenarios of battles: teams, limits and options, and the names under which they are built.

This module does not import JAX, so that environments can be listed quickly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from jmarl.config import check_range
from jmarl.config.errors import MAX_SIZE
from jmarl.envs.battle.rules import SMAX, Rules


MAX_TEAM_SIZE = 1280


@dataclass(frozen=True)
class Scenario:
    """Composition of both teams and step limits of a battle.

    Attributes:
        allies: unit type ids of the allies. Only their number counts if ``randomized``.
        enemies: unit type ids of the enemies. Only their number counts if ``randomized``.
        randomized: draw unit types and start positions in each episode, as SMACv2 does.
        limit: step limit of SMAX.
        smac_limit: step limit of the SMAC or SMACv2 map with the same name, 0 if there is none.
        choices: scenarios among which each episode is drawn with equal probability. If there
            are any, the team sizes and the limits of this scenario are the maxima over them.
        rules: rules of the battle, the same for all choices.
    """

    allies: tuple[int, ...]
    enemies: tuple[int, ...]
    randomized: bool = False
    limit: int = 100
    smac_limit: int = 0
    choices: tuple[Scenario, ...] = ()
    rules: Rules = SMAX

    @property
    def n_allies(self) -> int:
        """Number of allies N, which are the agents."""
        return len(self.allies)

    @property
    def n_enemies(self) -> int:
        """Number of enemies M."""
        return len(self.enemies)

    @property
    def n_units(self) -> int:
        """Number of units U = N + M."""
        return len(self.allies) + len(self.enemies)


@dataclass(frozen=True)
class BattleConfig:
    """Options of a battle.

    The defaults reproduce SMAX of JaxMARL. Each option changes one of its peculiarities.

    Attributes:
        reset_pool: number of episode starts that ``reset`` and ``refresh`` draw ahead for each
            environment; 0 draws every start when its episode begins. An environment that begins
            more episodes between two refreshes repeats the starts, so use a pool only in training.
        last_targeted: include the index of the last target in the features of a seen unit. An
            index breaks permutation invariance and transfer between team sizes.
        exact_limit: end an episode at ``limit`` steps. SMAX compares the step counter before it
            increments it, and thus ends at ``limit + 1``.
        smac_limit: use the limit of the SMAC map with the same name instead of SMAX's 100.
        clip_spawns: keep drawn starts on the map. SMAX places 1.4 % of the units of its 5 v 5
            beyond the border, where they die in the first step.
        draw_extra_enemies: draw the types of the enemies that outnumber the allies. In SMAX they
            are marines, because the drawn types are discarded.
        smacv2_surround: if one team surrounds the other, draw as SMACv2 does: allies in the
            center, enemies on one to four distinct diagonals. SMAX places either team in the
            center and always draws a place on all four diagonals.
    """

    reset_pool: int = 0
    last_targeted: bool = False
    exact_limit: bool = False
    smac_limit: bool = False
    clip_spawns: bool = False
    draw_extra_enemies: bool = False
    smacv2_surround: bool = False

    def __post_init__(self) -> None:
        check_range("env.reset_pool", self.reset_pool, 0, MAX_SIZE)


def parse_team(composition: str) -> tuple[int, ...]:
    """Return the type ids of a composition in SMAX's shorthand.

    For example, ``parse_team("2s3Z")`` returns two stalkers and three zealots.
    """
    letters = [unit.letter for unit in SMAX.units]
    types: list[int] = []
    for count, letter in re.findall(r"(\d+)([a-zA-Z])", composition):
        types += int(count) * [letters.index(letter)]
    return tuple(types)


def _fixed(allies: str, enemies: str, smac_limit: int) -> Scenario:
    return Scenario(parse_team(allies), parse_team(enemies), smac_limit=smac_limit)


def _randomized(n_allies: int, n_enemies: int) -> Scenario:
    allies = (0,) * n_allies
    enemies = (0,) * n_enemies
    return Scenario(allies, enemies, randomized=True, smac_limit=200)


SCENARIOS: dict[str, Scenario] = {
    "3m": _fixed("3m", "3m", 60),
    "8m": _fixed("8m", "8m", 120),
    "25m": _fixed("25m", "25m", 150),
    "2s3z": _fixed("2s3Z", "2s3Z", 120),
    "3s5z": _fixed("3s5Z", "3s5Z", 150),
    "5m_vs_6m": _fixed("5m", "6m", 70),
    "10m_vs_11m": _fixed("10m", "11m", 150),
    "27m_vs_30m": _fixed("27m", "30m", 180),
    "3s5z_vs_3s6z": _fixed("3s5Z", "3s6Z", 170),
    "3s_vs_5z": _fixed("3s", "5Z", 250),
    "6h_vs_8z": _fixed("6h", "8Z", 150),
    "smacv2_5_units": _randomized(5, 5),
    "smacv2_10_units": _randomized(10, 10),
    "smacv2_20_units": _randomized(20, 20),
}
_GENERATED_EXAMPLES = ("5v5", "10v10", "20v20", "5v5+10v10+20v20")
_TEAM_SIZES = re.compile(r"([1-9]\d*)v([1-9]\d*)")


def get_scenario(name: str) -> Scenario:
    """Return the scenario with a given name.

    Args:
        name: a key of ``SCENARIOS``, or ``NvM`` for randomized teams of 1 to 1280 units, or
            several of these joined by ``+``, among which each episode is drawn. The prefix
            ``smax_`` is optional.

    Raises:
        ValueError: the name is unknown or a team is too large.
    """
    short = name.removeprefix(SMAX.prefix)
    if short in SCENARIOS:
        return SCENARIOS[short]
    if "+" in short:
        return _mixed(tuple(map(get_scenario, short.split("+"))))
    sizes = _TEAM_SIZES.fullmatch(short)
    if sizes is None:
        raise ValueError(
            f"{name}: unknown battle scenario; expected NvM (for example 5v5 or 40v40) "
            f"or one of {', '.join(SCENARIOS)}"
        )
    n_allies = int(sizes[1])
    n_enemies = int(sizes[2])
    if max(n_allies, n_enemies) > MAX_TEAM_SIZE:
        raise ValueError(f"{name}: a team must have at most {MAX_TEAM_SIZE} units")
    return _randomized(n_allies, n_enemies)


def _mixed(choices: tuple[Scenario, ...]) -> Scenario:
    n_allies = max(choice.n_allies for choice in choices)
    n_enemies = max(choice.n_enemies for choice in choices)
    return replace(
        _randomized(n_allies, n_enemies),
        choices=choices,
        limit=max(choice.limit for choice in choices),
        smac_limit=max(choice.smac_limit for choice in choices),
    )


def matches(name: str) -> bool:
    """Return whether ``name`` has the form of a battle: ``smax_`` and scenarios joined by ``+``.

    The sizes in ``NvM`` are checked later, by ``get_scenario``.
    """
    parts = name.removeprefix(SMAX.prefix).split("+")
    return name.startswith(SMAX.prefix) and all(
        part in SCENARIOS or _TEAM_SIZES.fullmatch(part) for part in parts
    )


def names() -> list[tuple[str, str]]:
    """Return the names and one-line descriptions of the listed battles.

    Other sizes of ``smax_NvM`` can be built without being listed.
    """
    listed = (*SCENARIOS, *_GENERATED_EXAMPLES)
    return [(SMAX.prefix + short, describe(get_scenario(short))) for short in listed]


def describe(scenario: Scenario) -> str:
    """Return a one-line description of both teams."""
    if scenario.choices:
        choices = map(describe, scenario.choices)
        return "drawn for each episode: " + ", or ".join(choices)
    if scenario.randomized:
        sizes = f"{scenario.n_allies} v {scenario.n_enemies}"
        return f"{sizes} units of drawn types, drawn starts (SMACv2 style)"
    names = tuple(unit.name for unit in scenario.rules.units)
    return f"{_roster(scenario.allies, names)} v {_roster(scenario.enemies, names)}"


def _roster(types: tuple[int, ...], names: tuple[str, ...]) -> str:
    distinct = dict.fromkeys(types)
    return ", ".join(f"{types.count(kind)} {names[kind]}" for kind in distinct)
