"""The selective scan (S6): one interface, several implementations of the same function.

    a_t = exp(dt_t A);   h_t = a_t h_{t-1} + dt_t u_t B_t;   y_t = <C_t, h_t>_N + D u_t

Gu and Dao 2023, *Mamba* (arXiv:2312.00752), section 3.2, algorithm 2. A is discretized by the
zero-order hold (eq. 4), B by the first-order (Euler) form. States, decays and sums are float32 or
wider for every input type: in bfloat16 a slow decay of exp(-1e-3) rounds to 1.

Letters in shapes: Bt batch, L length, E channels (d_inner), N states per channel. States and A are
[N, E], so that a sum over N adds whole rows of channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jmarl.platforms import platform
from jmarl.ssm.recompute import Tokens, make_plan, recompute_scan
from jmarl.ssm.scan_gpu import gpu_scan, has_gpu_kernel
from jmarl.ssm.scan_tpu import has_tpu_kernel, tpu_scan


class PlatformDefaults(NamedTuple):
    """Implementation and tile sizes of the scan on a platform."""

    impl: str
    tile_states: float = math.inf
    """State elements (rows x E x N) of a batch tile."""
    chunk: int = 16
    """Most positions that the backward pass recomputes at once."""


PLATFORM_DEFAULTS = {
    "cpu": PlatformDefaults("xla", tile_states=2**15),
    "gpu": PlatformDefaults("xla"),
    "tpu": PlatformDefaults("xla"),
}
"""Defaults by platform. On a CPU, the state of a tile fits into the second-level cache, and each
operation is too small for XLA to spread over threads. On accelerators one tile is the whole
batch. Shapes that a kernel supports use it instead."""


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

    Leading axes (for example T B) are merged into one batch. The last of them becomes the major
    axis of the batch, so that rows sharded along it stay on their devices.

    Args:
        u: Input of the recurrence.
        dt: Discretization step, positive.
        A: Decay rate, negative.
        B: Input projection of each position.
        C: Readout of each position.
        D: Skip connection.
        h0: State before position 0; zero if None.
        reset: True where a new sequence starts. The state is zeroed *before* this position.
        impl: ``ref`` (plain scan), ``assoc`` (associative scan over materialized states, as in the
            published MAM code), ``xla`` (tiled, recomputes states in the backward pass),
            ``gpu_kernel`` or ``tpu_kernel`` (one kernel in each direction), or ``auto`` (the kernel
            of the platform where it is supported, else the platform's default).

    Returns:
        Outputs in the type of ``u``, and the last state in float32 or wider.

    Raises:
        ValueError: If ``impl`` is unknown.
    """
    name = _choose(impl, A.shape)
    dtype = jnp.promote_types(u.dtype, jnp.float32)
    batch = u.shape[:-2]
    order = _batch_order(name, len(batch))
    rows = (_merge_batch(jnp.asarray(x, dtype), order) for x in (u, dt, B, C))
    tokens = Tokens(*rows, reset=None)
    if reset is not None:
        starts = _merge_batch(jnp.asarray(reset), order)
        tokens = tokens._replace(reset=starts[..., None])
    state = None if h0 is None else _merge_batch(jnp.asarray(h0, dtype), order)
    implementation = _IMPLEMENTATIONS[name]
    y, h = implementation(tokens, jnp.asarray(A, dtype), jnp.asarray(D, dtype), state)
    y = _split_batch(y, batch, order).astype(u.dtype)
    return y, _split_batch(h, batch, order)


def selective_step(
    h: Float[Array, "*b N E"],
    u: Float[Array, "*b E"],
    dt: Float[Array, "*b E"],
    A: Float[Array, "N E"],
    B: Float[Array, "*b N"],
    C: Float[Array, "*b N"],
    D: Float[Array, " E"],
) -> tuple[Float[Array, "*b E"], Float[Array, "*b N E"]]:
    """Run one position of ``selective_scan``.

    Args:
        h: State before the position.
        u: Input of the recurrence.
        dt: Discretization step, positive.
        A: Decay rate, negative.
        B: Input projection.
        C: Readout.
        D: Skip connection.

    Returns:
        The output in the type of ``u``, and the new state in the type of ``h``.
    """
    dtype = h.dtype
    y, h = _advance(h, *(x.astype(dtype) for x in (u, dt, A, B, C, D)))
    return y.astype(u.dtype), h


def _advance(h, u, dt, A, B, C, D):
    """Run one position: h [*b, N, E]; u, dt [*b, E]; B, C [*b, N]."""
    decay = jnp.exp(dt[..., None, :] * A)  # [*b, N, E]
    h = decay * h + (dt * u)[..., None, :] * B[..., None]
    y = (h * C[..., None]).sum(-2) + D * u  # [*b, E]
    return y, h


def _reference(tokens: Tokens, A, D, h0):
    """Scan position by position; autodiff keeps every state."""
    h0 = _zero_state(tokens, A) if h0 is None else h0

    def step(h, token: Tokens):
        if token.reset is not None:
            h = jnp.where(token.reset[..., None], 0.0, h)
        y, h = _advance(h, token.u, token.dt, A, token.B, token.C, D)
        return h, y

    time_major = jax.tree.map(lambda x: x.swapaxes(0, 1), tokens)  # [L, Bt, X]
    h, y = lax.scan(step, h0, time_major)
    return y.swapaxes(0, 1), h


def _associative(tokens: Tokens, A, D, h0):
    """Compose all affine maps h -> a h + b in parallel (Mamba, section 3.3.2)."""
    # [Bt, L, E, N]
    a = jnp.exp(tokens.dt[..., None] * A.T)
    b = (tokens.dt * tokens.u)[..., None] * tokens.B[:, :, None, :]
    if tokens.reset is not None:
        a = jnp.where(tokens.reset[..., None], 0.0, a)
    if h0 is not None:
        b = b.at[:, 0].add(a[:, 0] * h0.swapaxes(1, 2))
    pair: Any = lax.associative_scan(_compose, (a, b), axis=1)
    _, h = pair
    y = jnp.einsum("blen,bln->ble", h, tokens.C, precision=lax.Precision.HIGHEST)
    return y + D * tokens.u, h[:, -1].swapaxes(1, 2)


def _compose(first, second):
    """Return the affine map ``second(first(h))``, both given as (a, b)."""
    a1, b1 = first
    a2, b2 = second
    return a2 * a1, a2 * b1 + b2


def _recomputing(tokens: Tokens, A, D, h0):
    h0 = _zero_state(tokens, A) if h0 is None else h0
    batch, length, _ = tokens.u.shape
    defaults = _platform_defaults()
    tile = max(1, int(min(batch, defaults.tile_states / A.size)))
    plan = make_plan(batch, length, tile=tile, chunk=defaults.chunk)
    return recompute_scan(plan, tokens, A, D, h0)


def _zero_state(tokens: Tokens, A):
    batch = tokens.u.shape[0]
    return jnp.zeros((batch, *A.shape), tokens.u.dtype)


def _batch_order(name: str, count: int) -> tuple[int, ...]:
    """Return the leading axes from the major to the minor axis of the batch."""
    axes = range(count)
    # The rows of a kernel are on one device, so there is nothing to gain by moving them.
    return tuple(axes if name in KERNELS else reversed(axes))


def _merge_batch(x, order: tuple[int, ...]):
    """Merge leading axes into one: [T, B, X] to [B T, X] if ``order`` is (1, 0)."""
    n = len(order)
    x = x.transpose(*order, *range(n, x.ndim))
    return x.reshape(-1, *x.shape[n:])


def _split_batch(x, batch: tuple[int, ...], order: tuple[int, ...]):
    """Undo ``_merge_batch``; ``order`` is its own inverse."""
    x = x.reshape(*(batch[axis] for axis in order), *x.shape[1:])
    n = len(order)
    return x.transpose(*order, *range(n, x.ndim))


def _platform_defaults() -> PlatformDefaults:
    return PLATFORM_DEFAULTS.get(platform(), PLATFORM_DEFAULTS["gpu"])


_IMPLEMENTATIONS: dict[str, Callable] = {
    "ref": _reference,
    "assoc": _associative,
    "xla": _recomputing,
    "gpu_kernel": gpu_scan,
    "tpu_kernel": tpu_scan,
}
KERNELS = {"gpu_kernel": has_gpu_kernel, "tpu_kernel": has_tpu_kernel}
"""Implementations that are kernels, and where each is supported."""


def _choose(name: str, shape: tuple[int, ...]) -> str:
    """Return the name of an implementation for A of a shape."""
    if name == "auto":
        supported = (kernel for kernel, fits in KERNELS.items() if fits(*shape))
        return next(supported, _platform_defaults().impl)
    if name not in _IMPLEMENTATIONS:
        known = ", ".join(_IMPLEMENTATIONS)
        raise ValueError(
            f"impl={name}: unknown scan implementation; expected auto, {known}"
        )
    return name
