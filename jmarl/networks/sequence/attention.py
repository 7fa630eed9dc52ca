"""Attention over agents, in parallel and one agent at a time: the blocks of MAT.

Multi-Agent Transformer (Wen et al. 2022), section 4.1 and its released code: post-norm blocks,
unmasked attention in the encoder, causal attention in the decoder, whose second attention asks
with the observation's representation for keys and values of the action stream.
Differs from the paper: keys have no bias. A softmax is blind to it, so its gradient is zero up
to rounding, which Adam would amplify into drift.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.networks.sequence.network import MLP, NARROW
from jmarl.ssm.norm import LayerNorm


class KVCache(NamedTuple):
    """Keys and values of the agents decoded so far; later positions are zero and masked.

    Batch and heads share an axis: with a head axis of size one, XLA copies both buffers at every
    position instead of writing one row in place.
    """

    key: Float[Array, "BH N D"]
    value: Float[Array, "BH N D"]
    position: Int[Array, ""]


class Attention(nn.Module):
    """Multi-head attention of queries from one sequence over keys and values from another."""

    embed_dim: int
    n_head: int
    causal: bool

    def setup(self) -> None:
        """Four projections."""
        self.query = nn.Dense(self.embed_dim, kernel_init=NARROW)
        self.key = nn.Dense(self.embed_dim, kernel_init=NARROW, use_bias=False)
        self.value = nn.Dense(self.embed_dim, kernel_init=NARROW)
        self.out = nn.Dense(self.embed_dim, kernel_init=NARROW)

    def __call__(self, asking: Float[Array, "*batch N E"], x: Float[Array, "*batch N E"]) -> Float[Array, "*batch N E"]:
        """All agents at once; if causal, agent i attends to agents 0..i."""
        q, k, v = (self._split(y).swapaxes(-2, -3) for y in (self.query(asking), self.key(x), self.value(x)))
        mask = jnp.tril(jnp.ones(2 * (x.shape[-2],), bool)) if self.causal else None
        mixed = _attend(q, k, v, mask)
        return self.out(mixed.swapaxes(-2, -3).reshape(x.shape))

    def queries(self, asking: Float[Array, "*batch E"]) -> Float[Array, "*batch H D"]:
        """The queries, apart, so that those of the representation leave the loop over agents."""
        return self._split(self.query(asking))

    def start(self, batch: int, n_agents: int) -> KVCache:
        """An empty cache."""
        shape = (batch * self.n_head, n_agents, self.embed_dim // self.n_head)
        return KVCache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def step(
        self, cache: KVCache, q: Float[Array, "B H D"], x: Float[Array, "B E"]
    ) -> tuple[KVCache, Float[Array, "B E"]]:
        """The next agent attends to itself and to those before it."""
        key = _write(cache.key, self._split(self.key(x)), cache.position)
        value = _write(cache.value, self._split(self.value(x)), cache.position)
        seen = jnp.arange(key.shape[1]) <= cache.position
        mixed = _attend(q.reshape(-1, 1, q.shape[-1]), key, value, seen)
        return KVCache(key, value, cache.position + 1), self.out(mixed.reshape(x.shape))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_head, -1)


class EncoderBlock(nn.Module):
    """``x = LN(x + MHA(x)); x = LN(x + MLP(x))``."""

    embed_dim: int
    n_head: int

    @nn.nowrap
    def initial(self, batch: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    @nn.compact
    def __call__(
        self, carry: tuple[()], x: Float[Array, "*batch N E"], first: Bool[Array, "*batch N"]
    ) -> tuple[tuple[()], Float[Array, "*batch N E"]]:
        """All agents at once; equivariant to their order."""
        x = LayerNorm()(x + Attention(self.embed_dim, self.n_head, causal=False)(x, x))
        return carry, LayerNorm()(x + MLP(self.embed_dim)(x))


class DecoderState(NamedTuple):
    """The two caches of a decoder block; both hold the action stream."""

    own: KVCache
    cross: KVCache


class DecoderBlock(nn.Module):
    """``x = LN(x + Self(x)); x = LN(rep + Cross(rep, x)); x = LN(x + MLP(x))``.

    The second residual stands on ``rep``: the action stream enters by attention alone.
    """

    embed_dim: int
    n_head: int
    n_agents: int

    def setup(self) -> None:
        """Two attentions, an MLP, and the norms after them."""
        self.own = Attention(self.embed_dim, self.n_head, causal=True)
        self.cross = Attention(self.embed_dim, self.n_head, causal=True)
        self.norms = [LayerNorm() for _ in range(3)]
        self.mlp = MLP(self.embed_dim)

    @nn.nowrap
    def initial(self, batch: int) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def __call__(
        self,
        carry: tuple[()],
        x: Float[Array, "*batch N E"],
        rep: Float[Array, "*batch N E"],
        first: Bool[Array, "*batch"],
    ) -> Float[Array, "*batch N E"]:
        """All agents at once."""
        x = self.norms[0](x + self.own(x, x))
        return self._close(rep, self.cross(rep, x))

    def context(self, rep: Float[Array, "B N E"]) -> tuple[Float[Array, "B N E"], Float[Array, "B N H D"]]:
        """The residual and the queries of the cross-attention."""
        return rep, self.cross.queries(rep)

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> DecoderState:
        """Two empty caches."""
        return DecoderState(*(attention.start(len(first), self.n_agents) for attention in (self.own, self.cross)))

    def end(self, state: DecoderState) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def step(
        self, state: DecoderState, x: Float[Array, "B E"], context: tuple[Float[Array, "B E"], Float[Array, "B H D"]]
    ) -> tuple[DecoderState, Float[Array, "B E"]]:
        """One agent."""
        rep, q = context
        own, mixed = self.own.step(state.own, self.own.queries(x), x)
        x = self.norms[0](x + mixed)
        cross, mixed = self.cross.step(state.cross, q, x)
        return DecoderState(own, cross), self._close(rep, mixed)

    def _close(self, rep: Array, mixed: Array) -> Array:
        x = self.norms[1](rep + mixed)
        return self.norms[2](x + self.mlp(x))


def _attend(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """Softmax attention of ``q[..., I, D]`` over ``k, v[..., J, D]``; ``mask[..., i, j]``: i may see j."""
    scores = jnp.einsum("...id,...jd->...ij", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jnp.einsum("...ij,...jd->...id", jax.nn.softmax(scores, axis=-1), v)


def _write(buffer: Array, row: Array, position: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, row.reshape(-1, 1, row.shape[-1]), position, axis=1)
