"""State and rows of a rollout as few arrays.

A loop writes each array of its state and of its output in each iteration. On an accelerator each
write is a kernel, and a row has some twenty arrays. Packed, it has one array for each dtype.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from jmarl.platforms import platform


class Packed(struct.PyTreeNode):
    """Arrays ``[B, F]``, in which those of a dtype lie side by side, or ``[T, B, F]``."""

    arrays: dict[str, Array]
    structure: Any = struct.field(pytree_node=False)
    parts: tuple[tuple[str, tuple[int, ...]], ...] = struct.field(pytree_node=False)
    """Name of the array and shape ``[B, ...]`` of each leaf."""


def pack(row: Any) -> Any:
    """Concatenate arrays ``[B, ...]`` of equal dtype, for the state or the output of a loop.

    On a CPU, where a write is no more than a copy, these are the arrays themselves.
    """
    if platform() == "cpu":
        return row
    leaves, structure = jax.tree.flatten(row)
    groups = defaultdict(list)
    for leaf in leaves:
        groups[_group(leaf)].append(leaf.reshape(len(leaf), -1))
    arrays = {name: jnp.concatenate(group, axis=1) for name, group in groups.items()}
    parts = tuple((_group(leaf), leaf.shape) for leaf in leaves)
    return Packed(arrays, structure, parts)


def unpack(packed: Any) -> Any:
    """Return the arrays ``[B, ...]`` of a packed state, or ``[T, B, ...]`` of stored rows."""
    if not isinstance(packed, Packed):
        return packed
    used = dict.fromkeys(packed.arrays, 0)
    leaves = []
    for name, shape in packed.parts:
        start = used[name]
        used[name] += math.prod(shape[1:])
        part = packed.arrays[name][..., start : used[name]]
        leaves.append(part.reshape(*part.shape[:-2], *shape))
    return jax.tree.unflatten(packed.structure, leaves)


def _group(leaf: Array) -> str:
    return f"{leaf.dtype}[{len(leaf)}]"
