"""Recorded episodes of Google Research Football, and other measurements of its engine.

The files are in ``tests/envs/football/data``. They hold numbers that were measured in gfootball
2.10.2, in meters, seconds and m/s: x to the goal that the left team attacks, y to the bottom of the
screen.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np


DATA = Path(__file__).parents[2] / "tests" / "envs" / "football" / "data"
UNITS = {
    "ball": 0.002,
    "ballv": 0.002,
    # A script at the goal's center has a direction that depends on millimeters.
    "left": 0.0001,
    "leftv": 0.0005,
    "right": 0.002,
    "rightv": 0.0005,
}
"""Resolution of recorded positions in meters and of velocities in m/s."""
SCENARIOS = (
    "empty_goal",
    "empty_goal_close",
    "pass_and_shoot_with_keeper",
    "run_to_score",
)
"""Scenarios that have recordings."""

Record = dict[str, np.ndarray]
"""An episode of T steps. The last row of an array is the situation after the last step.

``actions`` [T, n]; ``ball``, ``ballv`` [T + 1, 3]; ``left``, ``leftv``, ``right``, ``rightv``
[T + 1, players, 2], the keeper first; ``own`` [T + 1, 2], the team (-1 nobody, 0 left, 1 right) and
the player in it; ``score`` [T + 1, 2]; ``mode`` [T + 1]. After a goal or an out, the engine has
restarted the game, so its last row belongs to no episode.
"""


def load_json(name: str) -> Any:
    """Return the content of a file of measurements, by its name without the ending."""
    return json.loads((DATA / f"{name}.json").read_text())


@functools.cache
def load_recordings() -> dict[str, Record]:
    """Return the recorded episodes by ``<scenario>_<script>_<seed>``."""
    with np.load(DATA / "recordings.npz") as file:
        arrays = dict(file)
    sizes = zip(
        arrays["steps"],
        arrays["n_left"],
        arrays["n_right"],
        strict=True,
    )
    shapes = [_shapes(int(t), int(left), int(right)) for t, left, right in sizes]
    columns = {
        field: _split(
            field,
            arrays[field],
            [shape[field] for shape in shapes],
        )
        for field in shapes[0]
    }
    return {
        str(name): {field: column[i] for field, column in columns.items()}
        for i, name in enumerate(arrays["names"])
    }


def split_name(name: str) -> tuple[str, str]:
    """Return the scenario and the script of a recording."""
    scenario = max(
        (s for s in SCENARIOS if name.startswith(s)),
        key=len,
    )
    return scenario, name[len(scenario) + 1 :].rpartition("_")[0]


def _shapes(
    steps: int,
    n_left: int,
    n_right: int,
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each field of a record."""
    rows = steps + 1
    return {
        "actions": (steps, n_left - 1),
        "ball": (rows, 3),
        "ballv": (rows, 3),
        "left": (rows, n_left, 2),
        "leftv": (rows, n_left, 2),
        "right": (rows, n_right, 2),
        "rightv": (rows, n_right, 2),
        "own": (rows, 2),
        "score": (rows, 2),
        "mode": (rows,),
    }


def _split(
    field: str, stored: np.ndarray, shapes: list[tuple[int, ...]]
) -> list[np.ndarray]:
    """Cut the values of all episodes into arrays of an episode, in meters and m/s."""
    unit = UNITS.get(field)
    values = stored if unit is None else (stored * unit).astype(np.float32)
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    pieces = np.split(values, ends)
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
