"""Level-based foraging as a batch of environments, ``lbf_...``."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmarl.config import build, check
from jmarl.envs.batched import (
    BatchedEnv,
    Step,
    batch_first,
    flat_obs,
    flat_spec,
    unfused,
    with_resets,
)
from jmarl.envs.grids import foraging_rules as rules
from jmarl.envs.grids.foraging_drawing import scene
from jmarl.envs.grids.grid_names import ForagingSize, foraging_size
from jmarl.envs.grids.grid_options import ForagingConfig
from jmarl.types import EntityObs, Env, Key


def make(
    name: str,
    **options: Any,
) -> Env:
    """Build a foraging task.

    Args:
        name: ``lbf_...``, see ``grid_names``.
        **options: Fields of ``ForagingConfig``.

    Returns:
        A batch of environments as pure functions. Observations are the vectors of ``lbforaging``,
        and the central state is their concatenation.

    Raises:
        ConfigError: If an option is unknown or has a wrong value, or players and food do not fit
            into the grid.
    """
    config = build(ForagingConfig, options, "env")
    size = foraging_size(name)
    assert size is not None
    _check_size(name, size)
    width = rules.WIDTH * (size.n_food + size.n_agents)
    spec = flat_spec(
        size.n_agents,
        width,
        rules.N_ACTIONS,
        config.episode_limit,
    )

    def observe(state: rules.State) -> EntityObs:
        own = batch_first(unfused(rules.observe(size, state)))
        if not config.mask:
            return jax.vmap(partial(flat_obs, spec))(own)
        avail = batch_first(rules.valid_actions(size, state))
        return jax.vmap(lambda x, y: flat_obs(spec, x, avail=y))(own, avail)

    def reset(
        key: Key,
        batch: int,
    ) -> tuple[rules.State, None]:
        draws = jax.random.uniform(
            key,
            (
                2,
                size.n_agents + size.n_food,
                batch,
            ),
        )
        return rules.first_state(size, draws), None

    def step(
        key: Key, state: rules.State, action: Int[Array, "B P"]
    ) -> tuple[rules.State, Step]:
        state, reward = rules.advance(size, state, action.T)
        if not config.individual_rewards:
            reward = jnp.broadcast_to(reward.sum(0), reward.shape)
        is_over = rules.is_over(state)
        result = Step(
            None,
            reward.T,
            is_over,
            jnp.zeros_like(is_over),
        )
        return state, result

    draw = partial(scene, size)
    return with_resets(BatchedEnv(name, spec, reset, step, draw, observe))


def _check_size(
    name: str,
    size: ForagingSize,
) -> None:
    check(
        min(size.rows, size.columns) >= 3, "env", name, "needs a grid of at least 3x3"
    )
    check(
        max(size.rows, size.columns) <= rules.MOST_CELLS,
        "env",
        name,
        f"must have at most {rules.MOST_CELLS} rows and columns",
    )
    # Two items are never in the same square of two by two cells, and never at the border.
    most = -(-(size.rows - 2) // 2) * -(-(size.columns - 2) // 2)
    check(
        size.n_food <= most,
        "env",
        name,
        f"must have at most {most} food items",
    )
    cells = size.rows * size.columns - size.n_food
    check(
        size.n_agents <= cells,
        "env",
        name,
        f"must have at most {cells} players",
    )
