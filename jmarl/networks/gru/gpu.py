"""The recurrence of a GRU over time as GPU kernels, forward and backward.

As XLA compiles it, each time step takes some twenty kernels forward and backward. Here one program
of a kernel runs some rows (agents of environments) through all time steps. The state stays in
registers. The weights are read again in each step.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Bool, Float

from jmarl.networks.gru.cell import Saved, update, update_gradients
from jmarl.platforms import arrays_are_local, has_gpu_kernels


ROWS = 16
"""Rows of a program. Triton's matrix products need at least 16."""
WIDTHS = (16, 32, 64, 128)
"""Widths of a state. XLA takes a minute to compile wider ones."""
DEPTH = 32
"""Most columns of a factor in a product, so that the weights fit into shared memory."""
WARPS = 8


def has_kernel(length: int, width: int) -> bool:
    """Return whether the kernels run a recurrence: on a GPU, over several steps, of these widths.

    With several devices, they run within ``shard_map``, as in ``learning.parallel``.
    """
    is_supported = length > 1 and width in WIDTHS
    return has_gpu_kernels() and is_supported and arrays_are_local()


def forward(
    recurrent: Float[Array, "H 3H"],
    candidate_bias: Float[Array, " H"],
    carry: Float[Array, "R H"],
    gates: Float[Array, "T R 3H"],
    first: Bool[Array, "T R"],
) -> tuple[Float[Array, "T R H"], Saved]:
    """Return the states after each time step, and the arrays saved for the gradient."""
    shape = (*gates.shape[:2], len(recurrent))
    like = jax.ShapeDtypeStruct(shape, gates.dtype)
    out, *saved = _call(_forward_kernel, [like] * 6, shape)(
        recurrent, candidate_bias, carry, gates, first
    )
    return out, Saved(*saved)


def backward(
    recurrent: Float[Array, "H 3H"],
    saved: Saved,
    first: Bool[Array, "T R"],
    grad_last: Float[Array, "R H"],
    grad_out: Float[Array, "T R H"],
) -> tuple[Float[Array, "R H"], Float[Array, "T R 3H"], Float[Array, "T R H"]]:
    """Return gradients: of the carry, of the products with ``recurrent``, of the candidate.

    The last two are before the nonlinearities.
    """
    shape = grad_out.shape
    steps, rows, width = shape
    kind = grad_out.dtype
    outputs = [
        jax.ShapeDtypeStruct((rows, width), kind),
        jax.ShapeDtypeStruct((steps, rows, 3 * width), kind),
        jax.ShapeDtypeStruct(shape, kind),
    ]
    call = _call(_backward_kernel, outputs, shape)
    carry, products, candidate = call(recurrent, *saved, first, grad_last, grad_out)
    return carry, products, candidate


def _call(kernel: Any, outputs: list[Any], shape: tuple[int, ...]) -> Any:
    return pl.pallas_call(
        functools.partial(kernel, shape),
        out_shape=outputs,
        grid=(pl.cdiv(shape[1], ROWS),),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        name="gru",
    )


class _Rows:
    """Reads and writes of the rows of a program, in arrays ``[..., R, parts x H]``."""

    def __init__(self, count: int, width: int) -> None:
        self.start = pl.program_id(0) * ROWS
        self.count = count
        self.width = width

    def load(self, ref: Any, *before: Any, part: int = 0) -> Float[Array, "rows H"]:
        """Return a part of the columns, ``[ROWS, H]``."""
        return self._load(ref, before, part * self.width, self.width)

    def load_flag(self, ref: Any, t: Any) -> Bool[Array, "rows H"]:
        """Return flags ``[T, R]`` of a time step, for every column."""
        row, _ = self._index(0, self.width)
        exists = row < self.count
        return triton.load(ref.at[t, row], mask=exists, other=jnp.array(False))

    def store(self, ref: Any, x: Array, *before: Any, part: int = 0) -> None:
        """Write ``[ROWS, H]``, the reverse of ``load``."""
        row, column = self._index(part * self.width, self.width)
        triton.store(ref.at[(*before, row, column)], x, mask=row < self.count)

    def product(
        self, ref: Any, t: Any, weights: Any, *, part: int, transposed: bool
    ) -> Float[Array, "rows H"]:
        """Multiply rows that were stored with the weights of a gate.

        Args:
            ref: Rows; those of the gate if ``transposed``.
            t: Time step.
            weights: ``[H, 3H]``.
            part: Gate, whose weights are ``[H, H]``.
            transposed: Multiply with the transpose.
        """
        width, depth = self.width, min(self.width, DEPTH)
        start = part * width
        total = jnp.zeros((ROWS, width))
        for k in range(0, width, depth):
            x = self._load(ref, (t,), k + start * transposed, depth)
            inner, outer = (depth, width) if not transposed else (width, depth)
            row = lax.broadcasted_iota(jnp.int32, (inner, outer), 0)
            column = lax.broadcasted_iota(jnp.int32, (inner, outer), 1) + start
            if transposed:
                total += jnp.dot(x, triton.load(weights.at[row, column + k]).T)
            else:
                total += jnp.dot(x, triton.load(weights.at[row + k, column]))
        return total

    def _index(self, start: int, size: int) -> tuple[Array, Array]:
        row = lax.broadcasted_iota(jnp.int32, (ROWS, size), 0)
        column = lax.broadcasted_iota(jnp.int32, (ROWS, size), 1)
        return row + self.start, column + start

    def _load(self, ref: Any, before: tuple[Any, ...], start: int, size: int) -> Array:
        row, column = self._index(start, size)
        other = jnp.zeros((), ref.dtype)
        index = (*before, row, column)
        return triton.load(ref.at[index], mask=row < self.count, other=other)


def _forward_kernel(shape: tuple[int, ...], *refs: Any) -> None:
    recurrent, candidate_bias, carry, gates, first, *outputs = refs
    hidden_ = outputs[-1]
    steps, count, width = shape
    rows = _Rows(count, width)
    column = lax.broadcasted_iota(jnp.int32, (ROWS, width), 1)
    bias = triton.load(candidate_bias.at[column])

    def step(t: Array, hidden: Array) -> Array:
        hidden = jnp.where(rows.load_flag(first, t), 0.0, hidden)
        rows.store(hidden_, hidden, t)
        triton.debug_barrier()  # before other threads read it
        # [ROWS, H] each
        products = [
            rows.product(hidden_, t, recurrent, part=i, transposed=False)
            for i in range(3)
        ]
        inputs = [rows.load(gates, t, part=i) for i in range(3)]
        after, saved = update(hidden, inputs, products, bias)
        for ref, x in zip(outputs[:-1], (after, *saved[:-1]), strict=True):
            rows.store(ref, x, t)
        return after

    lax.fori_loop(0, steps, step, rows.load(carry))


def _backward_kernel(shape: tuple[int, ...], *refs: Any) -> None:
    recurrent, *saved_ = refs[:6]
    first, last, out, grad_carry, grad_products, grad_candidate = refs[6:]
    steps, count, width = shape
    rows = _Rows(count, width)

    def step(i: Array, grad_after: Array) -> Array:
        t = steps - 1 - i
        saved = Saved(*(rows.load(ref, t) for ref in saved_))
        grad = rows.load(out, t) + grad_after
        grad_n, grads = update_gradients(grad, saved)
        rows.store(grad_candidate, grad_n, t)
        for part, x in enumerate(grads):
            rows.store(grad_products, x, t, part=part)
        triton.debug_barrier()  # before other threads read them
        before = grad * saved.z
        for part in range(3):
            before += rows.product(
                grad_products, t, recurrent, part=part, transposed=True
            )
        return jnp.where(rows.load_flag(first, t), 0.0, before)

    rows.store(grad_carry, lax.fori_loop(0, steps, step, rows.load(last)))
