"""Laws of kicks: delays, launches, free flight, completion of passes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from benchmarks.football_calibration.measures import STEP, first_true, launches, length
from benchmarks.football_calibration.motion_laws import GAITS, Figures
from benchmarks.football_calibration.records import DATA
from benchmarks.football_calibration.trials import (
    Cell,
    Place,
    Script,
    Track,
    at,
    play_cells,
    play_worlds,
    scenario,
)
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import GOAL
from jmarl.envs.football.football_options import FootballConfig


BALL_AHEAD = 1.09
"""Distance of the ball to the kicker at the start, in meters."""
MOVE = 2
"""Step in which a kicker starts to move."""
PASS_PRESS = {
    "stand": 8,
    "walk": MOVE + 10,
    "sprint": MOVE + 15,
}
SHOT_PRESS = {
    "stand": 8,
    "walk": MOVE + 13,
    "sprint": MOVE + 13,
}
"""Step of the press. As in the engine, the kicker then has the ball."""
KICK_STEPS = 15
"""Steps after the last press."""
BUTTONS = {"short": "short_pass", "long": "long_pass", "high": "high_pass"}
PASSES = {
    ("short", "stand"): (10, 15, 20, 30, 40),
    ("short", "walk"): (15, 20, 30, 40),
    ("short", "sprint"): (30, 40),
    ("long", "stand"): (10, 15, 20, 30, 40),
    ("long", "walk"): (15, 20, 30, 40),
    ("long", "sprint"): (30, 40),
    ("high", "stand"): (10, 15, 20, 30, 40),
    ("high", "walk"): (30, 40),
    ("high", "sprint"): (30, 40),
}
"""Distances of the receiver in units of 1.011 m, by kind of pass and gait."""
SHOT_RUN = {"stand": 0.0, "walk": 7.0, "sprint": 8.5}
"""Distance in meters from the start of the kicker to the nominal place of the shot."""
EMPTY_GOAL = [(distance, y) for distance in (10, 20, 30) for y in (0, 12)]
ANGLES = {
    0: (1.0, 0.0),
    45: (0.5**0.5, -(0.5**0.5)),
    90: (0.0, -1.0),
    180: (-1.0, 0.0),
}
"""Directions of the receiver."""
PASS_DISTANCES = (6, 12, 20, 30, 40)
COMPLETION_PRESS = 6
COMPLETION_STEPS = 60
"""Steps after the press in which a pass must arrive."""


def kick_laws(seeds: int) -> Figures:
    """Measure delays and launch speeds of passes and shots."""
    cases = [(*case, distance) for case in PASSES for distance in PASSES[case]]
    cells = [pass_cell(*case) for case in cases]
    track = play_cells(
        cells,
        max(PASS_PRESS.values()) + KICK_STEPS,
        seeds,
    )
    delays: dict[str, list[np.ndarray]] = {}
    figures: Figures = {}
    for index, (kind, gait, distance) in enumerate(cases):
        delay, speed = _launch_figures(track, index, PASS_PRESS[gait])
        delays.setdefault(f"kick.{kind}.{gait}.delay", []).append(delay)
        figures[f"kick.{kind}.{gait}.{distance}m.speed"] = _mean(speed)
    figures |= {law: _mean(np.concatenate(parts)) for law, parts in delays.items()}
    return figures | _shot_figures(seeds)


def _launch_figures(
    track: Track, cell: int, press: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the delays and the launch speeds of a cell, ``[S]`` each."""
    ball, velocity = track.ball[:, cell], track.ball_velocity[:, cell]
    delay, launch = launches(ball, velocity, press)
    return delay, length(launch)


def _shot_figures(seeds: int) -> Figures:
    """Measure shots at an empty goal."""
    cases = [(gait, place) for gait in SHOT_RUN for place in EMPTY_GOAL]
    cells = [shot_cell(gait, *place) for gait, place in cases]
    track = play_cells(
        cells,
        max(SHOT_PRESS.values()) + 25,
        seeds,
    )
    figures: Figures = {}
    for gait in SHOT_RUN:
        index = [i for i, case in enumerate(cases) if case[0] == gait]
        pairs = [_launch_figures(track, i, SHOT_PRESS[gait]) for i in index]
        delay, speed = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        figures[f"kick.shot.{gait}.delay"] = _mean(delay)
        figures[f"kick.shot.{gait}.speed"] = _mean(speed)
        figures[f"shot.empty.{gait}.goals"] = (track.end[-1, index] == GOAL).mean()
    return figures


def flight_laws(seeds: int) -> Figures:
    """Measure the flight of the ball from the engine's launches; it has no noise."""
    with np.load(DATA / "flights.npz") as file:
        names, start, half_second = (
            file[key] for key in ("names", "start", "half_second")
        )
    corners = [
        (-50.0, 34.0),
        (-48.0, -34.0),
        (50.0, 34.0),
    ]
    cell = _far_from_goal(
        (0.0, 0.0),
        corners,
        ({},),
    )
    setup = Setup(cell.scenario, FootballConfig())
    n = len(start)
    world = first_world(
        setup,
        jnp.zeros((3, 2, n)),
        jnp.zeros(n, bool),
    )
    ball, velocity = jnp.asarray(start.T[:3]), jnp.asarray(start.T[3:])
    world = world.replace(ball=ball, ball_v=velocity)
    track = play_worlds(
        setup,
        world,
        np.zeros((5, 1, n), np.int32),
        n,
    )
    error = length((track.ball[5, 0] - half_second)[:, :2])
    is_pass = np.char.startswith(names, "pass")
    return {
        "flight.passes.meters": error[is_pass].mean(),
        "flight.all.meters": error.mean(),
    }


def pass_laws(seeds: int) -> Figures:
    """Measure completion and duration of passes without opponents."""
    cases = [
        (kind, distance, angle)
        for kind in BUTTONS
        for distance in PASS_DISTANCES
        for angle in ANGLES
    ]
    cells = [completion_cell(*case) for case in cases]
    track = play_cells(cells, COMPLETION_PRESS + COMPLETION_STEPS, seeds)
    row = first_true(track.owner[COMPLETION_PRESS:] == 2)
    seconds = {case: STEP * row[index] for index, case in enumerate(cases)}
    figures: Figures = {}
    for kind in BUTTONS:
        for name, angles in (
            ("forward", (0, 45, 90)),
            ("back", (180,)),
        ):
            times = [seconds[kind, d, a] for d in PASS_DISTANCES for a in angles]
            done = np.mean(~np.isnan(times))
            figures[f"pass.{kind}.{name}.completed"] = done
        for distance in PASS_DISTANCES[kind != "short" :]:
            times = [_mean(seconds[kind, distance, angle]) for angle in (0, 45, 90)]
            figures[f"pass.{kind}.{distance}m.seconds"] = np.median(times)
    return figures


def pass_cell(
    kind: str,
    gait: str,
    distance: float,
) -> Cell:
    """Return a cell with a pass to a lazy mate ahead."""
    x = -22.0
    places = [
        (-55.0, 30.0),
        (x, 0.0),
        (x + distance * 55 / 54.4, 0.0),
        (55.0, 30.0),
    ]
    script = kick_script(gait, PASS_PRESS[gait], BUTTONS[kind])
    return _far_from_goal(
        (x + BALL_AHEAD, 0.0),
        places,
        (script, {}),
    )


def shot_cell(
    gait: str,
    distance: float,
    y: float,
) -> Cell:
    """Return a cell with a shot at an empty goal."""
    x = 55.0 - distance - SHOT_RUN[gait]
    left = (
        at("GK", (-55.0, 30.0), lazy=True),
        at("CM", (x, y)),
    )
    right = (at("GK", (-50.0, -30.0), right=True, lazy=True),)
    situation = scenario(
        (x + BALL_AHEAD, y),
        left,
        right,
        ends=True,
    )
    return Cell(
        situation,
        (kick_script(gait, SHOT_PRESS[gait], "shot"),),
    )


def completion_cell(
    kind: str,
    distance: float,
    angle: int,
) -> Cell:
    """Return a cell with a pass to a mate who idles, in any direction."""
    dx, dy = ANGLES[angle]
    start = (0.0, 10.0)
    receiver = (distance * dx, start[1] + distance * dy)
    left = (
        at("GK", (-55.0, 0.0)),
        at("CM", start),
        at("CM", receiver),
    )
    right = (at("GK", (54.0, 34.0), right=True, lazy=True),)
    situation = scenario(
        (BALL_AHEAD, start[1]),
        left,
        right,
        ends=True,
    )
    return Cell(
        situation,
        ({COMPLETION_PRESS: BUTTONS[kind]}, {}),
    )


def kick_script(
    gait: str,
    press: int,
    button: str,
) -> Script:
    """Return the buttons of a kicker who stands, or moves to the right, until he kicks."""
    moves = GAITS.get(gait, {})
    return {step + MOVE: name for step, name in moves.items()} | {press: button}


def _far_from_goal(
    ball: Place, places: list[Place], scripts: tuple[Script, ...]
) -> Cell:
    """Return a cell in which everybody is lazy but the first agent; the last is their keeper."""
    keeper, kicker, *mates = places[:-1]
    left = [
        at("GK", keeper, lazy=True),
        at("CM", kicker),
    ]
    left += [at("CM", mate, lazy=True) for mate in mates]
    right = (at("GK", places[-1], right=True, lazy=True),)
    return Cell(scenario(ball, left, right), scripts)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
