"""Minibatches of whole environments, drawn by lanes so that no row leaves its device.

The environment axis B is read as ``[lanes, B / lanes]`` and permuted within each lane. A device
holds whole lanes, so the shuffle moves nothing between devices, needs no mesh, and gives the same
minibatches on every device count that divides 8. (A ``take`` along the sharded axis agrees in its
result, and makes every device compute every minibatch.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmarl.config import ConfigError
from jmarl.types import Key


State = TypeVar("State")


def num_env_shards() -> int:
    """Lanes of the environment axis: the least common multiple of 8 and the device count."""
    return math.lcm(8, jax.device_count())


def check_batch(num_envs: int, minibatches: int) -> None:
    """Raise ``ConfigError`` unless every minibatch gets equally many environments of every lane."""
    unit = num_env_shards() * minibatches
    if num_envs % unit:
        nearest = max(1, round(num_envs / unit)) * unit
        raise ConfigError(
            f"num_envs={num_envs}: must be a multiple of {unit} "
            f"({num_env_shards()} lanes x system.minibatches={minibatches}); the nearest is {nearest}"
        )


def draw(key: Key, batch: int, minibatches: int) -> Int[Array, "M L B/(L*M)"]:
    """One epoch of minibatches: for each, the environments (within their lane) of every lane."""
    lanes = num_env_shards()
    check_batch(batch, minibatches)
    order = jax.vmap(lambda k: jax.random.permutation(k, batch // lanes))(
        jax.random.split(key, lanes)
    )
    return order.reshape(lanes, minibatches, -1).swapaxes(0, 1)


def gather(tree: Any, index: Int[Array, "L m"], axis: int) -> Any:
    """Select environments: every leaf ``[.., B, ..]``, with B at ``axis``, becomes ``[.., L * m, ..]``."""
    lanes, size = index.shape

    def leaf(x):
        x = x.reshape(
            *x.shape[:axis], lanes, x.shape[axis] // lanes, *x.shape[axis + 1 :]
        )
        picked = jax.vmap(
            lambda lane, i: jnp.take(lane, i, axis=axis, mode="clip"), (axis, 0), axis
        )(x, index)
        return picked.reshape(*x.shape[:axis], lanes * size, *x.shape[axis + 2 :])

    return jax.tree.map(leaf, tree)


def scan_minibatches(
    fn: Callable[[State, Any, Any], tuple[State, Any]],
    state: State,
    key: Key,
    steps: Any,
    carry: Any,
    *,
    epochs: int,
    minibatches: int,
) -> tuple[State, Any]:
    """Fold ``fn(state, steps, carry) -> (state, out)`` over epochs of minibatches.

    ``steps`` has leaves ``[T, B, ...]`` and ``carry``, the memory before row 0, leaves
    ``[B, ...]``; an environment's carry goes with its rows. Each minibatch is gathered inside the
    scan, so no shuffled copy of the batch exists. Each environment is in one minibatch of every
    epoch. The outputs are stacked to ``[epochs, minibatches, ...]``.
    """
    batch = jax.tree.leaves(steps)[0].shape[1]

    def minibatch(state, index):
        return fn(state, gather(steps, index, 1), gather(carry, index, 0))

    def epoch(state, key):
        return jax.lax.scan(minibatch, state, draw(key, batch, minibatches))

    return jax.lax.scan(epoch, state, jax.random.split(key, epochs))
