"""The selective scan (S6): one interface, several implementations of the same function.

    a_t = exp(dt_t A);   h_t = a_t h_{t-1} + dt_t u_t B_t;   y_t = <C_t, h_t>_N + D u_t

Gu and Dao 2023, *Mamba*, section 3.2, algorithm 2: zero-order hold for A, the first-order
(Euler) form for B. States, decays and sums are float32 or wider, whatever the inputs are: in
bfloat16 a slow decay of exp(-1e-3) rounds to 1.

Letters: Bt batch, L length, E channels (d_inner), N states a channel. States and A are (N, E), so that a sum
over N adds whole rows of channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jmarl.ssm.recompute import Tokens, make_plan, recompute_scan


class Choice(NamedTuple):
    """An implementation for a platform, and how it cuts its work."""

    impl: str
    tile_states: float = math.inf
    """State elements (rows x E x N) of a batch tile."""
    chunk: int = 16
    """Longest stretch of positions that the backward pass replays at once."""


CHOICES = {
    "cpu": Choice("xla", tile_states=2**15),
    "gpu": Choice("xla"),
    "tpu": Choice("xla"),
}
"""By platform. On a CPU the tile keeps a state within the second-level cache, and each operation
small enough that XLA does not spread it over threads; an accelerator wants the whole batch."""


def selective_scan(  # noqa: PLR0913 - the recurrence has six inputs
    u: Float[Array, "*b L E"],
    dt: Float[Array, "*b L E"],
    A: Float[Array, "N E"],
    B: Float[Array, "*b L N"],
    C: Float[Array, "*b L N"],
    D: Float[Array, " E"],
    *,
    h0: Float[Array, "*b N E"] | None = None,
    reset: Bool[Array, "*b L"] | None = None,
    impl: str = "auto",
) -> tuple[Float[Array, "*b L E"], Float[Array, "*b N E"]]:
    """Run the recurrence along L; differentiable in u, dt, A, B, C, D and h0.

    Leading axes (T B, say) are one batch. The last of them stays the major one, so that a batch
    sharded along B is computed where it lies.

    Args:
        u: input of the recurrence.
        dt: step size, positive.
        A: decay rate, negative.
        B: input projection of each position.
        C: readout of each position.
        D: skip connection.
        h0: state before position 0; zero when None.
        reset: a new sequence starts *at* this position: the state is zeroed before it.
        impl: ``ref`` (plain scan), ``assoc`` (associative scan over materialised states, the form
            of the published MAM code), ``xla`` (recomputing, tiled), ``auto`` (by platform).

    Returns:
        Outputs in the type of ``u``, and the last state in float32 or wider.

    Raises:
        ValueError: ``impl`` is none of these.
    """
    implementation = _implementation(impl)
    dtype = jnp.promote_types(u.dtype, jnp.float32)
    batch = u.shape[:-2]
    tokens = Tokens(
        *(_flat(jnp.asarray(x, dtype), batch) for x in (u, dt, B, C)), reset=None
    )
    if reset is not None:
        tokens = tokens._replace(reset=_flat(jnp.asarray(reset), batch)[..., None])
    state = None if h0 is None else _flat(jnp.asarray(h0, dtype), batch)
    y, h = implementation(tokens, jnp.asarray(A, dtype), jnp.asarray(D, dtype), state)
    return _unflat(y, batch).astype(u.dtype), _unflat(h, batch)


def selective_step(
    h: Float[Array, "*b N E"],
    u: Float[Array, "*b E"],
    dt: Float[Array, "*b E"],
    A: Float[Array, "N E"],
    B: Float[Array, "*b N"],
    C: Float[Array, "*b N"],
    D: Float[Array, " E"],
) -> tuple[Float[Array, "*b E"], Float[Array, "*b N E"]]:
    """One position of ``selective_scan``: the output and the new state."""
    dtype = h.dtype
    y, h = _advance(h, *(x.astype(dtype) for x in (u, dt, A, B, C, D)))
    return y.astype(u.dtype), h


def _advance(h, u, dt, A, B, C, D):
    h = jnp.exp(dt[..., None, :] * A) * h + (dt * u)[..., None, :] * B[..., None]
    return (h * C[..., None]).sum(-2) + D * u, h


def _reference(tokens: Tokens, A, D, h0):
    h0 = _zero_state(tokens, A) if h0 is None else h0

    def step(h, token: Tokens):
        if token.reset is not None:
            h = jnp.where(token.reset[..., None], 0.0, h)
        y, h = _advance(h, token.u, token.dt, A, token.B, token.C, D)
        return h, y

    h, y = lax.scan(step, h0, jax.tree.map(lambda x: x.swapaxes(0, 1), tokens))
    return y.swapaxes(0, 1), h


def _associative(tokens: Tokens, A, D, h0):
    a = jnp.exp(tokens.dt[..., None] * A.T)
    b = (tokens.dt * tokens.u)[..., None] * tokens.B[:, :, None, :]
    if tokens.reset is not None:
        a = jnp.where(tokens.reset[..., None], 0.0, a)
    if h0 is not None:
        b = b.at[:, 0].add(a[:, 0] * h0.swapaxes(1, 2))
    pair: Any = lax.associative_scan(
        lambda x, y: (y[0] * x[0], y[0] * x[1] + y[1]), (a, b), axis=1
    )
    h = pair[1]
    y = jnp.einsum("blen,bln->ble", h, tokens.C, precision=lax.Precision.HIGHEST)
    return y + D * tokens.u, h[:, -1].swapaxes(1, 2)


def _recomputing(tokens: Tokens, A, D, h0):
    h0 = _zero_state(tokens, A) if h0 is None else h0
    batch, length, _ = tokens.u.shape
    choice = CHOICES.get(jax.default_backend(), CHOICES["gpu"])
    tile = max(1, int(min(batch, choice.tile_states / A.size)))
    plan = make_plan(batch, length, tile=tile, chunk=choice.chunk)
    return recompute_scan(plan, tokens, A, D, h0)


def _zero_state(tokens: Tokens, A):
    return jnp.zeros((tokens.u.shape[0], *A.shape), tokens.u.dtype)


def _flat(x, batch: tuple[int, ...]):
    n = len(batch)
    return x.transpose(*reversed(range(n)), *range(n, x.ndim)).reshape(-1, *x.shape[n:])


def _unflat(x, batch: tuple[int, ...]):
    n = len(batch)
    x = x.reshape(*reversed(batch), *x.shape[1:])
    return x.transpose(*reversed(range(n)), *range(n, x.ndim))


_IMPLEMENTATIONS: dict[str, Callable] = {
    "ref": _reference,
    "assoc": _associative,
    "xla": _recomputing,
}


def _implementation(name: str) -> Callable:
    if name == "auto":
        name = CHOICES.get(jax.default_backend(), CHOICES["gpu"]).impl
    if name not in _IMPLEMENTATIONS:
        raise ValueError(
            f"unknown scan {name!r}: one of auto, {', '.join(_IMPLEMENTATIONS)}"
        )
    return _IMPLEMENTATIONS[name]
