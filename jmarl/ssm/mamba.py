"""Mamba blocks as Flax modules: over one sequence, over two (cross), and in both directions.

Gu and Dao 2023, *Mamba* (arXiv:2312.00752), figure 3 (the block) and section 3.6 (initial values).
The cross and bidirectional forms are those of Daniel et al. 2024, *Multi-Agent Mamba*
(arXiv:2410.19382). Each block has two modes that agree: ``__call__`` runs a whole sequence, and
``step`` runs one position from a cached state. The positions are any ordered axis, for example
agents or time. A position marked ``first`` starts a new sequence, which neither recurrence nor
convolution connects to the one before.

Letters in shapes: x [*b, L, d], E = expand d channels, N states per channel, K convolution taps, R
rank of the projection to the discretization step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jmarl.nn.norm import LayerNorm, RMSNorm
from jmarl.ssm.scan import selective_scan, selective_step


@dataclass(frozen=True)
class MambaConfig:
    """Sizes of a block and initial range of its discretization step; the defaults are Mamba's."""

    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    delta_rank: int | None = None
    """Rank R of the projection to the discretization step; d/16, rounded up, if None."""
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_floor: float = 1e-4
    dt_cap: float | None = 20.0
    """Upper bound of the discretization step, far above healthy values. Activations overflow beyond
    it. None removes the bound."""
    impl: str = "auto"
    """Implementation of the scan; see ``selective_scan``."""

    def rank(self, d_model: int) -> int:
        """Return the rank R for inputs of width ``d_model``."""
        if self.delta_rank is not None:
            return self.delta_rank
        return math.ceil(d_model / 16)


class MambaState(NamedTuple):
    """State of a block between positions."""

    conv: Float[Array, "*b K_1 E"]
    """Inputs of the convolution at the last K-1 positions, oldest first."""
    h: Float[Array, "*b N E"]
    """State of the recurrence."""

    def reset(self, first: Bool[Array, "*b"]) -> MambaState:
        """Zero the state where ``first`` is True."""
        return jax.tree.map(lambda x: jnp.where(first[..., None, None], 0.0, x), self)


class _Selection(NamedTuple):
    """Input-dependent parameters of the recurrence (Mamba, algorithm 2)."""

    dt: Array
    """[*b, L, E]"""
    B: Array
    """[*b, L, N]"""
    C: Array
    """[*b, L, N]"""


class S6(nn.Module):
    """Input projection, causal convolution, selective scan, gate and output projection.

    With ``cross``, the caller gives the readout C, which is otherwise projected from x. All
    matrices except that of delta are LeCun normal and without bias.
    """

    d_model: int
    config: MambaConfig = MambaConfig()
    cross: bool = False

    def setup(self) -> None:
        cfg, width = self.config, self.width
        rank = cfg.rank(self.d_model)
        self.in_proj = nn.Dense(2 * width, use_bias=False)
        lecun_normal = nn.initializers.lecun_normal()
        shape = (cfg.d_conv, 1, width)
        self.conv_kernel = self.param("conv_kernel", lecun_normal, shape)
        self.conv_bias = self.param("conv_bias", nn.initializers.zeros, (width,))
        readouts = 1 if self.cross else 2
        self.x_proj = nn.Dense(rank + readouts * cfg.d_state, use_bias=False)
        bound = rank**-0.5
        self.delta_proj = nn.Dense(
            width,
            kernel_init=partial(jax.random.uniform, minval=-bound, maxval=bound),
            bias_init=partial(delta_bias_init, config=cfg),
        )
        self.A_log = self.param("A_log", _a_log_init, (cfg.d_state, width))
        self.D = self.param("D", nn.initializers.ones, (width,))
        self.out_proj = nn.Dense(self.d_model, use_bias=False)

    @property
    def width(self) -> int:
        """Return E, the number of channels."""
        return self.config.expand * self.d_model

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """Return the zero state, with leading axes ``batch``."""
        cfg = self.config
        conv = jnp.zeros((*batch, cfg.d_conv - 1, self.width))
        h = jnp.zeros((*batch, cfg.d_state, self.width))
        return MambaState(conv, h)

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        C: Float[Array, "*b L N"] | None = None,
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence; return the outputs and the state after it."""
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)  # [*b, L, E]
        y, state = self._convolve_and_scan(v, C, state, first)
        return self.out_proj(y * nn.silu(z)), state

    def bidirectional(self, x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
        """Return ``S(x) + flip(S(flip(x)))``, with both directions in one scan.

        Projections and gate act on one position, so both directions share them.
        """
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)  # [*b, L, E]
        both = jnp.stack([v, flip(v)])  # [2, *b, L, E]
        (forward, backward), _ = self._convolve_and_scan(both, None, None, None)
        return self.out_proj((forward + flip(backward)) * nn.silu(z))

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        C: Float[Array, "*b N"] | None = None,
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position; return its output and the state after it."""
        state = state if first is None else state.reset(first)
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)  # [*b, E]
        v, window = self._convolve_step(v, state.conv)
        dt, B, C = self._select(v, C)
        A = -jnp.exp(self.A_log)
        y, h = selective_step(state.h, v, dt, A, B, C, self.D)
        return self.out_proj(y * nn.silu(z)), MambaState(window[..., 1:, :], h)

    def _convolve_and_scan(self, v, C, state, first) -> tuple[Array, MambaState]:
        h0 = None if state is None else state.h  # a zero state is not read from memory
        state = self.init_state(v.shape[:-2]) if state is None else state
        v, window = self._convolve(v, state.conv, first)
        dt, B, C = self._select(v, C)
        A = -jnp.exp(self.A_log)
        options = {"h0": h0, "reset": first, "impl": self.config.impl}
        y, h = selective_scan(v, dt, A, B, C, self.D, **options)
        return y, MambaState(window, h)

    def _convolve_step(self, v, window):
        """Apply convolution and SiLU to v [*b, E] after the window [*b, K-1, E].

        Also returns the window with v appended, [*b, K, E].
        """
        extended = jnp.concatenate([window, v[..., None, :]], axis=-2)
        kernel = self.conv_kernel[:, 0]  # [K, E]
        # Tap by tap: a sum over the stacked window is some five times slower on a CPU.
        earlier = range(self.config.d_conv - 1)
        taps = (window[..., j, :] * kernel[j] for j in earlier)
        v = nn.silu(sum(taps, start=v * kernel[-1]) + self.conv_bias)
        return v, extended

    def _convolve(self, v, window, first):
        """Apply the causal depthwise convolution and SiLU to v [*b, L, E].

        Also returns the window [*b, K-1, E] after the sequence.
        """
        taps, length = self.config.d_conv, v.shape[-2]
        padded = jnp.concatenate([window, v], axis=-2)  # [*b, K-1+L, E]
        kernel = self.conv_kernel[:, 0]  # [K, E]
        if first is None:
            parts = (padded[..., j : j + length, :] * kernel[j] for j in range(taps))
            return nn.silu(sum(parts) + self.conv_bias), padded[..., length:, :]
        segment = jnp.cumsum(first, axis=-1)  # [*b, L]
        before = jnp.zeros((*segment.shape[:-1], taps - 1), segment.dtype)
        segments = jnp.concatenate([before, segment], axis=-1)  # [*b, K-1+L]

        def tap(j):
            same = (segments[..., j : j + length] == segment)[..., None]
            shifted = padded[..., j : j + length, :]
            return jnp.where(same, shifted, 0.0) * kernel[j]

        kept = segments[..., length:] == segment[..., -1:]
        window = jnp.where(kept[..., None], padded[..., length:, :], 0.0)
        return nn.silu(sum(tap(j) for j in range(taps)) + self.conv_bias), window

    def _select(self, v, C) -> _Selection:
        """Compute the parameters of the recurrence from v [*b, L, E], or [*b, E] in a step."""
        cfg = self.config
        rank = cfg.rank(self.d_model)
        projected = self.x_proj(v)  # [*b, L, R + N], or [*b, L, R + 2 N] unless cross
        delta = projected[..., :rank]
        B = projected[..., rank : rank + cfg.d_state]
        if not self.cross:
            C = projected[..., rank + cfg.d_state :]
        dt = nn.softplus(self.delta_proj(delta))
        if cfg.dt_cap is not None:
            dt = jnp.minimum(dt, cfg.dt_cap)
        return _Selection(dt, B, C)


class Mamba(nn.Module):
    """``LayerNorm(x + S6(RMSNorm(x)))``, causal along L."""

    d_model: int
    config: MambaConfig = MambaConfig()

    def setup(self) -> None:
        self.norm_in = RMSNorm()
        self.block = S6(self.d_model, self.config)
        self.norm_out = LayerNorm()

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """Return the zero state, with leading axes ``batch``."""
        return S6(self.d_model, self.config, parent=None).init_state(batch)

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence.

        Args:
            x: Input sequence.
            state: State before position 0; zero if None.
            first: True where a new sequence starts; nowhere if None.

        Returns:
            The outputs, and the state after the sequence.
        """
        y, state = self.block(self.norm_in(x), state=state, first=first)
        return self.norm_out(x + y), state

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position; return its output and the state after it."""
        y, state = self.block.step(state, self.norm_in(x), first=first)
        return self.norm_out(x + y), state


class CrossMamba(nn.Module):
    """Mamba over x with the readout C of a second sequence, position by position.

    ``y_t = sum_{s<=t} (C_t . prod_{s<r<=t} a_r dt_s B_s) x_s``: as in attention, the second
    sequence is the query, and x gives keys and values. Output t reads the second sequence at
    position t only. A decoder therefore computes ``context`` once, outside its loop, and keeps no
    cache of it.
    """

    d_model: int
    config: MambaConfig = MambaConfig()

    def setup(self) -> None:
        self.norm_in = RMSNorm()
        self.norm_context = RMSNorm()
        self.C_proj = nn.Dense(self.config.d_state, use_bias=False)
        self.block = S6(self.d_model, self.config, cross=True)
        self.norm_out = LayerNorm()

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """Return the zero state, with leading axes ``batch``."""
        return S6(self.d_model, self.config, parent=None).init_state(batch)

    def context(self, x2: Float[Array, "*b d"]) -> Float[Array, "*b N"]:
        """Return the readout C of each position of the second sequence."""
        return self.C_proj(self.norm_context(x2))

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        x2: Float[Array, "*b L d2"],
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence.

        Args:
            x: Input sequence, which gives keys and values.
            x2: Second sequence, which gives queries.
            state: State before position 0; zero if None.
            first: True where a new sequence starts; nowhere if None.

        Returns:
            The outputs, and the state after the sequence.
        """
        u, C = self.norm_in(x), self.context(x2)
        y, state = self.block(u, C, state=state, first=first)
        return self.norm_out(x + y), state

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        C: Float[Array, "*b N"],
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position with its ``C`` from ``context``; return its output and the new state."""
        y, state = self.block.step(state, self.norm_in(x), C, first=first)
        return self.norm_out(x + y), state


class BiMamba(nn.Module):
    """``LayerNorm(x + Bi(RMSNorm(x)))``: every output depends on the whole sequence; no step form.

    One set of weights S serves both directions. ``bi_mode="sum"`` is ``S(u) + flip(S(flip(u)))``.
    ``bi_mode="mam"``, the form of the MAM code, is ``f * flip(S(flip(f)))`` with ``f = S(u)``. Its
    second pass reads the output of the first. The product is small at initialization and of high
    degree in the weights. Neither form is equivariant to the order of the positions.
    """

    d_model: int
    config: MambaConfig = MambaConfig()
    bi_mode: str = "sum"

    def setup(self) -> None:
        if self.bi_mode not in ("sum", "mam"):
            raise ValueError(
                f"bi_mode={self.bi_mode}: unknown form; expected sum or mam"
            )
        self.norm_in = RMSNorm()
        self.block = S6(self.d_model, self.config)
        self.norm_out = LayerNorm()

    def __call__(self, x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
        """Run a whole sequence."""
        u = self.norm_in(x)
        y = self.block.bidirectional(u) if self.bi_mode == "sum" else self._product(u)
        return self.norm_out(x + y)

    def _product(self, u):
        forward, _ = self.block(u)
        backward, _ = self.block(flip(forward))
        return forward * flip(backward)


def delta_bias_init(
    key: PRNGKeyArray, shape: Sequence[int], dtype, config: MambaConfig
) -> Array:
    """Draw a bias with softplus(bias) log-uniform in [dt_min, dt_max] (Mamba, section 3.6)."""
    low, high = math.log(config.dt_min), math.log(config.dt_max)
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    dt = jnp.maximum(dt, config.dt_floor)
    return dt + jnp.log(-jnp.expm1(-dt))  # inverse of softplus


def _a_log_init(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """Return log(-A) of S4D-Real: A = -(1, ..., N) in each channel (Gu et al. 2022)."""
    del key
    states = jnp.arange(1.0, shape[0] + 1)
    return jnp.broadcast_to(jnp.log(states)[:, None], shape)


def flip(x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
    """Reverse the sequence."""
    return jnp.flip(x, axis=-2)
