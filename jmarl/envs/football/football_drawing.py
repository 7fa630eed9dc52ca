"""Rendering of football as a scene: the pitch from above, with the left team's attack to the right.

The y axis of football points to the bottom of the screen, and that of a scene to the top.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.game_actions import ACTIONS
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import ENDS, NOBODY
from jmarl.envs.scene import (
    Arc,
    Background,
    Disc,
    LegendEntry,
    Line,
    Rectangle,
    Scene,
    Sector,
)


MARGIN = 4.0
"""Distance of the touch and goal lines from the edges of the picture, in meters."""
CENTER_X = pitch.HALF_LENGTH + MARGIN
CENTER_Y = pitch.HALF_WIDTH + MARGIN
PLAYER_RADIUS = 1.1
"""Drawn radius in meters; a player's body has 0.36 m."""
BALL_RADIUS = 0.55
"""Drawn radius in meters."""
KICK_LENGTH = 5.0
"""Length of the line that shows the direction of a kick in preparation, in meters."""
NEAR = 35.0
"""Distance to the ball in meters up to which a player other than an agent is shown in a zoom."""
COLORS = ("tab:blue", "tab:red")
OWNER_COLOR = "gold"
BALL_COLORS = ("white", "black")
KICK_COLOR = "gold"
PASS_COLOR = "lightskyblue"
SLIDE_COLOR = "tab:orange"
GRASS = "#3f8f4f"
STRIPES = 11
MARKING_COLOR = "white"
NET_X = pitch.HALF_LENGTH + pitch.GOAL_DEPTH
SPOT_X = pitch.HALF_LENGTH - pitch.PENALTY_SPOT
SPOT_RADIUS = 0.3
"""Drawn radius of the spots, in meters."""
END_TEXTS = {
    "": "",
    "goal": "goal",
    "conceded": "goal of the right team",
    "out": "out of play",
    "poss": "ball lost",
    "time": "time is up",
    "own_half": "back in the own half",
}
MODES = ("", "kick-off", "goal kick", "free kick", "corner", "throw-in", "penalty")
LEGEND = (
    LegendEntry("left team", COLORS[0], "disc"),
    LegendEntry("right team", COLORS[1], "disc"),
    LegendEntry("keeper", "tab:gray", "disc", "0"),
    LegendEntry("owner", OWNER_COLOR, "ring"),
    LegendEntry("kick", KICK_COLOR, "dashed"),
    LegendEntry("pass", PASS_COLOR, "dashed"),
    LegendEntry("slide", SLIDE_COLOR, "area"),
)


class _Match(NamedTuple):
    """State of one environment."""

    setup: Setup
    world: Any

    @property
    def owner(self) -> int:
        return int(self.world.owner)

    @property
    def ball(self) -> tuple[float, float]:
        """Place of the ball in the scene."""
        x, y, _ = self.world.ball.tolist()
        return _place(x, y)

    def is_left(self, player: int) -> bool:
        return player < self.setup.n_left

    def center(self, player: int) -> tuple[float, float]:
        """Return the place of a player in the scene."""
        return _place(
            float(self.world.x[player]),
            float(self.world.y[player]),
        )

    def number(self, player: int) -> int:
        """Return the index of a player in the team."""
        return player if self.is_left(player) else player - self.setup.n_left

    def name(self, player: int) -> str:
        """Return a name such as ``CM 2, agent 1``."""
        team = "left" if self.is_left(player) else "right"
        if self.setup.agent[player]:
            team = f"agent {player - 1}"
        return f"{self.setup.players[player].role} {self.number(player)}, {team}"


def scene(setup: Setup, state: Any) -> Scene:
    """Return the scene of one environment.

    The owner of the ball has a ring. A dashed line shows the direction of a kick in preparation,
    and another one connects a ball that nobody owns with the receiver of the pass.

    Args:
        setup: Scenario and options of the environment.
        state: ``World`` of NumPy arrays without the batch axis.
    """
    match = _Match(setup, state)
    players = np.flatnonzero(state.active).tolist()
    # Agents stay visible on top of an opponent, and the ball on top of all players.
    ordered = sorted(players, key=match.is_left)
    return Scene(
        2 * CENTER_X,
        2 * CENTER_Y,
        (
            *(_player(match, player) for player in ordered),
            _ball(match),
        ),
        tuple(_lines(match, players)),
        _caption(state),
        tuple(_slides(match, players)),
        LEGEND,
        zoom=True,
        background=background(),
        frame_ms=round(1000 * pitch.STEP),
        origin=(CENTER_X, CENTER_Y),
        y_down=True,
    )


def _place(
    x: float,
    y: float,
) -> tuple[float, float]:
    """Return the place in a scene of a point of the pitch."""
    return CENTER_X + x, CENTER_Y - y


def _caption(state: Any) -> str:
    """Return the score, the clock, and the kind of a restart or the end of the episode."""
    left, right = state.score.tolist()
    steps = int(state.steps)
    event = END_TEXTS[ENDS[int(state.end)]] or MODES[int(state.mode)]
    clock = f"{steps * pitch.STEP:.1f} s"
    text = f"left {left} : {right} right   {clock}   step {steps}"
    return f"{text}   {event}" if event else text


# Players and the ball.


def _player(match: _Match, player: int) -> Disc:
    x, y = match.center(player)
    is_agent = bool(match.setup.agent[player])
    is_near = math.dist((x, y), match.ball) <= NEAR
    return Disc(
        x=x,
        y=y,
        radius=PLAYER_RADIUS,
        color=COLORS[0] if match.is_left(player) else COLORS[1],
        label=str(match.number(player)),
        name=match.name(player),
        details=tuple(_details(match.world, player, is_agent)),
        agent=player - 1 if is_agent else None,
        ring=OWNER_COLOR if player == match.owner else "",
        framed=is_agent or is_near,
    )


def _details(
    world: Any,
    player: int,
    is_agent: bool,
) -> Iterator[tuple[str, str]]:
    speed = math.hypot(
        float(world.vx[player]),
        float(world.vy[player]),
    )
    yield "speed", f"{speed:.1f} m/s"
    yield "fatigue", f"{100 * float(world.tired[player]):.0f} %"
    yield "kick", _kick(world, player)
    yield "busy", _busy(world, player)
    if is_agent:
        yield "sticky", _sticky(world, player)
    if cards := int(world.yellow[player]):
        yield "yellow cards", str(cards)


def _kick(world: Any, player: int) -> str:
    """Return the kick in preparation and the time since it was requested."""
    action = int(world.kick[player])
    if not action:
        return "-"
    return f"{_action(action)}, {float(world.kick_time[player]):.1f} s ago"


def _busy(world: Any, player: int) -> str:
    """Return the time during which a player cannot act."""
    slide, busy = float(world.slide[player]), float(world.busy[player])
    if slide > 0:
        return f"slides for {slide:.1f} s"
    return f"{busy:.1f} s" if busy > 0 else "-"


def _sticky(world: Any, player: int) -> str:
    """Return the sticky direction of an agent, with sprint and dribble."""
    direction = int(world.direction[player])
    keys = {
        _action(direction): direction > 0,
        "sprint": world.sprint[player],
        "dribble": world.dribble[player],
    }
    return ", ".join(key for key, is_on in keys.items() if is_on) or "-"


def _action(index: int) -> str:
    return ACTIONS[index].replace("_", " ")


def _ball(match: _Match) -> Disc:
    world = match.world
    x, y = match.ball
    height = max(
        float(world.ball[2]) - pitch.BALL_RADIUS,
        0.0,
    )
    speed = float(np.linalg.norm(world.ball_v))
    owner = "-" if match.owner == NOBODY else match.name(match.owner)
    color, ring = BALL_COLORS
    return Disc(
        x=x,
        y=y,
        radius=BALL_RADIUS,
        color=color,
        label="",
        name="ball",
        details=(
            ("speed", f"{speed:.1f} m/s"),
            ("height", f"{height:.1f} m"),
            ("owner", owner),
            ("in hands", "yes" if world.held > 0 else "no"),
        ),
        ring=ring,
        height=height,
    )


# Lines and areas.


def _lines(
    match: _Match,
    players: list[int],
) -> Iterator[Line]:
    """Yield the kicks in preparation, and the pass that is on its way."""
    world = match.world
    for player in players:
        if world.kick[player]:
            end = _kick_end(match, player)
            yield Line(
                *match.center(player),
                *end,
                KICK_COLOR,
                "dashed",
            )
    receiver = int(world.receiver)
    if match.owner == NOBODY and receiver in players:
        ends = *match.ball, *match.center(receiver)
        yield Line(*ends, PASS_COLOR, "dashed")


def _kick_end(
    match: _Match,
    player: int,
) -> tuple[float, float]:
    """Return the end of the line of a kick: the aimed player, or a point in its direction."""
    world = match.world
    target = int(world.kick_to[player])
    if target != NOBODY:
        return match.center(target)
    x, y = match.center(player)
    dx, dy = float(world.kick_x[player]), float(world.kick_y[player])
    return x + KICK_LENGTH * dx, y - KICK_LENGTH * dy


def _slides(
    match: _Match,
    players: list[int],
) -> Iterator[Sector]:
    for player in players:
        if match.world.slide[player] > 0:
            center = match.center(player)
            yield Sector(*center, 2 * PLAYER_RADIUS, SLIDE_COLOR, 0.6)


# The pitch.


@functools.cache
def background() -> Background:
    """Return the pitch with its markings and goals, the same for all scenarios."""
    return Background(
        GRASS,
        tuple(_ground()),
        tuple(_markings()),
    )


def _ground() -> Iterator[Rectangle | Sector]:
    """Yield stripes of lighter grass, the nets of both goals, and the spots."""
    width = 2 * CENTER_X / STRIPES
    for stripe in range(0, STRIPES, 2):
        left = stripe * width
        yield Rectangle(
            left,
            0.0,
            left + width,
            2 * CENTER_Y,
            MARKING_COLOR,
            0.06,
        )
    for sign in (-1, 1):
        line, net = sign * pitch.HALF_LENGTH, sign * NET_X
        low, high = sorted([line, net])
        left, bottom = _place(low, pitch.GOAL_HALF_WIDTH)
        right, top = _place(high, -pitch.GOAL_HALF_WIDTH)
        yield Rectangle(left, bottom, right, top, MARKING_COLOR, 0.45)
    for x in (-SPOT_X, 0.0, SPOT_X):
        yield Sector(*_place(x, 0.0), SPOT_RADIUS, MARKING_COLOR, 0.8)


def _markings() -> Iterator[Line | Arc]:
    """Yield the lines and arcs of the pitch and the outlines of the goals."""
    yield from _outline(-pitch.HALF_LENGTH, pitch.HALF_LENGTH, pitch.HALF_WIDTH)
    yield _line(0.0, -pitch.HALF_WIDTH, 0.0, pitch.HALF_WIDTH)
    yield Arc(*_place(0.0, 0.0), pitch.CIRCLE_RADIUS, MARKING_COLOR)
    boxes = (
        (pitch.BOX_X, pitch.BOX_Y),
        (pitch.HALF_LENGTH - pitch.GOAL_AREA_DEPTH, pitch.GOAL_AREA_HALF_WIDTH),
        (NET_X, pitch.GOAL_HALF_WIDTH),
    )
    for sign in (-1, 1):
        for x, half_width in boxes:
            yield from _outline(sign * pitch.HALF_LENGTH, sign * x, half_width)
        yield from _arcs(sign)


def _arcs(sign: int) -> Iterator[Arc]:
    """Yield the arc at the penalty area and the arcs at the corners of a half."""
    arc = functools.partial(Arc, color=MARKING_COLOR)
    to_center = 0.0 if sign < 0 else math.pi
    half = math.acos((SPOT_X - pitch.BOX_X) / pitch.CIRCLE_RADIUS)
    x, y = _place(sign * SPOT_X, 0.0)
    radius = pitch.CIRCLE_RADIUS
    yield arc(
        x,
        y,
        radius,
        direction=to_center,
        angle=2 * half,
    )
    for side in (-1, 1):
        x, y = _place(
            sign * pitch.HALF_LENGTH,
            side * pitch.HALF_WIDTH,
        )
        inwards = math.atan2(side, -sign)
        radius = pitch.CORNER_RADIUS
        yield arc(
            x,
            y,
            radius,
            direction=inwards,
            angle=math.pi / 2,
        )


def _outline(
    x0: float,
    x1: float,
    half_width: float,
) -> Iterator[Line]:
    """Yield the sides of a rectangle that is symmetric about the x axis."""
    corners = [
        (x0, -half_width),
        (x1, -half_width),
        (x1, half_width),
        (x0, half_width),
    ]
    for start, end in itertools.pairwise([*corners, corners[0]]):
        yield _line(*start, *end)


def _line(
    x0: float,
    y0: float,
    x1: float,
    y1: float,
) -> Line:
    """Return a line between two points of the pitch."""
    return Line(
        *_place(x0, y0),
        *_place(x1, y1),
        MARKING_COLOR,
    )
