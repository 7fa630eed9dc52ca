"""Replay buffer on the device: a ring of chunks, sampled per environment.

A *chunk* holds one rollout: ``length`` rows of each of B environments, and the memory before the
first row. A sampled sequence has ``length + 1`` rows. The last row is only used for its value. It
is the first row of the next chunk and is therefore stored once.

The newest chunk has no next chunk yet. Its last row is stored at the start of the next slot,
which is not sampled. A ring of ``capacity`` chunks therefore has ``capacity + 1`` slots.

Sequences start where chunks start, because the memory is known there. This is the stored state
of R2D2 (Kapturowski et al. 2019, section 3).

The environment axis is divided into shards, as in ``learning.minibatch``: into 8, or fewer if
the sizes require it. Each shard is sampled from its own past, so no row leaves its device.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from jmarl.learning.minibatch import num_env_shards
from jmarl.types import Carry, Key


class Replay(struct.PyTreeNode):
    """Contents of a replay buffer. The number of inserted chunks is counted by its owner."""

    rows: Any
    """Rows with leaves ``[slots * length, B, ...]``."""
    carry: Carry
    """Memory before each chunk, with leaves ``[slots, B, ...]``."""
    length: int = struct.field(pytree_node=False)
    """Rows of a chunk."""

    @property
    def slots(self) -> int:
        """Capacity in chunks, plus one."""
        return jax.tree.leaves(self.rows)[0].shape[0] // self.length


def empty_replay(rows: Any, carry: Carry, capacity: int) -> Replay:
    """Allocate a replay buffer of zeros.

    Args:
        rows: Example of the rows of a chunk, with leaves ``[length, B, ...]``. Only shapes and
            dtypes are read.
        carry: Example of the memory before a chunk, with leaves ``[B, ...]``.
        capacity: Chunks that the buffer can sample from.

    Returns:
        Empty replay buffer.
    """
    length = jax.tree.leaves(rows)[0].shape[0]
    slots = capacity + 1

    def empty_rows(x: Any) -> Array:
        return jnp.zeros((slots * length, *x.shape[1:]), x.dtype)

    def empty_carry(x: Any) -> Array:
        return jnp.zeros((slots, *x.shape), x.dtype)

    return Replay(
        rows=jax.tree.map(empty_rows, rows),
        carry=jax.tree.map(empty_carry, carry),
        length=length,
    )


def insert(replay: Replay, count: Int[Array, ""], rows: Any, carry: Carry) -> Replay:
    """Insert a chunk, in place of the oldest one if the buffer is full.

    Args:
        replay: Replay buffer.
        count: Chunks inserted so far.
        rows: Rows of the chunk and one more, with leaves ``[length + 1, B, ...]``.
        carry: Memory before the chunk, with leaves ``[B, ...]``.

    Returns:
        Replay buffer with the chunk.
    """
    length = replay.length
    slot = count % replay.slots
    next_slot = (count + 1) % replay.slots

    def write_rows(ring: Array, x: Array) -> Array:
        update = jax.lax.dynamic_update_slice_in_dim
        ring = update(ring, x[:length], slot * length, 0)
        return update(ring, x[length:], next_slot * length, 0)

    def write_carry(ring: Array, x: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(ring, x, slot, 0)

    return replay.replace(
        rows=jax.tree.map(write_rows, replay.rows, rows),
        carry=jax.tree.map(write_carry, replay.carry, carry),
    )


def sample(
    replay: Replay, count: Int[Array, ""], key: Key, batch: int
) -> tuple[Any, Carry]:
    """Sample sequences uniformly with replacement, equally many of each environment shard.

    Only chunks that the buffer holds are drawn, so a partly filled buffer needs no branch.

    Args:
        replay: Replay buffer.
        count: Chunks inserted so far, at least one.
        key: Random key.
        batch: Number of sequences.

    Returns:
        Rows with leaves ``[length + 1, batch, ...]``, and the memory before each sequence with
        leaves ``[batch, ...]``.
    """
    num_envs = jax.tree.leaves(replay.rows)[0].shape[1]
    shards = num_env_shards(num_envs, batch)
    held = jnp.minimum(count, replay.slots - 1)

    def draw(key: Key) -> tuple[Array, Array]:
        env_key, age_key = jax.random.split(key)
        age = jax.random.randint(age_key, (batch // shards,), 1, held + 1)
        env = jax.random.randint(env_key, age.shape, 0, num_envs // shards)
        return env, (count - age) % replay.slots

    env, slot = jax.vmap(draw)(jax.random.split(key, shards))  # [S, m]
    offset = jnp.arange(replay.length + 1)[:, None, None]
    row = slot * replay.length + offset  # [length + 1, S, m]
    row = row % (replay.slots * replay.length)
    rows = jax.tree.map(lambda ring: _gather(ring, env, row), replay.rows)
    carry = jax.tree.map(lambda ring: _gather(ring, env, slot[None])[0], replay.carry)
    return rows, carry


def _gather(ring: Array, env: Int[Array, "S m"], row: Int[Array, "K S m"]) -> Array:
    """Gather ``[K, S * m, ...]`` from ``[R, B, ...]``; ``env`` counts within a shard.

    The gather has the shards as its batch axis. ``vmap`` would transpose the whole ring.
    """
    shards, size = env.shape
    sharded = ring.reshape(len(ring), shards, -1, *ring.shape[2:])  # [R, S, B/S, ...]
    index = jnp.stack([row, jnp.broadcast_to(env, row.shape)], axis=-1)  # [K, S, m, 2]
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(3, sharded.ndim)),
        collapsed_slice_dims=(0, 2),
        start_index_map=(0, 2),
        operand_batching_dims=(1,),
        start_indices_batching_dims=(1,),
    )
    gathered = jax.lax.gather(
        sharded,
        index,
        numbers,
        slice_sizes=(1, 1, 1, *ring.shape[2:]),
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    return gathered.reshape(len(row), shards * size, *ring.shape[2:])
