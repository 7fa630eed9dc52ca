"""Warehouses as a batch of environments, ``rware_...``."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Int

from jmarl.config import build, check
from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.grids import warehouse_rules as rules
from jmarl.envs.grids.grid_names import warehouse_size
from jmarl.envs.grids.grid_options import WarehouseConfig
from jmarl.envs.grids.warehouse_drawing import scene
from jmarl.envs.grids.warehouse_layout import make_layout
from jmarl.types import EntityObs, Env, Key


def make(
    name: str,
    **options: Any,
) -> Env:
    """Build a warehouse.

    Args:
        name: ``rware_...``, see ``grid_names``.
        **options: Fields of ``WarehouseConfig``.

    Returns:
        A batch of environments as pure functions. Observations are the vectors of ``rware``, and
        the central state is their concatenation. All actions are always available.

    Raises:
        ConfigError: If an option is unknown or has a wrong value, or the robots and requests do
            not fit into the warehouse.
    """
    config = build(WarehouseConfig, options, "env")
    size = warehouse_size(name)
    assert size is not None
    layout = make_layout(size)
    cells, shelves = int(layout.floor.sum()), int((~layout.highway).sum())
    check(
        size.n_agents <= cells,
        "env",
        name,
        f"must have at most {cells} robots",
    )
    fits = 1 <= size.requests < shelves - 1
    rule = f"requests {size.requests} shelves; must be 1 to {shelves - 2}"
    check(fits, "env", name, rule)
    limit = config.episode_limit
    spec = flat_spec(
        size.n_agents,
        rules.OBS_WIDTH,
        rules.N_ACTIONS,
        limit,
    )

    def observe(state: rules.State) -> EntityObs:
        return flat_obs(spec, rules.observe(layout, state))

    def reset(key: Key) -> tuple[rules.State, EntityObs]:
        state = rules.first_state(
            layout,
            size.n_agents,
            size.requests,
            key,
        )
        return state, observe(state)

    def step(
        key: Key, state: rules.State, action: Int[Array, "N"]
    ) -> tuple[rules.State, Step]:
        draws = jax.random.uniform(
            key,
            (len(layout.goals),),
        )
        state, reward = rules.advance(layout, state, action, draws)
        if not config.individual_rewards:
            reward = reward.sum()
        return state, Step(observe(state), reward, terminated=False)

    draw = partial(scene, layout)
    return batched(SingleEnv(name, spec, reset, step, draw))
