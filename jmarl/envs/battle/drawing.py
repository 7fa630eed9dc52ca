"""Rendering of a battle as a scene of discs and lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from jmarl.envs.battle.scenario import Scenario
from jmarl.envs.battle.state import ABSENT
from jmarl.envs.scene import Disc, LegendEntry, Line, Scene


ALLY_COLOR = "tab:blue"
ENEMY_COLOR = "tab:red"
HEALTH_COLOR = "tab:green"
TYPE_COLOR = "tab:gray"
"""Color of the sample discs that explain the labels."""


class NamedType(Protocol):
    """Type of a unit with a name and a short name."""

    @property
    def name(self) -> str:
        """Name of the type."""
        ...

    @property
    def letter(self) -> str:
        """Short name."""
        ...


def scene(scenario: Scenario, state: Any) -> Scene:
    """Return the scene of one environment.

    Allies are blue and enemies red. A dead unit is an empty ring; an absent unit is not drawn.
    A line connects each unit with the target of its last attack.

    Args:
        scenario: Scenario of the environment.
        state: ``State`` of NumPy arrays without the batch axis.
    """
    n_allies = scenario.n_allies
    units = np.flatnonzero(np.asarray(state.kind) != ABSENT).tolist()
    discs = {unit: _disc(scenario, state, unit) for unit in units}
    alive = np.asarray(state.health) > 0
    attacking = (np.asarray(state.attack) > 0) & alive
    lines = []
    for unit in np.flatnonzero(attacking).tolist():
        target = _target(scenario, int(state.attack[unit]), unit)
        lines.append(connect(discs[unit], discs[target], discs[unit].color))
    allies, enemies = int(alive[:n_allies].sum()), int(alive[n_allies:].sum())
    outcome = describe_outcome(allies > 0, enemies > 0) if state.ended else ""
    size = scenario.rules.map_size
    types = [scenario.rules.units[kind] for kind in state.kind[units].tolist()]
    return Scene(
        size,
        size,
        tuple(discs.values()),
        tuple(lines),
        caption(int(state.steps), allies, enemies, outcome),
        legend=(*team_legend(types), LegendEntry("attack", ALLY_COLOR, "solid")),
    )


def connect(start: Disc, end: Disc, color: str) -> Line:
    """Return a solid line between the centers of two discs."""
    return Line(start.x, start.y, end.x, end.y, color)


def team_legend(types: Iterable[NamedType]) -> tuple[LegendEntry, ...]:
    """Explain the colors of the teams, the letters of unit types, and the bar of health."""
    letters = {unit.letter: unit.name.replace("_", " ") for unit in types}
    return (
        LegendEntry("ally", ALLY_COLOR, "disc"),
        LegendEntry("enemy", ENEMY_COLOR, "disc"),
        *(
            LegendEntry(name, TYPE_COLOR, "disc", letter)
            for letter, name in letters.items()
        ),
        LegendEntry("health", HEALTH_COLOR, "bar"),
    )


def unit_name(type_name: str, unit: int, n_allies: int) -> str:
    """Return a name such as ``marine, ally 3``."""
    return f"{type_name.replace('_', ' ')}, {member(unit, n_allies)}"


def member(unit: int, n_allies: int) -> str:
    """Return the team of a unit, and its index in the team."""
    return f"ally {unit}" if unit < n_allies else f"enemy {unit - n_allies}"


def _disc(scenario: Scenario, state: Any, unit: int) -> Disc:
    unit_type = scenario.rules.units[int(state.kind[unit])]
    x, y = state.position[unit]
    is_ally = unit < scenario.n_allies
    health = float(state.health[unit])
    return Disc(
        x=float(x),
        y=float(y),
        radius=unit_type.radius,
        color=ALLY_COLOR if is_ally else ENEMY_COLOR,
        label=unit_type.letter,
        fill=health / unit_type.health,
        name=unit_name(unit_type.name, unit, scenario.n_allies),
        details=(("health", f"{health:.1f} / {unit_type.health:g}"),),
        agent=unit if is_ally else None,
    )


def _target(scenario: Scenario, attack: int, unit: int) -> int:
    """Return the index of the attacked unit."""
    n_allies = scenario.n_allies
    rank = attack - scenario.rules.n_own_actions
    # Enemies number the allies from the last one backwards.
    return n_allies + rank if unit < n_allies else n_allies - 1 - rank


def caption(steps: int, allies: int, enemies: int, outcome: str) -> str:
    """Return the caption, given the numbers of living units and the outcome, if any."""
    text = f"step {steps}   allies {allies}   enemies {enemies}"
    return f"{text}   {outcome}" if outcome else text


def describe_outcome(allies: bool, enemies: bool) -> str:
    """Return the outcome of an ended episode, given which teams are not defeated."""
    if allies == enemies:
        return "time is up" if allies else "both teams are beaten"
    return "allies win" if allies else "enemies win"
