"""Frames of the recordings from which a second is forecast, and the errors of plain forecasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.football_calibration.measures import length
from benchmarks.football_calibration.records import Record, load_recordings


SECOND = 10
"""Rows of a second."""
NO_KICK_BEFORE = 6
"""Steps before a frame without a kick: a kick in preparation shows in no column."""
KICK_SPEED, KICK_GAIN = 9.0, 4.0
"""Speed of the ball after a kick, and its gain in the step, in m/s."""
FREE = 2.0
"""Distance of the nearest player to a free ball, in meters."""
MAX_X = 45.0
"""Largest |x| of an owner, in meters; beyond it the goal line may stop him."""

Errors = dict[str, Float[np.ndarray, "n"]]
"""Distances in meters by kind: ``owner``, ``ball``, and of the right team ``opponents`` and
``keepers``."""


class Frame(NamedTuple):
    """Row of a recording."""

    name: str
    row: int


def in_play(record: Record) -> int:
    """Return the number of rows in play: the last one after a goal or an out is left out."""
    scored = (record["score"][-1] != record["score"][-2]).any()
    return len(record["ball"]) - int(scored or record["mode"][-1] != 0)


def kicks(record: Record) -> Bool[np.ndarray, "T"]:
    """Return the steps in which the ball is kicked."""
    speed = length(record["ballv"])
    return (speed[1:] > KICK_SPEED) & (np.diff(speed) > KICK_GAIN)


def all_frames() -> list[Frame]:
    """Return the frames with a second in play after them, and without a kick near them."""
    found = []
    for name, record in load_recordings().items():
        kicked = kicks(record)
        for row in range(in_play(record) - SECOND):
            if not kicked[max(0, row - NO_KICK_BEFORE) : row + SECOND].any():
                found.append(Frame(name, row))
    return found


def plain_errors(frames: list[Frame], moving: bool) -> Errors:
    """Return the errors of constant velocity, or of standing still."""
    errors = [_plain_errors(frame, moving) for frame in frames]
    return {kind: np.concatenate([e[kind] for e in errors]) for kind in errors[0]}


def _plain_errors(frame: Frame, moving: bool) -> Errors:
    record = load_recordings()[frame.name]
    places = {
        key: record[key][frame.row] + moving * record[key + "v"][frame.row]
        for key in ("ball", "left", "right")
    }
    return frame_errors(frame, places)


def frame_errors(
    frame: Frame,
    places: dict[str, np.ndarray],
) -> Errors:
    """Return the distances between forecast and recorded places after a second.

    Args:
        frame: Start of the forecast.
        places: ``ball`` [3], ``left`` and ``right`` [players, 2], in meters.
    """
    record = load_recordings()[frame.name]
    row = frame.row
    off = {
        key: places[key][..., :2] - record[key][row + SECOND][..., :2] for key in places
    }
    apart = {key: np.atleast_1d(length(value)) for key, value in off.items()}
    return {
        "owner": apart["left"][lasting_owner(record, row)],
        "ball": apart["ball"][: int(is_free(record, row))],
        "opponents": apart["right"][1:],
        "keepers": apart["right"][:1],
    }


def lasting_owner(record: Record, row: int) -> list[int]:
    """Return the agent who owns the ball for a second from this row on, if there is one."""
    owners = record["own"][row : row + SECOND + 1]
    team, player = owners[0]
    lasts = team == 0 and player > 0 and (owners == owners[0]).all()
    return [player] if lasts and abs(record["left"][row, player, 0]) < MAX_X else []


def is_free(record: Record, row: int) -> bool:
    """Return whether nobody is near the ball."""
    players = np.concatenate([record["left"][row], record["right"][row]])
    return bool(length(players - record["ball"][row, :2]).min() > FREE)
