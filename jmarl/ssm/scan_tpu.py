"""The selective scan as TPU kernels, forward and backward.

As XLA compiles it, each position is an iteration of a loop with a dozen kernels. Here a kernel runs
the sequences of ``LANES`` rows of the batch side by side, one in each lane of a vector register. A
tile of ``SUBLANES`` channels with all its states stays in registers along a block of positions. No
array over batch, length, channels and states exists: the forward pass saves the state before each
block, and the backward pass recomputes the states of one block and one tile at a time.

Letters in shapes: Bt batch, padded to lanes, L length, padded to blocks, E channels, N states per
channel, T positions of a block, K blocks. Arrays of the kernels have the batch as their last axis.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu
from jaxtyping import Array

from jmarl.platforms import arrays_are_local, platform
from jmarl.ssm.recompute import Tokens
from jmarl.ssm.scan_vjp import kernel_scan


LANES = 128
SUBLANES = 8
BLOCK_BYTES = 5 * 2**20
"""Most bytes of a block's inputs and outputs. Two blocks fit into 16 MiB of fast memory."""
MOST_STATES = 16
"""Most states N of a channel, of which three arrays fit into the registers."""
MOST_SIZE = 4096
"""Most states N E of a sequence."""


def has_tpu_kernel(states: int, channels: int) -> bool:
    """Return whether the kernels run a scan of these sizes, here: on a TPU, on local arrays.

    Args:
        states: States N of a channel.
        channels: Channels E.
    """
    is_tiled = channels % SUBLANES == 0
    is_small = states <= MOST_STATES and states * channels <= MOST_SIZE
    return platform() == "tpu" and is_tiled and is_small and arrays_are_local()


class _Blocks(NamedTuple):
    """Partition of batch and length, and the part of each array that a kernel reads at once."""

    states: int
    channels: int
    size: int
    """Positions T of a block."""
    count: int
    """Blocks K. The last one may exceed the length."""
    groups: int
    """Groups of ``LANES`` rows. The last one may exceed the batch."""
    backward: bool = False
    """Whether the kernel begins with the last block."""

    def of_tokens(self, x: Any) -> Any:
        """Return the blocks of an array ``[L, X, Bt]``."""
        shape = self.size, x.shape[1], LANES
        return pl.BlockSpec(shape, lambda group, i: (self._block(i), 0, group))

    def of_state(self, _: Any) -> Any:
        """Return the blocks of an array ``[N, E, Bt]``."""
        shape = self.states, self.channels, LANES
        return pl.BlockSpec(shape, lambda group, i: (0, 0, group))

    def of_starts(self, _: Any) -> Any:
        """Return the blocks of an array ``[K, N, E, Bt]``."""
        shape = None, self.states, self.channels, LANES
        return pl.BlockSpec(shape, lambda group, i: (self._block(i), 0, 0, group))

    def whole(self, x: Any) -> Any:
        """Return an array that every group reads, or adds to, as one block."""
        return pl.BlockSpec(x.shape, lambda group, i: (0,) * len(x.shape))

    def _block(self, i: Any) -> Any:
        return self.count - 1 - i if self.backward else i


def _make_blocks(batch: int, length: int, states: int, channels: int) -> _Blocks:
    # A backward pass reads u, dt, dy, B, C and resets, and writes the gradients of four of them.
    rows = 5 * channels + 4 * max(states, SUBLANES) + SUBLANES
    count = pl.cdiv(length, max(1, BLOCK_BYTES // (4 * rows * LANES)))
    size = pl.cdiv(length, count)
    groups = pl.cdiv(batch, LANES)
    return _Blocks(states, channels, size, pl.cdiv(length, size), groups)


def _run_forward(tokens: Tokens, A: Any, D: Any, h0: Any, *, save: bool) -> Any:
    """Return the outputs, the last state and, if there are several blocks, their first states."""
    batch, length, _ = tokens.u.shape
    blocks = _make_blocks(batch, length, *A.shape)
    inputs = _pack(blocks, tokens)
    first = None if h0 is None else _pack_rows(blocks, h0)
    state = _like(A, (*A.shape, blocks.groups * LANES))
    starts = None
    if save and blocks.count > 1:
        starts = _like(A, (blocks.count, *state.shape))
    y, last, starts = pl.pallas_call(
        functools.partial(_forward_kernel, blocks),
        out_shape=(_like(A, inputs.u.shape), state, starts),
        grid=(blocks.groups, blocks.count),
        in_specs=(
            jax.tree.map(blocks.of_tokens, inputs),
            *map(blocks.whole, _over_lanes(A, D)),
            jax.tree.map(blocks.of_state, first),
        ),
        out_specs=(
            blocks.of_tokens(inputs.u),
            blocks.of_state(state),
            jax.tree.map(blocks.of_starts, starts),
        ),
        compiler_params=_params("parallel"),
        name="selective_scan",
    )(inputs, *_over_lanes(A, D), first)
    y = y.transpose(2, 0, 1)[:batch, :length]
    return y, last.transpose(2, 0, 1)[:batch], starts


def _run_backward(
    tokens: Tokens, A: Any, D: Any, h0: Any, starts: Any, dy: Any, dh: Any
) -> Any:
    batch, length, _ = tokens.u.shape
    blocks = _make_blocks(batch, length, *A.shape)._replace(backward=True)
    inputs = _pack(blocks, tokens)
    dy = _pack_tokens(blocks, dy)
    dh = None if dh is None else _pack_rows(blocks, dh)
    if starts is None and h0 is not None:
        starts = _pack_rows(blocks, h0)[None]
    over_lanes = _over_lanes(A, D)
    token_grads = inputs._replace(reset=None)
    state = _like(A, (*A.shape, blocks.groups * LANES))
    dh0 = None if h0 is None else state
    grads, dh0, dA, dD = pl.pallas_call(
        functools.partial(_backward_kernel, blocks),
        out_shape=(
            jax.tree.map(lambda x: _like(A, x.shape), token_grads),
            dh0,
            *(_like(A, x.shape) for x in over_lanes),
        ),
        grid=(blocks.groups, blocks.count),
        in_specs=(
            jax.tree.map(blocks.of_tokens, inputs),
            *map(blocks.whole, over_lanes),
            jax.tree.map(blocks.of_starts, starts),
            blocks.of_tokens(dy),
            jax.tree.map(blocks.of_state, dh),
        ),
        out_specs=(
            jax.tree.map(blocks.of_tokens, token_grads),
            jax.tree.map(blocks.of_state, dh0),
            *map(blocks.whole, over_lanes),
        ),
        scratch_shapes=[
            tpu.VMEM((*A.shape, LANES), A.dtype),
            tpu.VMEM((blocks.size, len(A), SUBLANES, LANES), A.dtype),
        ],
        compiler_params=_params("arbitrary"),  # the groups add to one dA and one dD
        name="selective_scan_gradient",
    )(inputs, *over_lanes, starts, dy, dh)
    grads = jax.tree.map(lambda x: x.transpose(2, 0, 1)[:batch, :length], grads)
    if dh0 is not None:
        dh0 = dh0.transpose(2, 0, 1)[:batch]
    return grads, dA.sum(-1), dD.sum(-1), dh0


tpu_scan = kernel_scan(_run_forward, _run_backward)
"""Run the recurrence of ``selective_scan``: ``(tokens[Bt, L, X], A, D, h0) -> (y, last)``."""


def _params(groups: Literal["parallel", "arbitrary"]) -> Any:
    return tpu.CompilerParams(dimension_semantics=(groups, "arbitrary"))


def _like(x: Array, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _over_lanes(*arrays: Array) -> tuple[Array, ...]:
    """Return arrays with a copy for each lane."""
    return tuple(jnp.broadcast_to(x[..., None], (*x.shape, LANES)) for x in arrays)


def _pack(blocks: _Blocks, tokens: Tokens) -> Tokens:
    """Return tokens ``[L, X, Bt]``; the rows and positions of the padding change no state."""
    if tokens.reset is not None:
        tokens = tokens._replace(reset=tokens.reset.astype(tokens.u.dtype))
    return jax.tree.map(functools.partial(_pack_tokens, blocks), tokens)


def _pack_tokens(blocks: _Blocks, x: Array) -> Array:
    padding = blocks.size * blocks.count - x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    return _pack_rows(blocks, x)


def _pack_rows(blocks: _Blocks, x: Array) -> Array:
    """Move the batch to the last axis, and pad it."""
    padding = blocks.groups * LANES - len(x)
    return jnp.pad(x.transpose(1, 2, 0), ((0, 0), (0, 0), (0, padding)))


States = tuple[Array, ...]
"""The N states of a tile, ``[SUBLANES, LANES]`` each."""


class _Tile(NamedTuple):
    """References to a tile of channels: of ``SUBLANES`` channels, all states and positions."""

    tokens: Tokens
    A: Any
    rows: Any

    def load_states(self, ref: Any) -> States:
        """Return states from an array ``[N, E, LANES]``; zeros if it is None."""
        if ref is None:
            return tuple(jnp.zeros_like(x) for x in self.load_states(self.A))
        return tuple(ref[n, self.rows] for n in range(len(self.A)))

    def store_states(self, ref: Any, states: States) -> None:
        """Write states into an array ``[N, E, LANES]``."""
        for n, x in enumerate(states):
            ref[n, self.rows] = x

    def load(self, t: Any) -> Tokens:
        """Return the inputs of a position: B and C as a row ``[1, LANES]`` for each state.

        The field ``reset`` becomes what is kept of the state before: zero, or one.
        """
        u, dt, B, C, reset = self.tokens
        kept = None if reset is None else 1.0 - reset[t]

        def by_state(ref: Any) -> States:
            return tuple(ref[t, n : n + 1] for n in range(len(self.A)))

        at = t, self.rows
        return Tokens(u[at], dt[at], by_state(B), by_state(C), kept)

    def decay(self, token: Tokens, n: int) -> Array:
        """Return ``exp(dt A)`` of a state, or zero where a sequence starts."""
        a = jnp.exp(token.dt * self.A[n, self.rows])
        return a if token.reset is None else a * token.reset

    def advance(self, states: States, token: Tokens) -> States:
        """Return the states after a position."""
        drive = token.dt * token.u
        return tuple(
            self.decay(token, n) * h + drive * token.B[n] for n, h in enumerate(states)
        )


def _for_tiles(tokens: Tokens, A_: Any, body: Callable[[_Tile], None]) -> None:
    """Run ``body`` with each tile of channels."""

    def run(i: Any, carry: None) -> None:
        first = pl.multiple_of(i * SUBLANES, SUBLANES)
        body(_Tile(tokens, A_, pl.ds(first, SUBLANES)))
        return carry

    lax.fori_loop(0, A_.shape[1] // SUBLANES, run, None)


def _forward_kernel(blocks: _Blocks, *refs: Any) -> None:
    tokens, A_, D_, h0_, y_, last_, starts_ = refs

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        last_[...] = jnp.zeros_like(last_) if h0_ is None else h0_[...]

    # the last state of a block stays in fast memory until the group's last block
    if starts_ is not None:
        starts_[...] = last_[...]

    def run_tile(tile: _Tile) -> None:
        def run(t: Any, states: States) -> States:
            token = tile.load(t)
            states = tile.advance(states, token)
            y = D_[tile.rows] * token.u
            for h, C in zip(states, token.C, strict=True):
                y = y + h * C
            y_[t, tile.rows] = y
            return states

        states = lax.fori_loop(0, blocks.size, run, tile.load_states(last_))
        tile.store_states(last_, states)

    _for_tiles(tokens, A_, run_tile)


class _Gradient(NamedTuple):
    """References of a backward pass: gradients, and memory of a block."""

    D: Any
    starts: Any
    dy: Any
    grads: Tokens
    dA: Any
    dD: Any
    dh: Any
    """Gradient of the state after a position, ``[N, E, LANES]``."""
    before: Any
    """States before each position of a tile, ``[T, N, SUBLANES, LANES]``."""

    def run_tile(self, size: int, tile: _Tile) -> None:
        """Differentiate the positions of a block."""

        def recompute(t: Any, states: States) -> States:
            for n, h in enumerate(states):
                self.before[t, n] = h
            return tile.advance(states, tile.load(t))

        def differentiate(i: Any, carry: Any) -> Any:
            return self.differentiate(tile, size - 1 - i, *carry)

        lax.fori_loop(0, size, recompute, tile.load_states(self.starts))
        refs = self.dh, self.dA
        carry = *map(tile.load_states, refs), self.dD[tile.rows]
        *states, self.dD[tile.rows] = lax.fori_loop(0, size, differentiate, carry)
        for ref, values in zip(refs, states, strict=True):
            tile.store_states(ref, values)

    def differentiate(
        self, tile: _Tile, t: Any, dh: States, dA: States, dD: Array
    ) -> tuple[States, States, Array]:
        """Differentiate a position, as ``_backward_step`` of ``jmarl.ssm.recompute``."""
        token, dy = tile.load(t), self.dy[t, tile.rows]
        drive = token.dt * token.u
        d_drive = ddt = jnp.zeros_like(dy)
        dh_before, dA_after = [], []
        for n, (B, C) in enumerate(zip(token.B, token.C, strict=True)):
            before, a = self.before[t, n], tile.decay(token, n)
            dh_n = dh[n] + dy * C
            dh_before.append(a * dh_n)
            d_exponent = dh_before[n] * before  # of dt A
            dA_after.append(dA[n] + d_exponent * token.dt)
            d_drive = d_drive + dh_n * B
            ddt = ddt + d_exponent * tile.A[n, tile.rows]
            _add_row(self.grads.B, t, n, dh_n * drive)
            _add_row(self.grads.C, t, n, (a * before + drive * B) * dy)
        self.grads.u[t, tile.rows] = d_drive * token.dt + self.D[tile.rows] * dy
        self.grads.dt[t, tile.rows] = ddt + d_drive * token.u
        return tuple(dh_before), tuple(dA_after), dD + dy * token.u


def _backward_kernel(blocks: _Blocks, *refs: Any) -> None:
    tokens, A_, D_, starts_, dy_, dlast_, grads, dh0_, dA_, dD_, dh_, before_ = refs
    is_first = pl.program_id(1) == 0

    @pl.when(is_first)
    def _() -> None:
        dh_[...] = jnp.zeros_like(dh_) if dlast_ is None else dlast_[...]

    @pl.when(is_first & (pl.program_id(0) == 0))
    def _() -> None:
        dA_[...] = jnp.zeros_like(dA_)
        dD_[...] = jnp.zeros_like(dD_)

    for ref in (grads.B, grads.C):
        ref[...] = jnp.zeros_like(ref)
    gradient = _Gradient(D_, starts_, dy_, grads, dA_, dD_, dh_, before_)
    _for_tiles(tokens, A_, functools.partial(gradient.run_tile, blocks.size))
    if dh0_ is not None:
        dh0_[...] = dh_[...]


def _add_row(ref: Any, t: Any, n: int, x: Array) -> None:
    """Add the sum of a tile over its channels to a row of an array ``[T, N, LANES]``."""
    ref[t, n : n + 1] = ref[t, n : n + 1] + x.sum(0, keepdims=True)
