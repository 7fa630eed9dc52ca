"""Replay on the device: a ring of chunks, sampled environment by environment.

A *chunk* is what one rollout gave: ``length`` rows of each of B environments, and the memory before the first of
them. A sequence is ``length + 1`` rows, the last for its value alone, which is the first of the next chunk and so is
stored once. The newest chunk has no next one yet: the row after it stands where the next will begin, in a slot that is
not sampled, so a ring of ``capacity`` chunks has one slot more. Sequences begin where chunks do, because memory is
known there (the stored state of R2D2, Kapturowski et al. 2019, section 3, without its burn-in).

Environments are read as lanes, as in ``learning.minibatch``, and each is sampled from its own past: no row leaves its
device.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from jmarl.config import ConfigError
from jmarl.learning.minibatch import num_env_shards
from jmarl.types import Carry, Key


class Replay(struct.PyTreeNode):
    """``rows`` has leaves ``[slots * length, B, ...]``, ``carry`` leaves ``[slots, B, ...]``."""

    rows: Any
    carry: Carry
    length: int = struct.field(pytree_node=False)

    @property
    def slots(self) -> int:
        """Chunks that can be held, and one."""
        return jax.tree.leaves(self.rows)[0].shape[0] // self.length


def check_sequences(batch: int) -> None:
    """Raise ``ConfigError`` unless every lane gives equally many sequences."""
    lanes = num_env_shards()
    if batch % lanes:
        nearest = max(1, round(batch / lanes)) * lanes
        raise ConfigError(
            f"system.batch_size={batch}: must be a multiple of {lanes} lanes; the nearest is {nearest}"
        )


def empty_replay(rows: Any, carry: Carry, capacity: int) -> Replay:
    """Room for ``capacity`` chunks like ``rows``, leaves ``[length, B, ...]``, and ``carry``, leaves ``[B, ...]``."""
    length, slots = jax.tree.leaves(rows)[0].shape[0], capacity + 1
    return Replay(
        rows=jax.tree.map(
            lambda x: jnp.zeros((slots * length, *x.shape[1:]), x.dtype), rows
        ),
        carry=jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), carry),
        length=length,
    )


def insert(replay: Replay, count: Int[Array, ""], rows: Any, carry: Carry) -> Replay:
    """Add a chunk, ``length + 1`` rows, to a ring that has had ``count`` of them; it takes the place of the oldest."""
    length = replay.length
    slot, following = count % replay.slots, (count + 1) % replay.slots

    def write(ring: Array, x: Array) -> Array:
        ring = jax.lax.dynamic_update_slice_in_dim(ring, x[:length], slot * length, 0)
        return jax.lax.dynamic_update_slice_in_dim(
            ring, x[length:], following * length, 0
        )

    place = lambda ring, x: jax.lax.dynamic_update_index_in_dim(ring, x, slot, 0)  # noqa: E731
    return replay.replace(
        rows=jax.tree.map(write, replay.rows, rows),
        carry=jax.tree.map(place, replay.carry, carry),
    )


def sample(
    replay: Replay, count: Int[Array, ""], key: Key, batch: int
) -> tuple[Any, Carry]:
    """``batch`` sequences from a ring that has had ``count`` > 0 chunks: rows ``[length + 1, batch, ...]``, carry.

    Uniform, with replacement, over the chunks held of the environments of each lane. ``batch`` is a multiple of the
    lanes. A ring that is not full needs no branch: only what it holds is drawn from.
    """
    lanes, envs = num_env_shards(), jax.tree.leaves(replay.rows)[0].shape[1]
    held = jnp.minimum(count, replay.slots - 1)

    def draw(key: Key) -> tuple[Array, Array]:
        env_key, age_key = jax.random.split(key)
        age = jax.random.randint(age_key, (batch // lanes,), 1, held + 1)
        return jax.random.randint(env_key, age.shape, 0, envs // lanes), (
            count - age
        ) % replay.slots

    env, slot = jax.vmap(draw)(jax.random.split(key, lanes))
    row = slot * replay.length + jnp.arange(replay.length + 1)[:, None, None]
    rows = jax.tree.map(
        lambda ring: _pick(ring, env, row % (replay.slots * replay.length)), replay.rows
    )
    return rows, jax.tree.map(
        lambda ring: _pick(ring, env, slot[None])[0], replay.carry
    )


def _pick(
    ring: Array, env: Int[Array, "lanes m"], row: Int[Array, "K lanes m"]
) -> Array:
    """``[R, B, ...]`` to ``[K, lanes * m, ...]``; ``env`` counts within the lane.

    A gather with the lanes as its batch axis, written out: ``vmap`` would bring it to the front of the whole ring.
    """
    lanes, size = env.shape
    split = ring.reshape(len(ring), lanes, -1, *ring.shape[2:])
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=tuple(range(3, split.ndim)),
        collapsed_slice_dims=(0, 2),
        start_index_map=(0, 2),
        operand_batching_dims=(1,),
        start_indices_batching_dims=(1,),
    )
    index = jnp.stack([row, jnp.broadcast_to(env, row.shape)], axis=-1)
    sizes = (1, 1, 1, *ring.shape[2:])
    picked = jax.lax.gather(
        split, index, numbers, sizes, mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )
    return picked.reshape(len(row), lanes * size, *ring.shape[2:])
