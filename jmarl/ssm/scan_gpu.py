"""The selective scan as GPU kernels, forward and backward.

As XLA compiles it, each position takes some fifty kernels forward and backward. Here one program of
a kernel runs whole sequences of the batch, one after another. The state of a sequence stays in
registers. No array over batch, length, channels and states exists: the forward pass saves the state
before each segment of ``SEGMENT`` blocks, of which short sequences have one. The backward pass
recomputes the states of one block of positions at a time.

Letters in shapes: Bt batch, L length, E channels, N states per channel, S segments, P programs.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from jmarl.platforms import arrays_are_local, has_gpu_kernels
from jmarl.ssm.recompute import Tokens
from jmarl.ssm.scan_vjp import kernel_scan


BLOCK = 5
"""Most positions of a block, of which a program keeps all states in registers."""
SEGMENT = 3
"""Blocks of a segment. More save memory, fewer save recomputation."""
PROGRAMS = 1024
"""Most programs. Each writes its own sums of the gradients of A and D."""
PER_THREAD = 16
"""States of a thread. Four arrays of them and those of a block fit into its registers."""
MOST_STATES = 4096
"""Most states N E of a sequence, 16 for each of 256 threads."""
WARP = 32


class Sums(NamedTuple):
    """Sums of gradients over the sequences of a program."""

    A: Any
    """[N, E]"""
    D: Any
    """[E]"""


def has_gpu_kernel(states: int, channels: int) -> bool:
    """Return whether the kernels run a scan of these sizes, here: on a GPU, on local arrays.

    Args:
        states: States N of a channel.
        channels: Channels E.
    """
    sizes = states, channels
    is_tile = all(size & (size - 1) == 0 for size in sizes) and states <= WARP
    is_supported = is_tile and WARP <= states * channels <= MOST_STATES
    return has_gpu_kernels() and is_supported and arrays_are_local()


def _run_forward(tokens: Tokens, A: Any, D: Any, h0: Any, *, save: bool) -> Any:
    """Return the outputs, the last state and, if there are several segments, their starts."""
    blocks = _make_blocks(tokens.u.shape[1])
    batch, dtype = len(tokens.u), tokens.u.dtype
    starts = None
    if save and blocks.segments > 1:
        starts = jax.ShapeDtypeStruct((batch, blocks.segments, *A.shape), dtype)
    outputs = (
        jax.ShapeDtypeStruct(tokens.u.shape, dtype),
        jax.ShapeDtypeStruct((batch, *A.shape), dtype),
        starts,
    )
    return _call(_forward_kernel, tokens, A, outputs)(tokens, A, D, h0)


def _run_backward(
    tokens: Tokens, A: Any, D: Any, h0: Any, starts: Any, dy: Any, dh: Any
) -> Any:
    if starts is None and h0 is not None:
        starts = h0[:, None]
    programs = _programs(len(tokens.u))

    def like(x: Array, *before: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*before, *x.shape), x.dtype)

    outputs = (
        jax.tree.map(like, tokens._replace(reset=None)),
        None if h0 is None else like(h0),
        Sums(like(A, programs), like(D, programs)),
    )
    call = _call(_backward_kernel, tokens, A, outputs)
    grads, dh0, sums = call(tokens, A, D, starts, dy, dh)
    dA, dD = (x.sum(0) for x in sums)
    return grads, dA, dD, dh0


gpu_scan = kernel_scan(_run_forward, _run_backward)
"""Run the recurrence of ``selective_scan``: ``(tokens[Bt, L, X], A, D, h0) -> (y, last)``."""


class _Blocks(NamedTuple):
    """Partition of the positions. The last block may exceed the length."""

    length: int
    size: int
    """Positions of a block."""
    count: int
    segments: int

    def exists(self, t: Any) -> Any:
        """Return whether position ``t`` exists; None if every one does."""
        return None if self.size * self.count == self.length else t < self.length


def _make_blocks(length: int) -> _Blocks:
    count = pl.cdiv(length, BLOCK)
    size = pl.cdiv(length, count)
    count = pl.cdiv(length, size)
    return _Blocks(length, size, count, segments=pl.cdiv(count, SEGMENT))


def _programs(batch: int) -> int:
    return min(batch, PROGRAMS)


def _warps(states: int, channels: int) -> int:
    return max(1, states * channels // (PER_THREAD * WARP))


def _call(kernel: Any, tokens: Tokens, A: Array, outputs: Any) -> Any:
    batch, length, _ = tokens.u.shape
    return pl.pallas_call(
        functools.partial(kernel, _make_blocks(length), batch),
        out_shape=outputs,
        grid=(_programs(batch),),
        compiler_params=triton.CompilerParams(num_warps=_warps(*A.shape), num_stages=1),
        name="selective_scan",
    )


class _Tile:
    """Reads and writes of a sequence's arrays as parts of a tile of its states.

    The tile of the states [N, E] is [n, e, nt, et]. Triton spreads the last two axes over the
    threads of a warp and the second over warps. So a thread has four states of some channels, and
    sums over states and over channels both take few exchanges between threads.
    """

    def __init__(self, states: int, channels: int) -> None:
        threads = max(1, states // 4)
        columns = min(channels, WARP // threads)
        self.channels = channels
        self.shape = (states // threads, channels // columns, threads, columns)

    def load(self, ref: Any, *before: Any) -> Array:
        """Return an array ``[N, E]`` as a tile."""
        return triton.load(ref.at[(*before, *self._index())])

    def store(self, ref: Any, x: Array, *before: Any, mask: Any = None) -> None:
        """Write a tile as an array ``[N, E]``."""
        triton.store(ref.at[(*before, *self._index())], x, mask=mask)

    def load_states(self, ref: Any, *before: Any, mask: Any) -> Array:
        """Return an array ``[N]`` as ``[n, 1, nt, 1]``."""
        index = self._states((self.shape[0], self.shape[2]), (0, 1))
        return _load(ref, (*before, index), mask)[:, None, :, None]

    def store_states(self, ref: Any, x: Array, *before: Any, mask: Any) -> None:
        """Write ``[n, 1, nt, 1]`` as an array ``[N]``."""
        # All threads write, some of them the same: then x stays in the registers where it is.
        n, _, threads, columns = self.shape
        shape = n, _warps(n * threads, self.channels), threads, columns
        index = self._states(shape, (0, 2))
        triton.store(ref.at[(*before, index)], jnp.broadcast_to(x, shape), mask=mask)

    def load_channels(self, ref: Any, *before: Any, mask: Any = None) -> Array:
        """Return an array ``[E]`` as ``[e, nt, et]``, equal along ``nt``."""
        index = self._channels(self.shape[1:], (0, 2))
        return _load(ref, (*before, index), mask)

    def store_channels(
        self, ref: Any, x: Array, *before: Any, mask: Any = None
    ) -> None:
        """Write ``[e, nt, et]``, equal along ``nt``, as an array ``[E]``."""
        index = self._channels(x.shape, (0, 2))
        triton.store(ref.at[(*before, index)], x, mask=mask)

    def sum_states(self, x: Array) -> Array:
        """Sum a tile over N: ``[e, nt, et]``, equal along ``nt``."""
        total = x.sum(0).sum(1)  # [e, et]
        return jnp.broadcast_to(total[:, None], self.shape[1:])

    def sum_channels(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Sum two tiles over E: ``[n, 1, nt, 1]`` each."""
        # One sum of both over warps takes half as many exchanges as two.
        both = jnp.stack([a, b], -1).sum(1).sum(2)  # [n, nt, 2]
        first = lax.broadcasted_iota(jnp.int32, both.shape, 2) == 0
        parts = (jnp.where(x, both, 0.0).sum(-1) for x in (first, ~first))
        a, b = (x[:, None, :, None] for x in parts)
        return a, b

    def _index(self) -> tuple[Array, Array]:
        return self._states(self.shape, (0, 2)), self._channels(self.shape, (1, 3))

    def _states(self, shape: tuple[int, ...], axes: tuple[int, int]) -> Array:
        return _flat_index(shape, axes, self.shape[2])

    def _channels(self, shape: tuple[int, ...], axes: tuple[int, int]) -> Array:
        return _flat_index(shape, axes, self.shape[3])


def _load(ref: Any, index: tuple[Any, ...], mask: Any) -> Array:
    other = None if mask is None else jnp.zeros((), ref.dtype)
    return triton.load(ref.at[index], mask=mask, other=other)


def _flat_index(shape: tuple[int, ...], axes: tuple[int, int], size: int) -> Array:
    major, minor = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in axes)
    # With a sum, Triton would see that the elements are adjacent, and would exchange them between
    # threads after each load to read several at once.
    return major * size | minor


class _Scan:
    """The recurrence of one sequence, in a kernel."""

    def __init__(self, blocks: _Blocks, tokens: Tokens, A_: Any, D_: Any) -> None:
        self.blocks = blocks
        self.tile = _Tile(*A_.shape)
        self.tokens = tokens
        self.A = self.tile.load(A_)
        self.D = self.tile.load_channels(D_)

    def positions(self, block: Any) -> list[Any]:
        """Return the positions of a block."""
        return [block * self.blocks.size + i for i in range(self.blocks.size)]

    def load(self, row: Any, t: Any) -> Tokens:
        """Return the inputs of a position; zeros, which change no state, after the last one."""
        mask = self.blocks.exists(t)
        u, dt, B, C, reset = self.tokens
        tile = self.tile
        return Tokens(
            u=tile.load_channels(u, row, t, mask=mask),
            dt=tile.load_channels(dt, row, t, mask=mask),
            B=tile.load_states(B, row, t, mask=mask),
            C=tile.load_states(C, row, t, mask=mask),
            reset=None if reset is None else _load(reset, (row, t, jnp.int32(0)), mask),
        )

    def decay(self, token: Tokens) -> Array:
        """Return ``exp(dt A)``, or zero where a sequence starts, as a tile."""
        a = jnp.exp(token.dt[None] * self.A)
        return a if token.reset is None else jnp.where(token.reset, 0.0, a)

    def advance(self, h: Array, token: Tokens) -> Array:
        """Return the state after a position, as a tile."""
        drive = (token.dt * token.u)[None] * token.B
        return self.decay(token) * h + drive


def _for_rows(batch: int, body: Any, init: Any) -> Any:
    """Fold ``body(row, carry)`` over the sequences of this program."""
    programs = _programs(batch)
    first = pl.program_id(0)
    count = lax.div(batch - 1 - first, programs) + 1

    def step(i: Any, carry: Any) -> Any:
        return body(first + i * programs, carry)

    return lax.fori_loop(0, count, step, init)


def _forward_kernel(blocks: _Blocks, batch: int, *refs: Any) -> None:
    tokens, A_, D_, h0_, y_, last_, starts_ = refs
    scan = _Scan(blocks, tokens, A_, D_)
    tile = scan.tile

    def run_row(row: Any, done: Any) -> Any:
        def run_block(i: Any, h: Array) -> Array:
            if starts_ is not None:
                is_start = lax.rem(i, SEGMENT) == 0
                tile.store(starts_, h, row, lax.div(i, SEGMENT), mask=is_start)
            positions = scan.positions(i)
            inputs = [scan.load(row, t) for t in positions]
            for t, token in zip(positions, inputs, strict=True):
                h = scan.advance(h, token)
                y = tile.sum_states(h * token.C) + scan.D * token.u
                tile.store_channels(y_, y, row, t, mask=blocks.exists(t))
            return h

        h = jnp.zeros_like(scan.A) if h0_ is None else tile.load(h0_, row)
        tile.store(last_, lax.fori_loop(0, blocks.count, run_block, h), row)
        return done + 1

    _for_rows(batch, run_row, 0)


def _backward_kernel(blocks: _Blocks, batch: int, *refs: Any) -> None:
    tokens, A_, D_, starts_, dy_, dh_, grads_, dh0_, sums_ = refs
    scan = _Gradient(blocks, tokens, A_, D_, starts_, dy_, grads_)
    tile = scan.tile

    def run_row(row: Any, sums: Sums) -> Sums:
        def run_block(i: Any, carry: Any) -> Any:
            return scan.run_block(row, blocks.count - 1 - i, carry)

        dh = jnp.zeros_like(scan.A) if dh_ is None else tile.load(dh_, row)
        dh, sums = lax.fori_loop(0, blocks.count, run_block, (dh, sums))
        if dh0_ is not None:
            tile.store(dh0_, dh, row)
        return sums

    zero = Sums(jnp.zeros_like(scan.A), jnp.zeros_like(scan.D))
    sums = _for_rows(batch, run_row, zero)
    program = pl.program_id(0)
    tile.store(sums_.A, sums.A, program)
    tile.store_channels(sums_.D, sums.D, program)


class _Gradient(_Scan):
    """The gradient of the recurrence of one sequence, in a kernel."""

    def __init__(
        self,
        blocks: _Blocks,
        tokens: Tokens,
        A_: Any,
        D_: Any,
        starts: Any,
        dy: Any,
        grads: Tokens,
    ) -> None:
        super().__init__(blocks, tokens, A_, D_)
        self.starts = starts
        self.dy = dy
        self.grads = grads

    def run_block(self, row: Any, block: Any, carry: Any) -> Any:
        """Differentiate the positions of a block; ``carry`` is dL/dh after it, and the sums."""
        before = [self._start(row, block)]
        positions = self.positions(block)
        for t in positions[:-1]:
            before.append(self.advance(before[-1], self.load(row, t)))
        for t, h in zip(reversed(positions), reversed(before), strict=True):
            carry = self._differentiate(row, t, h, carry)
        return carry

    def _start(self, row: Any, block: Any) -> Array:
        """Return the state before a block, from that before its segment."""
        segment = lax.div(block, SEGMENT)
        h = jnp.zeros_like(self.A)
        if self.starts is not None:
            h = self.tile.load(self.starts, row, segment)

        def run_block(i: Any, h: Array) -> Array:
            for token in [self.load(row, t) for t in self.positions(i)]:
                h = self.advance(h, token)
            return h

        return lax.fori_loop(segment * SEGMENT, block, run_block, h)

    def _differentiate(self, row: Any, t: Any, before: Array, carry: Any) -> Any:
        """Differentiate a position, as ``_backward_step`` of ``jmarl.ssm.recompute``."""
        tile, grads, mask = self.tile, self.grads, self.blocks.exists(t)
        dh, sums = carry
        token = self.load(row, t)
        dy = tile.load_channels(self.dy, row, t, mask=mask)  # [e, nt, et]
        drive = token.dt * token.u
        # [n, e, nt, et]
        a = self.decay(token)
        dh = dh + dy[None] * token.C
        dh_before = a * dh
        d_exponent = dh_before * before  # of dt A
        h = a * before + drive[None] * token.B
        # [e, nt, et]
        d_drive = tile.sum_states(dh * token.B)
        du = d_drive * token.dt + self.D * dy
        ddt = tile.sum_states(d_exponent * self.A) + d_drive * token.u
        # [n, 1, nt, 1]
        dB, dC = tile.sum_channels(dh * drive[None], h * dy[None])
        tile.store_channels(grads.u, du, row, t, mask=mask)
        tile.store_channels(grads.dt, ddt, row, t, mask=mask)
        tile.store_states(grads.B, dB, row, t, mask=mask)
        tile.store_states(grads.C, dC, row, t, mask=mask)
        sums = Sums(sums.A + d_exponent * token.dt[None], sums.D + dy * token.u)
        return dh_before, sums
