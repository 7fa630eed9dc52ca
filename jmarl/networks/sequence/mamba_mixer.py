"""Selective state space over agents: the mixers of MAM.

Multi-Agent Mamba (Daniel et al. 2024, arXiv:2410.19382) keeps the skeleton of MAT and replaces
its three attentions: bidirectional Mamba in the encoder, Mamba for the causal one and CrossMamba
for the cross one in the decoder. Acting costs the same for every agent, because the state of a
mixer has one size. Each Mamba module brings a residual and a norm of its own.
"""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmarl.networks.sequence.blocks import Memoryless
from jmarl.ssm import BiMamba, CrossMamba, Mamba, MambaConfig, MambaState


class BothWays(Memoryless):
    """``BiMamba(x)``, in the agents' own order, on which the result depends."""

    embed_dim: int
    config: MambaConfig
    bi_mode: str

    @nn.compact
    def __call__(
        self,
        carry: tuple[()],
        asking: Float[Array, "*b N E"],
        x: Float[Array, "*b N E"],
        first: Bool[Array, "*b"],
    ) -> tuple[tuple[()], Float[Array, "*b N E"]]:
        """All agents at once."""
        return carry, BiMamba(self.embed_dim, self.config, self.bi_mode)(x)


class Causal(Memoryless):
    """``Mamba(x)``: nothing is asked."""

    embed_dim: int
    config: MambaConfig

    def setup(self) -> None:
        """One module."""
        self.mamba = Mamba(self.embed_dim, self.config)

    def __call__(
        self,
        carry: tuple[()],
        asking: Float[Array, "*b N E"],
        x: Float[Array, "*b N E"],
        first: Bool[Array, "*b"],
    ) -> tuple[tuple[()], Float[Array, "*b N E"]]:
        """All agents at once."""
        return carry, self.mamba(x)[0]

    def context(self, asking: Float[Array, "*b E"]) -> tuple[()]:
        """Nothing."""
        return ()

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> MambaState:
        """Zeros."""
        return self.mamba.init_state(first.shape)

    def step(
        self, state: MambaState, context: tuple[()], x: Float[Array, "B E"]
    ) -> tuple[MambaState, Float[Array, "B E"]]:
        """One agent."""
        y, state = self.mamba.step(state, x)
        return state, y


class Cross(Memoryless):
    """``CrossMamba(x, asking)``: the readout C is of what asks, all else of x."""

    embed_dim: int
    config: MambaConfig

    def setup(self) -> None:
        """One module."""
        self.mamba = CrossMamba(self.embed_dim, self.config)

    def __call__(
        self,
        carry: tuple[()],
        asking: Float[Array, "*b N E"],
        x: Float[Array, "*b N E"],
        first: Bool[Array, "*b"],
    ) -> tuple[tuple[()], Float[Array, "*b N E"]]:
        """All agents at once."""
        return carry, self.mamba(x, asking)[0]

    def context(self, asking: Float[Array, "*b E"]) -> Float[Array, "*b S"]:
        """The readout of every agent."""
        return self.mamba.context(asking)

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> MambaState:
        """Zeros."""
        return self.mamba.init_state(first.shape)

    def step(
        self, state: MambaState, context: Float[Array, "B S"], x: Float[Array, "B E"]
    ) -> tuple[MambaState, Float[Array, "B E"]]:
        """One agent."""
        y, state = self.mamba.step(state, x, context)
        return state, y
