"""A function of batches of environments as one GPU kernel.

XLA ends a kernel at each reduction over units. Here one program of a kernel computes the whole
function for a few environments, and its values stay in registers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool

from jmarl.platforms import ENV_AXIS, env_devices, has_gpu_kernels, on_each_device


PAIRS = 4096
"""Most pairs of units of all environments of a program, if it has more than one environment."""
MOST_UNITS = 64
"""Most units of a kernel. Beyond, the pairs of one environment need more than the registers."""
WARPS = 4


def is_fused(units: int) -> bool:
    """Return whether ``fused`` makes a kernel of a function of so many units."""
    return has_gpu_kernels() and units <= MOST_UNITS


def fused(function: Callable[..., Any], *inputs: Any) -> Any:
    """Return ``function(*inputs)``, on a GPU computed by one kernel if ``is_fused``.

    The kernel pads the units of each input with zeros to a power of two, so a unit of zeros must
    not affect other units. Pallas compiles element-wise operations, reductions and loops,
    but no gather, scatter, slice or concatenation.

    Args:
        function: Function of pytrees of arrays ``[U, B]`` that returns such a pytree. The numbers
            of units may differ. Environments do not interact.
        *inputs: Its arguments.
    """
    leaves, tree = jax.tree.flatten(inputs)
    if not is_fused(max(map(len, leaves))):
        return function(*inputs)
    results, structure = jax.tree.flatten(jax.eval_shape(function, *inputs))

    def flat(*leaves: Array) -> list[Array]:
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, leaves)))

    kinds = [(len(x), x.dtype) for x in results]
    call = functools.partial(_call, flat, kinds)
    if env_devices() > 1:
        split = PartitionSpec(None, ENV_AXIS)
        call = on_each_device(call, split, split)
    return jax.tree.unflatten(structure, call(*leaves))


def _call(
    function: Callable[..., list[Array]],
    results: list[tuple[int, Any]],
    *inputs: Array,
) -> list[Array]:
    batch = inputs[0].shape[1]
    units = pl.next_power_of_2(max(map(len, inputs)))
    envs = math.gcd(batch, max(1, PAIRS // units**2))
    # An array of a state is [B, U] in memory, so the transpositions move nothing.
    outputs = pl.pallas_call(
        functools.partial(_kernel, function, len(inputs), envs),
        out_shape=[jax.ShapeDtypeStruct((batch, size), kind) for size, kind in results],
        grid=(batch // envs,),
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        name="fused",
    )(*(x.T for x in inputs))
    return [x.T for x in outputs]


def _kernel(
    function: Callable[..., list[Array]], count: int, envs: int, *refs: Any
) -> None:
    """Compute the results of some environments, from references to ``[B, U]`` arrays."""
    inputs, outputs = refs[:count], refs[count:]
    loaded = []
    for ref in inputs:
        index, exists = _index(ref, envs)
        other = jnp.zeros((), ref.dtype)
        loaded.append(triton.load(ref.at[index], mask=exists, other=other))
    for ref, result in zip(outputs, function(*loaded), strict=True):
        index, exists = _index(ref, envs)
        triton.store(ref.at[index], result, mask=exists)


def _index(ref: Any, envs: int) -> tuple[tuple[Array, Array], Bool[Array, "U b"]]:
    """Return the index of the program's part of an array, and which of its units exist."""
    shape = pl.next_power_of_2(ref.shape[1]), envs
    unit = lax.broadcasted_iota(jnp.int32, shape, 0)
    env = lax.broadcasted_iota(jnp.int32, shape, 1) + pl.program_id(0) * envs
    return (env, unit), unit < ref.shape[1]
