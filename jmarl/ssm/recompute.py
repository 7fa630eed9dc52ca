"""The selective scan with recomputed states: a custom VJP over batch tiles and time chunks.

In multi-agent learning the sequence is short (L agents, 3 to 128) and the batch is large. The scan
is therefore sequential in L and parallel over batch and channels. The forward pass saves only the
state at the start of each chunk. The backward pass recomputes the states of one chunk at a time
(Gu and Dao 2023, *Mamba*, arXiv:2312.00752, section 3.3.2) and runs through it in reverse.

Both passes run tile after tile, with tiles of the batch sized so that a state stays in the cache.
A scan body sees states [tile, N, E]. No array over batch, length, channels and states exists.

Letters in shapes: Bt batch, L length, E channels, N states per channel, b rows of a tile, X the
last axis of any token.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Plan(NamedTuple):
    """Partition of batch and length.

    ``tile * tiles`` may exceed the batch and ``chunk * chunks`` the length. The rest is padding.
    """

    tile: int
    """Rows of a tile."""
    tiles: int
    chunk: int
    """Positions of a chunk."""
    chunks: int


class Tokens(NamedTuple):
    """Inputs of each position, with leading axes [L, b] in a tile and [b] in a step."""

    u: Any
    """Input of the recurrence, [..., E]."""
    dt: Any
    """Discretization step, [..., E]."""
    B: Any
    """Input projection, [..., N]."""
    C: Any
    """Readout, [..., N]."""
    reset: Any
    """True where a sequence starts, [..., 1]; None if no sequence does."""


class _Cotangents(NamedTuple):
    """Carry of the backward pass: dL/dh from the later steps, and the sums for A and D.

    The sums stay separate for each row of a tile. A sum over rows in the loop would be a collective
    at every position if the batch is sharded over devices.
    """

    h: Any
    """[b, N, E]"""
    A: Any
    """[b, N, E]"""
    D: Any
    """[b, E]"""


def make_plan(batch: int, length: int, *, tile: int, chunk: int) -> Plan:
    """Partition a batch into tiles and a length into chunks.

    A tile that divides the batch is preferred, and among those a multiple of 8. A batch sharded
    over devices then stays on them. If there is no divisor near ``tile``, the batch is padded.

    Args:
        batch: Rows of the batch.
        length: Positions of the sequence.
        tile: Approximate rows of a tile.
        chunk: Most positions of a chunk.

    Returns:
        The partition.
    """
    rows = _tile_rows(batch, tile)
    chunks = _ceil_div(length, chunk)
    return Plan(
        tile=rows,
        tiles=_ceil_div(batch, rows),
        chunk=_ceil_div(length, chunks),
        chunks=chunks,
    )


def _tile_rows(batch: int, tile: int) -> int:
    if batch <= tile:
        return batch
    low = max(1, tile // 2)
    high = min(batch, max(1, tile + tile // 2))
    divisors = [rows for rows in range(low, high + 1) if batch % rows == 0]
    if divisors:
        return min(divisors, key=lambda rows: (rows % 8 != 0, abs(rows - tile)))
    return _ceil_div(batch, _ceil_div(batch, tile))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute_scan(plan: Plan, tokens: Tokens, A, D, h0):
    """Run the recurrence of ``selective_scan`` along L.

    E is the minor axis of the state, so that the sum over N in the readout vectorizes.

    Args:
        plan: Partition of batch and length.
        tokens: Inputs of all positions, [Bt, L, X].
        A: Decay rate, [N, E].
        D: Skip connection, [E].
        h0: State before position 0, [Bt, N, E].

    Returns:
        The outputs [Bt, L, E] and the last state [Bt, N, E].
    """
    outputs, _ = _forward(plan, tokens, A, D, h0)
    return outputs


def _forward(plan: Plan, tokens: Tokens, A, D, h0):
    shape = tokens.u.shape

    def tile(xs):
        tokens, h0 = xs
        return _forward_tile(tokens, h0, A, D)

    tiles = (_split_tokens(plan, tokens), _split_batch(plan, h0))
    # y [tiles, chunks, chunk, b, E], h [tiles, b, N, E], starts [tiles, chunks, b, N, E]
    y, h, starts = lax.map(tile, tiles)
    outputs = (_join_tokens(y, shape), _join_batch(h, shape[0]))
    return outputs, (tokens, A, D, starts)


def _backward(plan: Plan, residuals, cotangents):
    tokens, A, D, starts = residuals
    dy, dh = cotangents  # [Bt, L, E], [Bt, N, E]

    def tile(sums, xs):
        tokens, starts, dy, dh = xs
        carry = _Cotangents(dh, *sums)
        carry, grads = _backward_tile(tokens, starts, dy, carry, A, D)
        return (carry.A, carry.D), (grads, carry.h)

    tiles = (
        _split_tokens(plan, tokens),
        starts,
        _split_length(plan, dy),
        _split_batch(plan, dh),
    )
    # [b, N, E], [b, E]
    sums = jax.tree.map(lambda x: jnp.zeros((plan.tile, *x.shape), x.dtype), (A, D))
    (dA, dD), (grads, dh0) = lax.scan(tile, sums, tiles)
    shape = tokens.u.shape
    grads = [_join_tokens(grad, shape) for grad in grads]
    dA, dD = dA.sum(0), dD.sum(0)  # [N, E], [E]
    dh0 = _join_batch(dh0, shape[0])
    return Tokens(*grads, reset=None), dA, dD, dh0


recompute_scan.defvjp(_forward, _backward)


def _forward_tile(tokens: Tokens, h0, A, D):
    """Run one tile, with tokens [chunks, chunk, b, X] and h0 [b, N, E].

    Returns outputs [chunks, chunk, b, E], the last state [b, N, E], and the state before each chunk
    [chunks, b, N, E].
    """

    def step(h, token):
        h = _decay(token, A) * h + _drive(token)
        y = _sum_states(h * token.C[:, :, None]) + D * token.u
        return h, y

    def chunk(h, tokens):
        last, y = lax.scan(step, h, tokens)
        return last, (y, h)

    last, (y, starts) = lax.scan(chunk, h0, tokens)
    return y, last, starts


def _backward_tile(tokens: Tokens, starts, dy, carry: _Cotangents, A, D):
    """Run one tile in reverse, with the states of a chunk recomputed before it is differentiated.

    Returns the carry before position 0, and the gradients of u, dt, B and C.
    """

    def recompute(h, token):
        return _decay(token, A) * h + _drive(token), h

    def chunk(carry, xs):
        tokens, start, dy = xs
        _, before = lax.scan(recompute, start, tokens)  # [chunk, b, N, E]
        step = functools.partial(_backward_step, A, D)
        return lax.scan(step, carry, (tokens, dy, before), reverse=True)

    return lax.scan(chunk, carry, (tokens, starts, dy), reverse=True)


def _backward_step(A, D, carry: _Cotangents, xs):
    """Differentiate ``h = a h_before + drive B; y = <C, h> + D u``.

    Here ``a = exp(dt A)`` and ``drive = dt u``. ``dh`` is dL/dh at this position, so the position
    before receives ``a dh``.
    """
    token, dy, before = xs  # dy [b, E], before [b, N, E]
    a = _decay(token, A)  # [b, N, E]
    drive = token.dt * token.u  # [b, E]
    # [b, N, E]
    dh = dy[:, None, :] * token.C[:, :, None] + carry.h
    dh_before = a * dh
    d_exponent = dh_before * before  # of dt A
    # [b, N]
    dC = _sum_channels(a * before + _drive(token), dy)
    dB = _sum_channels(dh, drive)
    # [b, E]
    d_drive = _sum_states(dh * token.B[:, :, None])
    du = d_drive * token.dt + D * dy
    ddt = _sum_states(d_exponent * A) + d_drive * token.u
    dA = carry.A + d_exponent * token.dt[:, None, :]
    dD = carry.D + dy * token.u
    return _Cotangents(dh_before, dA, dD), (du, ddt, dB, dC)


def _decay(token: Tokens, A):
    """Return ``exp(dt A)``, or zero where a sequence starts: [b, N, E]."""
    a = jnp.exp(token.dt[:, None, :] * A)
    return a if token.reset is None else jnp.where(token.reset[:, :, None], 0.0, a)


def _drive(token: Tokens):
    """Return ``dt u B``: [b, N, E]."""
    return (token.dt * token.u)[:, None, :] * token.B[:, :, None]


def _sum_states(x):
    """Sum [b, N, E] over N."""
    # Term by term, in one loop over the channels. Under vmap, XLA's CPU backend hands a sum of this
    # shape to a library, and that call costs more than the rest of the step.
    return functools.reduce(jnp.add, (x[:, n] for n in range(x.shape[1])))


def _sum_channels(state, weight):
    """Sum ``state * weight`` over E: [b, N, E] and [b, E] to [b, N]."""
    # A contraction, because a plain sum over the minor axis does not vectorize on a CPU.
    return jnp.einsum("bne,be->bn", state, weight, precision=lax.Precision.HIGHEST)


def _split_tokens(plan: Plan, tokens: Tokens) -> Tokens:
    # Padding is all zero. With dt = 0 and no reset it leaves the state as it is.
    return jax.tree.map(lambda x: _split_length(plan, x), tokens)


def _split_length(plan: Plan, x):
    """Reshape [Bt, L, X] to [tiles, chunks, chunk, b, X]; rows of a tile lie ``tiles`` apart."""
    width = x.shape[-1]
    x = _pad(x, 0, plan.tile * plan.tiles)
    x = _pad(x, 1, plan.chunk * plan.chunks)
    x = x.reshape(plan.tile, plan.tiles, plan.chunks, plan.chunk, width)
    return x.transpose(1, 2, 3, 0, 4)


def _join_tokens(x, shape):
    """Undo ``_split_length``: [tiles, chunks, chunk, b, X] to [Bt, L, X]."""
    batch, length, _ = shape
    tiles, chunks, chunk, tile, width = x.shape
    x = x.transpose(3, 0, 1, 2, 4).reshape(tile * tiles, chunks * chunk, width)
    return x[:batch, :length]


def _split_batch(plan: Plan, h):
    """Reshape [Bt, N, E] to [tiles, b, N, E]."""
    h = _pad(h, 0, plan.tile * plan.tiles)
    return h.reshape(plan.tile, plan.tiles, *h.shape[1:]).swapaxes(0, 1)


def _join_batch(h, batch: int):
    """Undo ``_split_batch``: [tiles, b, N, E] to [Bt, N, E]."""
    return h.swapaxes(0, 1).reshape(-1, *h.shape[2:])[:batch]


def _pad(x, axis: int, size: int):
    if x.shape[axis] == size:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)
