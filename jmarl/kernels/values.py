"""Arrays within a kernel, computed at the indices at which they are read.

A Triton kernel computes on tiles whose sizes are powers of two, and it cannot slice, concatenate or
reshape them freely. A ``Value`` is therefore a function from indices to elements. Slices and the
like change the indices, and element-wise operations apply to the elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array


Index = tuple[Any, ...]
"""An integer array for each axis of a value; they broadcast to the shape of a tile."""


class Value(NamedTuple):
    """An array that is computed where it is read."""

    shape: tuple[int, ...]
    dtype: Any
    at: Callable[[Index], Any]
    """Return the elements at valid indices, of a shape that broadcasts to that of the tile."""
    cost: int
    """Reads of memory for each element, and as many again for each slow operation."""


class UnsupportedError(Exception):
    """A program that cannot be compiled to one kernel."""


ZERO = np.int32(0)
SLOW = 4
"""Cost of an exponential, a division and the like."""
IDENTITIES = "copy reshard sharding_constraint stop_gradient".split()
"""Operations that return their argument. A program of a kernel is on one device."""
_FAST_OPERATIONS = """
abs add and clamp convert_element_type eq ge gt integer_pow le lt max min mul ne neg not or rem
select_n sign sub
""".split()
_SLOW_OPERATIONS = "cos div exp log log1p logistic pow rsqrt sin sqrt tanh".split()
ELEMENT_WISE = dict.fromkeys([*IDENTITIES, *_FAST_OPERATIONS], 0)
ELEMENT_WISE |= dict.fromkeys(_SLOW_OPERATIONS, SLOW)
"""Cost of each element-wise operation, by the name of its primitive."""


def size_of(shape: Sequence[int]) -> int:
    """Return the number of elements of an array."""
    return math.prod(shape)


def unravel(flat: Any, shape: Sequence[int]) -> Index:
    """Return the index of an element of an array from its position in row-major order."""
    index = []
    for i, size in reversed(list(enumerate(shape))):
        if size == 1:
            index.append(ZERO)
            continue
        is_outermost = all(other == 1 for other in shape[:i])
        index.append(flat if is_outermost else lax.rem(flat, np.int32(size)))
        flat = ZERO if is_outermost else lax.div(flat, np.int32(size))
    return tuple(reversed(index))


def ravel(index: Index, shape: Sequence[int]) -> Any:
    """Return the position of an element in row-major order."""
    flat: Any = ZERO
    for i, size in zip(index, shape, strict=True):
        flat = flat * size + i if size > 1 else flat
    return flat


def constant(x: Any, dtype: Any) -> Value:
    """Return a scalar."""
    scalar = np.dtype(dtype).type(x)
    return Value((), dtype, lambda _: scalar, 0)


def element_wise(eqn: core.JaxprEqn, operands: Sequence[Value]) -> Value:
    """Return the result of an element-wise operation; scalars broadcast."""
    out: Any = eqn.outvars[0].aval
    name = eqn.primitive.name

    def at(index: Index) -> Any:
        tiles = [x.at(index if x.shape else ()) for x in operands]
        if name in IDENTITIES:
            return tiles[0]
        shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in tiles))
        return eqn.primitive.bind(
            *(jnp.broadcast_to(x, shape) for x in tiles), **eqn.params
        )

    cost = ELEMENT_WISE[name] + sum(x.cost for x in operands)
    return Value(out.shape, out.dtype, at, cost)


def view(name: str, params: dict[str, Any], x: Value, shape: Sequence[int]) -> Value:
    """Return the result of an operation that rearranges or repeats the elements of an array."""
    move = _VIEWS[name](params, x.shape, tuple(shape))
    return Value(tuple(shape), x.dtype, lambda index: x.at(move(index)), x.cost)


def _broadcast(params: dict[str, Any], before: Any, after: Any) -> Any:
    axes = params["broadcast_dimensions"]

    def move(index: Index) -> Index:
        pairs = zip(axes, before, strict=True)
        return tuple(index[i] if size > 1 else ZERO for i, size in pairs)

    return move


def _reshape(params: dict[str, Any], before: Any, after: Any) -> Any:
    return lambda index: unravel(ravel(index, after), before)


def _squeeze(params: dict[str, Any], before: Any, after: Any) -> Any:
    kept = [i for i in range(len(before)) if i not in params["dimensions"]]

    def move(index: Index) -> Index:
        full: list[Any] = [ZERO] * len(before)
        for i, x in zip(kept, index, strict=True):
            full[i] = x
        return tuple(full)

    return move


def _slice(params: dict[str, Any], before: Any, after: Any) -> Any:
    strides = params["strides"] or (1,) * len(before)

    def move(index: Index) -> Index:
        parts = zip(index, params["start_indices"], strides, strict=True)
        return tuple(i * stride + start for i, start, stride in parts)

    return move


def _transpose(params: dict[str, Any], before: Any, after: Any) -> Any:
    inverse = np.argsort(params["permutation"])
    return lambda index: tuple(index[i] for i in inverse)


_VIEWS = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
VIEWS = tuple(_VIEWS)
"""Names of the primitives of ``view``."""


def split(x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    """Return consecutive parts of an array along an axis."""
    starts = np.cumsum([0, *sizes])
    parts = []
    for start, size in zip(starts, sizes, strict=False):
        shape = [*x.shape]
        shape[axis] = int(size)
        offsets = [0] * len(shape)
        offsets[axis] = int(start)
        params = {"start_indices": offsets, "strides": None}
        parts.append(view("slice", params, x, shape))
    return parts


def concatenate(parts: Sequence[Value], axis: int, shape: Sequence[int]) -> Value:
    """Return arrays one after another along an axis."""
    starts = np.cumsum([0, *(x.shape[axis] for x in parts)])

    def at(index: Index) -> Any:
        tile = None
        for x, start in zip(parts, starts, strict=False):
            own = jnp.clip(index[axis] - int(start), 0, x.shape[axis] - 1)
            part = x.at((*index[:axis], own, *index[axis + 1 :]))
            after = index[axis] >= int(start)
            tile = part if tile is None else jnp.where(after, part, tile)
        return tile

    return Value(tuple(shape), parts[0].dtype, at, sum(x.cost for x in parts))


def iota(params: dict[str, Any]) -> Value:
    """Return the index along an axis."""
    dtype, axis = params["dtype"], params["dimension"]

    def at(index: Index) -> Array:
        return jnp.asarray(index[axis]).astype(dtype)

    return Value(params["shape"], dtype, at, 0)


def round_to(x: jax.Array, dtype: Any) -> jax.Array:
    """Return an array with the precision of another type."""
    return x.astype(dtype).astype(x.dtype)
