"""Rendering of a battle as a scene of discs and lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from jmarl.envs.battle.scenario import Scenario
from jmarl.envs.battle.state import ABSENT
from jmarl.envs.scene import Disc, Line, Scene


ALLY_COLOR = "tab:blue"
ENEMY_COLOR = "tab:red"


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
        start, end = discs[unit], discs[target]
        lines.append(Line(start.x, start.y, end.x, end.y, start.color))
    caption = _caption(state, alive[:n_allies], alive[n_allies:])
    size = scenario.rules.map_size
    return Scene(size, size, tuple(discs.values()), tuple(lines), caption)


def _disc(scenario: Scenario, state: Any, unit: int) -> Disc:
    unit_type = scenario.rules.units[int(state.kind[unit])]
    x, y = state.position[unit]
    return Disc(
        x=float(x),
        y=float(y),
        radius=unit_type.radius,
        color=ALLY_COLOR if unit < scenario.n_allies else ENEMY_COLOR,
        label=unit_type.letter,
        fill=float(state.health[unit] / unit_type.health),
    )


def _target(scenario: Scenario, attack: int, unit: int) -> int:
    """Return the index of the attacked unit."""
    n_allies = scenario.n_allies
    rank = attack - scenario.rules.n_own_actions
    # Enemies number the allies from the last one backwards.
    return n_allies + rank if unit < n_allies else n_allies - 1 - rank


def _caption(state: Any, allies: np.ndarray, enemies: np.ndarray) -> str:
    """Return the caption, given which allies and enemies are alive."""
    steps = int(state.steps)
    caption = f"step {steps}   allies {allies.sum()}   enemies {enemies.sum()}"
    if state.ended:
        caption += f"   {_outcome(bool(allies.any()), bool(enemies.any()))}"
    return caption


def _outcome(allies: bool, enemies: bool) -> str:
    if allies == enemies:
        return "time is up" if allies else "no unit is alive"
    return "allies win" if allies else "enemies win"
