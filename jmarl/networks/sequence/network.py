"""Encoder and decoder of sequence policies, and the policy that they form.

Their blocks are modules of ``networks/sequence/blocks.py`` with the token mixers of a system.
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
from jmarl.networks.sequence.blocks import LARGE_INIT, SMALL_INIT, Factory
from jmarl.networks.sequence.policy import SequenceCarry, SequencePolicy
from jmarl.nn.norm import LayerNorm
from jmarl.types import EntityObs, Key, Params, Spec


class Head(nn.Module):
    """``Dense - GELU - norm - Dense``, near zero at initialization."""

    width: int
    out: int
    norm: Factory = LayerNorm

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch O"]:
        x = nn.gelu(nn.Dense(self.width, kernel_init=LARGE_INIT)(x))
        x = self.norm()(x)
        return nn.Dense(self.out, kernel_init=SMALL_INIT)(x)


class Encoder(nn.Module):
    """Observations of all agents to representations and values (MAT, section 4.1)."""

    embed_dim: int
    n_block: int
    block: Factory
    norm: Factory = LayerNorm

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, ...]:
        """Return the carries of the blocks before any row."""
        return _initial_carries(self.block, self.n_block, batch, n_agents)

    @nn.compact
    def __call__(
        self,
        carry: tuple[Any, ...],
        obs: Float[Array, "T B N F"],
        first: Bool[Array, "T B"],
        joined: Bool[Array, "T B N"],
    ) -> tuple[tuple[Any, ...], Float[Array, "T B N E"], Float[Array, "T B N"]]:
        """Encode all agents of all rows.

        Args:
            carry: Carry of each block before row 0.
            obs: Flat observations.
            first: True where an episode starts; resets all memory.
            joined: True where an agent joins an episode; resets the memory of that agent.

        Returns:
            The carries after the last row, the representations and the values.
        """
        x = nn.Dense(self.embed_dim, kernel_init=LARGE_INIT)(self.norm()(obs))
        x = self.norm()(nn.gelu(x))
        new_carry = []
        for i, block_carry in enumerate(carry):
            block = self.block(name=f"block_{i}")
            block_carry, x = block(block_carry, x, first, joined)
            new_carry.append(block_carry)
        value = Head(self.embed_dim, 1, self.norm, name="value")(x)
        return tuple(new_carry), x, value[..., 0]


class Decoder(nn.Module):
    """Action tokens and representations to the parameters of each agent's action.

    MAT, section 4.1. A continuous head returns a mean and a log standard deviation that does not
    depend on the state.
    """

    embed_dim: int
    n_block: int
    n_actions: int
    discrete: bool
    block: Factory
    norm: Factory = LayerNorm
    init_std: float = 0.6

    def setup(self) -> None:
        use_bias = not self.discrete
        self.embed = nn.Dense(self.embed_dim, kernel_init=LARGE_INIT, use_bias=use_bias)
        self.embed_norm = self.norm()
        self.blocks = [self.block() for _ in range(self.n_block)]
        self.head = Head(self.embed_dim, self.n_actions, self.norm)
        if not self.discrete:
            init = nn.initializers.constant(math.log(self.init_std))
            self.log_std = self.param("log_std", init, (self.n_actions,))

    @nn.nowrap
    def initial(self, batch: int, n_agents: int) -> tuple[Any, ...]:
        """Return the carries of the blocks before any row."""
        return _initial_carries(self.block, self.n_block, batch, n_agents)

    def __call__(
        self,
        carry: tuple[Any, ...],
        tokens: Float[Array, "T B N K"],
        rep: Float[Array, "T B N E"],
        first: Bool[Array, "T B"],
    ) -> Float[Array, "T B N O"]:
        """Decode all agents of all rows; token i is the action of the agent before agent i."""
        x = self._embed(tokens)
        for block, block_carry in zip(self.blocks, carry, strict=True):
            x = block(block_carry, x, rep, first)
        return self._distribution_parameters(x)

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Any, ...]:
        """Return all that the blocks compute of ``rep`` only; leaves ``[B, N, ...]``."""
        return tuple(block.context(rep) for block in self.blocks)

    def start(
        self, carry: tuple[Any, ...], first: Bool[Array, " B"]
    ) -> tuple[Any, ...]:
        """Return the states before the first agent, with memory reset where ``first``."""
        pairs = zip(self.blocks, carry, strict=True)
        return tuple(block.start(block_carry, first) for block, block_carry in pairs)

    def step(
        self,
        state: tuple[Any, ...],
        token: Float[Array, "B K"],
        context: tuple[Any, ...],
    ) -> tuple[tuple[Any, ...], Float[Array, "B O"]]:
        """Decode the next agent."""
        x = self._embed(token)
        new_state = []
        layers = zip(self.blocks, state, context, strict=True)
        for block, block_state, block_context in layers:
            block_state, x = block.step(block_state, x, block_context)
            new_state.append(block_state)
        return tuple(new_state), self._distribution_parameters(x)

    def end(self, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the carries of the blocks after the last agent."""
        pairs = zip(self.blocks, state, strict=True)
        return tuple(block.end(block_state) for block, block_state in pairs)

    def _embed(self, token: Array) -> Array:
        return self.embed_norm(nn.gelu(self.embed(token)))

    def _distribution_parameters(self, x: Array) -> Array:
        out = self.head(x)
        if self.discrete:
            return out
        log_std = jnp.broadcast_to(self.log_std, out.shape)
        return jnp.concatenate([out, log_std], axis=-1)


def _initial_carries(
    block: Factory, n_block: int, batch: int, n_agents: int
) -> tuple[Any, ...]:
    blocks = (block(parent=None) for _ in range(n_block))
    return tuple(block.initial(batch, n_agents) for block in blocks)


def sequence_policy(
    spec: Spec, encoder: Encoder, decoder: Decoder, *, agent_id: bool
) -> SequencePolicy:
    """Build the sequence policy of an encoder and a decoder on flat observations.

    Args:
        spec: Spec of the environment.
        encoder: Module from observations to representations and values.
        decoder: Module from tokens and representations to distribution parameters.
        agent_id: Whether observations end with a one-hot agent index.

    Returns:
        The policy as pure functions.
    """
    n_agents = spec.n_agents

    def init(key: Key) -> Params:
        enc_key, dec_key = jax.random.split(key)
        obs = flatten(empty_obs(spec, 1, 1), spec, agent_id=agent_id)
        tokens = jnp.zeros((1, 1, n_agents, spec.n_actions + 1))
        rep = jnp.zeros((1, 1, n_agents, encoder.embed_dim))
        first = jnp.ones((1, 1), bool)
        joined = jnp.ones((1, 1, n_agents), bool)
        enc_carry = encoder.initial(1, n_agents)
        enc_variables = encoder.init(enc_key, enc_carry, obs, first, joined)
        dec_carry = decoder.initial(1, n_agents)
        dec_variables = decoder.init(dec_key, dec_carry, tokens, rep, first)
        return {"encoder": enc_variables["params"], "decoder": dec_variables["params"]}

    def carry(batch: int) -> SequenceCarry:
        return SequenceCarry(
            enc=encoder.initial(batch, n_agents), dec=decoder.initial(batch, n_agents)
        )

    def encode(params: Params, enc: Any, obs: EntityObs, first: Array) -> Any:
        x = flatten(obs, spec, agent_id=agent_id)
        return encoder.apply({"params": params["encoder"]}, enc, x, first, obs.joined)

    def decoder_method(name: str) -> Callable[..., Any]:
        def call(params: Params, *args: Any) -> Any:
            return decoder.apply({"params": params["decoder"]}, *args, method=name)

        return call

    return SequencePolicy(
        init=init,
        carry=carry,
        encode=encode,
        decode_context=decoder_method("context"),
        decode_start=decoder_method("start"),
        decode_step=decoder_method("step"),
        decode_end=decoder_method("end"),
        decode_parallel=decoder_method("__call__"),
    )
