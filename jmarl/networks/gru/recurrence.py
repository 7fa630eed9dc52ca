"""The recurrence of a GRU over time, with its gradient written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.gru import gpu, tpu
from jmarl.networks.gru.cell import Saved, update, update_gradients
from jmarl.nn.linear import product, transpose


@jax.custom_vjp
def gru_scan(
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


def _kernels(length: int, width: int) -> Any:
    """Return the module with kernels for a recurrence of these sizes here, or None."""
    return next((each for each in (gpu, tpu) if each.has_kernel(length, width)), None)


def _gru_forward(recurrent, candidate_bias, carry, gates, first):
    if kernels := _kernels(len(gates), carry.shape[-1]):
        flat = _flat(carry), _flat(gates, 1), _flat_flags(first, gates)
        out, saved = kernels.forward(recurrent, candidate_bias, *flat)
        out, *saved = (x.reshape(-1, *carry.shape) for x in (out, *saved))
        return (out[-1], out), (recurrent, Saved(*saved), first)

    def step(hidden, row):
        gates, reset = row
        hidden = jnp.where(reset, 0.0, hidden)
        # [B, N, H] each
        inputs = jnp.split(gates, 3, -1)
        products = jnp.split(product(hidden, recurrent), 3, -1)
        after, saved = update(hidden, inputs, products, candidate_bias)
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
    if kernels := _kernels(len(grad_out), grad_last.shape[-1]):
        flat = Saved(*(_flat(x, 1) for x in saved))
        grads = _flat(grad_last), _flat(grad_out, 1)
        found = kernels.backward(recurrent, flat, _flat_flags(first, grad_out), *grads)
        grad_carry, *rows = found
        batch = grad_last.shape[:-1]
        rows = (x.reshape(len(x), *batch, -1) for x in rows)
        return grad_carry.reshape(grad_last.shape), *rows
    transposed = transpose(recurrent)

    def step(grad_after, row):
        grad, saved, reset = row
        grad = grad + grad_after
        grad_n, grad_products = update_gradients(grad, saved)
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


gru_scan.defvjp(_gru_forward, _gru_backward)
