"""Selective state space over agents: the blocks of MAM.

Multi-Agent Mamba (Daniel et al. 2024, arXiv:2410.19382) keeps the skeleton of MAT and replaces
its three attentions: bidirectional Mamba in the encoder, Mamba for the causal one and CrossMamba
for the cross one in the decoder. Acting costs the same for every agent, because the state of a
block has one size. Each Mamba module brings a residual and a norm of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from jmarl.networks.sequence.network import MLP
from jmarl.ssm import BiMamba, CrossMamba, Mamba, MambaConfig, MambaState
from jmarl.ssm.norm import LayerNorm


class EncoderBlock(nn.Module):
    """``x = LN(x + BiMamba(x)); x = LN(x + MLP(x))``.

    Without ``double_residual`` the first line is ``x = BiMamba(x)``, which has a residual and a norm inside.
    """

    embed_dim: int
    config: MambaConfig
    bi_mode: str
    double_residual: bool

    @nn.compact
    def __call__(self, x: Float[Array, "M N E"]) -> Float[Array, "M N E"]:
        """All agents at once, in their own order, on which the result depends."""
        mixed = BiMamba(self.embed_dim, self.config, self.bi_mode)(x)
        x = LayerNorm()(x + mixed) if self.double_residual else mixed
        return LayerNorm()(x + MLP(self.embed_dim)(x))


class DecoderState(NamedTuple):
    """The two states of a decoder block; both follow the action stream."""

    own: MambaState
    cross: MambaState


class DecoderBlock(nn.Module):
    """``x = LN(x + Mamba(x)); x = LN(rep + CrossMamba(x, rep)); x = LN(x + MLP(x))``.

    Without ``double_residual`` the first line is ``x = Mamba(x)``. The second keeps both of its
    residuals, since they are different: ``x`` inside the module, ``rep`` around it.
    """

    embed_dim: int
    config: MambaConfig
    double_residual: bool

    def setup(self) -> None:
        """Two Mamba modules, an MLP, and the norms around them."""
        self.own = Mamba(self.embed_dim, self.config)
        self.cross = CrossMamba(self.embed_dim, self.config)
        self.mlp = MLP(self.embed_dim)
        self.norm_cross, self.norm_mlp = LayerNorm(), LayerNorm()
        if self.double_residual:
            self.norm_own = LayerNorm()

    def __call__(self, x: Float[Array, "M N E"], rep: Float[Array, "M N E"]) -> Float[Array, "M N E"]:
        """All agents at once."""
        x = self._open(x, self.own(x)[0])
        return self._close(rep, self.cross(x, rep)[0])

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Float[Array, "B N E"], Float[Array, "B N S"]]:
        """The residual, and the readout C of CrossMamba, which depends on ``rep`` alone."""
        return rep, self.cross.context(rep)

    @nn.nowrap
    def start(self, batch: int) -> DecoderState:
        """Zero states."""
        width, config = self.embed_dim, self.config
        own, cross = (module(width, config, parent=None).init_state((batch,)) for module in (Mamba, CrossMamba))
        return DecoderState(own, cross)

    def step(
        self, state: DecoderState, x: Float[Array, "B E"], context: tuple[Float[Array, "B E"], Float[Array, "B S"]]
    ) -> tuple[DecoderState, Float[Array, "B E"]]:
        """One agent."""
        rep, readout = context
        mixed, own = self.own.step(state.own, x)
        x = self._open(x, mixed)
        mixed, cross = self.cross.step(state.cross, x, readout)
        return DecoderState(own, cross), self._close(rep, mixed)

    def _open(self, x: Array, mixed: Array) -> Array:
        return self.norm_own(x + mixed) if self.double_residual else mixed

    def _close(self, rep: Array, mixed: Array) -> Array:
        x = self.norm_cross(rep + mixed)
        return self.norm_mlp(x + self.mlp(x))
