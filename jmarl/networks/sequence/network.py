"""The skeleton that sequence policies share: encoder, decoder, and the policy that they form.

A block is a module of ``networks/sequence/blocks.py``, around the mixers of a family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.flatten import empty_obs, flatten
from jmarl.networks.sequence.blocks import NARROW, WIDE, Factory
from jmarl.networks.sequence.policy import SequenceCarry, SequencePolicy
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Key, Params, Spec


class Head(nn.Module):
    """``Dense - GELU - norm - Dense``, near zero at the start."""

    width: int
    out: int
    norm: Factory = LayerNorm

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch O"]:
        """Each agent on its own."""
        x = self.norm()(nn.gelu(nn.Dense(self.width, kernel_init=WIDE)(x)))
        return nn.Dense(self.out, kernel_init=NARROW)(x)


class Encoder(nn.Module):
    """Observations of all agents to representations and values (MAT, section 4.1)."""

    embed_dim: int
    n_block: int
    block: Factory
    norm: Factory = LayerNorm

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, ...]:
        """What the blocks remember before any observation."""
        return tuple(
            self.block(parent=None).initial(batch, n_agents)
            for _ in range(self.n_block)
        )

    @nn.compact
    def __call__(
        self,
        carry: tuple[Any, ...],
        obs: Float[Array, "T B N F"],
        first: Bool[Array, "T B"],
        joined: Bool[Array, "T B N"],
    ) -> tuple[tuple[Any, ...], Float[Array, "T B N E"], Float[Array, "T B N"]]:
        """All agents and rows at once; memory is reset where ``first``, an agent's own also where it ``joined``."""
        x = nn.Dense(self.embed_dim, kernel_init=WIDE)(self.norm()(obs))
        x, after = self.norm()(nn.gelu(x)), []
        for i, before in enumerate(carry):
            kept, x = self.block(name=f"block_{i}")(before, x, first, joined)
            after.append(kept)
        return (
            tuple(after),
            x,
            Head(self.embed_dim, 1, self.norm, name="value")(x)[..., 0],
        )


class Decoder(nn.Module):
    """Action tokens and representations to the parameters of each agent's action (MAT, section 4.1).

    A continuous head is a mean and a log standard deviation that does not depend on the state.
    """

    embed_dim: int
    n_block: int
    n_actions: int
    discrete: bool
    block: Factory
    norm: Factory = LayerNorm
    init_std: float = 0.6

    def setup(self) -> None:
        """Embedding, blocks and head."""
        self.embed = nn.Dense(
            self.embed_dim, kernel_init=WIDE, use_bias=not self.discrete
        )
        self.embed_norm = self.norm()
        self.blocks = [self.block() for _ in range(self.n_block)]
        self.head = Head(self.embed_dim, self.n_actions, self.norm)
        if not self.discrete:
            self.log_std = self.param(
                "log_std",
                nn.initializers.constant(math.log(self.init_std)),
                (self.n_actions,),
            )

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, ...]:
        """What the blocks remember before any action."""
        return tuple(
            self.block(parent=None).initial(batch, n_agents)
            for _ in range(self.n_block)
        )

    def __call__(
        self,
        carry: tuple[Any, ...],
        tokens: Float[Array, "T B N K"],
        rep: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> Float[Array, "T B N O"]:
        """All agents and rows at once, each token being what that agent hears."""
        x = self._embed(tokens)
        for block, before in zip(self.blocks, carry, strict=True):
            x = block(before, x, rep, first)
        return self._out(x)

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Any, ...]:
        """What the blocks compute of ``rep`` alone, each leaf ``[B, N, ...]``."""
        return tuple(block.context(rep) for block in self.blocks)

    def start(
        self, carry: tuple[Any, ...], first: Bool[Array, " B"]
    ) -> tuple[Any, ...]:
        """The blocks' states before the first agent; memory is reset where ``first``."""
        return tuple(
            block.start(before, first)
            for block, before in zip(self.blocks, carry, strict=True)
        )

    def end(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the blocks remember after the last agent."""
        return tuple(
            block.end(after) for block, after in zip(self.blocks, state, strict=True)
        )

    def step(
        self,
        state: tuple[Any, ...],
        token: Float[Array, "B K"],
        context: tuple[Any, ...],
    ) -> tuple[tuple[Any, ...], Float[Array, "B O"]]:
        """One agent."""
        x, after = self._embed(token), []
        for block, s, c in zip(self.blocks, state, context, strict=True):
            s, x = block.step(s, x, c)
            after.append(s)
        return tuple(after), self._out(x)

    def _embed(self, token: Array) -> Array:
        return self.embed_norm(nn.gelu(self.embed(token)))

    def _out(self, x: Array) -> Array:
        out = self.head(x)
        if self.discrete:
            return out
        return jnp.concatenate(
            [out, jnp.broadcast_to(self.log_std, out.shape)], axis=-1
        )


def sequence_policy(
    spec: Spec, encoder: Encoder, decoder: Decoder, *, agent_id: bool
) -> SequencePolicy:
    """The sequence policy of an encoder and a decoder, on flat observations."""

    def init(key: Key) -> Params:
        enc_key, dec_key = jax.random.split(key)
        obs = flatten(empty_obs(spec, 1, 1), spec, agent_id=agent_id)
        tokens = jnp.zeros((1, 1, spec.n_agents, spec.n_actions + 1))
        rep = jnp.zeros((1, 1, spec.n_agents, encoder.embed_dim))
        first = jnp.ones((1, 1), bool)
        joined = jnp.ones((1, 1, spec.n_agents), bool)
        return {
            "encoder": encoder.init(
                enc_key, encoder.initial(1, spec.n_agents), obs, first, joined
            )["params"],
            "decoder": decoder.init(
                dec_key, decoder.initial(1, spec.n_agents), tokens, rep, first
            )["params"],
        }

    def encode(params: Params, enc: Any, obs: EntityObs, first: Array) -> Any:
        x = flatten(obs, spec, agent_id=agent_id)
        return encoder.apply({"params": params["encoder"]}, enc, x, first, obs.joined)

    def decoding(method: str) -> Callable[..., Any]:
        return lambda params, *args: decoder.apply(
            {"params": params["decoder"]}, *args, method=method
        )

    return SequencePolicy(
        init=init,
        carry=lambda batch: SequenceCarry(
            *(part.initial(batch, spec.n_agents) for part in (encoder, decoder))
        ),
        encode=encode,
        decode_context=decoding("context"),
        decode_start=decoding("start"),
        decode_step=decoding("step"),
        decode_end=decoding("end"),
        decode_parallel=decoding("__call__"),
    )
