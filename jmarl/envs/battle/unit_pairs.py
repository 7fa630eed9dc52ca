"""Operations on pairs of units, each in a form for CPUs and in one for accelerators.

Arrays are batch-last. On a CPU, one unit after another is an element-wise pass over environments.
On an accelerator, all pairs at once are one reduction, which XLA fuses with neighbors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jmarl.envs.battle.state import distance
from jmarl.platforms import platform


EPSILON = 1e-6
"""Constant added to a distance in a denominator."""
DEAD_RADIUS = -64.0
"""Radius with which dead units never overlap, so that pairs need no mask."""
SCATTER_OVER_UNITS = lax.ScatterDimensionNumbers(
    update_window_dims=(),
    inserted_window_dims=(0,),
    scatter_dims_to_operand_dims=(0,),
    operand_batching_dims=(1,),
    scatter_indices_batching_dims=(1,),
)
"""Scatter over units within each environment. The batch axis keeps it local to a device."""


class Pairs(NamedTuple):
    """Three operations in one form."""

    take: Callable[[Array, Array], Array]
    """``(values [U, B], index [U, B])`` -> the values at the indices."""
    add: Callable[[Array, Array, Array], Array]
    """``(values, index, added)`` -> the values, with numbers added at the indices."""
    push: Callable[..., tuple[Array, Array]]
    """``(x, y, radius[, plane])`` -> the sums of the pushes of all others on each unit."""


def pairs() -> Pairs:
    """Return the operations in the form of the platform that is traced for."""
    return IN_SEQUENCE if platform() == "cpu" else AT_ONCE


def take(values: Float[Array, "U B"], index: Int[Array, "L B"]) -> Float[Array, "L B"]:
    """Return the values of the units at some indices, in each environment."""
    return pairs().take(values, index)


def gather(
    values: Shaped[Array, "U B"], index: Int[Array, "L B"]
) -> Shaped[Array, "L B"]:
    """Return the result of ``take``, as one gather on all platforms."""
    return jnp.take_along_axis(values, index, axis=0, mode="clip")


def scatter_add(
    values: Float[Array, "U B"], index: Int[Array, "U B"], added: Float[Array, "U B"]
) -> Float[Array, "U B"]:
    """Add to the values of the units at some indices, in each environment."""
    return pairs().add(values, index, added)


def push_apart(
    x: Float[Array, "U B"],
    y: Float[Array, "U B"],
    solid: Bool[Array, "U B"],
    radius: Float[Array, "U B"],
    plane: Int[Array, "U B"] | None = None,
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Move overlapping units apart, each by half the overlap, all pairs at once.

    Args:
        x: first coordinates.
        y: second coordinates.
        solid: units that push and are pushed.
        radius: radii.
        plane: units push only units of their plane; None for a single plane.
    """
    radius = jnp.where(solid, radius, DEAD_RADIUS)
    units = (x, y, radius) if plane is None else (x, y, radius, plane)
    push_x, push_y = pairs().push(*units)
    return x + push_x / 2, y + push_y / 2


def _push(units: tuple[Array, ...], others: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return the pushes of others on units, which are zero on the same unit."""
    x, y, radius, *plane = units
    other_x, other_y, other_radius, *other_plane = others
    dx = x - other_x
    dy = y - other_y
    ratio = (radius + other_radius) / (distance(dx, dy) + EPSILON)
    overlap = jax.nn.relu(ratio - 1.0)
    for own, other in zip(plane, other_plane, strict=True):
        overlap = jnp.where(own == other, overlap, 0.0)
    return dx * overlap, dy * overlap


def _add_in_sequence(values: Array, index: Array, added: Array) -> Array:
    return lax.scatter_add(values, index[..., None], added, SCATTER_OVER_UNITS)


def _push_in_sequence(*units: Array) -> tuple[Array, Array]:
    """Add the pushes of one unit after another, in U element-wise passes."""

    def add(
        total: tuple[Array, Array], other: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], None]:
        push_x, push_y = _push(units, other)
        return (total[0] + push_x, total[1] + push_y), None

    zeros = (jnp.zeros_like(units[0]), jnp.zeros_like(units[0]))
    total, _ = lax.scan(add, zeros, units)
    return total


def _take_at_once(values: Array, index: Array) -> Array:
    is_taken = index[:, None] == _numbers(values)[None]  # [U, U, B]
    return jnp.where(is_taken, values[None], 0).sum(axis=1)


def _add_at_once(values: Array, index: Array, added: Array) -> Array:
    """Add in one fused reduction. XLA makes a loop over all numbers of a scatter on a TPU."""
    is_hit = index[None] == _numbers(values)[:, None]
    return values + jnp.where(is_hit, added[None], 0.0).sum(axis=1)


def _push_at_once(*units: Array) -> tuple[Array, Array]:
    # [U, 1, B] against [1, U, B]
    pushed = tuple(values[:, None] for values in units)
    pushing = tuple(values[None] for values in units)
    push_x, push_y = _push(pushed, pushing)
    return push_x.sum(axis=1), push_y.sum(axis=1)


def _numbers(values: Array) -> Int[Array, "U 1"]:
    return lax.broadcasted_iota(jnp.int32, (values.shape[0], 1), 0)


IN_SEQUENCE = Pairs(gather, _add_in_sequence, _push_in_sequence)
AT_ONCE = Pairs(_take_at_once, _add_at_once, _push_at_once)
