"""Learning on several devices: each takes the gradient of its own environments, and they are added once.

A program is traced under ``jax.set_mesh`` of a mesh with one axis, ``ENV_AXIS``, along which the
environments lie. Acting is left to XLA's partitioner: environments have nothing to do with each
other but for a flag a step, whether any of them ends. A gradient is not: the partitioner would add the gradient
of a recurrent kernel up over the devices in every time step, and gather rows where networks merge axes.
Without a mesh, or with one device, nothing is split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float


ENV_AXIS = "env"
"""The mesh axis that the environment axis B of every array is split along."""


def env_devices() -> int:
    """Devices that the environments are split over in the program being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape.get(ENV_AXIS, 1)


def split_envs(tree: Any) -> Any:
    """Leaves that lead with B, a multiple of ``env_devices()``, split over the devices; values are as before."""
    if env_devices() == 1:
        return tree
    return jax.tree.map(
        lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec(ENV_AXIS)), tree
    )


def mean_weights(mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Weights of a mean over ``mask``: a weighted sum is the mean, and a part's weighted sum its share of it."""
    return mask / jnp.maximum(mask.sum(), 1)


def weighted_sum(
    x: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, ""]:
    """Sum of ``x * weight``. What has no weight may be anything, NaN included."""
    return jnp.sum(jnp.where(weight > 0, x, 0.0) * weight)


def gradient(
    loss: Callable[..., tuple[Float[Array, ""], Any]],
) -> Callable[..., tuple[Any, Any, Any]]:
    """``fn(params, carry, *rows) -> (loss, aux, gradient)`` of ``loss(params, carry, *rows) -> (scalar, aux)``.

    The loss must be a sum over environments: leaves of ``carry`` lead with B, those of ``rows`` with [T, B],
    and each device gives ``loss`` its own environments; a term of ``params`` alone would be added once a device.
    Leaves of ``aux`` are scalars, and come back as arrays of one number for each device.
    """
    local = jax.value_and_grad(loss, has_aux=True)

    def own(params: Any, carry: Any, *rows: Any) -> tuple[Any, Any, Any]:
        (total, aux), grads = local(params, carry, *rows)
        return total, jax.tree.map(lambda x: x[None], aux), grads

    def added(*args: Any) -> tuple[Any, Any, Any]:
        total, aux, grads = own(*args)
        total, grads = jax.lax.psum((total, grads), ENV_AXIS)
        return total, aux, grads

    def split(params: Any, carry: Any, *rows: Any) -> tuple[Any, Any, Any]:
        if env_devices() == 1:
            return own(params, carry, *rows)
        whole, envs, steps = (
            PartitionSpec(),
            PartitionSpec(ENV_AXIS),
            PartitionSpec(None, ENV_AXIS),
        )
        # check_vma: it asks that constants of the networks (a first state of zeros) be marked as varying
        specs = {
            "in_specs": (whole, envs, *[steps] * len(rows)),
            "out_specs": (whole, envs, whole),
            "check_vma": False,
        }
        return jax.shard_map(added, **specs)(params, carry, *rows)

    return split
