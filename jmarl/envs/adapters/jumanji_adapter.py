"""Adapter of Jumanji's level-based foraging and robotic warehouse.

Names are those of ``jmarl.envs.grids.grid_names`` after ``jumanji_``. With ``coop``, all players
must lift each item together. Jumanji's warehouse is not the benchmark's, which is ``rware_...``: a
collision ends the episode, moves are resolved in the order of agents, agents share the reward, and
an agent observes 66 features instead of 71.

Differs from Jumanji: a warehouse episode at the time limit is truncated, not terminated, so
learning bootstraps. A collision of two robots still terminates it. The rewards of a foraging team
are summed and given to each player, as in the papers, so a return lies in [0, 1]. The option
``individual_rewards`` keeps them separate.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jmarl.config import ConfigError, check
from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.catalog import JUMANJI_PREFIX
from jmarl.envs.grids.grid_names import foraging_size, warehouse_size
from jmarl.envs.options import parse_count, parse_flag
from jmarl.types import EntityObs, Env, Key


LBF_EPISODE_LIMIT = 100
RWARE_EPISODE_LIMIT = 500


def make(
    name: str, *, episode_limit: int | None = None, individual_rewards: bool = False
) -> Env:
    """Build a foraging or warehouse environment.

    Args:
        name: ``jumanji_lbf_...`` or ``jumanji_rware_...``.
        episode_limit: Largest number of actions in an episode. None: 100 for foraging, 500 for
            a warehouse.
        individual_rewards: Give each agent its own reward instead of the team's sum.

    Returns:
        A batch of environments as pure functions.

    Raises:
        ConfigError: If an option has a wrong type, Jumanji does not support the size, or
            Jumanji is not installed.
    """
    individual_rewards = parse_flag("individual_rewards", individual_rewards)
    foraging = name.startswith(f"{JUMANJI_PREFIX}lbf")
    if episode_limit is None:
        episode_limit = LBF_EPISODE_LIMIT if foraging else RWARE_EPISODE_LIMIT
    else:
        episode_limit = parse_count("episode_limit", episode_limit)
    # Jumanji reads array values when it builds an environment, so they must not be tracers.
    with jax.ensure_compile_time_eval():
        make_source = _make_foraging if foraging else _make_warehouse
        source = make_source(name, episode_limit)
    return batched(
        _single_env(name, source, episode_limit, individual_rewards=individual_rewards)
    )


class JumanjiEnv(NamedTuple):
    """An environment of Jumanji, with a test for terminal states."""

    env: Any
    terminated: Callable[[Any, jax.Array, Any], Bool[Array, ""]]
    """``terminated(state, action, next_time_step)``, False at a time limit."""


def _single_env(
    name: str, source: JumanjiEnv, episode_limit: int, *, individual_rewards: bool
) -> SingleEnv:
    env = source.env
    _, shape = jax.eval_shape(env.reset, jax.random.key(0))
    own_width = shape.observation.agents_view.shape[-1]
    n_actions = shape.observation.action_mask.shape[-1]
    spec = flat_spec(env.num_agents, own_width, n_actions, episode_limit)

    def observe(observation: Any) -> EntityObs:
        return flat_obs(spec, observation.agents_view, avail=observation.action_mask)

    def reset(key: Key) -> tuple[Any, EntityObs]:
        state, timestep = env.reset(key)
        return state, observe(timestep.observation)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        after, timestep = env.step(state, action)
        reward = timestep.reward if individual_rewards else timestep.reward.sum()
        terminated = source.terminated(state, action, timestep)
        obs = observe(timestep.observation)
        truncated = timestep.last() & ~terminated
        return after, Step(obs, reward, terminated, truncated)

    return SingleEnv(name, spec, reset, step)


def _make_foraging(name: str, episode_limit: int) -> JumanjiEnv:
    size = foraging_size(name.removeprefix(JUMANJI_PREFIX))
    assert size is not None
    rule = "must have a square grid, such as jumanji_lbf_10x10-3p-3f"
    check(size.rows == size.columns, "env", name, rule)
    package = _import_jumanji("lbf", name)
    with _one_line_errors(name):
        generator = package.generator.RandomGenerator(
            grid_size=size.rows,
            fov=size.sight,
            num_agents=size.n_agents,
            num_food=size.n_food,
            force_coop=size.coop,
        )
    env = package.env.LevelBasedForaging(generator, time_limit=episode_limit)

    def terminated(state: Any, action: jax.Array, after: Any) -> Bool[Array, ""]:
        return after.last() & (after.discount == 0).all()

    return JumanjiEnv(env, terminated)


def _make_warehouse(name: str, episode_limit: int) -> JumanjiEnv:
    size = warehouse_size(name.removeprefix(JUMANJI_PREFIX))
    assert size is not None
    package = _import_jumanji("robot_warehouse", name)
    with _one_line_errors(name):
        generator = package.generator.RandomGenerator(
            shelf_rows=size.shelf_rows,
            shelf_columns=size.shelf_columns,
            column_height=8,
            num_agents=size.n_agents,
            sensor_range=1,
            request_queue_size=max(1, size.requests),
        )
    env = package.env.RobotWarehouse(generator, time_limit=episode_limit)

    def terminated(state: Any, action: jax.Array, after: Any) -> Bool[Array, ""]:
        # Repeat the step far from the time limit; the compiler merges the common parts.
        early = state.replace(step_count=jnp.full_like(state.step_count, -1))
        _, timestep = env.step(early, action)
        return timestep.last()

    return JumanjiEnv(env, terminated)


def _import_jumanji(package: str, name: str) -> SimpleNamespace:
    """Import the modules of a Jumanji environment on first use."""
    path = f"jumanji.environments.routing.{package}"
    try:
        env = importlib.import_module(f"{path}.env")
        generator = importlib.import_module(f"{path}.generator")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"env={name}: package {error.name} is not installed; "
            "run pip install 'jmarl[envs]'"
        ) from None
    return SimpleNamespace(env=env, generator=generator)


@contextlib.contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Convert the errors of Jumanji's size checks to one line."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"env={name}: {error}") from None
