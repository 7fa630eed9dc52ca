"""Dense layers and the multi-layer perceptron."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.nn.initializers import orthogonal
from jmarl.nn.norm import LayerNorm
from jmarl.platforms import platform


Activation = Literal["relu", "tanh", "gelu"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
}


class MLP(nn.Module):
    """Dense layers, each followed by the activation and, if ``layer_norm``, by a LayerNorm.

    Kernels are initialized orthogonal with gain sqrt(2), biases at zero. Several input parts are
    concatenated by the first layer, which is a ``JointDense``.
    """

    sizes: tuple[int, ...]
    activation: Activation = "relu"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, *parts: Float[Array, "... F"]) -> Float[Array, "... H"]:
        """Map parts ``[..., F_i]`` to ``[..., sizes[-1]]``."""
        x = parts[0]
        for i, size in enumerate(self.sizes):
            inputs = parts if i == 0 else (x,)
            x = JointDense(size, name=f"dense_{i}")(*inputs)
            x = ACTIVATIONS[self.activation](x)
            if self.layer_norm:
                x = LayerNorm(name=f"norm_{i}")(x)
        return x


class JointDense(nn.Module):
    """A dense layer on the concatenation of parts with leading axes that broadcast.

    ``[x1, x2] W = x1 W1 + x2 W2``: for parts ``[B, 1, F1]`` of a team and ``[B, N, F2]`` of its
    agents, the product of the first part is computed once for the team. Neighbors with equal
    leading axes are concatenated, because one product is cheaper than several narrow ones.
    """

    features: int
    scale: float = float(np.sqrt(2.0))

    @nn.compact
    def __call__(self, *parts: Float[Array, "... F"]) -> Float[Array, "... H"]:
        """Map parts ``[..., F_i]`` to ``[..., features]``."""
        blocks = _concatenate_neighbors(parts)
        widths = [block.shape[-1] for block in blocks]
        init = orthogonal(self.scale)
        kernel = self.param("kernel", init, (sum(widths), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernels = jnp.split(kernel, np.cumsum(widths)[:-1])
        pairs = zip(blocks, kernels, strict=True)
        products = [product(block, rows) for block, rows in pairs]
        return sum(products[1:], start=products[0]) + bias


def _concatenate_neighbors(parts: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Concatenate consecutive parts with equal leading axes."""
    runs = itertools.groupby(parts, key=lambda part: part.shape[:-1])
    return [jnp.concatenate(list(run), axis=-1) for _, run in runs]


def product(
    x: Float[Array, "... F"], kernel: Float[Array, "F H"]
) -> Float[Array, "... H"]:
    """Return ``x @ kernel``, computed with all leading axes merged into one.

    If ``x`` is sharded along an axis other than the first, merging the axes gathers its rows.
    Gradients are therefore taken through ``learning.parallel``, which gives each device only its
    own rows.

    Args:
        x: Input rows.
        kernel: Weights.

    Returns:
        Output rows, with the leading axes of ``x``.
    """
    *batch, features = x.shape
    rows = x.reshape(math.prod(batch), features)
    return _product(rows, kernel).reshape(*batch, kernel.shape[-1])


def transpose(kernel: Float[Array, "F H"]) -> Float[Array, "H F"]:
    """Return the transpose, materialized on a CPU, where products with a lazy one are slower."""
    if platform() == "cpu":
        return jax.lax.optimization_barrier(kernel.T)
    return kernel.T


@jax.custom_vjp
def _product(
    x: Float[Array, "R F"], kernel: Float[Array, "F H"]
) -> Float[Array, "R H"]:
    """Return ``x @ kernel``; the VJP uses the orientation that XLA multiplies fastest on a CPU."""
    return x @ kernel


def _product_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved  # [R, F], [F, H]; grad [R, H]
    return grad @ transpose(kernel), x.T @ grad


_product.defvjp(_product_forward, _product_backward)
