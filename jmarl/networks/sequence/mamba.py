"""Selective state space over agents: the blocks of MAM.

Multi-Agent Mamba (Daniel et al. 2024, arXiv:2410.19382) keeps the skeleton of MAT and replaces
its three attentions: bidirectional Mamba in the encoder, Mamba for the causal one and CrossMamba
for the cross one in the decoder. Acting costs the same for every agent, because the state of a
block has one size. Each Mamba module brings a residual and a norm of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmarl.networks.memory import SSM
from jmarl.networks.sequence.network import MLP
from jmarl.ssm import BiMamba, CrossMamba, Mamba, MambaConfig, MambaState
from jmarl.ssm.norm import LayerNorm


class EncoderBlock(nn.Module):
    """``x = Time(x); x = LN(x + BiMamba(x)); x = LN(x + MLP(x))``.

    ``Time``, with ``memory``, is a Mamba module along time, one sequence for each agent; it is the only part that
    sees another row, so acting and learning agree and nothing hears of the future. Without ``double_residual`` the
    second part is ``x = BiMamba(x)``, which has a residual and a norm inside.
    """

    embed_dim: int
    config: MambaConfig
    bi_mode: str
    double_residual: bool
    n_agents: int
    memory: MambaConfig | None = None

    @nn.nowrap
    def initial(self, batch: int) -> Any:
        """Convolution window and state of every agent, or nothing."""
        return SSM(self.embed_dim, self.memory, parent=None).initial(batch, self.n_agents) if self.memory else ()

    @nn.compact
    def __call__(
        self, carry: Any, x: Float[Array, "T B N E"], first: Bool[Array, "T B N"]
    ) -> tuple[Any, Float[Array, "T B N E"]]:
        """All agents at once, in their own order, on which the result depends."""
        if self.memory:
            carry, x = SSM(self.embed_dim, self.memory, name="memory")(carry, x, first)
        mixed = BiMamba(self.embed_dim, self.config, self.bi_mode)(x)
        x = LayerNorm()(x + mixed) if self.double_residual else mixed
        return carry, LayerNorm()(x + MLP(self.embed_dim)(x))


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

    @nn.nowrap
    def initial(self, batch: int) -> tuple[()]:
        """Nothing is remembered; what the past says is in ``rep``."""
        return ()

    def __call__(
        self,
        carry: tuple[()],
        x: Float[Array, "*batch N E"],
        rep: Float[Array, "*batch N E"],
        first: Bool[Array, "*batch"],
    ) -> Float[Array, "*batch N E"]:
        """All agents at once."""
        x = self._open(x, self.own(x)[0])
        return self._close(rep, self.cross(x, rep)[0])

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Float[Array, "B N E"], Float[Array, "B N S"]]:
        """The residual, and the readout C of CrossMamba, which depends on ``rep`` alone."""
        return rep, self.cross.context(rep)

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> DecoderState:
        """Zero states."""
        return DecoderState(self.own.init_state(first.shape), self.cross.init_state(first.shape))

    def end(self, state: DecoderState) -> tuple[()]:
        """Nothing is remembered."""
        return ()

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
