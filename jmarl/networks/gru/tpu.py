"""The recurrence of a GRU over time as TPU kernels, forward and backward.

As XLA compiles it, a time step takes some twenty kernels forward and backward, which read and write
states and sums several times. Here a kernel runs ``ROWS`` rows (agents of environments) through all
time steps. The state and the weights stay in the fast memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array, Bool, Float

from jmarl.networks.gru.cell import Saved, update, update_gradients
from jmarl.platforms import arrays_are_local, platform


ROWS = 512
"""Rows of a block. Two blocks of each array and the weights fit into 16 MiB of fast memory."""
LANES = 128
"""Elements of a vector register's rows. A block of flags has a multiple of them, or all."""
WIDTHS = (LANES,)
"""Widths of a state: whole vector registers, whose blocks fit into the fast memory."""
Parts = tuple[Array, Array, Array]
"""Columns of r, z and the candidate, each ``[rows, H]``."""


def has_kernel(length: int, width: int) -> bool:
    """Return whether the kernels run a recurrence: on a TPU, over several steps, of these widths.

    With several devices, they run within ``shard_map``, as in ``learning.parallel``.
    """
    is_supported = length > 1 and width in WIDTHS
    return platform() == "tpu" and is_supported and arrays_are_local()


def forward(
    recurrent: Float[Array, "H 3H"],
    candidate_bias: Float[Array, " H"],
    carry: Float[Array, "R H"],
    gates: Float[Array, "T R 3H"],
    first: Bool[Array, "T R"],
) -> tuple[Float[Array, "T R H"], Saved]:
    """Return the states after each time step, and the arrays saved for the gradient."""
    blocks = _Blocks(*gates.shape[:2])
    bias = candidate_bias[None]
    like = jax.ShapeDtypeStruct((*gates.shape[:2], len(recurrent)), gates.dtype)
    out, *saved = pl.pallas_call(
        _forward_kernel,
        out_shape=[like] * 6,
        grid=blocks.grid,
        in_specs=[
            blocks.whole(recurrent),
            blocks.whole(bias),
            blocks.of_rows(carry),
            blocks.of_steps(gates),
            blocks.of_flags(),
        ],
        out_specs=[blocks.of_steps(like)] * 6,
        scratch_shapes=[tpu.VMEM((blocks.rows, len(recurrent)), gates.dtype)],
        compiler_params=_params(),
        name="gru",
    )(recurrent, bias, carry, gates, _flags(first, gates))
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
    steps, count, width = grad_out.shape
    blocks = _Blocks(steps, count, backward=True)
    kind = grad_out.dtype
    products = jax.ShapeDtypeStruct((steps, count, 3 * width), kind)
    like = jax.ShapeDtypeStruct(grad_out.shape, kind)
    of_steps = blocks.of_steps(grad_out)
    carry, products, candidate = pl.pallas_call(
        _backward_kernel,
        out_shape=[jax.ShapeDtypeStruct(grad_last.shape, kind), products, like],
        grid=blocks.grid,
        in_specs=[
            blocks.whole(recurrent),
            *[of_steps] * len(saved),
            blocks.of_flags(),
            blocks.of_rows(grad_last),
            of_steps,
        ],
        out_specs=[blocks.of_rows(grad_last), blocks.of_steps(products), of_steps],
        scratch_shapes=[tpu.VMEM((blocks.rows, width), kind)],
        compiler_params=_params(),
        name="gru_gradient",
    )(recurrent, *saved, _flags(first, grad_out), grad_last, grad_out)
    return carry, products, candidate


class _Blocks:
    """Blocks of rows, which a kernel runs through all time steps, one after another."""

    def __init__(self, steps: int, count: int, *, backward: bool = False) -> None:
        blocks = pl.cdiv(count, ROWS)
        most = pl.cdiv(pl.cdiv(count, blocks), LANES) * LANES
        self.rows = count if blocks == 1 else most
        self.grid = pl.cdiv(count, self.rows), steps
        self.last = steps - 1 if backward else None

    def of_steps(self, x: Any) -> Any:
        """Return the blocks of an array ``[T, R, F]``."""
        shape = None, self.rows, x.shape[-1]
        return pl.BlockSpec(shape, lambda block, i: (self._step(i), block, 0))

    def of_flags(self) -> Any:
        """Return the blocks of flags ``[T, 1, R]``."""
        shape = None, 1, self.rows
        return pl.BlockSpec(shape, lambda block, i: (self._step(i), 0, block))

    def of_rows(self, x: Any) -> Any:
        """Return the blocks of an array ``[R, F]``."""
        return pl.BlockSpec((self.rows, x.shape[-1]), lambda block, i: (block, 0))

    def whole(self, x: Any) -> Any:
        """Return an array that every block reads."""
        return pl.BlockSpec(x.shape, lambda block, i: (0, 0))

    def _step(self, i: Any) -> Any:
        return i if self.last is None else self.last - i


def _params() -> Any:
    return tpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))


def _flags(first: Bool[Array, "T R"], like: Array) -> Float[Array, "T 1 R"]:
    # with the rows along the lanes, because a column of flags would fill 128 lanes
    return first[:, None].astype(like.dtype)


def _reset(first: Any, x: Float[Array, "rows H"]) -> Float[Array, "rows H"]:
    """Return rows with zeros where their flag in a row ``[1, rows]`` is set."""
    flags = jnp.broadcast_to(first[...], x.shape[::-1]).T
    return jnp.where(flags > 0, 0.0, x)


def _product(
    x: Float[Array, "rows F"], kernel: Array, *, transposed: bool = False
) -> Float[Array, "rows ?"]:
    """Multiply in the precision of the context, which Mosaic knows as bfloat16 or float32."""
    precision = lax.Precision.HIGHEST
    if jax.default_matmul_precision.value == "bfloat16":
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
        precision = lax.Precision.DEFAULT
    axes = ((1,), (int(transposed),)), ((), ())
    kind = jnp.float32
    return lax.dot_general(x, kernel, axes, precision, preferred_element_type=kind)


def _split(x: Float[Array, "rows 3H"]) -> Parts:
    r, z, n = jnp.split(x, 3, axis=-1)
    return r, z, n


def _forward_kernel(*refs: Any) -> None:
    recurrent, bias, carry, gates, first, *outputs, state = refs

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        state[...] = carry[...]

    hidden = _reset(first, state[...])
    products = _split(_product(hidden, recurrent[...]))
    after, saved = update(hidden, _split(gates[...]), products, bias[...])
    state[...] = after
    for ref, x in zip(outputs, (after, *saved), strict=True):
        ref[...] = x


def _backward_kernel(*refs: Any) -> None:
    recurrent, *saved, first, last, out = refs[:9]
    grad_carry, grad_products, grad_candidate, grad_after = refs[9:]

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        grad_after[...] = last[...]

    step = Saved(*(ref[...] for ref in saved))
    grad = out[...] + grad_after[...]
    grad_n, grads = update_gradients(grad, step)
    grad_re = jnp.concatenate(grads, axis=-1)
    before = grad * step.z + _product(grad_re, recurrent[...], transposed=True)
    grad_after[...] = _reset(first, before)
    grad_candidate[...] = grad_n
    grad_products[...] = grad_re
    grad_carry[...] = grad_after[...]
