"""Recorded actions played by the simulator: openings, and a second from recorded frames."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import numpy as np

from benchmarks.football_calibration.frames import (
    SECOND,
    Frame,
    all_frames,
    frame_errors,
    in_play,
    kicks,
    plain_errors,
)
from benchmarks.football_calibration.measures import first_true, length
from benchmarks.football_calibration.motion_laws import Figures
from benchmarks.football_calibration.records import (
    SCENARIOS,
    Record,
    load_recordings,
    split_name,
)
from jmarl.envs.football import replay
from jmarl.envs.football.core.game_actions import LONG_PASS, SHOT
from jmarl.envs.football.football_records import sticky_rows


OPENING = 12
"""Steps of an opening, in which everybody's first ownership falls."""
FRAME_FIELDS = (
    "ball",
    "ballv",
    "left",
    "leftv",
    "right",
    "rightv",
    "own",
    "score",
    "mode",
)


def opening_laws(seeds: int) -> Figures:
    """Measure distances to the recordings a second after the start, and first ownerships."""
    apart: dict[str, list[np.ndarray]] = {}
    for scenario in SCENARIOS:
        records = list(records_of(scenario).values())
        actions = [record["actions"][:OPENING] for record in records]
        played = replay(
            scenario,
            np.repeat(actions, seeds, axis=0),
            jax.random.key(0),
        )
        for index, record in enumerate(records):
            ours = {
                name: rows[index * seeds : (index + 1) * seeds]
                for name, rows in played.items()
            }
            for name, distance in _opening_distances(record, ours).items():
                apart.setdefault(name, []).append(distance)
    return {
        f"opening.{name}": np.concatenate(parts).mean() for name, parts in apart.items()
    }


def _opening_distances(
    record: Record, ours: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the distances between a recording and its replays."""
    now = {name: ours[name][:, SECOND] for name in ("left", "right", "ball")}
    first = owned_from(record["own"][: OPENING + 1])
    distances = {
        "first_ownership.steps": np.abs(owned_from(ours["own"].swapaxes(0, 1)) - first)
    }
    if in_play(record) <= SECOND:
        return distances
    there = {name: record[name][SECOND] for name in now}
    distances["agents.meters"] = length(now["left"] - there["left"])[:, 1:].ravel()
    distances["opponents.meters"] = length(now["right"] - there["right"]).ravel()
    pressed = record["actions"][:SECOND]
    presses = (pressed >= LONG_PASS) & (pressed <= SHOT)
    if not (presses.any() or kicks(record)[:SECOND].any()):
        distances["ball.meters"] = length(now["ball"] - there["ball"])
    return distances


def owned_from(own: np.ndarray) -> np.ndarray:
    """Return the first row in which somebody owns the ball; the number of rows if nobody does.

    Args:
        own: Team and player of the owner, ``[T, *b, 2]``.
    """
    row = first_true(own[..., 0] != -1)
    return np.where(
        np.isnan(row),
        len(own),
        row,
    )


def forecast_laws(seeds: int) -> tuple[Figures, list[dict[str, object]]]:
    """Measure the errors after a second from recorded frames; each frame is played once.

    Returns:
        The mean errors, and a table beside constant velocity and standing still.
    """
    frames = all_frames()
    found = {}
    for scenario in SCENARIOS:
        own = [frame for frame in frames if split_name(frame.name)[0] == scenario]
        found |= dict(zip(own, play_frames(scenario, own), strict=True))
    ours = _join(frame_errors(frame, found[frame]) for frame in frames)
    velocity, still = (plain_errors(frames, moving) for moving in (True, False))
    table = [
        {
            "forecast": kind,
            "frames": len(ours[kind]),
            "jmarl": ours[kind].mean(),
            "jmarl_median": np.median(ours[kind]),
            "constant_velocity": velocity[kind].mean(),
            "standing_still": still[kind].mean(),
        }
        for kind in ours
    ]
    return {f"forecast.{kind}.meters": ours[kind].mean() for kind in ours}, table


def play_frames(
    scenario: str,
    frames: list[Frame],
) -> list[dict[str, np.ndarray]]:
    """Return the places a second after each frame, given the recorded actions."""
    records = records_of(scenario)
    sticky = {name: sticky_rows(record["actions"]) for name, record in records.items()}
    start = {
        field: np.stack([records[name][field][row] for name, row in frames])
        for field in FRAME_FIELDS
    }
    start["sticky"] = np.stack([sticky[name][row] for name, row in frames])
    actions = [records[name]["actions"][row : row + SECOND] for name, row in frames]
    played = replay(
        scenario,
        np.stack(actions),
        jax.random.key(0),
        frames=start,
    )
    places = {name: played[name][:, SECOND] for name in ("ball", "left", "right")}
    return [{name: x[i] for name, x in places.items()} for i in range(len(frames))]


def records_of(scenario: str) -> dict[str, Record]:
    """Return the recordings of a scenario."""
    return {
        name: record
        for name, record in load_recordings().items()
        if split_name(name)[0] == scenario
    }


def _join(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate arrays by name."""
    lists = list(parts)
    return {name: np.concatenate([part[name] for part in lists]) for name in lists[0]}
