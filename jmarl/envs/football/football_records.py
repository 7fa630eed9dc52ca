"""Records of football: rows of episodes, and situations restored from them.

A record has the names, shapes and units of recordings of Google Research Football (GRF): meters and
m/s, y positive at the bottom, the keeper in row 0 of his team.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.config.errors import ConfigError, check
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.match_step import SCRIPTED
from jmarl.envs.football.core.player_commands import DRIBBLE, SPRINT, WALK, n_actions
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import (
    FREE,
    NOBODY,
    OPENING,
    World,
    expand,
    members,
)


Rows = dict[str, Array]
"""Rows of the records of B episodes, leaves ``[B, ...]``."""
N_STICKY = 10
"""Number of GRF's sticky buttons: eight directions, sprint, dribble."""
HAND_HEIGHT = 0.5
"""Height in meters above which only hands can own the ball."""
_MOVING = 0.5
"""Speed in m/s from which a player faces the direction in which he moves."""


def row(setup: Setup, world: World) -> Rows:
    """Return the row of a record.

    Args:
        setup: Scenario and options.
        world: World with the batch last.

    Returns:
        ``ball``, ``ballv`` [B, 3]; ``left``, ``leftv``, ``right``, ``rightv`` [B, players, 2];
        ``own`` [B, 2], the team (-1 nobody, 0 left, 1 right) and the player in it, -1 for nobody;
        ``score`` [B, 2]; ``mode`` [B].
    """
    left, right = _teams(setup, world.x, world.y)
    left_v, right_v = _teams(setup, world.vx, world.vy)
    return {
        "ball": world.ball.T,
        "ballv": world.ball_v.T,
        "left": left,
        "leftv": left_v,
        "right": right,
        "rightv": right_v,
        "own": _own(setup, world.owner),
        "score": world.score.T.astype(jnp.int32),
        "mode": world.mode.astype(jnp.int32),
    }


def _teams(
    setup: Setup, x: Float[Array, "P B"], y: Float[Array, "P B"]
) -> list[Float[Array, "B players 2"]]:
    """Return vectors of the players of the left and of the right team."""
    vectors = jnp.stack([x, y]).T  # [B, P, 2]
    return jnp.split(vectors, [setup.n_left], axis=1)


def _own(
    setup: Setup,
    owner: Int[Array, "B"],
) -> Int[Array, "B 2"]:
    owner = owner.astype(jnp.int32)
    n_left = setup.n_left
    right = (owner >= n_left).astype(jnp.int32)
    team = jnp.where(owner == NOBODY, NOBODY, right)
    player = owner - n_left * right
    return jnp.stack([team, player], axis=-1)


def to_record(
    setup: Setup,
    actions: Int[Array, "..."],
) -> Int[Array, "..."]:
    """Return actions as a record has them: in GRF, the scripted play is action 19."""
    actions = jnp.where(actions < 0, n_actions(setup), actions)
    return actions.astype(jnp.int8)


def from_record(
    setup: Setup,
    actions: Int[Array, "..."],
) -> Int[Array, "..."]:
    """Return the actions of a record as those of the environment."""
    is_scripted = (actions < 0) | (actions == n_actions(setup))
    return jnp.where(is_scripted, SCRIPTED, actions)


def sticky_rows(actions: Int[np.ndarray, "T n"]) -> Bool[np.ndarray, "T+1 n 10"]:
    """Return the buttons that are pressed before each of GRF's actions, and after the last."""
    pressed = np.zeros(
        (actions.shape[1], N_STICKY),
        bool,
    )
    rows = [pressed]
    for now in actions:
        pressed = _press(pressed, now)
        rows.append(pressed)
    return np.stack(rows)


def _press(
    pressed: Bool[np.ndarray, "n 10"], now: Int[np.ndarray, "n"]
) -> Bool[np.ndarray, "n 10"]:
    """Return the pressed buttons after one action of each agent."""
    turns = (now > 0) & (now <= 8)
    releases = turns | (now == game.RELEASE_DIRECTION)
    after = pressed.copy()
    after[releases, :8] = False
    after[turns, now[turns] - 1] = True
    sprint, dribble = after.T[8:]
    sprint |= now == game.SPRINT
    sprint &= now != game.RELEASE_SPRINT
    dribble |= now == game.DRIBBLE
    dribble &= now != game.RELEASE_DRIBBLE
    return after


def check_frames(
    setup: Setup,
    frames: Mapping[str, Any],
    batch: int,
) -> Rows:
    """Return the fields of frames as arrays, and check their shapes.

    Args:
        setup: Scenario and options.
        frames: One row of a record for each environment, and ``sticky``.
        batch: Number of environments.

    Raises:
        ConfigError: If a field is missing or has a wrong shape.
    """
    scenario, arrays = setup.scenario, {}
    n_left, n_right = setup.n_left, setup.n_players - setup.n_left
    sizes = f"{scenario.name} has {n_left} left and {n_right} right players"
    for name, shape in _frame_shapes(setup).items():
        if name not in frames:
            raise ConfigError(
                f"frames: {name} is missing; add an array {(batch, *shape)}"
            )
        value = np.asarray(frames[name])
        rule = f"must have the shape {(batch, *shape)}: {sizes}"
        check(
            value.shape == (batch, *shape),
            f"frames.{name}",
            value.shape,
            rule,
        )
        arrays[name] = jnp.asarray(value)
    return arrays


def _frame_shapes(setup: Setup) -> dict[str, tuple[int, ...]]:
    left = setup.n_left, 2
    right = setup.n_players - setup.n_left, 2
    return {
        "ball": (3,),
        "ballv": (3,),
        "left": left,
        "leftv": left,
        "right": right,
        "rightv": right,
        "own": (2,),
        "score": (2,),
        "mode": (),
        "sticky": (setup.scenario.n_agents, N_STICKY),
    }


def restore(
    setup: Setup,
    start: World,
    frames: Rows,
) -> World:
    """Return the situations of frames.

    Args:
        setup: Scenario and options.
        start: First state of the episodes, with the batch last. It has all unrecorded facts.
        frames: Rows of records with ``sticky``.

    Returns:
        Worlds with the batch last. The owner of the ball is the last who touched it. Agents go
        where their buttons point, and the others keep their velocity. A frame in which somebody
        moves is past the opening of the episode.
    """
    x, y = _players(frames, "left", "right")
    vx, vy = _players(frames, "leftv", "rightv")
    world = start.replace(
        x=x,
        y=y,
        vx=vx,
        vy=vy,
        ball=frames["ball"].T.astype(jnp.float32),
        ball_v=frames["ballv"].T.astype(jnp.float32),
        score=frames["score"].T.astype(jnp.int8),
        mode=frames["mode"].astype(jnp.int8),
    )
    moves = jnp.any(jnp.hypot(vx, vy) > _MOVING, axis=0)
    world = world.replace(steps=jnp.where(moves, OPENING, world.steps))
    world = _set_buttons(setup, _face(world), frames["sticky"])
    team, player = frames["own"].T.astype(jnp.int8)
    return _set_owner(setup, world, team, player)


def _players(
    frames: Rows,
    left: str,
    right: str,
) -> tuple[Array, Array]:
    """Return x and y of all players, ``[P, B]`` each."""
    teams = [frames[left], frames[right]]
    both = jnp.concatenate(teams, axis=1)  # [B, P, 2]
    x, y = both.T.astype(jnp.float32)
    return x, y


def _face(world: World) -> World:
    """Turn the players who move into the direction of their velocity."""
    vx, vy = world.vx, world.vy
    speed = jnp.hypot(vx, vy)
    moves = speed > _MOVING
    speed = jnp.where(moves, speed, 1.0)
    return world.replace(
        face_x=jnp.where(moves, vx / speed, world.face_x),
        face_y=jnp.where(moves, vy / speed, world.face_y),
    )


def _set_buttons(
    setup: Setup,
    world: World,
    sticky: Bool[Array, "B n 10"],
) -> World:
    """Set the buttons of the agents, and the velocities that they ask for."""
    others = 1, setup.n_players - setup.n_left
    buttons = sticky.astype(bool).T  # [10, n, B]
    buttons = jnp.pad(
        buttons,
        ((0, 0), others, (0, 0)),
    )
    turn, sprint, dribble = buttons[:8], buttons[8], buttons[9]
    direction = jnp.argmax(turn, axis=0) + 1
    direction = jnp.where(turn.any(0), direction, 0)
    speed = jnp.where(dribble, DRIBBLE, WALK)
    speed = jnp.where(sprint, SPRINT, speed)
    heading = jnp.asarray(game.DIRECTIONS)[direction]
    x, y = jnp.moveaxis(speed[..., None] * heading, -1, 0)  # [P, B]
    is_agent = expand(setup.agent, x)
    return world.replace(
        direction=direction.astype(jnp.int8),
        sprint=sprint,
        dribble=dribble,
        wish_x=jnp.where(is_agent, x, world.vx),
        wish_y=jnp.where(is_agent, y, world.vy),
    )


def _set_owner(
    setup: Setup, world: World, team: Int[Array, "B"], player: Int[Array, "B"]
) -> World:
    """Set the owner of the ball, who has just touched it."""
    index = player + setup.n_left * (team == 1)
    owner = jnp.where(team == FREE, NOBODY, index).astype(jnp.int8)
    owns = members(owner, setup.n_players)
    keeper_owns = owns & expand(setup.keeper, owns)
    in_hands = keeper_owns.any(0) & (world.ball[2] > HAND_HEIGHT)
    return world.replace(
        owner=owner,
        last_touch=owner,
        last_team=team,
        touched=jnp.where(owns, 0.0, world.touched),
        held=jnp.where(in_hands, pitch.STEP, 0.0),
    )
