"""The original foraging task beside ours: its state and its features."""

import jax.numpy as jnp
import numpy as np
from lbforaging.foraging.environment import Action, ForagingEnv

from jmarl.envs.grids.foraging_rules import State, entity
from jmarl.envs.grids.grid_names import foraging_size


def original(name, seed=0):
    """Return the original environment of one of our names, after a reset.

    The package registers few sizes, so its class is built with the arguments of its names.
    """
    size = foraging_size(name)
    env = ForagingEnv(
        players=size.n_agents,
        min_player_level=1,
        max_player_level=2,
        min_food_level=1,
        max_food_level=None,
        field_size=(size.rows, size.columns),
        max_num_food=size.n_food,
        sight=size.sight,
        max_episode_steps=50,
        force_coop=size.coop,
    )
    env.reset(seed=seed)
    return env


def to_state(env, food):
    """Return our state of the original, with the given places of food."""
    players = [entity(*p.position, p.level) for p in env.players]
    items = [entity(*place, env.field[tuple(place)]) for place in food]
    return State(
        players=tuple(jnp.int32(player) for player in players),
        food=tuple(jnp.int32(item) for item in items),
        spawned=jnp.int32(env._food_spawned),
    )


def food_places(env):
    """Return the places of food at the start; items without a place are at the corner."""
    found = np.argwhere(env.field > 0)
    missing = env.max_num_food - len(found)
    return np.concatenate([found, np.zeros((missing, 2), int)])


def gather(env, rng, noise=0.2):
    """Return actions that take all players to one item and load it, some of them random."""
    random = rng.integers(0, 6, len(env.players))
    items = np.argwhere(env.field > 0)
    center = np.mean(
        [p.position for p in env.players],
        axis=0,
    )
    goal = items[np.abs(items - center).sum(1).argmin()] if len(items) else None
    actions = [_walk(env, player, goal) for player in env.players]
    return np.where(
        rng.random(len(actions)) < noise,
        random,
        actions,
    )


def _walk(env, player, goal):
    if goal is None:
        return Action.NONE.value
    down, right = np.subtract(goal, player.position)
    if abs(down) + abs(right) == 1:
        return Action.LOAD.value
    if abs(down) > abs(right):
        return (Action.SOUTH if down > 0 else Action.NORTH).value
    return (Action.EAST if right > 0 else Action.WEST).value
