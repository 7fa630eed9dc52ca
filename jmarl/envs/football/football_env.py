"""Football as a batch of environments, ``football_<scenario>``."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from jaxtyping import Key as Keys

from jmarl import config as settings
from jmarl.envs import next_step
from jmarl.envs.batched import batch_first, batch_last
from jmarl.envs.football.core.match_step import advance, n_draws
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import (
    OWN_HALF,
    RUNNING,
    TIME,
    Observable,
    World,
    observable,
)
from jmarl.envs.football.football_drawing import scene
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.football_rewards import own_half, rewards
from jmarl.envs.football.scenarios.football_names import get_scenario
from jmarl.envs.football.scenarios.football_scenario import Scenario
from jmarl.envs.football.views.entity_view import observe, spec
from jmarl.envs.keys import Path
from jmarl.envs.next_step import Engine, Outcome
from jmarl.types import EntityObs, Env


# JaxMARL splits the key of a step into those of the step and of the next episode.
STEP: Path = (0,)
RESET: Path = (1,)


class State(World):
    """State of B environments: a ``World`` with a leading B on each leaf."""

    pool: Any = None
    """Starts are drawn when an episode begins."""

    @property
    def ended(self) -> Bool[Array, "B"]:
        """Mask of the environments in which the last step ended the episode."""
        return self.end != RUNNING


class Start(struct.PyTreeNode):
    """Random part of the start of an episode."""

    noise: Float[Array, "*b P 2"]
    """Displacement of each player, in meters."""
    right_first: Bool[Array, "*b"]
    """The right team wins ties."""


def make(name: str, **options: Any) -> Env:
    """Build the environment ``football_<scenario>``.

    Args:
        name: Name of the environment, such as ``football_3_vs_1_with_keeper``.
        **options: Fields of ``FootballConfig``.

    Raises:
        ConfigError: If the scenario or an option is unknown, or a value is wrong.
    """
    return build(make_setup(name, options), name)


def make_setup(
    scenario: str | Scenario,
    options: dict[str, Any],
) -> Setup:
    """Return the constants of a scenario under options, the fields of ``FootballConfig``."""
    config = settings.build(FootballConfig, options, "env")
    known = get_scenario(scenario) if isinstance(scenario, str) else scenario
    return Setup(known, config)


def build(setup: Setup, name: str) -> Env:
    """Build the environment of any scenario, listed or not.

    Args:
        setup: Scenario and options.
        name: Name of the environment.
    """
    return next_step.build(name, make_engine(setup), reset_pool=0)


def make_engine(setup: Setup) -> Engine:
    """Return the functions of a batch of environments."""
    return Engine(
        spec=spec(setup),
        draw_starts=jax.vmap(partial(draw_start, setup)),
        first_state=partial(first_state, setup),
        transition=partial(transition, setup),
        observe=partial(observe_state, setup),
        outcomes=outcomes,
        scene=partial(scene, setup),
        paths=(STEP,),
        reset_path=RESET,
    )


def draw_start(
    setup: Setup,
    key: Keys[Array, ""],
) -> Start:
    """Draw the start of an episode: displacements within a disc, and who wins ties."""
    players = setup.n_players
    draws = jax.random.uniform(key, (2 * players + 1,))
    share, turn, tie = jnp.split(draws, [players, 2 * players])
    radius = setup.config.start_noise * jnp.sqrt(share)
    angle = 2 * np.pi * turn
    way = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    return Start(
        (radius * way).T,
        tie[0] < 0.5,
    )


def first_state(setup: Setup, start: Start) -> State:
    """Return the first state of B episodes, given their starts."""
    noise = jnp.moveaxis(start.noise, 0, -1)
    return to_state(first_world(setup, noise, start.right_first))


def to_state(world: World) -> State:
    """Return the state of B environments, given a world with the batch last."""
    return State(**_fields(batch_first(world)))


def to_world(state: World) -> World:
    """Return the world with the batch last, given the state of B environments."""
    return World(**_fields(batch_last(state)))


def _fields(world: Observable) -> dict[str, Array]:
    return {name: getattr(world, name) for name in World.__dataclass_fields__}


def transition(
    setup: Setup, keys: Keys[Array, "L B"], state: State, action: Int[Array, "B N"]
) -> tuple[State, Outcome]:
    """Advance every environment by one step, also if its episode has ended.

    Args:
        setup: Scenario and options.
        keys: Keys of the step, ``keys[0]`` one for each environment.
        state: State of B environments.
        action: Actions of the agents; -1 for an agent that the scripted play controls.
    """
    draw = jax.vmap(
        partial(draw_step, setup),
        out_axes=-1,
    )
    world = to_world(state)
    world, reward = step_world(
        setup,
        world,
        action.T,
        draw(keys[0]),
    )
    terminated, truncated = ends(world)
    return to_state(world), Outcome(reward.T, terminated, truncated)


def draw_step(
    setup: Setup,
    key: Keys[Array, ""],
) -> Float[Array, "D"]:
    """Draw the random numbers of a step of one environment."""
    return jax.random.uniform(key, (n_draws(setup),))


def step_world(
    setup: Setup, world: World, action: Int[Array, "N *b"], draws: Float[Array, "D *b"]
) -> tuple[World, Float[Array, "N *b"]]:
    """Advance worlds by one step, and return them with the reward of each agent."""
    after = advance(setup, world, action, draws)
    reward, after = rewards(setup, world, after)
    if setup.config.reward == "spectra":
        leaves = (after.end == RUNNING) & own_half(setup, after)
        end = jnp.where(leaves, OWN_HALF, after.end)
        after = after.replace(end=end.astype(jnp.int8))
    return after, reward


def ends(world: World) -> tuple[Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Return the flags ``terminated`` and ``truncated``: only a time limit truncates."""
    is_over = world.end == TIME
    return (world.end != RUNNING) & ~is_over, is_over


def observe_state(setup: Setup, state: State) -> EntityObs:
    """Return the observations of B environments."""
    return observe(setup, batch_last(observable(state)))


def outcomes(state: State) -> dict[str, Bool[Array, "B"]]:
    """Return the entries of ``Spec.outcomes``: goals of the left and of the right team."""
    won, conceded = (state.score > 0).T
    return {"won": won, "conceded": conceded}
