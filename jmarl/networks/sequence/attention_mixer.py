"""Attention over agents, in parallel and one agent at a time: the mixer of MAT.

Multi-Agent Transformer (Wen et al. 2022), section 4.1 and its released code: unmasked
attention in the encoder, causal attention in the decoder, whose second attention asks
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

from jmarl.networks.sequence.blocks import NARROW, Memoryless
from jmarl.nn.attention import attend


class KVCache(NamedTuple):
    """Keys and values of the agents decoded so far; later positions are zero and masked.

    Batch and heads share an axis: with a head axis of size one, XLA copies both buffers at every
    position instead of writing one row in place.
    """

    key: Float[Array, "BH N D"]
    value: Float[Array, "BH N D"]
    position: Int[Array, ""]


class Attention(Memoryless):
    """Multi-head attention: queries from what asks, keys and values from ``x``.

    ``causal``: agent i attends to agents 0..i. ``n_agents`` is the size of the cache, which ``start`` alone needs.
    """

    embed_dim: int
    n_head: int
    causal: bool
    n_agents: int

    def setup(self) -> None:
        """Four projections."""
        self.query = nn.Dense(self.embed_dim, kernel_init=NARROW)
        self.key = nn.Dense(self.embed_dim, kernel_init=NARROW, use_bias=False)
        self.value = nn.Dense(self.embed_dim, kernel_init=NARROW)
        self.out = nn.Dense(self.embed_dim, kernel_init=NARROW)

    def __call__(
        self,
        carry: tuple[()],
        asking: Float[Array, "*batch N E"],
        x: Float[Array, "*batch N E"],
        first: Bool[Array, "*batch"],
    ) -> tuple[tuple[()], Float[Array, "*batch N E"]]:
        """All agents at once."""
        q, k, v = (
            self._split(y).swapaxes(-2, -3)
            for y in (self.query(asking), self.key(x), self.value(x))
        )
        mask = jnp.tril(jnp.ones(2 * (x.shape[-2],), bool)) if self.causal else None
        mixed = attend(q, k, v, mask)
        return carry, self.out(mixed.swapaxes(-2, -3).reshape(x.shape))

    def context(self, asking: Float[Array, "*batch E"]) -> Float[Array, "*batch H D"]:
        """The queries."""
        return self._split(self.query(asking))

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> KVCache:
        """An empty cache."""
        shape = (len(first) * self.n_head, self.n_agents, self.embed_dim // self.n_head)
        return KVCache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def step(
        self, cache: KVCache, q: Float[Array, "B H D"], x: Float[Array, "B E"]
    ) -> tuple[KVCache, Float[Array, "B E"]]:
        """The next agent attends to itself and to those before it."""
        key = _write(cache.key, self._split(self.key(x)), cache.position)
        value = _write(cache.value, self._split(self.value(x)), cache.position)
        seen = jnp.arange(key.shape[1]) <= cache.position
        mixed = attend(q.reshape(-1, 1, q.shape[-1]), key, value, seen)
        return KVCache(key, value, cache.position + 1), self.out(mixed.reshape(x.shape))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_head, -1)


def _write(buffer: Array, row: Array, position: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(
        buffer, row.reshape(-1, 1, row.shape[-1]), position, axis=1
    )
