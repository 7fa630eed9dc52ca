"""The skeleton that MAT and MAM share: encoder, decoder, and the policy without memory that they form.

A family supplies two blocks. An encoder block is a module ``block(x[M, N, E]) -> [M, N, E]``.
A decoder block is a module with ``block(x, rep)`` over all agents, and for acting
``context(rep)``, ``start(B) -> state`` and ``step(state, x_i[B, E], context_i) -> (state, y_i)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.networks.flatten import empty_obs, flatten
from jmarl.networks.init import orthogonal
from jmarl.networks.sequence.policy import SequenceCarry, SequencePolicy
from jmarl.ssm.norm import LayerNorm
from jmarl.types import EntityObs, Key, Params, Spec


BlockFactory = Callable[..., nn.Module]
WIDE, NARROW = orthogonal(2**0.5), orthogonal(0.01)


class MLP(nn.Module):
    """Two layers of one width with a GELU between them; small at the start."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
        """Each agent on its own."""
        x = nn.gelu(nn.Dense(self.width, kernel_init=WIDE)(x))
        return nn.Dense(self.width, kernel_init=NARROW)(x)


class Head(nn.Module):
    """``Dense - GELU - LayerNorm - Dense``, near zero at the start."""

    width: int
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch E"]) -> Float[Array, "*batch O"]:
        """Each agent on its own."""
        x = LayerNorm()(nn.gelu(nn.Dense(self.width, kernel_init=WIDE)(x)))
        return nn.Dense(self.out, kernel_init=NARROW)(x)


class Encoder(nn.Module):
    """Observations of all agents to representations and values (MAT, section 4.1)."""

    embed_dim: int
    n_block: int
    block: BlockFactory

    @nn.compact
    def __call__(self, obs: Float[Array, "M N F"]) -> tuple[Float[Array, "M N E"], Float[Array, "M N"]]:
        """All agents at once."""
        x = nn.Dense(self.embed_dim, kernel_init=WIDE)(LayerNorm()(obs))
        x = LayerNorm()(nn.gelu(x))
        for i in range(self.n_block):
            x = self.block(name=f"block_{i}")(x)
        return x, Head(self.embed_dim, 1, name="value")(x)[..., 0]


class Decoder(nn.Module):
    """Action tokens and representations to the parameters of each agent's action (MAT, section 4.1).

    A continuous head is a mean and a log standard deviation that does not depend on the state.
    """

    embed_dim: int
    n_block: int
    n_actions: int
    discrete: bool
    block: BlockFactory
    init_std: float = 0.6

    def setup(self) -> None:
        """Embedding, blocks and head."""
        self.embed = nn.Dense(self.embed_dim, kernel_init=WIDE, use_bias=not self.discrete)
        self.norm = LayerNorm()
        self.blocks = [self.block() for _ in range(self.n_block)]
        self.head = Head(self.embed_dim, self.n_actions)
        if not self.discrete:
            self.log_std = self.param("log_std", nn.initializers.constant(math.log(self.init_std)), (self.n_actions,))

    def __call__(self, tokens: Float[Array, "M N K"], rep: Float[Array, "M N E"]) -> Float[Array, "M N O"]:
        """All agents at once, each token being what that agent hears."""
        x = self._embed(tokens)
        for block in self.blocks:
            x = block(x, rep)
        return self._out(x)

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Any, ...]:
        """What the blocks compute of ``rep`` alone, each leaf ``[B, N, ...]``."""
        return tuple(block.context(rep) for block in self.blocks)

    def start(self, batch: int) -> tuple[Any, ...]:
        """The blocks' states before the first agent."""
        return tuple(block.start(batch) for block in self.blocks)

    def step(
        self, state: tuple[Any, ...], token: Float[Array, "B K"], context: tuple[Any, ...]
    ) -> tuple[tuple[Any, ...], Float[Array, "B O"]]:
        """One agent."""
        x, after = self._embed(token), []
        for block, s, c in zip(self.blocks, state, context, strict=True):
            s, x = block.step(s, x, c)
            after.append(s)
        return tuple(after), self._out(x)

    def _embed(self, token: Array) -> Array:
        return self.norm(nn.gelu(self.embed(token)))

    def _out(self, x: Array) -> Array:
        out = self.head(x)
        if self.discrete:
            return out
        return jnp.concatenate([out, jnp.broadcast_to(self.log_std, out.shape)], axis=-1)


def memoryless_policy(spec: Spec, encoder: Encoder, decoder: Decoder, *, agent_id: bool) -> SequencePolicy:
    """A sequence policy whose only sequence axis is the agents: nothing is carried over time."""

    def init(key: Key) -> Params:
        enc_key, dec_key = jax.random.split(key)
        obs = flatten(empty_obs(spec, 1), spec, agent_id=agent_id)
        tokens = jnp.zeros((1, spec.n_agents, spec.n_actions + 1))
        rep = jnp.zeros((1, spec.n_agents, encoder.embed_dim))
        return {
            "encoder": encoder.init(enc_key, obs)["params"],
            "decoder": decoder.init(dec_key, tokens, rep)["params"],
        }

    def encode(params: Params, enc: Any, obs: EntityObs, first: Array) -> tuple[Any, Array, Array]:
        x = flatten(obs, spec, agent_id=agent_id)
        rep, value = cast(tuple[Array, Array], encoder.apply({"params": params["encoder"]}, _fold(x)))
        return enc, _unfold(rep, first.shape), _unfold(value, first.shape)

    def decoder_method(method: str, params: Params, *args: Any) -> Any:
        return decoder.apply({"params": params["decoder"]}, *args, method=method)

    def decode_parallel(params: Params, dec: Any, tokens: Array, rep: Array, first: Array) -> Array:
        out: Any = decoder.apply({"params": params["decoder"]}, _fold(tokens), _fold(rep))
        return _unfold(out, first.shape)

    return SequencePolicy(
        init=init,
        carry=lambda batch: SequenceCarry((), ()),
        encode=encode,
        decode_context=lambda params, rep: decoder_method("context", params, rep),
        decode_start=lambda params, dec, first: decoder_method("start", params, first.shape[0]),
        decode_step=lambda params, state, token, context: decoder_method("step", params, state, token, context),
        decode_end=lambda state: (),
        decode_parallel=decode_parallel,
    )


def _fold(x: Array) -> Array:
    """``[T, B, N, F]`` to ``[B T, N, F]``: with B the major axis, each device keeps its environments."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _unfold(x: Array, shape: tuple[int, ...]) -> Array:
    return x.reshape(*reversed(shape), *x.shape[1:]).swapaxes(0, 1)
