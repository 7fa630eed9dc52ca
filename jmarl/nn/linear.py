"""The multi-layer perceptron that everything else is built from."""

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


Activation = Literal["relu", "tanh", "gelu"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
}


class MLP(nn.Module):
    """Dense layers, each followed by the activation and, if ``layer_norm``, by a LayerNorm.

    Kernels start orthogonal with gain sqrt 2, biases at zero. The input may come in ``parts`` that
    broadcast against each other (``[B, 1, F1]`` for a team and ``[B, N, F2]`` for its agents): the
    first layer is that of their concatenation, with the product of each part taken once.
    """

    sizes: tuple[int, ...]
    activation: Activation = "relu"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, *parts: Float[Array, "... F"]) -> Float[Array, "... H"]:
        """``[..., F]`` to ``[..., sizes[-1]]``."""
        x = parts[0]
        for i, size in enumerate(self.sizes):
            x = JointDense(size, name=f"dense_{i}")(*(parts if i == 0 else (x,)))
            x = ACTIVATIONS[self.activation](x)
            x = LayerNorm(name=f"norm_{i}")(x) if self.layer_norm else x
        return x


class JointDense(nn.Module):
    """A dense layer on the concatenation of parts whose leading axes broadcast.

    ``[x1, x2] W = x1 W1 + x2 W2``: the product with what the agents of a team share is
    computed once for the team. Neighbors with equal leading axes share nothing that their concatenation
    does not, and one product of it is cheaper than several narrow ones.
    """

    features: int
    scale: float = float(np.sqrt(2.0))

    @nn.compact
    def __call__(self, *parts: Float[Array, "... F"]) -> Float[Array, "... H"]:
        """Parts ``[..., F_i]`` to ``[..., features]``."""
        runs = itertools.groupby(parts, key=lambda part: part.shape[:-1])
        parts = tuple(jnp.concatenate(list(run), axis=-1) for _, run in runs)
        widths = [part.shape[-1] for part in parts]
        init = orthogonal(self.scale)
        kernel = self.param("kernel", init, (sum(widths), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernels = jnp.split(kernel, np.cumsum(widths)[:-1])
        products = [
            product(part, rows) for part, rows in zip(parts, kernels, strict=True)
        ]
        return sum(products[1:], start=products[0]) + bias


def product(
    x: Float[Array, "... F"], kernel: Float[Array, "F H"]
) -> Float[Array, "... H"]:
    """``x @ kernel``, over a single axis of rows.

    Where the rows of ``x`` lie on several devices along an axis that is not the first, merging gathers them: gradients
    are taken through ``learning.parallel``, whose devices see their own rows alone.
    """
    rows = math.prod(x.shape[:-1])
    return _product(x.reshape(rows, x.shape[-1]), kernel).reshape(
        *x.shape[:-1], kernel.shape[-1]
    )


def transpose(kernel: Float[Array, "F H"]) -> Float[Array, "H F"]:
    """The transpose; on a CPU as an array of its own, because a product that transposes as it goes is slower there."""
    return (
        jax.lax.optimization_barrier(kernel.T)
        if jax.default_backend() == "cpu"
        else kernel.T
    )


@jax.custom_vjp
def _product(
    x: Float[Array, "R F"], kernel: Float[Array, "F H"]
) -> Float[Array, "R H"]:
    """The gradient in the orientation that XLA's CPU compiler multiplies fastest."""
    return x @ kernel


def _product_backward(
    saved: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return grad @ transpose(kernel), x.T @ grad


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)
