"""The pitch and the units of Google Research Football (GRF), in meters.

The x axis points to the goal that the left team attacks. The y axis points to the bottom of the
screen, as in GRF's observations.
"""

from __future__ import annotations


HALF_LENGTH = 55.0
"""Distance from the center to a goal line."""
HALF_WIDTH = 36.0
"""Distance from the center to a touch line."""
GOAL_HALF_WIDTH = 3.7
GOAL_HEIGHT = 2.5
GOAL_DEPTH = 2.55
LINE_HALF_WIDTH = 0.06
BALL_RADIUS = 0.11
OUT_X = HALF_LENGTH + LINE_HALF_WIDTH + BALL_RADIUS
"""|x| beyond which the ball is fully over a goal line."""
OUT_Y = HALF_WIDTH + LINE_HALF_WIDTH + BALL_RADIUS
"""|y| beyond which the ball is fully over a touch line."""
BOX_X = 38.6
"""|x| beyond which a keeper may use the hands, if |y| is below ``BOX_Y``."""
BOX_Y = 20.05
GOAL_AREA_DEPTH = 5.5
"""Distance from a goal line to the end of the goal area, as in the laws of the game."""
GOAL_AREA_HALF_WIDTH = 9.16
PENALTY_SPOT = 11.0
"""Distance of a penalty spot from the goal line."""
CIRCLE_RADIUS = 9.15
"""Radius of the center circle and of the arcs at the penalty areas."""
CORNER_RADIUS = 1.0

SCALE_X = 54.4
"""Meters per unit of x in GRF's observations."""
SCALE_Y = 83.6
"""Meters per unit of y in GRF's observations."""
FORMATION_X = 55.0
"""Meters per unit of x in the positions of players in a scenario."""
FORMATION_Y = 84.96
"""Meters per unit of y in the positions of players in a scenario."""

STEP = 0.1
"""Seconds per environment step."""
