"""Selective state spaces over agents: the token mixers of MAM.

Multi-Agent Mamba (Daniel et al. 2024, arXiv:2410.19382) keeps the architecture of MAT and replaces
its three attentions. The encoder has bidirectional Mamba; the decoder has Mamba for the causal and
CrossMamba for the cross attention. Acting costs the same for every agent, because the state has one
size. Each Mamba block contains its own residual and norms.
"""

from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmarl.networks.sequence.blocks import Memoryless
from jmarl.ssm import BiMamba, CrossMamba, Mamba, MambaConfig, MambaState


class _MambaMixer(Memoryless):
    """Base of the token mixers that apply a Mamba block to all agents."""

    embed_dim: int
    config: MambaConfig

    def __call__(
        self,
        carry: tuple[()],
        query_input: Float[Array, "*b N E"],
        x: Float[Array, "*b N E"],
        first: Bool[Array, "*b"],
    ) -> tuple[tuple[()], Float[Array, "*b N E"]]:
        return carry, self._apply_block(x, query_input)

    def _apply_block(self, x: Array, query_input: Array) -> Array:
        raise NotImplementedError


class BiMambaMixer(_MambaMixer):
    """``BiMamba(x)``; the result depends on the order of agents, so it must be their own."""

    bi_mode: str

    @nn.compact
    def _apply_block(self, x: Array, query_input: Array) -> Array:
        return BiMamba(self.embed_dim, self.config, self.bi_mode)(x)


class CausalMambaMixer(_MambaMixer):
    """``Mamba(x)``, which ignores the query input."""

    def setup(self) -> None:
        self.mamba = Mamba(self.embed_dim, self.config)

    def _apply_block(self, x: Array, query_input: Array) -> Array:
        y, _ = self.mamba(x)
        return y

    def context(self, query_input: Float[Array, "*b E"]) -> tuple[Array, ...]:
        """Return no context."""
        return ()

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> MambaState:
        """Return the zero state."""
        return self.mamba.init_state(first.shape)

    def step(
        self, state: MambaState, context: tuple[Array, ...], x: Float[Array, "B E"]
    ) -> tuple[MambaState, Float[Array, "B E"]]:
        """Run the block on the next agent."""
        y, state = self.mamba.step(state, x, *context)
        return state, y


class CrossMambaMixer(CausalMambaMixer):
    """``CrossMamba(x, query_input)``: the readout C comes from the query input, the rest from x."""

    def setup(self) -> None:
        self.mamba = CrossMamba(self.embed_dim, self.config)

    def _apply_block(self, x: Array, query_input: Array) -> Array:
        y, _ = self.mamba(x, query_input)
        return y

    def context(self, query_input: Float[Array, "*b E"]) -> tuple[Array, ...]:
        """Return the readout C of every agent, ``[*b, S]`` for S states per channel."""
        return (self.mamba.context(query_input),)
