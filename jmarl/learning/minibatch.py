"""Minibatches of whole environments, shuffled within environment shards.

The environment axis B is reshaped to ``[shards, B / shards]`` and permuted within each shard.
A device holds whole shards, so shuffling moves no data between devices and needs no mesh.

There are 8 shards if B allows it. Otherwise their number is the largest divisor of 8 with which
every minibatch gets equally many environments of every shard. It depends only on sizes of the
configuration, so the minibatches are the same on every device count that divides 8. A run uses at
most as many devices as it has shards.

A plain ``take`` along the sharded axis gives the same result. It makes every device compute
every minibatch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmarl.config import ConfigError, check_range
from jmarl.learning.optimizers import LearningConfig
from jmarl.types import Key


State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class MinibatchConfig(LearningConfig):
    """Configuration of learning from minibatches of each rollout."""

    epochs: int
    minibatch_rows: int
    minibatches: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("epochs", "minibatch_rows", "minibatches"):
            check_range(f"system.{key}", getattr(self, key), 1)

    @property
    def num_minibatches(self) -> int:
        """Minibatches of an epoch."""
        return self.minibatches

    @property
    def steps_per_update(self) -> int:
        """Gradient steps of one update."""
        return self.epochs * self.minibatches

    @property
    def rows_per_step(self) -> float:
        """Requested rows of experience per gradient step."""
        return self.minibatch_rows / self.epochs


def num_env_shards(*sizes: int) -> int:
    """Return the number of environment shards.

    Args:
        *sizes: Sizes that must divide into shards, such as the environments of a minibatch.

    Returns:
        Greatest common divisor of the sizes and of the usual number of shards, which is the
        least common multiple of 8 and the device count.
    """
    return math.gcd(math.lcm(8, jax.device_count()), *sizes)


def check_batch(num_envs: int, minibatches: int) -> None:
    """Check that all minibatches get equally many environments.

    Args:
        num_envs: Environments B of a batch.
        minibatches: Minibatches of an epoch.

    Raises:
        ConfigError: If ``num_envs`` is not a multiple of ``minibatches``.
    """
    if num_envs % minibatches:
        nearest = max(1, round(num_envs / minibatches)) * minibatches
        raise ConfigError(
            f"num_envs={num_envs}: must be a multiple of system.minibatches={minibatches}; "
            f"the nearest is {nearest}"
        )


def minibatch_indices(
    key: Key, batch: int, minibatches: int
) -> Int[Array, "M S B/(S*M)"]:
    """Draw the minibatches of one epoch.

    Args:
        key: Random key of the shuffle.
        batch: Environments B.
        minibatches: Minibatches M.

    Returns:
        Indices ``[M, S, B / (S * M)]`` of environments, which count from 0 within each of the
        S shards.

    Raises:
        ConfigError: If the batch does not divide into minibatches.
    """
    check_batch(batch, minibatches)
    shards = num_env_shards(batch // minibatches)
    keys = jax.random.split(key, shards)
    order = jax.vmap(lambda k: jax.random.permutation(k, batch // shards))(keys)
    return order.reshape(shards, minibatches, -1).swapaxes(0, 1)


def take_envs(tree: Any, index: Int[Array, "S m"], axis: int) -> Any:
    """Select environments by their index within each shard.

    Args:
        tree: Pytree with leaves ``[..., B, ...]``.
        index: Indices ``[S, m]``, m environments of each of the S shards.
        axis: Axis of B.

    Returns:
        Pytree with leaves ``[..., S * m, ...]``.
    """
    shards, size = index.shape

    def take(shard: Array, i: Array) -> Array:
        return jnp.take(shard, i, axis=axis, mode="clip")

    def leaf(x: Array) -> Array:
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        # One axis after B: of several, a TPU pads the small ones to many times their size.
        x = x.reshape(*before, shards, x.shape[axis] // shards, math.prod(after))
        taken = jax.vmap(take, (axis, 0), axis)(x, index)
        return taken.reshape(*before, shards * size, *after)

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
    """Fold a function over shuffled minibatches.

    Each environment is in one minibatch of every epoch, together with its carry. A minibatch
    is gathered inside the scan, so no shuffled copy of the batch exists.

    Args:
        fn: Function ``(state, steps, carry) -> (state, output)`` of one minibatch.
        state: Initial state.
        key: Random key of the shuffles.
        steps: Pytree with leaves ``[T, B, ...]``.
        carry: Memory before row 0, with leaves ``[B, ...]``.
        epochs: Passes over the batch.
        minibatches: Minibatches of an epoch.

    Returns:
        Final state, and the outputs with leaves ``[epochs, minibatches, ...]``.

    Raises:
        ConfigError: If B does not divide into minibatches.
    """
    batch = jax.tree.leaves(steps)[0].shape[1]

    def minibatch(state: State, index: Array) -> tuple[State, Any]:
        return fn(state, take_envs(steps, index, 1), take_envs(carry, index, 0))

    def epoch(state: State, key: Key) -> tuple[State, Any]:
        indices = minibatch_indices(key, batch, minibatches)
        return jax.lax.scan(minibatch, state, indices)

    return jax.lax.scan(epoch, state, jax.random.split(key, epochs))
