"""Memory over time behind one interface: none, a GRU, or a selective state space.

``memory(carry, x[T, B, N, F], first[T, B] or [T, B, N]) -> (carry, y[T, B, N, H])``. The carry of an
agent is reset, before it is read, where ``first``: at the start of an episode, and when an
agent joins in the middle of one; never by a death. Acting is the same call with T = 1.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.learning.returns import align
from jmarl.networks.init import orthogonal
from jmarl.ssm import Mamba, MambaState


MemoryKind = Literal["none", "gru", "ssm"]


def make_memory(kind: MemoryKind, width: int) -> NoMemory | GRU | SSM:
    """The memory module of that kind; its ``initial(B, N)`` is the carry before any observation."""
    kinds = {"none": NoMemory, "gru": GRU, "ssm": SSM}
    return kinds[kind](width, name="memory")


class NoMemory(nn.Module):
    """Remembers nothing: ``y = x``."""

    width: int

    @nn.nowrap
    def initial(self, *batch: int) -> tuple[()]:
        """The empty carry."""
        return ()

    def __call__(self, carry: Any, x: Float[Array, "T B N F"], first: Bool[Array, "T B ..."]) -> tuple[Any, Any]:
        """Pass ``x`` through."""
        return carry, x


def _orthogonal_gates(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "H 3H"]:
    width, total = shape
    blocks = [orthogonal()(k, (width, width)) for k in jax.random.split(key, total // width)]
    return jnp.concatenate(blocks, axis=1)


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; the reset gate after the product).

    The input's part of all three gates is one product for all T at once, outside the scan; the
    scan holds the recurrent product alone.
    """

    width: int

    @nn.nowrap
    def initial(self, *batch: int) -> Float[Array, "B N H"]:
        """Zeros."""
        return jnp.zeros((*batch, self.width))

    @nn.compact
    def __call__(
        self, carry: Float[Array, "B N H"], x: Float[Array, "T B N F"], first: Bool[Array, "T B ..."]
    ) -> tuple[Float[Array, "B N H"], Float[Array, "T B N H"]]:
        """Scan over time."""
        gates = nn.Dense(3 * self.width, name="input")(x)
        kernel = self.param("recurrent", _orthogonal_gates, (self.width, 3 * self.width))
        bias = self.param("candidate_bias", nn.initializers.zeros, (self.width,))

        def step(hidden, row):
            gate, start = row
            hidden = jnp.where(start, 0.0, hidden)
            in_r, in_z, in_n = jnp.split(gate, 3, axis=-1)
            re_r, re_z, re_n = jnp.split(hidden @ kernel, 3, axis=-1)
            r, z = nn.sigmoid(in_r + re_r), nn.sigmoid(in_z + re_z)
            candidate = nn.tanh(in_n + r * (re_n + bias))
            hidden = candidate + z * (hidden - candidate)
            return hidden, hidden

        return jax.lax.scan(step, carry, (gates, align(first, gates)))


class SSM(nn.Module):
    """A Mamba block along time (Gu and Dao 2023, arXiv:2312.00752), one sequence for each agent.

    Its convolution and state are both memory, and both are reset. The input must have ``width``.
    """

    width: int

    @nn.nowrap
    def initial(self, *batch: int) -> MambaState:
        """Zeros: an empty convolution window and state."""
        return Mamba(self.width, parent=None).init_state(batch)

    @nn.compact
    def __call__(
        self, carry: MambaState, x: Float[Array, "T B N F"], first: Bool[Array, "T B ..."]
    ) -> tuple[MambaState, Float[Array, "T B N H"]]:
        """Scan over time, or take one step of it."""
        first = jnp.broadcast_to(align(first, x)[..., 0], x.shape[:-1])
        block = Mamba(self.width, name="block")
        if x.shape[0] == 1:
            y, carry = block.step(carry, x[0], first=first[0])
            return carry, y[None]
        y, carry = block(jnp.moveaxis(x, 0, 2), state=carry, first=jnp.moveaxis(first, 0, 2))
        return carry, jnp.moveaxis(y, 2, 0)
