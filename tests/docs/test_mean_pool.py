"""The network of docs/how-to/write-a-network.md learns, and ignores order and padding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.envs import make
from jmarl.networks.flatten import empty_obs


@pytest.fixture
def example(load_system):
    return load_system("mean_pool")


# --8<-- [start:tests]
@pytest.fixture
def network(example):
    """Return the network as a function, and random observations of SMAX."""
    spec = make("smax_3s5z").spec
    net = example.MeanPool(spec, width=8)
    key = jax.random.key(0)
    obs = jax.tree.map(
        lambda x: jax.random.normal(key, x.shape).astype(x.dtype), empty_obs(spec, 2, 4)
    )
    params = net.init(key, (), obs, None)
    return lambda obs: net.apply(params, (), obs, None)[1], obs


def test_order_of_a_group_changes_nothing(network):
    apply, obs = network
    flipped = obs.replace(
        rows=tuple(x[..., ::-1, :] for x in obs.rows),
        mask=tuple(x[..., ::-1] for x in obs.mask),
    )
    np.testing.assert_allclose(apply(obs), apply(flipped), atol=1e-5)


def test_masked_rows_change_nothing(network):
    apply, obs = network
    noisy = obs.replace(
        rows=tuple(
            jnp.where(mask[..., None], x, 7.0)
            for x, mask in zip(obs.rows, obs.mask, strict=True)
        )
    )
    np.testing.assert_array_equal(apply(obs), apply(noisy))


def test_it_learns_the_value_of_a_bandit(example):
    words = ["env=probe_bandit", "num_envs=8", "rollout_length=8", "eval.episodes=8"]
    more = ["total_timesteps=2_560", "network.torso=[8]", "system.minibatches=1"]
    config = jmarl.load_config("ippo", [*words, *more])
    config = dataclasses.replace(config, system_name="mean_pool")
    _, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    returns = metrics["eval"]["greedy"]["return"].mean(-1)
    assert returns[-1] == 1


# --8<-- [end:tests]
