"""What a battle looks like."""

from __future__ import annotations

from typing import Any

import numpy as np

from jmarl.envs.battle.rules import MAP_SIZE, N_OWN_ACTIONS, UNITS
from jmarl.envs.battle.rules import scenario as scenario_of
from jmarl.envs.battle.state import ABSENT
from jmarl.envs.scene import Disc, Line, Scene


ALLY, ENEMY = "tab:blue", "tab:red"


def scene(name: str, state: Any) -> Scene:
    """The scene of one world: ``state`` is a ``State`` of NumPy arrays without the batch axis.

    Allies are blue and enemies red; the dead are empty rings, the absent are not drawn. A line leads from a unit to the
    one that it attacked.
    """
    rules = scenario_of(name)
    n = rules.n_allies
    units = [int(unit) for unit in np.flatnonzero(np.asarray(state.kind) != ABSENT)]
    alive = np.asarray(state.health) > 0
    full = np.asarray(UNITS.health)[state.kind]
    discs = {
        unit: Disc(
            *map(float, state.position[unit]),
            radius=float(np.asarray(UNITS.radius)[state.kind[unit]]),
            color=ALLY if unit < n else ENEMY,
            label=UNITS.letters[int(state.kind[unit])],
            left=float(state.health[unit] / full[unit]),
        )
        for unit in units
    }
    lines = []
    for unit in np.flatnonzero((np.asarray(state.attack) > 0) & alive).tolist():
        rank = int(state.attack[unit]) - N_OWN_ACTIONS
        # enemies number the allies from the last one backwards
        ends = discs[unit], discs[n + rank if unit < n else n - 1 - rank]
        lines.append(
            Line(ends[0].x, ends[0].y, ends[1].x, ends[1].y, discs[unit].color)
        )
    caption = f"step {int(state.steps)}   allies {alive[:n].sum()}   enemies {alive[n:].sum()}"
    if state.ended:
        caption += f"   {_verdict(bool(alive[:n].any()), bool(alive[n:].any()))}"
    return Scene(MAP_SIZE, MAP_SIZE, tuple(discs.values()), tuple(lines), caption)


def _verdict(allies: bool, enemies: bool) -> str:
    if allies == enemies:
        return "time is up" if allies else "nobody is left"
    return "allies win" if allies else "enemies win"
