"""Arrays on the devices of all processes: from host arrays, and back.

A process can read only the parts of an array that its own devices hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jmarl.hosts import process_group


GATHERED_BYTES = 2**26
"""Bytes of an array that are copied to every device at once on their way to the host."""


def place(tree: Any, shardings: Any) -> Any:
    """Place arrays on devices. Every process must pass the same values.

    Args:
        tree: Arrays that this process can read.
        shardings: Sharding of all leaves, or a tree of them.
    """
    if process_group.count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda x: _place(x, shardings), tree)
    return jax.tree.map(_place, tree, shardings)


def _place(x: Any, sharding: Any) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_place(jax.random.key_data(x), sharding))
    host = whole(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def whole(x: Any) -> np.ndarray:
    """Copy an array to the host, also if devices of other processes hold parts of it."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.array(x)
    if x.is_fully_replicated:
        return np.array(x.addressable_data(0))
    host = np.empty(x.shape, x.dtype)
    for start, part in _gathered(x):
        host[start] = part
    return host


def _gathered(x: jax.Array) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield parts of a split array, and their places. Only one part is on every device."""
    sharding = x.sharding
    assert isinstance(sharding, NamedSharding)
    # leading axes that are not split over devices
    axes = next(i for i, axis in enumerate(sharding.spec) if axis is not None)
    lead = x.shape[:axes]
    replicated = NamedSharding(sharding.mesh, PartitionSpec())
    if x.nbytes <= GATHERED_BYTES or not axes:
        gather = jax.jit(lambda y: y, out_shardings=replicated)
        yield ..., np.asarray(gather(x).addressable_data(0))
        return
    take = jax.jit(lambda y, i: y[i], out_shardings=replicated)
    for place in range(math.prod(lead)):
        index = tuple(map(int, np.unravel_index(place, lead)))
        yield index, np.asarray(take(x, index).addressable_data(0))
