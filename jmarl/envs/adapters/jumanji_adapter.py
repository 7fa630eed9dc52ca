"""Level-based foraging and the robotic warehouse of Jumanji, under the names of Papoudakis et al. 2021.

``lbf_[Ss-]GxG-Pp-Ff[-coop]``: a grid of G x G, P players, F food items; players see S cells far (all of the grid by
default); ``coop``: each item needs all of them. ``rware_SIZE-Nag[-easy|-hard]``: tiny, small, medium or large
floors, N robots, and as many requested shelves at a time (twice, half).

Differs from Jumanji: a warehouse that runs out of time is cut, not terminated, so learning bootstraps there; two robots
that collide still end it. The rewards of a foraging team are summed and given to each player, as the papers do, so a
return lies in [0, 1]; ``individual_rewards`` leaves them apart.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jmarl.config import ConfigError, check
from jmarl.envs.batched import SingleEnv, Step, batched, count, flat_obs, flat_spec
from jmarl.envs.names import LBF, RWARE
from jmarl.types import EntityObs, Env, Key


FLOORS = {"tiny": (1, 3), "small": (2, 3), "medium": (2, 5), "large": (3, 5)}
"""Rows and columns of shelf clusters."""


def make(
    name: str, *, episode_limit: int | None = None, individual_rewards: bool = False
) -> Env:
    """Build ``lbf_...`` or ``rware_...``; an episode takes at most 100 or 500 steps, or ``episode_limit``.

    Raises ``ConfigError`` for an option of a wrong type, a size that Jumanji refuses, or where it is not installed.
    """
    check(
        isinstance(individual_rewards, bool),
        "env.individual_rewards",
        individual_rewards,
        "expected bool",
    )
    limit = (
        (100 if name.startswith("lbf") else 500)
        if episode_limit is None
        else count("episode_limit", episode_limit)
    )
    # Jumanji looks at arrays as it builds a world, which it could not while a function of the caller's is traced
    with jax.ensure_compile_time_eval():
        source = _lbf(name, limit) if name.startswith("lbf") else _rware(name, limit)
    return batched(_world(name, source, limit, individual_rewards=individual_rewards))


class Source(NamedTuple):
    """A world of Jumanji, and whether a transition ``(state, action, time step after)`` ended it for good."""

    env: Any
    terminated: Callable[[Any, jax.Array, Any], Bool[Array, ""]]


def _world(
    name: str, source: Source, limit: int, *, individual_rewards: bool
) -> SingleEnv:
    env = source.env
    _, shape = jax.eval_shape(env.reset, jax.random.key(0))
    own, avail = shape.observation.agents_view, shape.observation.action_mask
    spec = flat_spec(env.num_agents, own.shape[-1], avail.shape[-1], limit)

    def observe(observation: Any) -> EntityObs:
        return flat_obs(spec, observation.agents_view, avail=observation.action_mask)

    def reset(key: Key) -> tuple[Any, EntityObs]:
        state, timestep = env.reset(key)
        return state, observe(timestep.observation)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, Step]:
        after, timestep = env.step(state, action)
        reward = timestep.reward if individual_rewards else timestep.reward.sum()
        terminated = source.terminated(state, action, timestep)
        return after, Step(
            observe(timestep.observation),
            reward,
            terminated,
            timestep.last() & ~terminated,
        )

    return SingleEnv(name, spec, reset, step)


def _lbf(name: str, limit: int) -> Source:
    found = re.fullmatch(LBF, name)
    assert found is not None
    sight, rows, columns, players, food, coop = found.groups()
    check(
        rows == columns, "env", name, "must have a square grid, such as lbf_10x10-3p-3f"
    )
    package = _jumanji("lbf")
    with _refusals(name):
        generator = package.generator.RandomGenerator(
            grid_size=int(rows),
            fov=int(sight or rows),
            num_agents=int(players),
            num_food=int(food),
            force_coop=coop is not None,
        )
    env = package.env.LevelBasedForaging(generator, time_limit=limit)

    def terminated(state: Any, action: jax.Array, after: Any) -> Bool[Array, ""]:
        return after.last() & (after.discount == 0).all()

    return Source(env, terminated)


def _rware(name: str, limit: int) -> Source:
    found = re.fullmatch(RWARE, name)
    assert found is not None
    floor, agents, _, level = found.groups()
    package, number = _jumanji("robot_warehouse"), int(agents)
    with _refusals(name):
        generator = package.generator.RandomGenerator(
            shelf_rows=FLOORS[floor][0],
            shelf_columns=FLOORS[floor][1],
            column_height=8,
            num_agents=number,
            sensor_range=1,
            request_queue_size={
                "easy": 2 * number,
                None: number,
                "hard": max(1, number // 2),
            }[level],
        )
    env = package.env.RobotWarehouse(generator, time_limit=limit)

    def terminated(state: Any, action: jax.Array, after: Any) -> Bool[Array, ""]:
        # asked again at an early time; the compiler computes what both have in common once
        return env.step(
            state.replace(step_count=jnp.full_like(state.step_count, -1)), action
        )[1].last()

    return Source(env, terminated)


def _jumanji(package: str) -> SimpleNamespace:
    """The modules of one of Jumanji's worlds, imported on first use."""
    place = f"jumanji.environments.routing.{package}"
    try:
        return SimpleNamespace(
            **{
                part: importlib.import_module(f"{place}.{part}")
                for part in ("env", "generator")
            }
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"env: needs {error.name}, which is not installed; pip install 'jmarl[envs]'"
        ) from None


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Jumanji's own checks of sizes, as one line."""
    try:
        yield
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"env={name}: {error}") from None
