"""Random states of football, and their observations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import World, observable
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios.football_names import get_scenario
from jmarl.envs.football.views import entity_view


BATCH = 64
THREE = "3_vs_1_with_keeper"
ELEVEN = "counterattack_hard"


def make_setup(name=THREE, **options):
    return Setup(get_scenario(name), FootballConfig(**options))


@functools.cache
def observe_fn(setup):
    return jax.jit(functools.partial(entity_view.observe, setup))


def observe(setup, world):
    """Return the observations of a world, as NumPy arrays."""
    fn = observe_fn(setup)
    return jax.device_get(fn(observable(world)))


def start(setup, batch=BATCH):
    noise = jnp.zeros((setup.n_players, 2, batch))
    right_first = jnp.zeros(batch, bool)
    return first_world(setup, noise, right_first)


def random_world(
    setup,
    seed=0,
    batch=BATCH,
    n_sent_off=1,
) -> World:
    """Return states of all kinds; in half of them the ball is near a player."""
    rng = np.random.default_rng(seed)
    players = (setup.n_players, batch)
    agent = setup.agent[:, None]
    x = rng.uniform(-56, 56, players)
    y = rng.uniform(-37, 37, players)
    is_set_piece = rng.random(batch) < 0.5
    values = {
        "x": x,
        "y": y,
        "vx": rng.uniform(-8, 8, players),
        "vy": rng.uniform(-8, 8, players),
        "tired": rng.random(players),
        "yellow": rng.integers(0, 2, players),
        "direction": agent * rng.integers(0, 9, players),
        "sprint": agent * rng.integers(0, 2, players),
        "dribble": agent * rng.integers(0, 2, players),
        "ball": random_ball(rng, x, y),
        "ball_v": rng.uniform(-20, 20, (3, batch)),
        "owner": rng.integers(-1, setup.n_players, batch),
        "score": rng.integers(0, 3, (2, batch)),
        "mode": is_set_piece * rng.integers(0, 7, batch),
        "steps": rng.integers(0, 400, batch),
    }
    world = start(setup, batch)
    for name, value in values.items():
        dtype = getattr(world, name).dtype
        values[name] = jnp.asarray(value, dtype)
    order = rng.permuted(
        np.zeros(players) + np.arange(players[0])[:, None],
        axis=0,
    )
    remains = order >= n_sent_off
    return world.replace(**values, active=world.present & remains)


def random_ball(rng, x, y):
    n_players, batch = x.shape
    player = rng.integers(0, n_players, batch)
    column = np.arange(batch)
    is_near = rng.random(batch) < 0.5
    near = np.stack([x[player, column], y[player, column]])
    near = near + rng.uniform(-3, 3, (2, batch))
    anywhere = rng.uniform(
        [[-56], [-37]],
        [[56], [37]],
        (2, batch),
    )
    place = np.where(is_near, near, anywhere)
    height = rng.uniform(0.1, 3, (1, batch))
    return np.concatenate([place, height])


def player_fields(view, n_players):
    """Return the names of the fields with one value for each player."""
    names = view.__dataclass_fields__
    return [name for name in names if getattr(view, name).shape[0] == n_players]


def assert_close(ours, expected):
    np.testing.assert_allclose(
        ours,
        expected,
        rtol=1e-4,
        atol=2e-5,
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
