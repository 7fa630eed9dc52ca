"""Slow twin of the observations: features of one agent, from a raw observation of GRF.

A raw observation is in GRF's units, 54.4 m for x and 83.6 m for y, and its velocities are
displacements in a step of 0.1 s.
"""

from __future__ import annotations

import jax
import numpy as np


METERS = np.array([54.4, 83.6])
SCALE = np.array([54.4, 83.6, 1.0])


class Raw:
    """Raw observation of one environment of a batch of worlds."""

    def __init__(self, setup, world, b):
        world = jax.tree.map(
            lambda x: np.asarray(x)[..., b],
            world,
        )
        self.world = world
        self.n_left = setup.n_left
        self.position = np.stack([world.x, world.y], -1) / METERS
        self.direction = np.stack([world.vx, world.vy], -1) * 0.1 / METERS
        self.ball = world.ball / SCALE
        self.ball_direction = 0.1 * world.ball_v / SCALE
        self.owner = int(world.owner)
        self.role = np.eye(10)[setup.role]

    @property
    def team(self):
        """Team that owns the ball: -1 nobody, 0 left, 1 right."""
        if self.owner < 0:
            return -1
        return int(self.owner >= self.n_left)

    def slots(self, p):
        """Return the players in the slots of player p."""
        mates = [q for q in range(1, self.n_left) if q != p]
        right = range(self.n_left, len(self.position))
        return [*mates, 0, *right]


def each(setup, world, every=4):
    """Yield some environments with their raw observation."""
    for b in range(
        0,
        world.owner.shape[0],
        every,
    ):
        yield b, Raw(setup, world, b)


def each_agent(setup, world, every=4):
    """Yield environment, agent, its player, and the raw observation."""
    for b, raw in each(setup, world, every):
        for i in range(setup.scenario.n_agents):
            yield b, i, i + 1, raw


def in_meters(vector):
    """Return the length of a vector of GRF in units of 54.4 m."""
    return np.linalg.norm(vector * METERS) / 54.4


def own_features(raw, p, length, far, extra=()):
    """Return SPECTra's features of an observer, and extra ones before the role."""
    x, y = raw.position[p]
    to_ball = raw.ball[:2] - raw.position[p]
    return [
        x,
        y,
        *(100 * raw.direction[p]),
        100 * length(raw.direction[p]),
        0.42 - abs(y),
        1 - abs(x),
        length(to_ball) > far,
        raw.world.tired[p],
        raw.world.dribble[p],
        raw.world.sprint[p],
        *extra,
        *raw.role[p],
    ]


def row_features(
    raw,
    p,
    q,
    length,
    scale,
    extra=(),
):
    """Return SPECTra's features of player q seen by player p."""
    position = raw.position[q] - raw.position[p]
    direction = raw.direction[q] - raw.direction[p]
    return [
        *position,
        *(scale * direction),
        length(position),
        raw.world.tired[q],
        *extra,
        *raw.role[q],
    ]


def ball_features(raw, p, length, up):
    """Return SPECTra's features of the ball; without relative ones if p is None."""
    relative, distance = [], []
    if p is not None:
        relative = raw.ball[:2] - raw.position[p]
        distance = [length(relative)]
    x, y, z = raw.ball_direction
    return [
        *raw.ball,
        *np.eye(6)[ball_zone(raw)],
        *relative,
        20 * x,
        20 * y,
        up * z,
        20 * length(raw.ball_direction[:2]),
        *distance,
        raw.team >= 0,
        raw.team == 0,
    ]


def ball_zone(raw):
    """Return the index of SPECTra's zone."""
    x, y, _ = raw.ball
    if abs(x) > 1 or abs(y) >= 0.42:
        return 5
    if abs(x) <= 0.2:
        return 2
    in_box = abs(x) > 0.64 and abs(y) < 0.27
    first = 3 if x > 0 else 0
    return first + (not in_box)


def button_features(raw, p):
    """Return the vector of the sticky direction, sprint and dribble."""
    return [
        *sticky(raw.world.direction[p]),
        raw.world.sprint[p],
        raw.world.dribble[p],
    ]


def sticky(direction):
    """Return the vector of a sticky direction: action 1 is left, and the order is clockwise."""
    if direction == 0:
        return [0, 0]
    angle = np.pi + (direction - 1) * np.pi / 4
    return [np.cos(angle), np.sin(angle)]
