"""The 19 actions of Google Research Football, its default set, in its order."""

from __future__ import annotations

import numpy as np


ACTIONS = (
    "idle",
    "left",
    "top_left",
    "top",
    "top_right",
    "right",
    "bottom_right",
    "bottom",
    "bottom_left",
    "long_pass",
    "high_pass",
    "short_pass",
    "shot",
    "sprint",
    "release_direction",
    "release_sprint",
    "sliding",
    "dribble",
    "release_dribble",
)
IDLE = 0
LONG_PASS = 9
HIGH_PASS = 10
SHORT_PASS = 11
SHOT = 12
SPRINT = 13
RELEASE_DIRECTION = 14
RELEASE_SPRINT = 15
SLIDING = 16
DRIBBLE = 17
RELEASE_DRIBBLE = 18
PASSES = (LONG_PASS, HIGH_PASS, SHORT_PASS)

_DIAGONAL = 0.5**0.5
DIRECTIONS = np.asarray(
    [
        (0.0, 0.0),
        (-1.0, 0.0),
        (-_DIAGONAL, -_DIAGONAL),
        (0.0, -1.0),
        (_DIAGONAL, -_DIAGONAL),
        (1.0, 0.0),
        (_DIAGONAL, _DIAGONAL),
        (0.0, 1.0),
        (-_DIAGONAL, _DIAGONAL),
    ],
    np.float32,
)
"""Unit vector of each direction, ``[9, 2]``; entry 0 is zero, and entry i that of action i."""
