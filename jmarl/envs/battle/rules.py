"""The rules of a battle as data: unit types, scenarios, options. NumPy alone: listing names needs no JAX.

Numbers are those of SMAX in JaxMARL 0.2.0 (Rutherford et al. 2023, arXiv 2311.10090). They are not StarCraft II's:
the marine hits harder, the zealot half as hard, marauder and stalker shoot more slowly, and shields are health.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from jmarl.config import check_range


MAP_SIZE = 32.0
"""Side of the square map, in distance units."""
SUBSTEPS = 8
DT = 1.0 / 16.0
"""Seconds in one sub-step of the physics; an environment step is ``SUBSTEPS`` of them."""
N_OWN_ACTIONS = 5
"""North, east, south, west, stop; then one attack for each enemy."""
STOP = 4
WIN_BONUS = 1.0
MAX_TEAM = 1280


class UnitTypes(NamedTuple):
    """One array entry for each unit type, in the order of the one-hot."""

    names: tuple[str, ...]
    letters: str
    speed: np.ndarray
    """Distance a second."""
    damage: np.ndarray
    """Health a hit."""
    reach: np.ndarray
    """Attack range, distance between centers."""
    sight: np.ndarray
    radius: np.ndarray
    health: np.ndarray
    cooldown: np.ndarray
    """Seconds between hits, before the random deviation of -DT to 2 DT."""

    @property
    def count(self) -> int:
        """How many types there are."""
        return len(self.names)


def _column(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


UNITS = UnitTypes(
    names=("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk"),
    letters="mMsZzh",
    speed=_column(3.15, 2.25, 4.13, 3.15, 4.13, 3.15),
    damage=_column(9.0, 10.0, 13.0, 8.0, 5.0, 12.0),
    reach=_column(5.0, 6.0, 6.0, 2.0, 2.0, 5.0),
    sight=_column(9.0, 10.0, 10.0, 9.0, 8.0, 9.0),
    radius=_column(0.375, 0.5625, 0.625, 0.5, 0.375, 0.625),
    health=_column(45.0, 125.0, 160.0, 150.0, 35.0, 80.0),
    cooldown=_column(0.61, 1.07, 1.87, 0.86, 0.5, 0.59),
)


@dataclass(frozen=True)
class Scenario:
    """Who meets whom.

    ``allies`` and ``enemies`` are type ids. Where ``drawn``, they only say how many units there
    are: types and start positions are drawn anew each episode, in the manner of SMACv2.
    ``limit`` is the step limit of SMAX, ``smac_limit`` that of SMAC's or SMACv2's map of the same
    name (0: there is none). Where there are ``choices``, each episode is one of them, with equal chances: ``allies``
    and ``enemies`` only say how many units the largest has, and the limits are the longest.
    """

    allies: tuple[int, ...]
    enemies: tuple[int, ...]
    drawn: bool = False
    limit: int = 100
    smac_limit: int = 0
    choices: tuple[Scenario, ...] = ()

    @property
    def n_allies(self) -> int:
        """N, the agents."""
        return len(self.allies)

    @property
    def n_enemies(self) -> int:
        """M."""
        return len(self.enemies)

    @property
    def n_units(self) -> int:
        """U = N + M."""
        return len(self.allies) + len(self.enemies)


@dataclass(frozen=True)
class BattleConfig:
    """Options of a battle. With the defaults it is SMAX, oddities included; each is mended by its own option.

    Attributes:
        reset_pool: episodes drawn ahead for each environment by ``reset`` and ``refresh`` (0: each
            episode is drawn when it begins). Between two refreshes an environment that begins more
            than that many episodes meets the same starts again, so it is for training only.
        last_targeted: show the last target's index among the features of a seen unit. An index
            breaks permutation invariance and transfer between team sizes.
        exact_limit: end an episode at ``limit`` steps; SMAX looks at the step counter before it
            counts the step, and so ends at ``limit + 1``.
        smac_limit: take the limit of SMAC's map of the same name in place of SMAX's 100.
        clip_spawns: keep drawn starts on the map; SMAX puts 1.4 % of the units of its 5 v 5 beyond
            the border, where they die in the first step.
        draw_extra_enemies: draw the types of the enemies that outnumber the allies; in SMAX they are
            marines, because the drawn types are discarded.
        smacv2_surround: where one team surrounds the other, draw as SMACv2 does: allies in the
            center, the enemies on one to four distinct diagonals. SMAX lets either team be in the
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
        check_range("env.reset_pool", self.reset_pool, 0)


def team(composition: str) -> tuple[int, ...]:
    """Type ids of a composition in SMAX's shorthand: ``team("2s3Z")`` is two stalkers, three zealots."""
    parts = re.findall(r"(\d+)([a-zA-Z])", composition)
    return tuple(
        UNITS.letters.index(letter)
        for count, letter in parts
        for _ in range(int(count))
    )


def _fixed(allies: str, enemies: str, smac_limit: int) -> Scenario:
    return Scenario(team(allies), team(enemies), smac_limit=smac_limit)


def _drawn(n_allies: int, n_enemies: int) -> Scenario:
    return Scenario((0,) * n_allies, (0,) * n_enemies, drawn=True, smac_limit=200)


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
    "smacv2_5_units": _drawn(5, 5),
    "smacv2_10_units": _drawn(10, 10),
    "smacv2_20_units": _drawn(20, 20),
}
_ALIASES = ("5v5", "10v10", "20v20", "5v5+10v10+20v20")
_PREFIX = "smax_"
_SIZES = re.compile(r"([1-9]\d*)v([1-9]\d*)")


def scenario(name: str) -> Scenario:
    """The scenario called ``name``, with or without ``smax_``; ``NvM`` is generated for teams of 1 to 1280.

    Several names joined by ``+`` are the choices among which each episode is drawn.

    Raises ``ValueError`` for a name that is none, saying what there is.
    """
    short = name.removeprefix(_PREFIX)
    if short in SCENARIOS:
        return SCENARIOS[short]
    if "+" in short:
        return _mixed(tuple(map(scenario, short.split("+"))))
    sizes = _SIZES.fullmatch(short)
    if sizes is None:
        raise ValueError(
            f"no battle scenario {name!r}; there are NvM (5v5, 40v40) and {', '.join(SCENARIOS)}"
        )
    n_allies, n_enemies = int(sizes[1]), int(sizes[2])
    if max(n_allies, n_enemies) > MAX_TEAM:
        raise ValueError(f"{name}: a team has at most {MAX_TEAM} units")
    return _drawn(n_allies, n_enemies)


def _mixed(choices: tuple[Scenario, ...]) -> Scenario:
    most = _drawn(max(c.n_allies for c in choices), max(c.n_enemies for c in choices))
    limits = {
        "limit": max(c.limit for c in choices),
        "smac_limit": max(c.smac_limit for c in choices),
    }
    return replace(most, choices=choices, **limits)


def matches(name: str) -> bool:
    """Whether ``name`` is ``smax_`` and a scenario, ``NvM`` (whose sizes ``scenario`` checks), or some with ``+``."""
    parts = name.removeprefix(_PREFIX).split("+")
    return name.startswith(_PREFIX) and all(
        part in SCENARIOS or _SIZES.fullmatch(part) for part in parts
    )


def names() -> list[tuple[str, str]]:
    """Listed environments with a line each; ``smax_NvM`` may be asked for with any other sizes."""
    return [
        (_PREFIX + short, describe(scenario(short)))
        for short in (*SCENARIOS, *_ALIASES)
    ]


def describe(rules: Scenario) -> str:
    """One line on who meets whom."""
    if rules.choices:
        return "drawn for each episode: " + ", or ".join(map(describe, rules.choices))
    if rules.drawn:
        return f"{rules.n_allies} v {rules.n_enemies} units of drawn types, drawn starts (SMACv2 style)"
    return f"{_roster(rules.allies)} v {_roster(rules.enemies)}"


def _roster(types: tuple[int, ...]) -> str:
    return ", ".join(
        f"{types.count(kind)} {UNITS.names[kind]}" for kind in dict.fromkeys(types)
    )
