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
from jmarl.networks.gru.recurrence import gru_scan
from jmarl.nn.initializers import orthogonal
from jmarl.nn.linear import product
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
        return gru_scan(recurrent, candidate_bias, carry, gates, align(first, x))


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
