"""LayerNorm and RMSNorm over the last axis, with their gradients written out.

Ba et al. 2016 (arXiv:1607.06450); Zhang and Sennrich 2019 (arXiv:1910.07467). In function and in parameters
they are Flax's modules; they are here because on a CPU, forward and backward, they take less than half of
the time of Flax's.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


EPSILON = 1e-6


def row_mean(x: Float[Array, "*b F"]) -> Float[Array, "*b 1"]:
    """The mean over the last axis.

    On a CPU it is a product with a column of 1/F: a sum along the minor axis is compiled to scalar code,
    because its terms may not be reordered.
    """
    if jax.default_backend() != "cpu":
        return x.mean(-1, keepdims=True)
    return x @ jnp.full((x.shape[-1], 1), 1.0 / x.shape[-1], x.dtype)


@jax.custom_vjp
def unit_rms(x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
    """Each row over the root of its mean square."""
    return _unit_rms(x)[0]


def _unit_rms(x):
    inverse = jax.lax.rsqrt(row_mean(x**2) + EPSILON)
    y = x * inverse
    return y, (y, inverse)


def _unit_rms_grad(kept, grad):
    y, inverse = kept
    return (inverse * (grad - y * row_mean(grad * y)),)


unit_rms.defvjp(_unit_rms, _unit_rms_grad)


@jax.custom_vjp
def standardize(x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
    """Each row less its mean, over its standard deviation."""
    return _standardize(x)[0]


def _standardize(x):
    return _unit_rms(x - row_mean(x))


def _standardize_grad(kept, grad):
    y, inverse = kept
    return (inverse * (grad - row_mean(grad) - y * row_mean(grad * y)),)


standardize.defvjp(_standardize, _standardize_grad)


class LayerNorm(nn.Module):
    """``standardize(x) * scale + bias``."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        """Normalize every row."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        return standardize(x) * scale + self.param(
            "bias", nn.initializers.zeros, x.shape[-1:]
        )


class RMSNorm(nn.Module):
    """``unit_rms(x) * scale``."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        """Normalize every row."""
        return unit_rms(x) * self.param("scale", nn.initializers.ones, x.shape[-1:])
