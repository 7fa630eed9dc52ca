"""Mamba blocks as Flax modules: over one sequence, over two (cross), and in both directions.

Gu and Dao 2023, *Mamba*, figure 3 (the block) and section 3.6 (initial values); the cross and
bidirectional forms are those of Daniel et al. 2024, *Multi-Agent Mamba*. Each module is used in
two ways that agree: ``__call__`` runs a whole sequence, ``step`` one position from a cached
state. The sequence may be the agents of one step, or time; a position marked ``first`` begins a
new sequence, and neither the recurrence nor the convolution sees past it.

Shapes: x (*b, L, d), E = expand d channels, N states, K convolution taps, R the rank of delta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jmarl.nn.norm import LayerNorm, RMSNorm
from jmarl.ssm.scan import selective_scan, selective_step


@dataclass(frozen=True)
class MambaConfig:
    """Sizes and initial step range of a block; the defaults are Mamba's."""

    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    delta_rank: int | None = None
    """Rank of the projection to the step size; d/16, rounded up, when None."""
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_floor: float = 1e-4
    dt_cap: float | None = 20.0
    """Upper bound of the step size, far above healthy values: beyond it activations overflow."""
    impl: str = "auto"
    """The implementation of the scan; see ``selective_scan``."""

    def rank(self, d_model: int) -> int:
        """The rank R for that width."""
        return (
            self.delta_rank if self.delta_rank is not None else math.ceil(d_model / 16)
        )


class MambaState(NamedTuple):
    """What a block remembers between positions."""

    conv: Float[Array, "*b K_1 E"]
    """Inputs of the convolution at the last K-1 positions, oldest first."""
    h: Float[Array, "*b N E"]

    def reset(self, first: Bool[Array, "*b"]) -> MambaState:
        """Zero the state where ``first`` is True."""
        return jax.tree.map(lambda x: jnp.where(first[..., None, None], 0.0, x), self)


class _Selected(NamedTuple):
    dt: Array
    B: Array
    C: Array


class S6(nn.Module):
    """The bare block: in-projection, causal convolution, selective scan, gate, out-projection.

    With ``cross`` the readout C is given by the caller instead of being projected from x.
    """

    d_model: int
    config: MambaConfig = MambaConfig()
    cross: bool = False

    def setup(self) -> None:
        """Parameters, initialized as in Mamba; every matrix but delta's is LeCun normal without bias."""
        cfg, width = self.config, self.width
        rank = cfg.rank(self.d_model)
        self.in_proj = nn.Dense(2 * width, use_bias=False)
        self.conv_kernel = self.param(
            "conv_kernel", nn.initializers.lecun_normal(), (cfg.d_conv, 1, width)
        )
        self.conv_bias = self.param("conv_bias", nn.initializers.zeros, (width,))
        self.x_proj = nn.Dense(
            rank + (1 if self.cross else 2) * cfg.d_state, use_bias=False
        )
        bound = rank**-0.5
        self.delta_proj = nn.Dense(
            width,
            kernel_init=lambda key, shape, dtype: jax.random.uniform(
                key, shape, dtype, -bound, bound
            ),
            bias_init=lambda key, shape, dtype: delta_bias_init(key, shape, dtype, cfg),
        )
        self.A_log = self.param("A_log", _a_log_init, (cfg.d_state, width))
        self.D = self.param("D", nn.initializers.ones, (width,))
        self.out_proj = nn.Dense(self.d_model, use_bias=False)

    @property
    def width(self) -> int:
        """E, the number of channels."""
        return self.config.expand * self.d_model

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """The state before a sequence: zero."""
        cfg = self.config
        return MambaState(
            jnp.zeros((*batch, cfg.d_conv - 1, self.width)),
            jnp.zeros((*batch, cfg.d_state, self.width)),
        )

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        C: Float[Array, "*b L N"] | None = None,
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence; returns the outputs and the state after it."""
        state = self.init_state(x.shape[:-2]) if state is None else state
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)
        y, state = self._mix(v, C, state, first)
        return self.out_proj(y * nn.silu(z)), state

    def both_ways(self, x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
        """``S(x) + flip(S(flip(x)))`` with both directions in one scan.

        What reads or writes one position (the projections in and out, the gate) is the same in both
        directions, so it is done once.
        """
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)
        (forward, backward), _ = self._mix(
            jnp.stack([v, flip(v)]), None, self.init_state((2, *x.shape[:-2])), None
        )
        return self.out_proj((forward + flip(backward)) * nn.silu(z))

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        C: Float[Array, "*b N"] | None = None,
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position."""
        state = state if first is None else state.reset(first)
        v, z = jnp.split(self.in_proj(x), 2, axis=-1)
        window = jnp.concatenate([state.conv, v[..., None, :]], axis=-2)
        kernel = self.conv_kernel[:, 0]
        # Tap by tap: a sum over the stacked window is some five times slower on a CPU.
        taps = (
            state.conv[..., j, :] * kernel[j] for j in range(self.config.d_conv - 1)
        )
        v = nn.silu(sum(taps, start=v * kernel[-1]) + self.conv_bias)
        selected = self._select(v, C)
        y, h = selective_step(
            state.h,
            v,
            selected.dt,
            -jnp.exp(self.A_log),
            selected.B,
            selected.C,
            self.D,
        )
        return self.out_proj(y * nn.silu(z)), MambaState(window[..., 1:, :], h)

    def _mix(self, v, C, state, first) -> tuple[Array, MambaState]:
        """The part that looks along the sequence: convolution and scan."""
        v, window = self._convolve(v, state.conv, first)
        dt, B, C = self._select(v, C)
        A = -jnp.exp(self.A_log)
        y, h = selective_scan(
            v, dt, A, B, C, self.D, h0=state.h, reset=first, impl=self.config.impl
        )
        return y, MambaState(window, h)

    def _convolve(self, v, window, first):
        """Causal depthwise convolution and SiLU, and the window after the sequence."""
        taps, length = self.config.d_conv, v.shape[-2]
        padded = jnp.concatenate([window, v], axis=-2)
        kernel = self.conv_kernel[:, 0]
        if first is None:
            parts = (padded[..., j : j + length, :] * kernel[j] for j in range(taps))
            return nn.silu(sum(parts) + self.conv_bias), padded[..., length:, :]
        segment = jnp.cumsum(first, axis=-1)
        before = jnp.zeros((*segment.shape[:-1], taps - 1), segment.dtype)
        segments = jnp.concatenate([before, segment], axis=-1)

        def tap(j):
            same = segments[..., j : j + length] == segment
            return (
                jnp.where(same[..., None], padded[..., j : j + length, :], 0.0)
                * kernel[j]
            )

        kept = segments[..., length:] == segment[..., -1:]
        window = jnp.where(kept[..., None], padded[..., length:, :], 0.0)
        return nn.silu(sum(tap(j) for j in range(taps)) + self.conv_bias), window

    def _select(self, v, C) -> _Selected:
        """Step size, input projection and readout of each position."""
        cfg = self.config
        rank = cfg.rank(self.d_model)
        projected = self.x_proj(v)
        delta, B = projected[..., :rank], projected[..., rank : rank + cfg.d_state]
        if not self.cross:
            C = projected[..., rank + cfg.d_state :]
        dt = nn.softplus(self.delta_proj(delta))
        return _Selected(
            dt if cfg.dt_cap is None else jnp.minimum(dt, cfg.dt_cap), B, C
        )  # pyright: ignore


class Mamba(nn.Module):
    """``LayerNorm(x + S6(RMSNorm(x)))``, causal along L."""

    d_model: int
    config: MambaConfig = MambaConfig()

    def setup(self) -> None:
        """One block between its two norms."""
        self.norm_in = RMSNorm()
        self.block = S6(self.d_model, self.config)
        self.norm_out = LayerNorm()

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """The state before a sequence."""
        return S6(self.d_model, self.config, parent=None).init_state(batch)

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence; returns the outputs and the state after it."""
        y, state = self.block(self.norm_in(x), state=state, first=first)
        return self.norm_out(x + y), state

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position."""
        y, state = self.block.step(state, self.norm_in(x), first=first)
        return self.norm_out(x + y), state


class CrossMamba(nn.Module):
    """Mamba over x whose readout C alone comes from a second sequence, position by position.

    ``y_t = sum_{s<=t} (C_t . prod_{s<r<=t} a_r dt_s B_s) x_s``: as in attention, the second
    sequence is the query and x gives keys and values. It is read at position t only, so a
    decoder computes ``context`` once, outside its loop, and keeps no cache of it.
    """

    d_model: int
    config: MambaConfig = MambaConfig()

    def setup(self) -> None:
        """The second sequence has a norm of its own."""
        self.norm_in = RMSNorm()
        self.norm_context = RMSNorm()
        self.C_proj = nn.Dense(self.config.d_state, use_bias=False)
        self.block = S6(self.d_model, self.config, cross=True)
        self.norm_out = LayerNorm()

    @nn.nowrap
    def init_state(self, batch: tuple[int, ...]) -> MambaState:
        """The state before a sequence."""
        return S6(self.d_model, self.config, parent=None).init_state(batch)

    def context(self, x2: Float[Array, "*b d"]) -> Float[Array, "*b N"]:
        """The readout C of each position of the second sequence."""
        return self.C_proj(self.norm_context(x2))

    def __call__(
        self,
        x: Float[Array, "*b L d"],
        x2: Float[Array, "*b L d2"],
        *,
        state: MambaState | None = None,
        first: Bool[Array, "*b L"] | None = None,
    ) -> tuple[Float[Array, "*b L d"], MambaState]:
        """Run a whole sequence x against x2; returns the outputs and the state after it."""
        y, state = self.block(
            self.norm_in(x), self.context(x2), state=state, first=first
        )
        return self.norm_out(x + y), state

    def step(
        self,
        state: MambaState,
        x: Float[Array, "*b d"],
        C: Float[Array, "*b N"],
        *,
        first: Bool[Array, "*b"] | None = None,
    ) -> tuple[Float[Array, "*b d"], MambaState]:
        """Run one position, with its C from ``context``."""
        y, state = self.block.step(state, self.norm_in(x), C, first=first)
        return self.norm_out(x + y), state


class BiMamba(nn.Module):
    """``LayerNorm(x + Bi(RMSNorm(x)))``, each position seeing the whole sequence; no step form.

    One set of weights S serves both directions. ``bi_mode="sum"``: ``S(u) + flip(S(flip(u)))``.
    ``bi_mode="mam"``, the form of the MAM code: ``f * flip(S(flip(f)))`` with ``f = S(u)``; the
    second pass reads the output of the first, and the product of the two is small at the start and
    of high degree in the weights. Neither is equivariant to the order of the positions.
    """

    d_model: int
    config: MambaConfig = MambaConfig()
    bi_mode: str = "sum"

    def setup(self) -> None:
        """One block for both directions."""
        if self.bi_mode not in ("sum", "mam"):
            raise ValueError(f"unknown bi_mode {self.bi_mode!r}: one of sum, mam")
        self.norm_in = RMSNorm()
        self.block = S6(self.d_model, self.config)
        self.norm_out = LayerNorm()

    def __call__(self, x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
        """Run a whole sequence."""
        mix = self.block.both_ways if self.bi_mode == "sum" else self._product
        return self.norm_out(x + mix(self.norm_in(x)))

    def _product(self, u):
        forward, _ = self.block(u)
        backward, _ = self.block(flip(forward))
        return forward * flip(backward)


def delta_bias_init(
    key: PRNGKeyArray, shape: Sequence[int], dtype, config: MambaConfig
) -> Array:
    """Bias with softplus(bias) log-uniform in [dt_min, dt_max] (Mamba, section 3.6)."""
    low, high = math.log(config.dt_min), math.log(config.dt_max)
    dt = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    dt = jnp.maximum(dt, config.dt_floor)
    return dt + jnp.log(-jnp.expm1(-dt))


def _a_log_init(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    """S4D-Real: A = -(1, ..., N) in each channel (Gu et al. 2022)."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1.0, shape[0] + 1))[:, None], shape)


def flip(x: Float[Array, "*b L d"]) -> Float[Array, "*b L d"]:
    """The sequence backwards."""
    return jnp.flip(x, axis=-2)
