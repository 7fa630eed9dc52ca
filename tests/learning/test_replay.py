"""Replay buffer: samples are stored sequences with their memory; the oldest are replaced."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jmarl.learning.minibatch import num_env_shards
from jmarl.learning.replay import empty_replay, insert, sample
from jmarl.platforms import ENV_AXIS
from jmarl.training.anakin import device_mesh


T, B, CAPACITY = 3, 16, 4


def chunk(number):
    """Return a chunk of endless streams; row t of environment b is ``(t, b)``."""
    time = jnp.broadcast_to(number * T + jnp.arange(T + 1)[:, None], (T + 1, B))
    env = jnp.broadcast_to(jnp.arange(B), (T + 1, B))
    return {"time": time, "wide": jnp.stack([time, env], -1).astype(jnp.float32)}, (
        jnp.arange(B) + 100 * number,
    )


def filled(chunks):
    rows, carry = chunk(0)
    replay = empty_replay(jax.tree.map(lambda x: x[:-1], rows), carry, CAPACITY)

    def add(replay, number):
        rows, carry = chunk(number)
        return insert(replay, number, rows, carry), None

    return jax.jit(lambda replay: jax.lax.scan(add, replay, jnp.arange(chunks))[0])(
        replay
    )


def samples(chunks, draws=64, batch=8):
    replay = filled(chunks)
    keys = jax.random.split(jax.random.key(chunks), draws)
    rows, carry = jax.jit(
        jax.vmap(lambda key: sample(replay, jnp.int32(chunks), key, batch))
    )(keys)

    def flat(x):
        return np.moveaxis(x, 1, 0).reshape(T + 1, draws * batch, *x.shape[3:])

    return jax.tree.map(flat, rows), carry


@pytest.mark.fault(20)
@pytest.mark.parametrize("chunks", [1, 2, CAPACITY, CAPACITY + 1, 3 * CAPACITY])
def test_samples_are_stored_sequences_with_their_memory(chunks):
    rows, (carry,) = samples(chunks)
    start, env = rows["time"][0], rows["wide"][0, :, 1]
    assert (rows["time"] == start + np.arange(T + 1)[:, None]).all()
    assert (rows["wide"][..., 0] == rows["time"]).all()
    assert (rows["wide"][..., 1] == env).all()
    assert (start % T == 0).all()
    assert (np.asarray(carry).ravel() == env + 100 * (start // T)).all()


@pytest.mark.parametrize("chunks", [1, CAPACITY, CAPACITY + 1, 3 * CAPACITY])
def test_all_held_chunks_are_sampled_and_no_older_ones(chunks):
    rows, _ = samples(chunks)
    assert set((rows["time"][0] // T).tolist()) == set(
        range(max(0, chunks - CAPACITY), chunks)
    )
    assert set(rows["wide"][0, :, 1].tolist()) == set(range(B))


def test_each_shard_gives_equally_many_sequences():
    rows, _ = samples(2, draws=1, batch=2 * num_env_shards())
    shard = rows["wide"][0, :, 1] // (B // num_env_shards())
    assert (np.bincount(shard.astype(int)) == 2).all()


@pytest.mark.fault(15)
def test_vmapped_buffers_are_independent():
    replay = filled(3)
    both = jax.tree.map(lambda x: jnp.stack([x, x * 0]), replay)
    rows, carry = chunk(3)
    together = jax.vmap(lambda ring, count: insert(ring, count, rows, carry))(
        both, jnp.array([3, 0])
    )
    for i, (ring, count) in enumerate(
        [(replay, 3), (jax.tree.map(lambda x: x * 0, replay), 0)]
    ):
        alone = insert(ring, jnp.int32(count), rows, carry)
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a[i], b), together, alone
        )


def test_no_row_leaves_its_device():
    """Compiled for four devices, insertion and sampling need no collective."""
    mesh = device_mesh()
    split, envs = (
        NamedSharding(mesh, PartitionSpec(*axes))
        for axes in ((None, ENV_AXIS), (ENV_AXIS,))
    )
    replay = jax.tree.map(lambda x: jax.device_put(x, split), filled(2))
    rows, carry = chunk(2)
    rows, carry = jax.device_put(rows, split), jax.device_put(carry, envs)

    def learn(replay, rows, carry, key):
        replay = insert(replay, jnp.int32(2), rows, carry)
        return replay, sample(replay, jnp.int32(3), key, 8)

    key = jax.random.key(0)
    with jax.set_mesh(mesh):
        program = (
            jax.jit(learn, donate_argnums=0).lower(replay, rows, carry, key).compile()
        )
    words = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    assert not re.findall(words, program.as_text())
    one = learn(filled(2), *chunk(2), key)
    jax.tree.map(np.testing.assert_array_equal, program(replay, rows, carry, key), one)


@pytest.mark.parametrize("batch", [1, 3, 6, 30])
def test_a_batch_of_any_size_is_drawn_from_all_environments(batch):
    rows, _ = samples(2, draws=256, batch=batch)
    env = np.asarray(rows["wide"])[0, :, 1]
    assert len(env) == 256 * batch
    assert set(env) == set(range(B))
