"""A loop over the second axis of batched arrays as one GPU kernel.

As XLA compiles a loop, each iteration launches all kernels of its body again. If the rows of the
batch are independent, a program of one kernel can run a few rows through all iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec
from jaxtyping import Array, PyTree

from jmarl.kernels.row_program import (
    ROWS,
    Place,
    Program,
    Scratch,
    Writer,
    repeat,
    storage,
    stored,
    trace,
    write,
)
from jmarl.kernels.values import UnsupportedError, Value, size_of
from jmarl.platforms import ENV_AXIS, env_devices, has_gpu_kernels, on_each_device


WARPS = 8


def row_scan(
    start: Callable[[Any], Any],
    step: Callable[[Any, Any], tuple[Any, Any]],
    inputs: PyTree[Array],
    xs: PyTree[Array],
) -> tuple[Any, Any]:
    """Run ``lax.scan`` along axis 1 of batched arrays, on a GPU as one kernel.

    The functions may be called with another batch size. They must compute each row by itself, and
    must not contain loops, random numbers or gathers to become a kernel; otherwise, and elsewhere
    than on a GPU, this is ``lax.scan``.

    Args:
        start: Returns the carry before the first iteration, from ``inputs``. Its leaves are
            ``[k B, ...]`` for any k, or do not depend on the batch.
        step: Returns the carry after an iteration and its result, leaves ``[B, ...]``, from the
            carry before it and the part of ``xs``.
        inputs: Arrays ``[B, ...]``.
        xs: Arrays ``[B, N, ...]``.

    Returns:
        The carry after the last iteration, and the results ``[B, N, ...]``.
    """
    plan = _plan(start, step, inputs, xs) if has_gpu_kernels() else None
    if plan is None:
        by_step = jax.tree.map(_swap_axes, xs)
        carry, ys = lax.scan(step, start(inputs), by_step)
        return carry, jax.tree.map(_swap_axes, ys)
    call = partial(_call, plan)
    if env_devices() > 1:
        split, whole = PartitionSpec(ENV_AXIS), PartitionSpec()
        carry = [split if x.is_batched else whole for x in plan.carry]
        call = on_each_device(
            call, (whole, split, split), (carry, [split] * len(plan.results))
        )
    constants = [*plan.start.constants, *plan.step.constants]
    leaves = jax.tree.leaves(inputs), jax.tree.leaves(xs)
    carry, ys = call([jnp.asarray(x) for x in constants], *leaves)
    carry_tree, ys_tree = plan.trees
    return jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(ys_tree, ys)


class _Leaf(NamedTuple):
    """An array of a program of the kernel."""

    shape: tuple[int, ...]
    dtype: Any
    is_batched: bool = True
    """Whether the first axis grows with the batch."""

    @property
    def size(self) -> int:
        return size_of(self.shape)


class _Plan(NamedTuple):
    """The functions, traced for the rows of a program."""

    start: Program
    step: Program
    inputs: list[_Leaf]
    xs: list[_Leaf]
    carry: list[_Leaf]
    results: list[_Leaf]
    trees: tuple[Any, Any]
    """Structures of the carry and of the results."""
    scratch: dict[str, int]
    """Elements of the memory of a program, by type."""


def _plan(start: Any, step: Any, inputs: Any, xs: Any) -> _Plan | None:
    """Return the plan of the kernel, or None if there can be none."""

    def rows(count: int, removed: int) -> Callable[[Array], Any]:
        """Return the shape of an array for some rows, without some axes after the first."""
        return lambda x: jax.ShapeDtypeStruct((count, *x.shape[1 + removed :]), x.dtype)

    few = jax.tree.map(rows(ROWS, 0), inputs)
    more = jax.eval_shape(start, jax.tree.map(rows(2 * ROWS, 0), inputs))
    start_program, carry = trace(start, few)
    by_step = jax.tree.map(rows(ROWS, 1), xs)
    step_program, (_, results) = trace(step, carry, by_step)
    pairs = zip(jax.tree.leaves(carry), jax.tree.leaves(more), strict=True)
    plan = _Plan(
        start_program,
        step_program,
        _leaves(few),
        _leaves(by_step),
        [_Leaf(x.shape, x.dtype, x.shape != y.shape) for x, y in pairs],
        _leaves(results),
        (jax.tree.structure(carry), jax.tree.structure(results)),
        {},
    )
    scratch = Scratch()
    try:
        _write_program(plan, scratch, _Places.nowhere(plan))
    except UnsupportedError:
        return None
    return plan._replace(scratch=dict(scratch.used))


def _leaves(tree: Any) -> list[_Leaf]:
    return [_Leaf(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


class _Places(NamedTuple):
    """Where the arrays of a program of the kernel lie."""

    start_constants: list[Place]
    step_constants: list[Place]
    inputs: list[Place]
    carry: list[Place]
    xs: Callable[[Any], list[Place]]
    """Places of an iteration."""
    results: Callable[[Any], list[Place]]

    @classmethod
    def nowhere(cls, plan: _Plan) -> _Places:
        """Return places for planning."""
        place = Place(None, lambda flat: flat)

        def all_of(arrays: Sequence[Any]) -> list[Place]:
            return [place] * len(arrays)

        return cls(
            start_constants=all_of(plan.start.constants),
            step_constants=all_of(plan.step.constants),
            inputs=all_of(plan.inputs),
            carry=all_of(plan.carry),
            xs=lambda _: all_of(plan.xs),
            results=lambda _: all_of(plan.results),
        )


def _write_program(
    plan: _Plan, scratch: Scratch, places: _Places, length: int = 1
) -> None:
    """Write the code of a program of the kernel."""
    writer = Writer(scratch)
    to = partial(write, scratch)
    before = [*_constants(plan.start, places.start_constants)]
    before += _stored(places.inputs, plan.inputs)
    for value, place in zip(
        writer.run(plan.start, before, {}), places.carry, strict=True
    ):
        to(value, place)
    count = len(plan.carry)
    constants = _constants(plan.step, places.step_constants)
    arguments = plan.step.inputs[len(constants) :]
    replaced = plan.step.replaced(dict(enumerate(arguments[:count])))
    own = {i: places.carry[i] for i in replaced}

    def iteration(i: Any) -> None:
        carry = _stored(places.carry, plan.carry)
        x = _stored(places.xs(i), plan.xs)
        outputs = writer.run(plan.step, [*constants, *carry, *x], own)
        for value, place in zip(outputs[count:], places.results(i), strict=True):
            to(value, place)
        # all are computed before one is overwritten
        changed = [j for j in range(count) if j not in replaced]
        new = [writer.write(outputs[j]) for j in changed]
        for j, value in zip(changed, new, strict=True):
            to(value, places.carry[j])

    repeat(1 if scratch.is_planning else length, iteration)


def _constants(program: Program, places: list[Place]) -> list[Value]:
    pairs = zip(places, program.constants, strict=True)
    return [stored(place, jnp.shape(x), jnp.result_type(x)) for place, x in pairs]


def _stored(places: list[Place], leaves: list[_Leaf]) -> list[Value]:
    pairs = zip(places, leaves, strict=True)
    return [stored(place, leaf.shape, leaf.dtype) for place, leaf in pairs]


def _call(
    plan: _Plan, constants: list[Array], inputs: list[Array], xs: list[Array]
) -> tuple[list[Array], list[Array]]:
    batch, length = xs[0].shape[:2]
    programs = pl.cdiv(batch, ROWS)
    sizes = [(leaf.size, leaf.dtype) for leaf in plan.carry]
    sizes += [(length * leaf.size, leaf.dtype) for leaf in plan.results]
    sizes += [(size, kind) for kind, size in plan.scratch.items()]
    outputs = pl.pallas_call(
        partial(_kernel, plan, batch, length),
        out_shape=[
            jax.ShapeDtypeStruct((programs * size,), storage(kind))
            for size, kind in sizes
        ],
        grid=(programs,),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        name="row_scan",
    )(*(x.reshape(-1) for x in (*constants, *inputs, *xs)))
    count = len(plan.carry)
    carry = [
        _rows_of(leaf, x, batch)
        for leaf, x in zip(plan.carry, outputs[:count], strict=True)
    ]
    results = []
    for leaf, x in zip(plan.results, outputs[count:], strict=False):
        whole = x.reshape(programs * ROWS, length, *leaf.shape[1:])
        results.append(whole[:batch].astype(leaf.dtype))
    return carry, results


def _rows_of(leaf: _Leaf, x: Array, batch: int) -> Array:
    """Return an array of the carry from the memory of all programs."""
    if not leaf.is_batched:
        return x[: leaf.size].reshape(leaf.shape).astype(leaf.dtype)
    multiple = leaf.shape[0] // ROWS
    return x.reshape(-1, *leaf.shape[1:])[: batch * multiple].astype(leaf.dtype)


def _kernel(plan: _Plan, batch: int, length: int, *refs: Any) -> None:
    rest = list(refs)

    def take(count: int) -> list[Any]:
        taken = rest[:count]
        del rest[:count]
        return taken

    program = pl.program_id(0)
    start_constants = take(len(plan.start.constants))
    step_constants = take(len(plan.step.constants))
    inputs, xs = take(len(plan.inputs)), take(len(plan.xs))
    carry, results = take(len(plan.carry)), take(len(plan.results))
    scratch = Scratch()
    scratch.sizes, scratch.program = plan.scratch, program
    scratch.refs = dict(zip(plan.scratch, rest, strict=True))

    of_rows = partial(_places_in_rows, program)
    of_step = partial(_places_in_step, program, length)
    places = _Places(
        [Place(ref, lambda flat: flat) for ref in start_constants],
        [Place(ref, lambda flat: flat) for ref in step_constants],
        of_rows(inputs, plan.inputs, batch),
        of_rows(carry, plan.carry, None),
        partial(of_step, xs, plan.xs, batch),
        partial(of_step, results, plan.results, None),
    )
    _write_program(plan, scratch, places, length)


def _places_in_rows(
    program: Any, refs: Sequence[Any], leaves: Sequence[_Leaf], batch: int | None
) -> list[Place]:
    """Return places in arrays ``[B, ...]``; rows after the last of a batch are the last."""

    def position(leaf: _Leaf, last: int, flat: Any) -> Any:
        flat = program * leaf.size + flat
        return flat if batch is None else jnp.minimum(flat, last)

    pairs = zip(refs, leaves, strict=True)
    return [
        Place(ref, partial(position, leaf, ref.shape[0] - 1)) for ref, leaf in pairs
    ]


def _places_in_step(
    program: Any,
    length: int,
    refs: Sequence[Any],
    leaves: Sequence[_Leaf],
    batch: int | None,
    i: Any,
) -> list[Place]:
    """Return places of iteration i in arrays ``[B, N, ...]``, as ``_places_in_rows``."""

    def position(leaf: _Leaf, flat: Any) -> Any:
        inner = np.int32(size_of(leaf.shape[1:]))
        row = program * ROWS + lax.div(flat, inner)
        row = row if batch is None else jnp.minimum(row, batch - 1)
        return (row * length + i) * inner + lax.rem(flat, inner)

    pairs = zip(refs, leaves, strict=True)
    return [Place(ref, partial(position, leaf)) for ref, leaf in pairs]


def _swap_axes(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1)
