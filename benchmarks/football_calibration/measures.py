"""Figures of recorded tracks: the same functions measure the real engine and the simulator.

A track has one row per step of 0.1 s, and its time starts with the press of a button. Values
between rows are interpolated.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


STEP = 0.1
"""Seconds between two rows."""

Series = Float[np.ndarray, "T *b"]
Vectors = Float[np.ndarray, "T *b 2"]


def length(vectors: Float[np.ndarray, "*b d"]) -> Float[np.ndarray, "*b"]:
    """Return the length of vectors."""
    return np.sqrt((vectors**2).sum(-1))


def first_below(
    values: Series,
    level: float,
) -> Float[np.ndarray, "*b"]:
    """Return the seconds until values fall to a level; NaN if they never do."""
    below = values <= level
    row = below.argmax(0)
    after = np.take_along_axis(values, row[None], 0)[0]
    before = np.take_along_axis(values, np.maximum(row - 1, 0)[None], 0)[0]
    drop = np.maximum(before - after, 1e-9)
    time = row - np.where(
        row > 0,
        (level - after) / drop,
        0.0,
    )
    return np.where(
        below.any(0),
        STEP * time,
        np.nan,
    )


def first_true(flags: Bool[np.ndarray, "T *b"]) -> Float[np.ndarray, "*b"]:
    """Return the index of the first row with a flag; NaN if there is none."""
    return np.where(
        flags.any(0),
        flags.argmax(0),
        np.nan,
    )


def heading_error(
    velocity: Vectors, direction: tuple[float, float]
) -> Float[np.ndarray, "T *b"]:
    """Return the angle between velocities and a direction, in degrees; 180 at rest."""
    x, y = direction
    along = velocity[..., 0] * x + velocity[..., 1] * y
    across = velocity[..., 0] * y - velocity[..., 1] * x
    angle = np.degrees(np.arctan2(np.abs(across), along))
    return np.where(length(velocity) < 0.3, 180.0, angle)


def recovery_time(
    speed: Series,
    share: float = 0.9,
) -> Float[np.ndarray, "*b"]:
    """Return the seconds until the speed, after its minimum, is a share of the first one."""
    rows = np.arange(len(speed)).reshape((-1,) + (1,) * (speed.ndim - 1))
    falling = rows <= speed.argmin(0)
    target = share * speed[0]
    return first_below(
        np.where(falling, target + 1, target - speed),
        0.0,
    )


def overrun(
    position: Vectors, direction: tuple[float, float]
) -> Float[np.ndarray, "*b"]:
    """Return the largest distance from the first position along a direction, meters."""
    way = position - position[0]
    return (way[..., 0] * direction[0] + way[..., 1] * direction[1]).max(0)


def turn_figures(
    position: Vectors,
    velocity: Vectors,
    old: tuple[float, float],
    new: tuple[float, float],
    tolerance: float = 10.0,
) -> dict[str, Float[np.ndarray, "*b"]]:
    """Return the figures of a turn whose command is given at the first row.

    Args:
        position: Meters.
        velocity: m/s.
        old: Unit vector of the direction before.
        new: Unit vector of the direction that was commanded.
        tolerance: Degrees at which the turn is over.
    """
    speed = length(velocity)
    return {
        "seconds": first_below(heading_error(velocity, new), tolerance),
        "lowest_speed": speed.min(0),
        "recovery": recovery_time(speed),
        "overrun": overrun(position, old),
    }


def launches(
    ball: Float[np.ndarray, "T *b 3"],
    velocity: Float[np.ndarray, "T *b 3"],
    press: int,
    jump: float = 6.0,
) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b 3"]]:
    """Return the delay of a kick and the velocity of the ball at its launch.

    The kick is the first step after the press in which the velocity changes by more than
    ``jump`` m/s and the ball is faster afterwards. The time within the step follows from the
    way of the ball in it, and the velocity is extrapolated from the two rows after it.

    Args:
        ball: Meters.
        velocity: m/s.
        press: Row before the step of the press.
        jump: Change of the velocity in m/s.

    Returns:
        The seconds between press and launch, and the velocity in m/s. NaN without a kick.
    """
    change = length(np.diff(velocity, axis=0))
    gains = np.diff(length(velocity), axis=0)
    # Two rows after the kick are needed.
    kicked = np.asarray((change > jump) & (gains > jump / 2))[press:-1]
    row = press + kicked.argmax(0)
    before, after, later = (_row(velocity, row + i) for i in range(3))
    way = _row(ball, row + 1) - _row(ball, row) - STEP * before
    gain = after - before
    flat = np.maximum(
        (gain[..., :2] ** 2).sum(-1),
        1e-9,
    )
    since = np.clip(
        (way * gain)[..., :2].sum(-1) / flat,
        0.0,
        STEP,
    )
    delay = STEP * (row + 1 - press) - since
    start = after + (after - later) * since[..., None] / STEP
    found = kicked.any(0)
    return np.where(found, delay, np.nan), np.where(
        np.expand_dims(found, -1), start, np.nan
    )


def _row(
    values: np.ndarray,
    row: np.ndarray,
) -> np.ndarray:
    """Return one row of each track."""
    index = row[None, ..., None] if values.ndim > row.ndim + 1 else row[None]
    return np.take_along_axis(values, index, 0)[0]
