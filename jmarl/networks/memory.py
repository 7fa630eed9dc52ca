"""Memory over time with one interface: none, a GRU, or a selective state-space model (SSM).

``memory(carry, x[T, B, N, F], first[T, B] or [T, B, N]) -> (carry, y[T, B, N, H])``. If ``first``,
an agent's carry is reset before the time step reads it. This happens at the start of an episode and
when an agent joins during one. A death never resets it. Acting is the same call with T = 1.

The environment sets ``TimeStep.first``; ``actor_critic.py`` combines it with ``EntityObs.joined``.
The resets of Mamba are in ``ssm/mamba.py``, those of retention in ``sequence/retention.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.learning.returns import align
from jmarl.networks import gru_kernel
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import product, transpose
from jmarl.ssm import Mamba, MambaConfig, MambaState


MemoryKind = Literal["none", "gru", "ssm"]

Between = Callable[
    [Float[Array, "T B N H"], Float[Array, "T B N *slots H"]],
    Float[Array, "T B N *slots H"],
]
"""Function ``(features, x) -> x`` between the memory of an agent and its action heads.

``x`` is what the action heads read: the features themselves, or the tokens of ``UPDeT``. A module
that calls an agent network can give it a function with parameters of its own.
"""


def make_memory(kind: MemoryKind, width: int) -> NoMemory | GRU | SSM:
    """Build a memory module; its ``initial(B, N)`` returns the carry before any observation."""
    kinds = {"none": NoMemory, "gru": GRU, "ssm": SSM}
    return kinds[kind](width, name="memory")


def scan_module(
    module: nn.Module,
    carry: Any,
    inputs: tuple[Any, ...],
    method: str = "__call__",
) -> Any:
    """Scan ``module(carry, *row) -> (carry, out)`` over the first axis with shared parameters."""

    def step(module, carry, row):
        return getattr(module, method)(carry, *row)

    scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
    return scan(module, carry, inputs)


class NoMemory(nn.Module):
    """Identity ``y = x`` with an empty carry; ``width`` has no effect."""

    width: int = 0

    @nn.nowrap
    def initial(self, *batch: int) -> tuple[()]:
        return ()

    def __call__(
        self, carry: Any, x: Float[Array, "T B N F"], first: Bool[Array, "T B ..."]
    ) -> tuple[Any, Any]:
        return carry, x


def _per_gate(init: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Initialize a kernel ``[F, 3H]`` as three kernels ``[F, H]``."""

    def init_gates(key: jax.Array, shape: tuple[int, int]) -> Float[Array, "F 3H"]:
        gate_shape = (shape[0], shape[1] // 3)
        kernels = [init(gate_key, gate_shape) for gate_key in jax.random.split(key, 3)]
        return jnp.concatenate(kernels, axis=1)

    return init_gates


class GRU(nn.Module):
    """Gated recurrent unit with the reset gate after the product.

    Cho et al. 2014 (arXiv:1406.1078). The products of the input with the gates' kernel are outside
    the scan, as one product for all T.
    """

    width: int

    @nn.nowrap
    def initial(self, *batch: int) -> Float[Array, "B N H"]:
        return jnp.zeros((*batch, self.width))

    @nn.compact
    def __call__(
        self,
        carry: Float[Array, "B N H"],
        x: Float[Array, "T B N F"],
        first: Bool[Array, "T B ..."],
    ) -> tuple[Float[Array, "B N H"], Float[Array, "T B N H"]]:
        width = self.width
        kernel_init = _per_gate(nn.initializers.lecun_normal())
        recurrent_init = _per_gate(orthogonal())
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", kernel_init, (x.shape[-1], 3 * width))
        bias = self.param("bias", zeros, (3 * width,))
        recurrent = self.param("recurrent", recurrent_init, (width, 3 * width))
        candidate_bias = self.param("candidate_bias", zeros, (width,))
        gates = product(x, kernel) + bias  # [T, B, N, 3H]
        return _gru_scan(recurrent, candidate_bias, carry, gates, align(first, x))


@jax.custom_vjp
def _gru_scan(
    recurrent: Float[Array, "H 3H"],
    candidate_bias: Float[Array, " H"],
    carry: Float[Array, "B N H"],
    gates: Float[Array, "T B N 3H"],
    first: Bool[Array, "T B ..."],
) -> tuple[Float[Array, "B N H"], Float[Array, "T B N H"]]:
    """Run the recurrence on the input's contributions to the gates r, z and n.

    ``gates`` is before the nonlinearities. The gradient is written out. It saves five arrays per
    time step instead of autodiff's ten. The gradient of ``recurrent`` is one product over the T
    rows after the scan, instead of a sum of one product per step. If ``Trunk`` splits time, T is
    the length of a block.
    """
    return _gru_forward(recurrent, candidate_bias, carry, gates, first)[0]


def _gru_forward(recurrent, candidate_bias, carry, gates, first):
    if gru_kernel.has_kernel(len(gates), carry.shape[-1]):
        flat = _flat(carry), _flat(gates, 1), _flat_flags(first, gates)
        out, saved = gru_kernel.forward(recurrent, candidate_bias, *flat)
        out, *saved = (x.reshape(-1, *carry.shape) for x in (out, *saved))
        return (out[-1], out), (recurrent, gru_kernel.Saved(*saved), first)

    def step(hidden, row):
        gates, reset = row
        hidden = jnp.where(reset, 0.0, hidden)
        # [B, N, H] each
        inputs = jnp.split(gates, 3, -1)
        products = jnp.split(product(hidden, recurrent), 3, -1)
        after, saved = gru_kernel.update(hidden, inputs, products, candidate_bias)
        return after, (after, saved)

    last, (out, saved) = jax.lax.scan(step, carry, (gates, first))
    return (last, out), (recurrent, saved, first)


def _gru_backward(residuals, grads):
    recurrent, saved, first = residuals
    grad_carry, grad_re, grad_n = _gru_grads(recurrent, saved, first, *grads)
    width = recurrent.shape[0]
    grad_gates = jnp.concatenate([grad_re[..., : 2 * width], grad_n], -1)
    # [T * B * N, ...]
    grad_re = grad_re.reshape(-1, 3 * width)
    hidden = saved.hidden.reshape(-1, width)
    grad_recurrent = hidden.T @ grad_re
    grad_bias = grad_re[:, 2 * width :].sum(0)
    return grad_recurrent, grad_bias, grad_carry, grad_gates, None


def _gru_grads(recurrent, saved, first, grad_last, grad_out):
    """Return the gradients of the carry and, for each time step, of products and candidates."""
    if gru_kernel.has_kernel(len(grad_out), grad_last.shape[-1]):
        flat = gru_kernel.Saved(*(_flat(x, 1) for x in saved))
        grads = _flat(grad_last), _flat(grad_out, 1)
        found = gru_kernel.backward(
            recurrent, flat, _flat_flags(first, grad_out), *grads
        )
        grad_carry, *rows = found
        batch = grad_last.shape[:-1]
        rows = (x.reshape(len(x), *batch, -1) for x in rows)
        return grad_carry.reshape(grad_last.shape), *rows
    transposed = transpose(recurrent)

    def step(grad_after, row):
        grad, saved, reset = row
        grad = grad + grad_after
        grad_n, grad_products = gru_kernel.update_gradients(grad, saved)
        grad_re = jnp.concatenate(grad_products, -1)
        grad_before = grad * saved.z + product(grad_re, transposed)
        return jnp.where(reset, 0.0, grad_before), (grad_re, grad_n)

    rows = (grad_out, saved, first)
    grad_carry, grad_rows = jax.lax.scan(step, grad_last, rows, reverse=True)
    return grad_carry, *grad_rows


def _flat(x: Float[Array, "... F"], start: int = 0) -> Float[Array, "... F"]:
    """Merge the axes between ``start`` and the last one."""
    return x.reshape(*x.shape[:start], -1, x.shape[-1])


def _flat_flags(
    first: Bool[Array, "T B ..."], like: Float[Array, "T B N F"]
) -> Bool[Array, "T R"]:
    """Repeat flags for every agent, and merge environments and agents."""
    return jnp.broadcast_to(first, (*like.shape[:-1], 1)).reshape(len(like), -1)


_gru_scan.defvjp(_gru_forward, _gru_backward)


class SSM(nn.Module):
    """Mamba block along time, with one sequence per agent (Gu and Dao 2023, arXiv:2312.00752).

    The convolution window and the state are both memory, and both are reset. The input must have
    ``width`` features.
    """

    width: int
    config: MambaConfig = MambaConfig()

    @nn.nowrap
    def initial(self, *batch: int) -> MambaState:
        return Mamba(self.width, self.config, parent=None).init_state(batch)

    @nn.compact
    def __call__(
        self,
        carry: MambaState,
        x: Float[Array, "T B N F"],
        first: Bool[Array, "T B ..."],
    ) -> tuple[MambaState, Float[Array, "T B N H"]]:
        first = align(first, x)[..., 0]
        first = jnp.broadcast_to(first, x.shape[:-1])
        block = Mamba(self.width, self.config, name="block")
        if x.shape[0] == 1:
            y, carry = block.step(carry, x[0], first=first[0])
            return carry, y[None]
        # time moves next to the features: [B, N, T, F]
        x = jnp.moveaxis(x, 0, 2)
        first = jnp.moveaxis(first, 0, 2)
        y, carry = block(x, state=carry, first=first)
        return carry, jnp.moveaxis(y, 2, 0)
