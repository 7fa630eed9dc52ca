"""Scripted players of football, which need no parameters: ``SCRIPTS``.

They act on ``env.obs=entity``, and do not use the mask of available actions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.config.errors import ConfigError, suggest
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core.match_step import SCRIPTED
from jmarl.envs.football.core.player_commands import OWN_ACTIONS, n_actions
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.views.entity_view import OWN_NAMES, TIME_COLUMN, ObsCodec
from jmarl.envs.players import RANDOM, Player, PlayerSet
from jmarl.types import EntityObs, Key, Spec


Script = Callable[[EntityObs, Key], Int[Array, "B N"]]
"""``script(obs, key) -> actions``."""
BUILTIN_AI = "builtin_ai"
SCRIPTS = (
    RANDOM,
    BUILTIN_AI,
    "run_shoot_0.15",
    "run_shoot_0.3",
    "run_shoot_0.3_nosprint",
    "pass_then_run_shoot_0.3",
)
"""Listed names; ``run_shoot`` takes any radius."""
PASSING_STEPS = 3
"""First steps of an episode, in which ``pass_then_`` passes."""
_RUN_SHOOT = re.compile(r"(pass_then_)?run_shoot_(\d+(?:\.\d+)?)(_nosprint)?")
_RULE = "expected [pass_then_]run_shoot_<R>[_nosprint], random or builtin_ai"
_Y_PER_X = 1.537
"""Length of a unit of y in units of x, in GRF's coordinates."""
_GOAL_X = 1.0
"""x of the right goal line, in GRF's coordinates."""
_EIGHTH = jnp.pi / 4
"""Angle between two directions."""
_SAME_DIRECTION = 0.9
"""Cosine above which two directions are equal; that of neighbors is 0.71."""


class RunShoot(NamedTuple):
    """Parameters of ``run_shoot``."""

    radius: float
    """Distance from the goal below which the owner shoots, in units of 54.4 m."""
    passes: bool
    """The owner passes in the first steps."""
    sprints: bool


class Sight(NamedTuple):
    """Facts that ``run_shoot`` depends on."""

    x: Float[Array, "*b N"]
    """Position of the agent, in the units of GRF."""
    y: Float[Array, "*b N"]
    owns: Bool[Array, "*b N"]
    """The agent owns the ball."""
    toward_x: Float[Array, "*b N"]
    """Unit vector of the sticky direction; zero for none."""
    toward_y: Float[Array, "*b N"]
    sprints: Bool[Array, "*b N"]
    """Sticky sprint."""
    step: Float[Array, "*b 1"]
    """Steps since the start of the episode."""


@cache
def make_script(
    setup: Setup,
    name: str,
    key: str = "script",
) -> Script:
    """Build a script for an environment.

    Args:
        setup: Scenario and options of the environment.
        name: One of ``SCRIPTS``, or ``[pass_then_]run_shoot_<R>[_nosprint]``.
        key: Name of the argument, for errors.

    Raises:
        ConfigError: If the name is unknown, or the script cannot act in the environment.
    """
    match = _RUN_SHOOT.fullmatch(name)
    if match is None:
        if name not in SCRIPTS:
            fix = suggest(name, SCRIPTS, _RULE)
            raise ConfigError(f"{key}={name}: unknown {key}; {fix}")
        return _random(setup) if name == RANDOM else builtin_ai
    rule = RunShoot(
        float(match[2]),
        passes=bool(match[1]),
        sprints=not match[3],
    )
    config = setup.config
    if config.obs != "entity":
        raise ConfigError(
            f"{key}={name}: env.obs={config.obs} has no entities; use entity"
        )
    if rule.passes and config.passes != "grf":
        raise ConfigError(f"{key}={name}: needs env.passes=grf, got {config.passes}")

    def act(
        obs: EntityObs,
        key: Key,
    ) -> Int[Array, "B N"]:
        action = run_shoot(rule, look(setup, obs))
        return jnp.asarray(_indices(setup))[action]

    return act


def _indices(setup: Setup) -> np.ndarray:
    """Return the index in the environment of each of GRF's actions, ``[19]``."""
    if setup.config.passes == "grf":
        return np.arange(len(game.ACTIONS))
    indices = np.zeros(len(game.ACTIONS), np.int64)
    indices[list(OWN_ACTIONS)] = np.arange(len(OWN_ACTIONS))
    return indices


def _random(setup: Setup) -> Script:
    count = n_actions(setup)

    def act(
        obs: EntityObs,
        key: Key,
    ) -> Int[Array, "B N"]:
        return jax.random.randint(
            key,
            obs.alive.shape,
            0,
            count,
        )

    return act


def builtin_ai(
    obs: EntityObs,
    key: Key,
) -> Int[Array, "B N"]:
    """Leave all agents to the scripted play of the right team, at difficulty 1."""
    return jnp.full(obs.alive.shape, SCRIPTED)


def look(setup: Setup, obs: EntityObs) -> Sight:
    """Read the facts for ``run_shoot`` from observations of entities."""
    own = {name: obs.own[..., i] for i, name in enumerate(OWN_NAMES)}
    time = obs.state.features[..., TIME_COLUMN, None]
    return Sight(
        x=own["x"],
        y=own["y"],
        owns=own["owns"] > 0,
        toward_x=own["toward_x"],
        toward_y=own["toward_y"],
        sprints=own["sprint"] > 0,
        step=jnp.round(time * setup.episode_limit),
    )


def run_shoot(
    rule: RunShoot,
    sight: Sight,
) -> Int[Array, "*b N"]:
    """Return the actions of agents who run to the goal and shoot near it.

    The first rule that applies decides: pass if asked to; shoot from within the radius; turn to
    the goal; sprint if asked to; idle. GRF keeps a pressed direction.

    Args:
        rule: Parameters.
        sight: Facts about the agents.

    Returns:
        Indices of GRF's 19 actions.
    """
    goal_x, goal_y = _GOAL_X - sight.x, -_Y_PER_X * sight.y
    eighths = jnp.round(jnp.arctan2(-goal_y, goal_x) / _EIGHTH)
    angle = eighths * _EIGHTH
    pressed = sight.toward_x * jnp.cos(angle) - sight.toward_y * jnp.sin(angle)
    direction = (4 - eighths.astype(jnp.int32)) % 8 + 1
    passes = rule.passes & (sight.step < PASSING_STEPS) & sight.owns
    shoots = sight.owns & (jnp.hypot(goal_x, goal_y) < rule.radius)
    turns = pressed < _SAME_DIRECTION
    starts_sprint = rule.sprints & ~sight.sprints
    conditions = [passes, shoots, turns, starts_sprint]
    actions = [game.SHORT_PASS, game.SHOT, direction, game.SPRINT]
    actions = [jnp.broadcast_to(action, turns.shape) for action in actions]
    return jnp.select(conditions, actions, game.IDLE)


def make_player(name: str, spec: Spec) -> Player:
    """Build a script as a player of ``jmarl play``."""
    codec = spec.obs_codec
    if not isinstance(codec, ObsCodec):
        raise ConfigError(f"player={name}: plays only football")
    script = make_script(codec.setup, name, "player")

    def act(
        key: Key,
        obs: EntityObs,
    ) -> Int[Array, "B N"]:
        return script(obs, key)

    return act


PLAYERS = PlayerSet(SCRIPTS, make_player)
"""Players of football, for the registry."""
