"""Compilation of a traced program to the code of one kernel.

A program of the kernel keeps intermediate results in memory of its own, which is small enough for
the caches of a GPU. Matrix products and reductions are written there, and so are results that are
cheaper to read again than to compute again. Everything else is computed where it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend import core

from jmarl.kernels.values import (
    ELEMENT_WISE,
    VIEWS,
    ZERO,
    Index,
    UnsupportedError,
    Value,
    concatenate,
    constant,
    element_wise,
    iota,
    ravel,
    round_to,
    size_of,
    split,
    unravel,
    view,
)


ROWS = 16
"""Rows of a program of the kernel, the least of Triton's matrix products."""
TILE = 2048
"""Most elements that are computed at a time."""
DEPTH = 32
"""Most columns of the first factor that are multiplied at a time."""
COLUMNS = 128
"""Most columns of a product that are computed at a time."""
SHARED_COST = 4
"""Cost of further reads at which a result is written to memory instead."""
_REDUCTIONS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "reduce_sum": (jnp.sum, lambda kind: 0),
    "reduce_max": (jnp.max, lambda kind: _limits(kind).min),
    "reduce_min": (jnp.min, lambda kind: _limits(kind).max),
    "reduce_or": (jnp.max, lambda kind: 0),
    "reduce_and": (jnp.min, lambda kind: 1),
}
"""Reduction of a tile and its neutral element, by the name of the primitive."""
_CALLS = ("call_jaxpr", "jaxpr")
"""Parameters of equations that call a program."""


class Place(NamedTuple):
    """Where an array lies in the memory of a kernel."""

    ref: Any
    """One axis."""
    position: Callable[[Any], Any]
    """Return the position in ``ref`` of elements, given in row-major order."""


class Scratch:
    """Memory of a program for intermediate results, one array for each type.

    Until ``refs`` is set, it only counts what is needed.
    """

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self.sizes: dict[str, int] = {}
        """Elements of a program, by type; set before ``refs``."""
        self.refs: dict[str, Any] | None = None
        self.program: Any = None
        """Index of the program."""

    @property
    def is_planning(self) -> bool:
        """Return whether no code is written yet."""
        return self.refs is None

    def take(self, shape: Sequence[int], dtype: Any) -> Place:
        """Return the place of a new array."""
        kind = storage(dtype).name
        start = self.used[kind]
        self.used[kind] += size_of(shape)
        if self.refs is None:
            return Place(None, lambda flat: flat)
        base = self.program * self.sizes[kind] + start
        return Place(self.refs[kind], lambda flat: base + flat)

    def write_blocks(self, count: int, block: Callable[[Any], None]) -> None:
        """Write the code of some blocks that store to memory, which all threads read afterwards."""
        if not self.is_planning:
            repeat(count, block)
            triton.debug_barrier()


def storage(dtype: Any) -> np.dtype:
    """Return the type in which an array is stored: integers for Booleans."""
    return np.dtype(jnp.int32) if np.dtype(dtype) == bool else np.dtype(dtype)


def stored(place: Place, shape: Sequence[int], dtype: Any) -> Value:
    """Return an array that lies in memory."""

    def at(index: Index) -> Any:
        tile = triton.load(place.ref.at[place.position(ravel(index, shape))])
        return tile != 0 if np.dtype(dtype) == bool and tile.dtype != bool else tile

    return Value(tuple(shape), dtype, at, 1)


def write(scratch: Scratch, value: Value, place: Place) -> Value:
    """Write an array to memory; return it as it lies there."""
    size = size_of(value.shape)
    tile = min(pl.next_power_of_2(size), TILE)

    def block(i: Any) -> None:
        flat = _range(tile) + i * tile
        index = unravel(jnp.minimum(flat, size - 1), value.shape)
        _store(place, flat, value.at(index), flat < size)

    scratch.write_blocks(pl.cdiv(size, tile), block)
    return stored(place, value.shape, value.dtype)


class Writer:
    """Evaluation of the equations of a program, with its memory."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch

    def run(
        self,
        program: Program,
        inputs: Sequence[Value],
        places: Mapping[int, Place],
    ) -> list[Value]:
        """Evaluate a program.

        Args:
            program: The program.
            inputs: Its constants and arguments.
            places: Places of arguments that results replace, by the number of the result; see
                ``Program.replaced``.

        Returns:
            The results. Those of ``places`` have been written there.
        """
        known = dict(zip(program.inputs, inputs, strict=True))
        own = {program.outputs[i]: place for i, place in places.items()}

        def read(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                kind: Any = atom.aval
                return constant(atom.val, kind.dtype)
            return known[atom]

        for eqn in program.eqns:
            operands = [read(x) for x in eqn.invars]
            (first, *_) = eqn.outvars
            if first in own:
                results = [self._replace(eqn, operands, own[first])]
            else:
                results = self._results(eqn, operands)
            for var, value in zip(eqn.outvars, results, strict=True):
                again = max(program.uses[var] - 1, 0)
                known[var] = self.keep(value, again * value.cost > SHARED_COST)
        return [read(x) for x in program.outputs]

    def keep(self, value: Value, condition: bool = True) -> Value:
        """Write an array to memory if a condition holds and it does not lie there."""
        if not condition or value.cost <= 1:
            return value
        return self.write(value)

    def write(self, value: Value) -> Value:
        """Write an array to new memory."""
        place = self.scratch.take(value.shape, value.dtype)
        return write(self.scratch, value, place)

    def _results(self, eqn: core.JaxprEqn, operands: list[Value]) -> list[Value]:
        name, params = eqn.primitive.name, eqn.params
        outs: Any = [x.aval for x in eqn.outvars]
        if name in ELEMENT_WISE:
            return [element_wise(eqn, operands)]
        if name in VIEWS:
            (x,) = operands
            repeats = size_of(outs[0].shape) > size_of(x.shape)
            return [view(name, params, self.keep(x, repeats), outs[0].shape)]
        if name == "split":
            return split(operands[0], params["sizes"], params["axis"])
        if name == "concatenate":
            return [concatenate(operands, params["dimension"], outs[0].shape)]
        if name == "iota":
            return [iota(params)]
        if name == "dot_general":
            return [self._product(params, operands, outs[0])]
        if name == "argmax" or name in _REDUCTIONS:
            return [self._reduction(name, params["axes"], operands[0], outs[0])]
        raise UnsupportedError(name)

    def _replace(
        self, eqn: core.JaxprEqn, operands: list[Value], place: Place
    ) -> Value:
        """Write a result over the argument that it replaces."""
        if eqn.primitive is not lax.dynamic_update_slice_p:
            (value,) = self._results(eqn, operands)
            return write(self.scratch, value, place)
        whole, part, *starts = operands
        limits = [a - b for a, b in zip(whole.shape, part.shape, strict=True)]

        def position(flat: Any) -> Any:
            pairs = zip(starts, limits, strict=True)
            first = [jnp.clip(start.at(()), 0, limit) for start, limit in pairs]
            index = unravel(flat, part.shape)
            index = tuple(i + j for i, j in zip(index, first, strict=True))
            return place.position(ravel(index, whole.shape))

        write(self.scratch, part, Place(place.ref, position))
        return stored(place, whole.shape, whole.dtype)

    def _reduction(self, name: str, axes: Sequence[int], x: Value, out: Any) -> Value:
        reduced = [x.shape[i] for i in axes]

        def at(outer: Index, inner: Index) -> Any:
            return _arrange(x, (), (), axes, inner, outer)

        return self._reduce(name, at, out, reduced)

    def _reduce(
        self,
        name: str,
        at: Callable[[Index, Index], Any],
        out: Any,
        reduced: Sequence[int],
    ) -> Value:
        """Write a reduction of ``at(index of the result, index of reduced axes)``."""
        place = self.scratch.take(out.shape, out.dtype)
        size, count = size_of(out.shape), size_of(reduced)
        width = pl.next_power_of_2(count)
        height = min(pl.next_power_of_2(size), max(1, TILE // width))

        def block(i: Any) -> None:
            flat = _range(height) + i * height
            term = _range(width)
            outer = jnp.minimum(flat, size - 1)[:, None]
            inner = jnp.minimum(term, count - 1)[None, :]
            tile = at(unravel(outer, out.shape), unravel(inner, reduced))
            tile = jnp.broadcast_to(tile, (height, width))
            result = _reduce_rows(name, tile, (term < count)[None, :])
            _store(place, flat, result, flat < size)

        self.scratch.write_blocks(pl.cdiv(size, height), block)
        return stored(place, out.shape, out.dtype)

    def _product(
        self, params: dict[str, Any], operands: list[Value], out: Any
    ) -> Value:
        (left, right), (batch, _) = params["dimension_numbers"]
        x, y = operands
        rows = size_of(out.shape[:-1])
        is_plain = (left, right) == ((len(x.shape) - 1,), (0,)) and not batch
        if is_plain and len(y.shape) == 2 and rows % ROWS == 0:
            return self._matrix_product(params["precision"], x, y, out)
        factors = _Factors(x, y, params["dimension_numbers"])
        # A sum of products keeps float32 where TF32 is asked for.
        if params["precision"] == lax.DotAlgorithmPreset.BF16_BF16_F32:
            factors = factors._replace(kind=jnp.bfloat16)
        factors = factors._replace(x=self.keep(x), y=self.keep(y))
        return self._reduce("reduce_sum", factors.at, out, factors.reduced)

    def _matrix_product(self, precision: Any, x: Value, y: Value, out: Any) -> Value:
        place = self.scratch.take(out.shape, out.dtype)
        depth, columns = y.shape
        step = min(max(pl.next_power_of_2(depth), 16), DEPTH)
        width = min(max(pl.next_power_of_2(columns), 16), COLUMNS)
        blocks = np.int32(pl.cdiv(columns, width))

        def block(i: Any) -> None:
            row = (_range(ROWS) + lax.div(i, blocks) * ROWS)[:, None]
            column = _range(width) + lax.rem(i, blocks) * width
            leading = unravel(row, x.shape[:-1])

            def add(j: Any, total: Any) -> Any:
                k = _range(step) + j * step
                inner, exists = jnp.minimum(k, depth - 1), k < depth
                a = x.at((*leading, inner[None, :]))
                b = y.at((inner[:, None], jnp.minimum(column, columns - 1)[None, :]))
                a = jnp.where(exists[None, :], jnp.broadcast_to(a, (ROWS, step)), 0.0)
                b = jnp.where(exists[:, None], jnp.broadcast_to(b, (step, width)), 0.0)
                return total + jnp.dot(a, b, precision=precision)

            total = jnp.zeros((ROWS, width), jnp.float32)
            total = lax.fori_loop(0, pl.cdiv(depth, step), add, total)
            flat = row * columns + column[None, :]
            _store(place, flat, total, (column < columns)[None, :])

        count = size_of(out.shape[:-1]) // ROWS * int(blocks)
        self.scratch.write_blocks(count, block)
        return stored(place, out.shape, out.dtype)


class _Factors(NamedTuple):
    """A product of arrays, with batch axes or several contracted ones."""

    x: Value
    y: Value
    dimensions: Any
    kind: Any = None
    """Type whose precision the factors are rounded to."""

    @property
    def reduced(self) -> list[int]:
        """Return the sizes of the contracted axes."""
        (left, _), _ = self.dimensions
        return [self.x.shape[i] for i in left]

    def at(self, outer: Index, inner: Index) -> Any:
        """Return the terms of a sum, at indices of the result and of the contracted axes."""
        (left, right), (left_batch, right_batch) = self.dimensions
        batch = outer[: len(left_batch)]
        free = outer[len(left_batch) :]
        count = len(self.x.shape) - len(left) - len(left_batch)
        a = _arrange(self.x, left_batch, batch, left, inner, free[:count])
        b = _arrange(self.y, right_batch, batch, right, inner, free[count:])
        if self.kind is not None:
            a, b = round_to(a, self.kind), round_to(b, self.kind)
        return a * b


def _arrange(
    x: Value, batch_axes: Any, batch: Index, axes: Any, inner: Index, free: Index
) -> Any:
    """Return elements at indices of batch axes, of summed axes, and of all others in order."""
    index: dict[int, Any] = dict(zip(batch_axes, batch, strict=True))
    index |= dict(zip(axes, inner, strict=True))
    rest = iter(free)
    return x.at(
        tuple(index[i] if i in index else next(rest) for i in range(len(x.shape)))
    )


def _reduce_rows(name: str, tile: Any, exists: Any) -> Any:
    """Reduce the last axis of a tile, of which some elements do not exist."""
    if name == "argmax":
        # the first of equal elements, as XLA does
        tile = jnp.where(exists, tile, -jnp.inf)
        width = tile.shape[1]
        is_best = exists & (tile == tile.max(1)[:, None])
        return jnp.where(is_best, _range(width)[None, :], width).min(1)
    reduce, identity = _REDUCTIONS[name]
    tile = tile.astype(storage(tile.dtype))  # Booleans are reduced as integers
    neutral = tile.dtype.type(identity(tile.dtype))
    return reduce(jnp.where(exists, tile, neutral), axis=1)


def _limits(dtype: Any) -> Any:
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return jnp.finfo(dtype) if is_float else jnp.iinfo(dtype)


def _range(size: int) -> Any:
    return lax.iota(jnp.int32, size)


def repeat(count: int, block: Callable[[Any], None]) -> None:
    """Write the code of some blocks, as a loop if there are several."""
    if count == 1:
        block(ZERO)
        return

    def body(i: Any, done: Any) -> Any:
        block(i)
        return done

    lax.fori_loop(0, count, body, ZERO)


def _store(place: Place, flat: Any, tile: Any, exists: Any) -> None:
    tile = jnp.broadcast_to(tile, jnp.shape(flat))
    exists = jnp.broadcast_to(exists, jnp.shape(flat))
    kind = place.ref.dtype
    triton.store(place.ref.at[place.position(flat)], tile.astype(kind), mask=exists)


class Program(NamedTuple):
    """A program without calls, and what its evaluation needs to know of it."""

    inputs: list[Any]
    """Variables of the constants and of the arguments."""
    constants: list[Any]
    eqns: list[core.JaxprEqn]
    outputs: list[Any]
    uses: Counter[Any]

    def replaced(self, pairs: Mapping[int, Any]) -> list[int]:
        """Return the results that can be written over an argument.

        Each element of such a result is computed from the same element of the argument, or the
        result is the argument with a part overwritten. No other result reads the argument.

        Args:
            pairs: The variable of the argument of each result.
        """
        producers = {eqn.outvars[0]: eqn for eqn in self.eqns}
        return [i for i, var in pairs.items() if self._can_replace(producers, i, var)]

    def _can_replace(self, producers: dict[Any, Any], i: int, argument: Any) -> bool:
        out = self.outputs[i]
        eqn = producers.get(out)
        if eqn is None or self.outputs.count(out) > 1:
            return False
        if eqn.primitive is lax.dynamic_update_slice_p:
            return eqn.invars[0] is argument and self.uses[argument] == 1
        reached: Counter[Any] = Counter()

        def visit(eqn: core.JaxprEqn) -> None:
            variables: Any = [x for x in eqn.invars if not isinstance(x, core.Literal)]
            for var in variables:
                if var.aval.shape != out.aval.shape:
                    continue
                reached[var] += 1
                before = producers.get(var)
                if (
                    before
                    and reached[var] == 1
                    and before.primitive.name in ELEMENT_WISE
                ):
                    visit(before)

        if eqn.primitive.name not in ELEMENT_WISE:
            return False
        visit(eqn)
        dependent = self._depends_on(argument)
        on_path = {var for var in reached if var in dependent} | {argument}
        return all(self.uses[var] == reached[var] for var in on_path)

    def _depends_on(self, argument: Any) -> set[Any]:
        found = {argument}
        for eqn in self.eqns:
            if any(not isinstance(x, core.Literal) and x in found for x in eqn.invars):
                found.update(eqn.outvars)
        return found


def trace(function: Callable[..., Any], *shapes: Any) -> tuple[Program, Any]:
    """Trace a function; return its program and the shapes of its results."""
    outer, results = jax.make_jaxpr(function, return_shape=True)(*shapes)
    leaves = jax.tree.leaves(shapes)
    flat = jax.make_jaxpr(lambda *xs: _call(outer.jaxpr, outer.consts, xs))(*leaves)
    jaxpr = flat.jaxpr
    uses = Counter(x for x in jaxpr.outvars if not isinstance(x, core.Literal))
    live = []
    for eqn in reversed(jaxpr.eqns):
        if any(uses[var] for var in eqn.outvars):
            uses.update(x for x in eqn.invars if not isinstance(x, core.Literal))
            live.append(eqn)
    inputs = [*jaxpr.constvars, *jaxpr.invars]
    program = Program(inputs, flat.consts, live[::-1], [*jaxpr.outvars], uses)
    return program, results


def _call(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluate a program with the programs that it calls in place of the calls."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        operands = [read(x) for x in eqn.invars]
        inner = next((eqn.params[key] for key in _CALLS if key in eqn.params), None)
        if inner is None or eqn.primitive.name in ("scan", "while"):
            results = eqn.primitive.bind(*operands, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
        else:
            results = _call(inner.jaxpr, inner.consts, operands)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]
