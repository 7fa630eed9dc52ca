"""Attention over agents, in parallel and one agent at a time: the token mixer of MAT.

Multi-Agent Transformer (Wen et al. 2022, arXiv:2205.14953), section 4.1 and its released code:
unmasked attention in the encoder, causal attention in the decoder. The second attention of the
decoder takes its queries from the observation's representation, and keys and values from the action
stream.

Differs from the paper: keys have no bias. A softmax does not depend on it, so its gradient is zero
up to rounding, which Adam would amplify into drift.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmarl.networks.sequence.blocks import SMALL_INIT, Memoryless
from jmarl.nn.attention import attend


class KVCache(NamedTuple):
    """Keys and values of the agents decoded so far; later positions are zero and masked.

    Batch and heads share an axis. With a head axis of size one, XLA copies both buffers at every
    position instead of writing one row in place.
    """

    key: Float[Array, "BH N D"]
    value: Float[Array, "BH N D"]
    position: Int[Array, ""]
    """Number of agents decoded so far."""


class Attention(Memoryless):
    """Multi-head attention with queries from ``query_input``, keys and values from ``x``."""

    embed_dim: int
    n_head: int
    causal: bool
    """Whether agent i attends only to agents 0..i."""
    n_agents: int
    """Size of the cache that ``start`` allocates."""

    def setup(self) -> None:
        width = self.embed_dim
        self.query = nn.Dense(width, kernel_init=SMALL_INIT)
        self.key = nn.Dense(width, kernel_init=SMALL_INIT, use_bias=False)
        self.value = nn.Dense(width, kernel_init=SMALL_INIT)
        self.out = nn.Dense(width, kernel_init=SMALL_INIT)

    def __call__(
        self,
        carry: tuple[()],
        query_input: Float[Array, "*batch N E"],
        x: Float[Array, "*batch N E"],
        first: Bool[Array, "*batch"],
    ) -> tuple[tuple[()], Float[Array, "*batch N E"]]:
        projected = self.query(query_input), self.key(x), self.value(x)
        # [*batch, H, N, D]
        q, k, v = (self._split_heads(y).swapaxes(-2, -3) for y in projected)
        n_agents = x.shape[-2]
        mask = jnp.tril(jnp.ones((n_agents, n_agents), bool)) if self.causal else None
        mixed = attend(q, k, v, mask).swapaxes(-2, -3)  # [*batch, N, H, D]
        return carry, self.out(mixed.reshape(x.shape))

    def context(
        self, query_input: Float[Array, "*batch E"]
    ) -> Float[Array, "*batch H D"]:
        """Return the queries."""
        return self._split_heads(self.query(query_input))

    def start(self, carry: tuple[()], first: Bool[Array, " B"]) -> KVCache:
        """Return an empty cache."""
        shape = (len(first) * self.n_head, self.n_agents, self.embed_dim // self.n_head)
        return KVCache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def step(
        self, cache: KVCache, q: Float[Array, "B H D"], x: Float[Array, "B E"]
    ) -> tuple[KVCache, Float[Array, "B E"]]:
        """Attend from the next agent to itself and to those before it."""
        position = cache.position
        key = _write_row(cache.key, self._split_heads(self.key(x)), position)
        value = _write_row(cache.value, self._split_heads(self.value(x)), position)
        mask = jnp.arange(key.shape[1]) <= position  # [N]
        q = q.reshape(-1, 1, q.shape[-1])  # [B H, 1, D]
        mixed = attend(q, key, value, mask)
        cache = KVCache(key, value, position + 1)
        return cache, self.out(mixed.reshape(x.shape))

    def _split_heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_head, -1)


def _write_row(buffer: Array, row: Array, position: Array) -> Array:
    """Write row [B, H, D] into buffer [B H, N, D] at a position of axis 1."""
    row = row.reshape(-1, 1, row.shape[-1])
    return jax.lax.dynamic_update_slice_in_dim(buffer, row, position, axis=1)
