"""Gradients on several devices: each device differentiates its own environments.

A program is traced under ``jax.set_mesh`` with a mesh of one axis, ``ENV_AXIS``, along which the
environments are split. Without a mesh, or with one device, nothing is split.

Acting is left to XLA's partitioner. Environments are independent, except on CPUs for one flag per
step (whether any of them ends).

Gradients are computed per device and summed once. The partitioner would instead reduce the
gradient of a recurrent kernel over the devices in every time step. It would also gather rows
where networks merge axes.

Sums over the CPU devices of several processes are explicit too, because their order decides the
last bit (``adds_in_order``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jmarl.hosts import process_group
from jmarl.platforms import ENV_AXIS, env_devices, on_each_device, platform
from jmarl.types import Metrics


def split_envs(tree: Any) -> Any:
    """Split arrays over the devices along their environment axis.

    Args:
        tree: Pytree with leaves ``[B, ...]``; B must be a multiple of ``env_devices()``.

    Returns:
        The same values with a sharding constraint.
    """
    if env_devices() == 1:
        return tree
    spec = PartitionSpec(ENV_AXIS)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def adds_in_order() -> bool:
    """Return True if sums over devices must be added in the order of the devices.

    XLA adds the CPU devices of one process in their order. Gloo, which connects processes, uses
    an order that depends on sizes. With the order of one process, a run has the same bits on any
    number of CPU processes with equally many devices in total.
    """
    return process_group.count() > 1 and platform() == "cpu"


def sum_devices(tree: Any) -> Any:
    """Add arrays over devices; for functions that ``shard_map`` calls on each device.

    Args:
        tree: Pytree of arrays of one type.

    Returns:
        The sums, equal on all devices.
    """
    if not adds_in_order():
        return jax.lax.psum(tree, ENV_AXIS)
    flat, unravel = ravel_pytree(tree)
    parts = jax.lax.all_gather(flat, ENV_AXIS)

    def add(i: Any, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, unravel(parts[i]))

    # A loop, because XLA would fuse single additions with their neighbors, and round otherwise
    return jax.lax.fori_loop(1, env_devices(), add, unravel(parts[0]))


def sum_rows(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the sum over all rows and environments.

    Args:
        x: Numbers ``[T, B, ...]``, with environments split over the devices. Without several
            devices, numbers of any shape.

    Returns:
        Scalar.
    """
    if env_devices() == 1 or not adds_in_order():
        return x.sum()
    return _summed_in_order(x, PartitionSpec(None, ENV_AXIS))


def sum_shares(x: Float[Array, " devices"]) -> Float[Array, ""]:
    """Return the sum of one number of each device, as in the result of ``gradient``.

    Args:
        x: Numbers ``[devices]``.

    Returns:
        Scalar.
    """
    if env_devices() == 1 or not adds_in_order():
        return x.sum()
    return _summed_in_order(x, PartitionSpec(ENV_AXIS))


def _summed_in_order(x: Array, spec: PartitionSpec) -> Float[Array, ""]:
    """Sum an array on each device, then over the devices."""

    def local_sum(part: Array) -> Array:
        return sum_devices(part.sum())

    return on_each_device(local_sum, spec, PartitionSpec())(x)


def mean_weights(mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Return the weights that turn a sum into a mean over a mask.

    A weighted sum over a part of the entries is the share of that part in the mean. Shares of
    several devices add up to the mean.

    Args:
        mask: Entries that count ``[...]``.

    Returns:
        Weights ``[...]`` that add up to 1, or zeros if the mask is empty.
    """
    return mask / jnp.maximum(mask.sum(), 1)


def weighted_sum(
    x: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, ""]:
    """Return the sum of ``x * weight``.

    Args:
        x: Numbers ``[...]``. Entries of zero weight may be anything, including NaN.
        weight: Nonnegative weights of the same shape.

    Returns:
        Scalar.
    """
    return jnp.sum(weighted(x, weight))


def weighted(
    x: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return ``x * weight``, and 0 for entries of zero weight, which may be anything."""
    return jnp.where(weight > 0, x, 0.0) * weight


def add_terms(
    total: Float[Array, ""],
    sums: Metrics,
    terms: Sequence[Callable[..., tuple[Float[Array, ""], Metrics]]],
    *args: Any,
) -> tuple[Float[Array, ""], Metrics]:
    """Add terms to a loss.

    Args:
        total: Loss of the environments of this device.
        sums: Its metrics, which are added over devices.
        terms: Functions of ``args`` that return a scalar and further metrics. Both are sums over
            the environments of this device, so their means over rows need the loss's weights.
        *args: Arguments of the terms.

    Returns:
        Total loss, and the metrics of the loss and of all terms.
    """
    for term in terms:
        scalar, metrics = term(*args)
        total = total + scalar
        sums = sums | metrics
    return total, sums


def gradient(
    loss: Callable[..., tuple[Float[Array, ""], Any]],
) -> Callable[..., tuple[Any, Any, Any]]:
    """Differentiate a loss that is a sum over environments, with one reduction over devices.

    Args:
        loss: Function ``(params, carry, *rows) -> (scalar, aux)``. It is called on each device
            with the environments of that device. Leaves of ``carry`` are ``[B, ...]``, those of
            ``rows`` are ``[T, B, ...]``, and those of ``aux`` are scalars. A term that depends
            only on ``params`` would be added once per device.

    Returns:
        Function ``(params, carry, *rows) -> (loss, aux, gradient)``. Leaves of ``aux`` are
        ``[devices]``.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def local_gradient(params: Any, carry: Any, *rows: Any) -> tuple[Any, Any, Any]:
        (total, aux), grads = value_and_grad(params, carry, *rows)
        return total, jax.tree.map(lambda x: x[None], aux), grads

    def summed_gradient(*args: Any) -> tuple[Any, Any, Any]:
        total, aux, grads = local_gradient(*args)
        total, grads = sum_devices((total, grads))
        return total, aux, grads

    def sharded_gradient(params: Any, carry: Any, *rows: Any) -> tuple[Any, Any, Any]:
        if env_devices() == 1:
            return local_gradient(params, carry, *rows)
        whole = PartitionSpec()
        out_specs = whole, PartitionSpec(ENV_AXIS), whole
        return _on_each_device(summed_gradient, out_specs)(params, carry, *rows)

    return sharded_gradient


def map_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a function of rows on each device to the environments of that device.

    Args:
        function: Function ``(params, carry, *rows) -> out``. Leaves of ``carry`` are ``[B, ...]``,
            those of ``rows`` and ``out`` are ``[T, B, ...]``. Environments do not interact.

    Returns:
        The same function of all environments.
    """

    def mapped(params: Any, carry: Any, *rows: Any) -> Any:
        if env_devices() == 1:
            return function(params, carry, *rows)
        out_specs = PartitionSpec(None, ENV_AXIS)
        return _on_each_device(function, out_specs)(params, carry, *rows)

    return mapped


def _on_each_device(function: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
    """Split the environments of ``(params, carry, *rows)`` over the devices."""

    def sharded(params: Any, carry: Any, *rows: Any) -> Any:
        steps = PartitionSpec(None, ENV_AXIS)
        in_specs = PartitionSpec(), PartitionSpec(ENV_AXIS), *[steps] * len(rows)
        return on_each_device(function, in_specs, out_specs)(params, carry, *rows)

    return sharded
