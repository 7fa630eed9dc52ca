"""LayerNorm and RMSNorm over the last axis, with hand-written gradients.

Ba et al. 2016 (arXiv:1607.06450) and Zhang and Sennrich 2019 (arXiv:1910.07467). Function and
parameters are those of Flax's modules. Forward and backward together take less than half of the
time of Flax's on a CPU.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmarl.platforms import platform


EPSILON = 1e-6
"""Added to the mean square before the root."""


def row_mean(x: Float[Array, "*b F"]) -> Float[Array, "*b 1"]:
    """Return the mean over the last axis, which is kept with size 1.

    On a CPU it is a product with a column of 1/F. XLA compiles a sum along the minor axis to scalar
    code there, because it must not reorder the terms. The product has the precision of that sum.
    """
    if platform() != "cpu":
        return x.mean(-1, keepdims=True)
    width = x.shape[-1]
    column = jnp.full((width, 1), 1.0 / width, x.dtype)
    return jnp.matmul(x, column, precision="highest")


@jax.custom_vjp
def unit_rms(x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
    """Divide each row by the root of its mean square."""
    y, _ = _unit_rms_forward(x)
    return y


def _unit_rms_forward(x):
    mean_square = row_mean(x**2)  # [..., 1]
    inverse = jax.lax.rsqrt(mean_square + EPSILON)
    y = x * inverse
    return y, (y, inverse)


def _unit_rms_backward(saved, grad):
    y, inverse = saved  # [..., F], [..., 1]
    return (inverse * (grad - y * row_mean(grad * y)),)


unit_rms.defvjp(_unit_rms_forward, _unit_rms_backward)


@jax.custom_vjp
def standardize(x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
    """Subtract from each row its mean and divide by its standard deviation."""
    y, _ = _standardize_forward(x)
    return y


def _standardize_forward(x):
    centered = x - row_mean(x)
    return _unit_rms_forward(centered)


def _standardize_backward(saved, grad):
    y, inverse = saved  # [..., F], [..., 1]
    return (inverse * (grad - row_mean(grad) - y * row_mean(grad * y)),)


standardize.defvjp(_standardize_forward, _standardize_backward)


class LayerNorm(nn.Module):
    """``standardize(x) * scale + bias``."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        width = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        return standardize(x) * scale + bias


class RMSNorm(nn.Module):
    """``unit_rms(x) * scale``."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        return unit_rms(x) * scale
