"""Memory over time behind one interface: none, a GRU, or a selective state space.

``memory(carry, x[T, B, N, F], first[T, B] or [T, B, N]) -> (carry, y[T, B, N, H])``. The carry of an
agent is reset, before it is read, where ``first``: at the start of an episode, and when an
agent joins in the middle of one; never by a death. Acting is the same call with T = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.learning.returns import align
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import product, transpose
from jmarl.ssm import Mamba, MambaConfig, MambaState


MemoryKind = Literal["none", "gru", "ssm"]


def make_memory(kind: MemoryKind, width: int) -> NoMemory | GRU | SSM:
    """The memory module of that kind; its ``initial(B, N)`` is the carry before any observation."""
    kinds = {"none": NoMemory, "gru": GRU, "ssm": SSM}
    return kinds[kind](width, name="memory")


class NoMemory(nn.Module):
    """Remembers nothing: ``y = x``, whatever the width."""

    width: int = 0

    @nn.nowrap
    def initial(self, *batch: int) -> tuple[()]:
        """The empty carry."""
        return ()

    def __call__(
        self, carry: Any, x: Float[Array, "T B N F"], first: Bool[Array, "T B ..."]
    ) -> tuple[Any, Any]:
        """Pass ``x`` through."""
        return carry, x


def _per_gate(init: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Initialize a kernel ``[F, 3H]`` as three of ``[F, H]``."""

    def three(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "F 3H"]:
        return jnp.concatenate(
            [init(k, (shape[0], shape[1] // 3)) for k in jax.random.split(key, 3)],
            axis=1,
        )

    return three


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; the reset gate after the product).

    The input's products with the gates are outside the scan: one product for all T.
    """

    width: int

    @nn.nowrap
    def initial(self, *batch: int) -> Float[Array, "B N H"]:
        """Zeros."""
        return jnp.zeros((*batch, self.width))

    @nn.compact
    def __call__(
        self,
        carry: Float[Array, "B N H"],
        x: Float[Array, "T B N F"],
        first: Bool[Array, "T B ..."],
    ) -> tuple[Float[Array, "B N H"], Float[Array, "T B N H"]]:
        """Scan over time."""
        shape = (self.width, 3 * self.width)
        kernel = self.param(
            "kernel", _per_gate(nn.initializers.lecun_normal()), (x.shape[-1], shape[1])
        )
        bias = self.param("bias", nn.initializers.zeros, shape[1:])
        recurrent = self.param("recurrent", _per_gate(orthogonal()), shape)
        candidate_bias = self.param("candidate_bias", nn.initializers.zeros, shape[:1])
        return _gru_scan(
            recurrent, candidate_bias, carry, product(x, kernel) + bias, align(first, x)
        )


@jax.custom_vjp
def _gru_scan(
    recurrent: Float[Array, "H 3H"],
    candidate_bias: Float[Array, " H"],
    carry: Float[Array, "B N H"],
    gates: Float[Array, "T B N 3H"],
    first: Bool[Array, "T B ..."],
) -> tuple[Float[Array, "B N H"], Float[Array, "T B N H"]]:
    """The recurrence, from what the input adds to the gates r, z and n before their nonlinearities.

    Its gradient is written out: it keeps five arrays a step where autodiff keeps ten, and the gradient of
    ``recurrent`` is one product over the T rows, after the scan, where autodiff adds up one of every step. (T is
    that of a block where ``Trunk`` cuts time.)
    """
    return _gru_forward(recurrent, candidate_bias, carry, gates, first)[0]


def _gru_forward(recurrent, candidate_bias, carry, gates, first):
    def step(hidden, row):
        gates, start = row
        hidden = jnp.where(start, 0.0, hidden)
        in_r, in_z, in_n = jnp.split(gates, 3, -1)
        re_r, re_z, re_n = jnp.split(product(hidden, recurrent), 3, -1)
        r, z, re_n = (
            nn.sigmoid(in_r + re_r),
            nn.sigmoid(in_z + re_z),
            re_n + candidate_bias,
        )
        candidate = nn.tanh(in_n + r * re_n)
        after = candidate + z * (hidden - candidate)
        return after, (after, (r, z, candidate, re_n, hidden))

    last, (out, kept) = jax.lax.scan(step, carry, (gates, first))
    return (last, out), (recurrent, kept, first)


def _gru_backward(saved, grads):
    recurrent, kept, first = saved
    grad_last, grad_out = grads
    transposed = transpose(recurrent)

    def step(later, row):
        grad, (r, z, candidate, re_n, hidden), start = row
        grad = grad + later
        grad_n = grad * (1 - z) * (1 - candidate**2)
        grad_z = grad * (hidden - candidate) * z * (1 - z)
        grad_r = grad_n * re_n * r * (1 - r)
        grad_re = jnp.concatenate([grad_r, grad_z, grad_n * r], -1)
        earlier = grad * z + product(grad_re, transposed)
        return jnp.where(start, 0.0, earlier), (grad_re, grad_n)

    grad_carry, (grad_re, grad_n) = jax.lax.scan(
        step, grad_last, (grad_out, kept, first), reverse=True
    )
    width = recurrent.shape[0]
    grad_in = jnp.concatenate([grad_re[..., : 2 * width], grad_n], -1)
    grad_re, hidden = grad_re.reshape(-1, 3 * width), kept[-1].reshape(-1, width)
    return hidden.T @ grad_re, grad_re[:, 2 * width :].sum(0), grad_carry, grad_in, None


_gru_scan.defvjp(_gru_forward, _gru_backward)


class SSM(nn.Module):
    """A Mamba block along time (Gu and Dao 2023, arXiv:2312.00752), one sequence for each agent.

    Its convolution and state are both memory, and both are reset. The input must have ``width``.
    """

    width: int
    config: MambaConfig = MambaConfig()

    @nn.nowrap
    def initial(self, *batch: int) -> MambaState:
        """Zeros: an empty convolution window and state."""
        return Mamba(self.width, self.config, parent=None).init_state(batch)

    @nn.compact
    def __call__(
        self,
        carry: MambaState,
        x: Float[Array, "T B N F"],
        first: Bool[Array, "T B ..."],
    ) -> tuple[MambaState, Float[Array, "T B N H"]]:
        """Scan over time, or take one step of it."""
        first = jnp.broadcast_to(align(first, x)[..., 0], x.shape[:-1])
        block = Mamba(self.width, self.config, name="block")
        if x.shape[0] == 1:
            y, carry = block.step(carry, x[0], first=first[0])
            return carry, y[None]
        y, carry = block(
            jnp.moveaxis(x, 0, 2), state=carry, first=jnp.moveaxis(first, 0, 2)
        )
        return carry, jnp.moveaxis(y, 2, 0)
