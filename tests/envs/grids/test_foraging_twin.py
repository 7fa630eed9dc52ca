"""Foraging equals the original package ``lbforaging`` step by step."""

from functools import cache

import foraging_twin as twin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.grids import foraging_rules as rules
from jmarl.envs.grids.grid_names import foraging_size


@cache
def compiled(name):
    """Return the step, features and valid actions of a batch."""
    size = foraging_size(name)

    @jax.jit
    @jax.vmap
    def step(state, action):
        valid = rules.valid_actions(size, state)
        after, reward = rules.advance(size, state, action)
        return after, reward, rules.observe(size, after), valid

    return step


def compare(
    name,
    choose,
    batch,
    steps=50,
):
    """Play ``batch`` episodes beside the original; return the returns of the teams."""
    originals = [twin.original(name, seed) for seed in range(batch)]
    food = [twin.food_places(env) for env in originals]
    rng = np.random.default_rng(0)
    states = [twin.to_state(*pair) for pair in zip(originals, food, strict=True)]
    state = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *states,
    )
    total, shared, playing = np.zeros(batch), 0, np.ones(batch, bool)
    for t in range(steps):
        actions = np.stack([choose(env, rng) for env in originals]).astype(np.int32)
        theirs = [_valid(env) for env in originals]
        results = [env.step(a) for env, a in zip(originals, actions, strict=True)]
        observations = np.stack([np.stack(result[0]) for result in results])
        rewards = np.stack([result[1] for result in results])
        state, reward, own, valid = compiled(name)(state, actions)
        np.testing.assert_array_equal(valid, theirs, err_msg=f"mask, step {t}")
        np.testing.assert_array_equal(own, observations, err_msg=f"features, step {t}")
        np.testing.assert_allclose(
            reward,
            rewards,
            atol=1e-6,
            err_msg=f"reward, {t}",
        )
        for i, env in enumerate(originals):
            expected = twin.to_state(env, food[i])
            ours = jax.tree.map(lambda x, i=i: x[i], state)
            assert jax.tree.all(jax.tree.map(np.array_equal, ours, expected))
        is_over = np.asarray(rules.is_over(state))
        done = np.array([result[2] for result in results])
        np.testing.assert_array_equal(done, is_over | (t == 49))
        total += rewards.sum(1)
        players = np.stack(state.players, axis=1)
        cells = players - rules.level_of(players)
        shared += sum(len(np.unique(row)) < len(row) for row in cells)
        playing &= ~is_over
    return total, shared


def _valid(env):
    valid = [env._valid_actions[player] for player in env.players]
    return [[action in own for action in twin.Action] for own in valid]


def act_at_random(env, rng):
    return rng.integers(0, 6, len(env.players))


def test_random_and_scripted_episodes_equal_the_original():
    name = "lbf_2s-8x8-4p-3f"
    total, _ = compare(name, twin.gather, batch=6)
    assert total.max() > 0.99
    _, shared = compare("lbf_1s-5x7-9p-2f", act_at_random, batch=6)
    assert shared > 0


@pytest.mark.slow
@pytest.mark.parametrize("choose", [act_at_random, twin.gather])
@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("lbf_8x8-2p-2f-coop", 20),
        ("lbf_2s-8x8-2p-2f-coop", 20),
        ("lbf_2s-10x10-3p-3f", 20),
        ("lbf_15x15-4p-5f", 20),
        ("lbf_1s-5x7-9p-2f", 20),
    ],
)
def test_200_episodes_equal_the_original(name, batch, choose):
    total, _ = compare(name, choose, batch)
    assert choose is act_at_random or total.mean() > 0.5
