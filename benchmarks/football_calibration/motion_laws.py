"""Laws of running and dribbling: speeds, turns, leads of the ball, shares of ownership.

The engine was measured at 100 Hz; its figures come from every tenth row, with the functions that
measure the simulator. In the engine an agent reacts late in the first steps of an episode at 10 Hz
but not at 100 Hz, so the buttons are pressed after these steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.football_calibration.measures import (
    first_below,
    length,
    overrun,
    turn_figures,
)
from benchmarks.football_calibration.trials import (
    Cell,
    Place,
    Script,
    Track,
    at,
    play_cells,
    scenario,
)


Figures = dict[str, float | np.floating]
"""Figures by the name of their law."""

START = 5
"""Step of the first button."""
FORWARD = (1.0, 0.0)
DIAGONAL = 0.5**0.5
TURNS = {
    "turn45": ("bottom_right", (DIAGONAL, DIAGONAL)),
    "turn90": ("top", (0.0, -1.0)),
    "turn180": ("left", (-1.0, 0.0)),
}
"""Button and direction of the turns."""
GAITS: dict[str, Script] = {
    "idle": {},
    "walk": {0: "right"},
    "sprint": {0: "right", 1: "sprint"},
    "dribble": {0: "right", 1: "dribble"},
    "sprint_dribble": {0: "right", 1: "sprint", 2: "dribble"},
}
"""Buttons by step after the first one."""
RUN_TIMES = {
    "walk": (
        1,
        2,
        3,
        4,
        5,
        8,
        10,
    ),
    "sprint": (
        1,
        2,
        3,
        4,
        5,
        8,
        10,
        15,
        20,
        30,
    ),
    "dribble": (1, 2, 3, 5, 10),
}
RELEASE_TIMES = {
    "walk": (1, 2, 3, 4),
    "sprint": (1, 2, 3, 4, 5),
    "dribble": (1, 2, 3),
}
"""Steps after the press at which speeds are compared."""
BALL_FROM = 15
"""First row after the first button at which a dribble counts as steady."""


class Runner(NamedTuple):
    """Path of the agent of each cell, from some row on."""

    place: np.ndarray
    """``[T, C, S, 2]``."""
    velocity: np.ndarray
    ball: np.ndarray
    owned: np.ndarray
    """``[T, C, S]``."""


def run_laws(seeds: int) -> Figures:
    """Measure speeds after a press and after a release, without a ball."""
    release = START + 50
    cells = [
        far_from_ball(_after({**GAITS[gait], 50: "release_direction"}, START))
        for gait in RUN_TIMES
    ]
    track = play_cells(cells, release + 12, seeds)
    figures: Figures = {}
    for index, gait in enumerate(RUN_TIMES):
        runner = runner_of(track, index, START)
        speed = length(runner.velocity).mean(-1)
        figures |= {f"run.{gait}.{t / 10}s": speed[t] for t in RUN_TIMES[gait]}
        figures |= {
            f"release.{gait}.{t / 10}s": speed[50 + t] for t in RELEASE_TIMES[gait]
        }
        way = length(runner.place[60] - runner.place[50])
        figures[f"release.{gait}.meters"] = way.mean()
    return figures


def turn_laws(seeds: int) -> Figures:
    """Measure turns without a ball."""
    cases = [
        ("sprint", "turn45"),
        ("sprint", "turn90"),
        ("sprint", "turn180"),
        ("walk", "turn90"),
        ("walk", "turn180"),
    ]
    cells = [
        far_from_ball(_after({**GAITS[gait], 30: TURNS[turn][0]}, START))
        for gait, turn in cases
    ]
    track = play_cells(cells, START + 53, seeds)
    figures: Figures = {}
    for index, (gait, turn) in enumerate(cases):
        runner = runner_of(track, index, START + 30)
        found = turn_figures(
            runner.place,
            runner.velocity,
            FORWARD,
            TURNS[turn][1],
        )
        if turn == "turn45":
            del found["overrun"]
        figures |= {
            f"turn.{gait}_{turn}.{name}": np.nanmean(value)
            for name, value in found.items()
        }
    return figures


def dribble_laws(seeds: int) -> Figures:
    """Measure leads, ownership and turns of a player with the ball."""
    gaits = list(GAITS)
    turns = [
        (gait, turn)
        for gait in ("walk", "dribble", "sprint")
        for turn in ("turn90", "turn180")
    ]
    scripts = [GAITS[gait] for gait in gaits]
    scripts += [{**GAITS[gait], 40: TURNS[turn][0]} for gait, turn in turns]
    scripts += [{**GAITS["sprint"], 40: "release_direction"}]
    track = play_cells(
        [with_ball(_after(script, 2)) for script in scripts],
        90,
        seeds,
    )
    figures: Figures = {}
    for index, gait in enumerate(gaits):
        figures |= _steady_figures(gait, runner_of(track, index, 2 + BALL_FROM))
    for index, (gait, turn) in enumerate(turns, len(gaits)):
        runner = runner_of(track, index, 42)
        figures |= _ball_turn_figures(f"{gait}_{turn}", runner, TURNS[turn][1])
    runner = runner_of(track, len(scripts) - 1, 42)
    seconds = first_below(length(runner.velocity), 0.3)
    figures["dribble.sprint_stop.seconds"] = np.nanmean(seconds)
    figures["dribble.sprint_stop.overrun"] = overrun(runner.place, FORWARD).mean()
    return figures


def _steady_figures(gait: str, runner: Runner) -> Figures:
    lead = length(runner.ball[..., :2] - runner.place)
    figures = {
        f"dribble.{gait}.lead": lead.mean(),
        f"dribble.{gait}.owned": runner.owned.mean(),
    }
    if gait != "idle":
        figures[f"dribble.{gait}.speed"] = length(runner.velocity).mean()
    return figures


def _ball_turn_figures(
    case: str,
    runner: Runner,
    new: tuple[float, float],
) -> Figures:
    found = turn_figures(
        runner.place,
        runner.velocity,
        FORWARD,
        new,
        15.0,
    )
    figures = {
        f"dribble.{case}.seconds": np.nanmean(found["seconds"]),
        f"dribble.{case}.overrun": found["overrun"].mean(),
    }
    if case == "sprint_turn90":
        speed = length(runner.velocity[:31])
        figures["dribble.sprint_turn90.speed"] = speed.mean()
    return figures


def far_from_ball(script: Script) -> Cell:
    """Return a cell with an agent alone, while his lazy keeper stands at the ball."""
    keeper = (-52.0, 30.0)
    start = (-41.25, -3.0)
    return _alone(
        (keeper[0] + 0.4, keeper[1]),
        start,
        script,
        keeper,
    )


def with_ball(script: Script) -> Cell:
    """Return a cell with an agent in front of a ball."""
    return _alone(
        (-42.43, 0.0),
        (-44.0, 0.0),
        script,
        (-55.0, 30.0),
    )


def _alone(
    ball: Place,
    start: Place,
    script: Script,
    keeper: Place,
) -> Cell:
    left = (
        at("GK", keeper, lazy=True),
        at("CB", start),
    )
    right = (at("GK", (55.0, 30.0), right=True, lazy=True),)
    return Cell(scenario(ball, left, right), (script,))


def _after(script: Script, steps: int) -> Script:
    """Press all buttons some steps later."""
    return {step + steps: name for step, name in script.items()}


def runner_of(
    track: Track,
    cell: int,
    row: int,
) -> Runner:
    """Return the path of the agent of a cell from a row on."""
    return Runner(
        track.place[row:, cell, :, 1],
        track.velocity[row:, cell, :, 1],
        track.ball[row:, cell],
        track.owner[row:, cell] == 1,
    )
