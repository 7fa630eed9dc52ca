"""Minibatches: each environment once per epoch, with its carry, on its own device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jmarl.config import ConfigError
from jmarl.config.compose import load_config
from jmarl.learning.minibatch import (
    check_batch,
    minibatch_indices,
    num_env_shards,
    scan_minibatches,
    take_envs,
)
from jmarl.training.programs import run_mesh


T, B, F = 3, 64, 5


def batch():
    ids = jnp.arange(B)
    steps = {
        "env": jnp.tile(ids, (T, 1)),
        "time": jnp.tile(jnp.arange(T)[:, None], (1, B)),
    }
    return steps, (ids[:, None] * jnp.ones((1, 2), int),)


@pytest.mark.fault(20)
@pytest.mark.parametrize("minibatches", [1, 2, 8])
def test_each_environment_is_drawn_once_an_epoch_and_keeps_its_carry(minibatches):
    steps, carry = batch()

    def record(count, steps, carry):
        return count + 1, (steps["env"], steps["time"], carry[0])

    count, (env, time, memory) = jax.jit(
        lambda key: scan_minibatches(
            record, 0, key, steps, carry, epochs=3, minibatches=minibatches
        )
    )(jax.random.key(0))
    assert count == 3 * minibatches
    assert env.shape == (3, minibatches, T, B // minibatches)
    for epoch in range(3):
        assert sorted(np.asarray(env[epoch, :, 0]).ravel()) == list(range(B))
    assert (env == env[:, :, :1]).all()
    assert (time == jnp.arange(T)[:, None]).all()
    assert (memory == env[:, :, 0, :, None]).all()
    assert not np.array_equal(env[0], env[1])


def test_shards_are_shuffled_independently_and_stay_whole():
    order = minibatch_indices(jax.random.key(1), 8 * num_env_shards(), 2)
    assert order.shape == (2, num_env_shards(), 4)
    shards = np.asarray(order).swapaxes(0, 1).reshape(num_env_shards(), -1)
    assert (np.sort(shards, axis=1) == np.arange(8)).all()
    assert len({tuple(shard) for shard in shards}) > 1


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ((), 8),
        ((64,), 8),
        ((8,), 8),
        ((4,), 4),
        ((12,), 4),
        ((6,), 2),
        ((7,), 1),
        ((1,), 1),
        ((64, 32), 8),
        ((64, 30), 2),
        ((16, 0), 8),
    ],
)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_shards_depend_on_sizes_and_not_on_devices(sizes, shards, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    assert num_env_shards(*sizes) == shards


@pytest.mark.parametrize("envs", [1, 2, 3, 4, 12, 50])
@pytest.mark.parametrize("minibatches", [1, 2, 3])
def test_any_number_of_environments_divides_into_minibatches(envs, minibatches):
    if envs % minibatches:
        with pytest.raises(ConfigError):
            minibatch_indices(jax.random.key(0), envs, minibatches)
        return
    order = minibatch_indices(jax.random.key(0), envs, minibatches)
    shards = order.shape[1]
    drawn = order + jnp.arange(shards)[:, None] * (envs // shards)
    assert sorted(np.asarray(drawn).ravel()) == list(range(envs))
    assert order.shape[0] == minibatches


def test_check_batch_error_names_the_rule_and_the_nearest_value():
    check_batch(6, 3)
    with pytest.raises(ConfigError) as caught:
        check_batch(100, 3)
    rule = "num_envs=100: must be a multiple of system.minibatches=3; the nearest is 99"
    assert str(caught.value) == rule


@pytest.mark.parametrize(
    ("system", "sizes", "devices"),
    [
        ("ippo", ["num_envs=16"], 4),
        ("ippo", ["num_envs=4"], 1),
        ("ippo", ["num_envs=4", "system.minibatches=1"], 4),
        ("ippo", ["num_envs=6"], 2),
        ("ippo", ["num_envs=7"], 1),
        ("ippo", ["num_envs=16", "system.minibatches=8"], 2),
        ("vdn", ["num_envs=4"], 4),
        ("vdn", ["num_envs=16", "system.batch_size=2"], 2),
    ],
)
def test_a_run_uses_as_many_devices_as_share_its_shards(system, sizes, devices):
    if jax.device_count() != 4:
        pytest.skip("needs four devices")
    assert run_mesh(load_config(system, sizes)).size == devices


def plain_take(tree, index, axis):
    """Take along the sharded axis, so that every device computes every minibatch."""
    shards, size = index.shape
    start = jnp.arange(shards)[:, None] * (B // shards)
    flat = (index + start).reshape(shards * size)
    return jax.tree.map(lambda x: jnp.take(x, flat, axis=axis), tree)


def train_epoch(pick, params, steps, target, key):
    def minibatch(params, index):
        x, y = pick((steps, target), index, 1)
        loss, grads = jax.value_and_grad(
            lambda w: jnp.mean((jnp.tanh(x @ w) @ w.T - y) ** 2)
        )(params)
        return params - 0.1 * grads, loss

    return jax.lax.scan(minibatch, params, minibatch_indices(key, B, 2))


def compiled(pick, devices):
    mesh = Mesh(np.asarray(devices), ("env",), axis_types=(AxisType.Auto,))
    whole, split = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (None, "env"))
    )
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = (
        jax.device_put(jax.random.normal(keys[0], (F, 32)), whole),
        jax.device_put(jax.random.normal(keys[1], (T, B, F)), split),
        jax.device_put(jax.random.normal(keys[2], (T, B, F)), split),
    )

    def run(*args):
        return train_epoch(pick, *args, jax.random.key(7))

    program = jax.jit(run, out_shardings=whole).lower(*arrays).compile()
    return program.cost_analysis()["flops"], program(*arrays)


TWIN = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: global indices"
)


@pytest.mark.parametrize("pick", [take_envs, pytest.param(plain_take, marks=TWIN)])
def test_four_devices_share_the_work_and_agree_with_one(pick):
    devices = jax.devices()
    if len(devices) < 4:
        pytest.skip("needs four devices")
    flops_of_one, (w1, loss1) = compiled(pick, devices[:1])
    flops_of_four, (w4, loss4) = compiled(pick, devices[:4])
    np.testing.assert_allclose(loss4, loss1, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(w4, w1, atol=1e-5, rtol=1e-5)
    assert flops_of_four <= 0.3 * flops_of_one
