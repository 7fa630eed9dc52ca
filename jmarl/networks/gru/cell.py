"""Time step of a GRU and its gradient, element by element."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Saved(NamedTuple):
    """Arrays that the gradient needs, of one time step or of all, ``[T, R, H]``."""

    r: Float[Array, "... H"]
    z: Float[Array, "... H"]
    candidate: Float[Array, "... H"]
    re_n: Float[Array, "... H"]
    """Recurrent part of the candidate, with its bias."""
    hidden: Float[Array, "... H"]
    """State before the time step, after a reset."""


def update(
    hidden: Float[Array, "... H"],
    inputs: Iterable[Float[Array, "... H"]],
    products: Iterable[Float[Array, "... H"]],
    candidate_bias: Float[Array, "... H"],
) -> tuple[Float[Array, "... H"], Saved]:
    """Return the state after a time step, element by element.

    Args:
        hidden: State before it, after a reset.
        inputs: Contributions of the input to r, z and the candidate.
        products: Products of the state with the weights of the same three.
        candidate_bias: Bias of the product of the candidate.
    """
    in_r, in_z, in_n = inputs
    re_r, re_z, re_n = products
    r = jax.nn.sigmoid(in_r + re_r)
    z = jax.nn.sigmoid(in_z + re_z)
    re_n = re_n + candidate_bias
    candidate = jnp.tanh(in_n + r * re_n)
    after = candidate + z * (hidden - candidate)
    return after, Saved(r, z, candidate, re_n, hidden)


def update_gradients(
    grad: Float[Array, "... H"], saved: Saved
) -> tuple[Float[Array, "... H"], tuple[Array, Array, Array]]:
    """Return gradients of the candidate and of the three products, before the nonlinearities.

    Args:
        grad: Gradient of the state after the time step.
        saved: Arrays of the time step.
    """
    r, z, candidate, re_n, hidden = saved
    grad_n = grad * (1 - z) * (1 - candidate * candidate)
    grad_z = grad * (hidden - candidate) * z * (1 - z)
    grad_r = grad_n * re_n * r * (1 - r)
    return grad_n, (grad_r, grad_z, grad_n * r)
