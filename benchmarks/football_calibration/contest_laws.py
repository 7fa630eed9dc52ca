"""Laws of contests: shots at a keeper, his rush to the ball, and duels with a defender."""

from __future__ import annotations

import numpy as np

from benchmarks.football_calibration.kick_laws import BALL_AHEAD
from benchmarks.football_calibration.measures import STEP, first_true, length
from benchmarks.football_calibration.motion_laws import GAITS, Figures
from benchmarks.football_calibration.records import load_json
from benchmarks.football_calibration.trials import (
    Cell,
    Script,
    at,
    play_cells,
    scenario,
)
from jmarl.envs.football.core.world import GOAL, POSSESSION, RUNNING


SHOT_DISTANCES = (8, 12, 16, 20, 25, 30)
SHOT_OFFSETS = (0, 8, 16)
"""Meters from the goal line, and y in meters, at the press."""
SHOT_SCRIPTS: dict[str, Script] = {
    "stand": {3: "shot"},
    "run": {0: "right", 1: "sprint", 12: "shot"},
}
RUN_UP = 6.05
"""Distance in meters between the start of a runner and the nominal place of his shot."""
SHOT_STEPS = 72
KEEPER_DELAY = 0.6
"""Steps by which the engine's keeper starts later at 10 Hz than at 100 Hz, where he was tracked."""
RUSH_ROWS = (10, 20, 29)
NEAR, CENTRAL = 15, 10
"""Distance and |y| in meters up to which the keeper takes the ball from an owner who stands."""
DUEL_START = 10.0
"""x of the attacker in meters, as inferred from the ends of the engine's duels."""
DUEL_STEPS = 150
DIFFICULTIES = (0.05, 0.6, 0.95)
GAPS = [(gap, off) for gap in (6, 12, 20) for off in (0, 4)]
"""Place of the defender relative to the attacker, in meters."""


def shot_laws(seeds: int) -> Figures:
    """Measure the share of goals against a keeper, pooled over distances."""
    cases = [
        (move, y, distance)
        for move in SHOT_SCRIPTS
        for y in SHOT_OFFSETS
        for distance in SHOT_DISTANCES
    ]
    track = play_cells(
        [keeper_cell(*case) for case in cases],
        SHOT_STEPS,
        seeds,
    )
    goals = (track.end[-1] == GOAL).mean(-1)
    table = goals.reshape(len(SHOT_SCRIPTS), len(SHOT_OFFSETS), -1).mean(-1)
    return {
        f"shot.keeper.{move}.{y}m.goals": table[i, j]
        for i, move in enumerate(SHOT_SCRIPTS)
        for j, y in enumerate(SHOT_OFFSETS)
    }


def keeper_laws(seeds: int) -> Figures:
    """Measure the keeper's way to an owner who stands, as far as he owned the ball in both."""
    cells = load_json("keeper_rush")
    track = play_cells(
        [rush_cell(cell["distance"], cell["y"]) for cell in cells], 31, seeds
    )
    freed = first_true(track.owner[6:] != 1)
    freed = np.where(
        np.isnan(freed),
        len(track.owner),
        freed + 6,
    )
    figures: Figures = {}
    for column, row in enumerate(RUSH_ROWS):
        engine = np.asarray([cell["keeper"][column] for cell in cells])
        owned = np.asarray([cell["owned_until"] for cell in cells])[:, None] > row
        before, after = track.place[row : row + 2, :, :, 2]
        place = before + KEEPER_DELAY * (after - before)
        apart = length(place - engine[:, None])
        mean = apart[owned & (freed > row)].mean()
        figures[f"keeper.rush.{STEP * row:.1f}s.meters"] = mean
    near = [c["distance"] <= NEAR and abs(c["y"]) <= CENTRAL for c in cells]
    takes = freed[near] < len(track.owner)
    return figures | {"keeper.takes_ball_within_15m": takes.mean()}


def duel_laws(seeds: int) -> Figures:
    """Measure the ends of straight runs at a defender, pooled over his places."""
    figures: Figures = {}
    for difficulty in DIFFICULTIES:
        cases = [(gait, *gap) for gait in ("walk", "sprint") for gap in GAPS]
        cells = [duel_cell(difficulty, *case) for case in cases]
        track = play_cells(cells, DUEL_STEPS, seeds)
        end = track.end[-1].reshape(2, -1)
        row = first_true(track.end != RUNNING)
        seconds = STEP * np.where(np.isnan(row), DUEL_STEPS, row).reshape(2, -1)
        for index, gait in enumerate(("walk", "sprint")):
            name = f"duel.{difficulty}.{gait}"
            figures[f"{name}.lost"] = (end[index] == POSSESSION).mean()
            figures[f"{name}.goals"] = (end[index] == GOAL).mean()
            figures[f"{name}.seconds"] = seconds[index].mean()
    return figures


def keeper_cell(
    move: str,
    y: float,
    distance: float,
) -> Cell:
    """Return a cell with a shot at a goal with a keeper."""
    x = 55.0 - distance - (RUN_UP if move == "run" else 0.0)
    left = (
        at("GK", (-55.0, 0.0)),
        at("CM", (x, y)),
    )
    right = (at("GK", (55.0, 0.0), right=True),)
    situation = scenario(
        (x + BALL_AHEAD, y),
        left,
        right,
        ends=True,
    )
    return Cell(situation, (SHOT_SCRIPTS[move],))


def rush_cell(distance: float, y: float) -> Cell:
    """Return a cell with an owner who stands in front of a keeper."""
    x = 55.0 - distance
    left = (
        at("GK", (-55.0, 0.0)),
        at("CM", (x, y)),
    )
    right = (at("GK", (55.0, 0.0), right=True),)
    return Cell(
        scenario((x + BALL_AHEAD, y), left, right),
        ({},),
    )


def duel_cell(
    difficulty: float,
    gait: str,
    gap: float,
    off: float,
) -> Cell:
    """Return a cell with a run at a defender, in front of an empty goal."""
    left = (
        at("GK", (-55.0, 0.0)),
        at("CM", (DUEL_START, 0.0)),
    )
    right = (
        at("GK", (-55.0, 0.0), right=True),
        at("CB", (DUEL_START + gap, off), right=True),
    )
    ball = (DUEL_START + BALL_AHEAD, 0.0)
    situation = scenario(
        ball,
        left,
        right,
        ends=True,
        difficulty=difficulty,
    )
    return Cell(situation, (GAITS[gait],))
