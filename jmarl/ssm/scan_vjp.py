"""A selective scan of kernels: its gradient, from a kernel for each direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def kernel_scan(
    run_forward: Callable[..., Any], run_backward: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a differentiable scan ``scan(tokens, A, D, h0) -> (y, last)``.

    Args:
        run_forward: ``run_forward(tokens, A, D, h0, save=...)``: outputs, last state, and with
            ``save`` whatever ``run_backward`` needs besides the inputs, or None.
        run_backward: ``run_backward(tokens, A, D, h0, saved, dy, dh)``: gradients of the four
            inputs. ``dh`` is None if the last state is unused.
    """

    @jax.custom_vjp
    def scan(tokens: Any, A: Any, D: Any, h0: Any) -> Any:
        y, last, _ = run_forward(tokens, A, D, h0, save=False)
        return y, last

    def forward(*primals: Any) -> Any:
        # With symbolic zeros, each leaf is a pair of its value and whether it is differentiated.
        values = jax.tree.map(
            lambda x: x.value, primals, is_leaf=lambda x: hasattr(x, "perturbed")
        )
        y, last, saved = run_forward(*values, save=True)
        return (y, last), (*values, saved)

    def backward(residuals: Any, cotangents: Any) -> Any:
        dy, dh = (None if isinstance(x, SymbolicZero) else x for x in cotangents)
        if dy is None:
            dy = jnp.zeros_like(residuals[0].u)
        return run_backward(*residuals, dy, dh)

    scan.defvjp(forward, backward, symbolic_zeros=True)
    return scan
