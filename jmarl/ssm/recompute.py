"""The selective scan that keeps almost nothing: a custom VJP over batch tiles and time chunks.

In multi-agent learning the sequence is short (L agents, 3 to 128) and the batch is large, so the
scan runs sequentially in L and in parallel over batch and channels. The forward pass keeps the
state at the start of each chunk; the backward pass replays one chunk at a time and walks back
through it. Both treat one tile of the batch after another, sized so that its state stays in
the cache: a scan body sees (tile, N, E), and no array over batch, length, channels and states exists.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Plan(NamedTuple):
    """How batch and length are cut; each product may exceed its size, the rest being padding."""

    tile: int
    tiles: int
    chunk: int
    chunks: int


class Tokens(NamedTuple):
    """What each position brings. Leading axes ``(L, b)`` in a tile, ``(b,)`` in a step."""

    u: Any
    dt: Any
    B: Any
    C: Any
    reset: Any
    """One where a sequence starts, shape (..., 1); None where no sequence does."""


class _Cotangents(NamedTuple):
    """Carry of the backward walk: dL/dh through the next step, and the sums for A and D.

    The sums are kept apart for each row of a tile: a sum over rows in the loop would be a
    collective for every position of a batch that is sharded over devices.
    """

    h: Any
    A: Any
    D: Any


def make_plan(batch: int, length: int, *, tile: int, chunk: int) -> Plan:
    """Cut ``batch`` into tiles of about ``tile`` rows and ``length`` into chunks of at most ``chunk``.

    A tile that divides the batch is preferred, one that is a multiple of 8 above all, so that a
    batch that is sharded over devices stays on them; else the batch is padded.
    """
    low, high = max(1, tile // 2), max(1, tile + tile // 2)
    divisors = [d for d in range(low, min(high, batch) + 1) if batch % d == 0]
    if batch <= tile:
        rows = batch
    elif divisors:
        rows = min(divisors, key=lambda d: (d % 8 != 0, abs(d - tile)))
    else:
        rows = -(-batch // -(-batch // tile))
    chunks = -(-length // chunk)
    return Plan(
        tile=rows, tiles=-(-batch // rows), chunk=-(-length // chunks), chunks=chunks
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recompute_scan(plan: Plan, tokens: Tokens, A, D, h0):
    """Outputs and last state, from ``tokens`` (Bt, L, X), ``A`` (N, E), ``D`` (E,), ``h0`` (Bt, N, E).

    E is the minor axis of the state, so that the sum over N in the readout vectorizes.
    """
    return _forward(plan, tokens, A, D, h0)[0]


def _forward(plan: Plan, tokens: Tokens, A, D, h0):
    shape = tokens.u.shape
    tiles = (_split_tokens(plan, tokens), _split_batch(plan, h0))
    y, h, starts = lax.map(lambda tile: _forward_tile(tile[0], tile[1], A, D), tiles)
    return (_join_tokens(y, shape), _join_batch(h, shape[0])), (tokens, A, D, starts)


def _backward(plan: Plan, residuals, cotangents):
    tokens, A, D, starts = residuals
    dy, dh = cotangents

    def tile(sums, xs):
        tokens, starts, dy, dh = xs
        carry, grads = _backward_tile(tokens, starts, dy, _Cotangents(dh, *sums), A, D)
        return (carry.A, carry.D), (grads, carry.h)

    tiles = (
        _split_tokens(plan, tokens),
        starts,
        _split_length(plan, dy),
        _split_batch(plan, dh),
    )
    rows = jax.tree.map(lambda x: jnp.zeros((plan.tile, *x.shape), x.dtype), (A, D))
    (dA, dD), (grads, dh0) = lax.scan(tile, rows, tiles)
    shape = tokens.u.shape
    grads = [_join_tokens(g, shape) for g in grads]
    return Tokens(*grads, reset=None), dA.sum(0), dD.sum(0), _join_batch(dh0, shape[0])


recompute_scan.defvjp(_forward, _backward)


def _forward_tile(tokens: Tokens, h0, A, D):
    """One tile: outputs (chunks, chunk, b, E), last state, and the state before each chunk."""

    def step(h, token):
        h = _decay(token, A) * h + _drive(token)
        return h, _over_states(h * token.C[:, :, None]) + D * token.u

    def chunk(h, tokens):
        last, y = lax.scan(step, h, tokens)
        return last, (y, h)

    last, (y, starts) = lax.scan(chunk, h0, tokens)
    return y, last, starts


def _backward_tile(tokens: Tokens, starts, dy, carry: _Cotangents, A, D):
    """Walk one tile back, chunk by chunk."""

    def replay(h, token):
        return _decay(token, A) * h + _drive(token), h

    def chunk(carry, xs):
        tokens, start, dy = xs
        _, before = lax.scan(replay, start, tokens)
        return lax.scan(
            functools.partial(_step_back, A, D),
            carry,
            (tokens, dy, before),
            reverse=True,
        )

    return lax.scan(chunk, carry, (tokens, starts, dy), reverse=True)


def _step_back(A, D, carry: _Cotangents, xs):
    """Adjoint of one step; s is dL/dh at this position, and a s what flows to the one before."""
    token, dy, before = xs
    a = _decay(token, A)
    drive = token.dt * token.u
    s = dy[:, None, :] * token.C[:, :, None] + carry.h
    through = a * s
    q = through * before
    dC = _over_channels(a * before + _drive(token), dy)
    dB = _over_channels(s, drive)
    r = _over_states(s * token.B[:, :, None])
    du = r * token.dt + D * dy
    ddt = _over_states(q * A) + r * token.u
    dA = carry.A + q * token.dt[:, None, :]
    dD = carry.D + dy * token.u
    return _Cotangents(through, dA, dD), (du, ddt, dB, dC)


def _decay(token: Tokens, A):
    a = jnp.exp(token.dt[:, None, :] * A)
    return a if token.reset is None else jnp.where(token.reset[:, :, None], 0.0, a)


def _drive(token: Tokens):
    return (token.dt * token.u)[:, None, :] * token.B[:, :, None]


def _over_states(x):
    # Term by term, in one loop over the channels: under vmap, XLA's CPU backend hands a sum of this shape to a
    # library whose call costs more than the rest of the step.
    return functools.reduce(jnp.add, (x[:, n] for n in range(x.shape[1])))


def _over_channels(state, weight):
    # A product with the channels contracted: a plain sum over the minor axis would not vectorize on a CPU.
    return jnp.einsum("bne,be->bn", state, weight, precision=lax.Precision.HIGHEST)


def _split_tokens(plan: Plan, tokens: Tokens) -> Tokens:
    # Padding is all zero: dt = 0 and no reset leave the state as it is, so the last state needs no care.
    return jax.tree.map(lambda x: _split_length(plan, x), tokens)


def _split_length(plan: Plan, x):
    """(Bt, L, X) to (tiles, chunks, chunk, tile, X). Row i of a tile is i strides away from row 0."""
    width = x.shape[-1]
    x = _pad(_pad(x, 0, plan.tile * plan.tiles), 1, plan.chunk * plan.chunks)
    return x.reshape(plan.tile, plan.tiles, plan.chunks, plan.chunk, width).transpose(
        1, 2, 3, 0, 4
    )


def _join_tokens(x, shape):
    tiles, chunks, chunk, tile, width = x.shape
    return x.transpose(3, 0, 1, 2, 4).reshape(tile * tiles, chunks * chunk, width)[
        : shape[0], : shape[1]
    ]


def _split_batch(plan: Plan, h):
    h = _pad(h, 0, plan.tile * plan.tiles)
    return h.reshape(plan.tile, plan.tiles, *h.shape[1:]).swapaxes(0, 1)


def _join_batch(h, batch: int):
    return h.swapaxes(0, 1).reshape(-1, *h.shape[2:])[:batch]


def _pad(x, axis: int, size: int):
    if x.shape[axis] == size:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)
