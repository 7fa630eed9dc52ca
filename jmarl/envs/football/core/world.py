"""State of football, with the player as the first axis and the batch, if any, as the last.

The same functions thus serve a single match, where ``*b`` is empty, and a batch. On a CPU the
inner loop of a batch runs over environments, at full vector width, for any number of players.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core.vectors import Vector


RUNNING = 0
GOAL = 1
CONCEDED = 2
OUT = 3
POSSESSION = 4
TIME = 5
OWN_HALF = 6
ENDS = ("", "goal", "conceded", "out", "poss", "time", "own_half")
"""Name of each value of ``World.end``, as in the recordings of the engine; the last is a rule of
SPECTra's tasks."""
NOBODY = -1
FREE = -1
"""Entry of ``own``: no team owns the ball."""


class Observable(struct.PyTreeNode):
    """Part of the state that GRF's raw observation holds, so that a feature may depend on it.

    The P players are the left team, then the right one, each with its keeper first.
    """

    x: Float[Array, "P *b"]
    """Meters, towards the goal that the left team attacks."""
    y: Float[Array, "P *b"]
    """Meters, towards the bottom of the screen."""
    vx: Float[Array, "P *b"]
    """Velocity, m/s."""
    vy: Float[Array, "P *b"]
    active: Bool[Array, "P *b"]
    """False for absent players and for those who were sent off."""
    tired: Float[Array, "P *b"]
    """Fatigue, from 0 (fresh) to 1."""
    yellow: Int[Array, "P *b"]
    """Number of yellow cards, int8."""
    direction: Int[Array, "P *b"]
    """Sticky direction of an agent: 0 for none, else the action 1 to 8, int8."""
    sprint: Bool[Array, "P *b"]
    """Sticky sprint of an agent."""
    dribble: Bool[Array, "P *b"]
    """Sticky dribble of an agent."""
    ball: Float[Array, "3 *b"]
    """Position of the ball's center: x, y and height, in meters."""
    ball_v: Float[Array, "3 *b"]
    """Velocity of the ball, m/s."""
    owner: Int[Array, "*b"]
    """Index of the player who owns the ball, or ``NOBODY``, int8."""
    score: Int[Array, "2 *b"]
    """Goals of the left and the right team, int8."""
    mode: Int[Array, "*b"]
    """GRF's game mode: 0 normal, 1 kick-off, 2 goal kick, 3 free kick, 4 corner, 5 throw-in,
    6 penalty, int8."""
    steps: Int[Array, "*b"]
    """Steps taken in this episode."""


class World(Observable):
    """State of football."""

    present: Bool[Array, "P *b"]
    """Mask of the players that this episode has; a player who was sent off remains present."""
    face_x: Float[Array, "P *b"]
    """Unit vector of the body's direction, which a player at rest keeps."""
    face_y: Float[Array, "P *b"]
    wish_x: Float[Array, "P *b"]
    """Desired velocity of the last step, m/s; players react to a command with a delay."""
    wish_y: Float[Array, "P *b"]
    kick: Int[Array, "P *b"]
    """Kick in preparation: 0 or the action (9 to 12), int8."""
    kick_time: Float[Array, "P *b"]
    """Seconds since the kick was requested."""
    kick_held: Float[Array, "P *b"]
    """Seconds for which the button has been pressed, which delays and strengthens a kick."""
    kick_x: Float[Array, "P *b"]
    """Direction of the kick: a unit vector."""
    kick_y: Float[Array, "P *b"]
    kick_to: Int[Array, "P *b"]
    """Player at whom the pass is aimed, or ``NOBODY`` if the direction selects him, int8."""
    busy: Float[Array, "P *b"]
    """Seconds during which the player cannot act, for example after a slide."""
    slide: Float[Array, "P *b"]
    """Seconds that remain of a slide."""
    touched: Float[Array, "P *b"]
    """Seconds since the player last touched the ball."""
    last_touch: Int[Array, "*b"]
    """Player who touched the ball last, or ``NOBODY``, int8."""
    last_team: Int[Array, "*b"]
    """Team that last owned the ball (0 left, 1 right), or ``FREE``, int8."""
    receiver: Int[Array, "*b"]
    """Player to whom the last pass was played, or ``NOBODY``, int8."""
    bounced: Bool[Array, "*b"]
    """The ball bounced off the player who touched it last, so that nobody owns it."""
    held: Float[Array, "*b"]
    """Seconds for which a keeper has held the ball in his hands; 0 if nobody does."""
    luck: Float[Array, "*b"]
    """Uniform draw of the last kick: whether a keeper can stop it."""
    right_first: Bool[Array, "*b"]
    """The right team wins ties, an order that GRF draws for each episode."""
    anchor_x: Float[Array, "P *b"]
    """Place in the formation, meters."""
    anchor_y: Float[Array, "P *b"]
    checkpoints: Int[Array, "P *b"]
    """Checkpoints that a player has collected, for ``env.reward=checkpoints``, int8."""
    end: Int[Array, "*b"]
    """Why the episode ended, an index of ``ENDS``, int8; 0 while it runs."""

    @property
    def place(self) -> Vector:
        """Position of each player, meters."""
        return self.x, self.y

    @property
    def velocity(self) -> Vector:
        """Velocity of each player, m/s."""
        return self.vx, self.vy

    @property
    def face(self) -> Vector:
        """Unit vector of the body of each player."""
        return self.face_x, self.face_y

    @property
    def ball_place(self) -> Vector:
        """Horizontal position of the ball, meters."""
        return self.ball[0], self.ball[1]

    @property
    def roll(self) -> Vector:
        """Horizontal velocity of the ball, m/s."""
        return self.ball_v[0], self.ball_v[1]


OPENING = 3
"""Steps at the start of an episode in which players behave differently, as GRF's do."""

AT_REST = 0.1
"""Square of the speed below which the ball is at rest, m^2/s^2."""


def is_opening(world: World) -> Bool[Array, "*b"]:
    """Return whether the episode has just begun: nobody has touched the ball, which rests."""
    rests = jnp.sum(world.ball_v**2, axis=0) < AT_REST
    return (world.steps < OPENING) & (world.last_touch == NOBODY) & rests


def observable(world: Observable) -> Observable:
    """Return the part of a state that determines the observations."""
    names = Observable.__dataclass_fields__
    return Observable(**{name: getattr(world, name) for name in names})


def expand(values: np.ndarray, like: Array) -> Array:
    """Return constants of the players, ``[P]``, with as many axes as an array ``[P, *b]``."""
    shape = values.shape + (1,) * (like.ndim - 1)
    return jnp.asarray(values).reshape(shape)


def members(
    index: Int[Array, "*b"],
    count: int,
) -> Bool[Array, "P *b"]:
    """Return a mask ``[count, *b]`` that is True for one player, or for none if he is negative."""
    players = jnp.arange(count, dtype=index.dtype).reshape((-1,) + (1,) * index.ndim)
    return players == index


def pick(
    values: Float[Array, "P *b"], chosen: Bool[Array, "P *b"]
) -> Float[Array, "*b"]:
    """Return the value of the chosen player; zero if there is none."""
    return jnp.sum(
        jnp.where(chosen, values, 0),
        axis=0,
    )


def pick_vector(
    vector: Vector,
    chosen: Bool[Array, "P *b"],
) -> Vector:
    """Return the vector of the chosen player; zero if there is none."""
    return pick(vector[0], chosen), pick(vector[1], chosen)


def first_of(
    cost: Float[Array, "P *b"], candidates: Bool[Array, "P *b"]
) -> Bool[Array, "P *b"]:
    """Return the mask of the candidate with the least cost; empty if there is none."""
    least = jnp.argmin(
        jnp.where(candidates, cost, jnp.inf),
        axis=0,
    )
    return members(least, len(cost)) & candidates
