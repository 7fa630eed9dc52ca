"""Grid worlds as environments: sizes, options, starts, ends of episodes, scenes and players."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.config import ConfigError
from jmarl.envs.grids import foraging_rules
from jmarl.envs.grids.foraging_rules import LOAD
from jmarl.envs.grids.grid_names import foraging_size
from jmarl.envs.players import random


@pytest.mark.parametrize(
    ("name", "agents", "actions", "width", "limit"),
    [
        ("lbf_2s-10x10-3p-3f", 3, 6, 18, 50),
        ("lbf_15x15-4p-5f", 4, 6, 27, 50),
        ("rware_tiny-4ag", 4, 5, 71, 500),
        ("rware_large-10ag-hard", 10, 5, 71, 500),
    ],
)
def test_name_determines_the_sizes(
    name,
    agents,
    actions,
    width,
    limit,
):
    spec = envs.make(name).spec
    assert (spec.n_agents, spec.n_actions, spec.own_width) == (agents, actions, width)
    assert spec.episode_limit == limit


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "rware_tiny-200ag",
            {},
            "env='rware_tiny-200ag': must have at most 110 robots",
        ),
        ("rware_tiny-1ag-hard", {}, "requests 0 shelves; must be 1 to 30"),
        ("lbf_5x5-2p-5f", {}, "must have at most 4 food items"),
        ("lbf_2x9-2p-1f", {}, "needs a grid of at least 3x3"),
        ("lbf_8x2048-2p-1f", {}, "must have at most 2047 rows and columns"),
        ("rware_tiny-2ag", {"mask": True}, "env.mask"),
        ("lbf_8x8-2p-2f", {"episode_limit": 0}, "env.episode_limit=0"),
    ],
)
def test_unsupported_size_or_option_raises_one_line(name, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        envs.make(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rware_xl-2ag", "rware_tiny-0ag", "lbf_8x8-2p-0f"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="unknown environment"):
        envs.make(name)


def rollout(env, act, steps, batch):
    """Return ``steps`` time steps of ``act(key, obs)``."""

    @jax.jit
    def run(key):
        def step(carry, key):
            state, timestep = carry
            act_key, step_key = jax.random.split(key)
            carry = env.step(
                step_key,
                state,
                act(act_key, timestep.obs),
            )
            return carry, carry[1]

        start = env.reset(key, batch)
        return jax.lax.scan(step, start, jax.random.split(key, steps))[1]

    return jax.device_get(run(jax.random.key(0)))


def test_time_limit_truncates_and_all_food_terminates():
    env = envs.make("lbf_6x6-2p-1f")
    steps = rollout(
        env, envs.registry.players_of(env.name).make("gather", env.spec), 52, 32
    )
    assert steps.terminated.any() and not (steps.terminated & steps.truncated).any()
    returns = steps.reward.sum(2)[:50]
    first_end = steps.terminated[:50].argmax(0)
    won = steps.terminated[:50].any(0)
    for i in np.flatnonzero(won):
        np.testing.assert_allclose(
            returns[: first_end[i] + 1, i].sum(),
            1,
            atol=1e-5,
        )
    assert (steps.truncated[49] == ~won).all()


def test_the_player_that_gathers_collects_more_than_a_random_one():
    env = envs.make("lbf_8x8-3p-3f")
    players = envs.registry.players_of(env.name)
    gather, at_random = (
        rollout(env, players.make(name, env.spec), 50, 64).reward.sum((0, 2)).mean()
        for name in players.names[::-1]
    )
    assert gather > max(0.5, 2 * at_random)


@pytest.mark.parametrize("name", ["rware_tiny-2ag", "lbf_8x8-2p-2f"])
def test_a_team_reward_is_the_sum(name):
    limit = {"episode_limit": 60}
    runs = [
        rollout(envs.make(name, individual_rewards=own, **limit), random, 60, 64).reward
        for own in (True, False)
    ]
    if name.startswith("lbf"):
        assert runs[0].max() > 0
    np.testing.assert_allclose(
        runs[1], runs[0].sum(-1, keepdims=True).repeat(2, -1), atol=1e-6
    )


def test_a_masked_action_has_no_effect():
    """Playing any action that the mask denies equals staying."""
    env = envs.make("lbf_5x5-3p-2f", mask=True)
    state, timestep = env.reset(jax.random.key(1), 128)
    avail = np.asarray(timestep.obs.avail)
    assert avail[..., 0].all() and avail[..., LOAD].any() and not avail.all()
    step = jax.jit(env.step)
    _, stayed = step(
        jax.random.key(0),
        state,
        jnp.zeros((128, 3), int),
    )
    denied = jnp.asarray((~avail).argmax(-1))  # 0, which is to stay, if none is denied
    _, played = step(
        jax.random.key(0),
        state,
        denied,
    )
    np.testing.assert_array_equal(
        played.obs.own,
        stayed.obs.own,
    )


def test_starts_of_foraging_follow_the_original_rules():
    name = "lbf_8x8-3p-4f"
    size = foraging_size(name)
    draws = jax.random.uniform(
        jax.random.key(0),
        (2000, 2, 7),
    )
    draw = jax.jit(jax.vmap(lambda draws: foraging_rules.first_state(size, draws)))
    state = jax.device_get(draw(draws))
    place, level = _places_and_levels(state.players)
    food, food_level = _places_and_levels(state.food)
    exists = food_level > 0
    assert exists.mean() > 0.95
    assert ((food > 0) & (food < 7))[exists].all()
    cells = place @ np.array([8, 1])
    assert all(len(set(row)) == 3 for row in cells.tolist())
    counts = np.bincount(
        cells.reshape(-1),
        minlength=64,
    )
    expected = len(cells) * 3 / 64
    assert ((counts - expected) ** 2 / expected).sum() < 110  # chi-squared, 63 degrees
    for i, j in np.argwhere(np.tri(4, k=-1)):
        down, across = np.abs(food[:, i] - food[:, j]).T
        near = (np.maximum(down, across) <= 1) | (
            (down * across == 0) & (down + across <= 2)
        )
        assert not (near & exists[:, i] & exists[:, j]).any()
        ordered = food[:, j] @ [8, 1] < food[:, i] @ [8, 1]
        assert ordered[exists[:, i] & exists[:, j]].all()
    most = level.sum(1, keepdims=True)
    assert (food_level <= most).all() and (food_level == most).any()
    assert set(level.reshape(-1).tolist()) == {1, 2}


def _places_and_levels(entities):
    """Return rows and columns, [B, K, 2], and levels, [B, K]."""
    x = np.stack(entities, axis=1)
    place = np.stack([foraging_rules.row_of(x), foraging_rules.column_of(x)], axis=2)
    return place, foraging_rules.level_of(x)


@pytest.mark.parametrize("name", ["rware_tiny-4ag", "lbf_8x8-2p-2f-coop"])
def test_scene_shows_every_agent_inside(name):
    env = envs.make(name)
    state, _ = env.reset(jax.random.key(0), 2)
    scene = env.scene(jax.tree.map(lambda x: np.asarray(x[0]), state))
    agents = [disc for disc in scene.discs if disc.agent is not None]
    assert [disc.agent for disc in agents] == list(range(env.spec.n_agents))
    for disc in scene.discs:
        assert 0 < disc.x < scene.width and 0 < disc.y < scene.height
