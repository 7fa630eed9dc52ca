"""The machine's own rate of matrix products, at the shapes of a program.

The rate is measured product by product: row-major float32 matrices, one product at a time on each
device, as in a run. Products with a vector do not count, because they are bound by memory.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.support.common import time_call
from jmarl.forecast.flops import Product


COVERED = 0.999
"""Share of the operations whose products are measured. The others count with the mean rate."""
CALL_FLOPS = 1e9
"""Operations of a measured call, so that the start of a product is hidden by the one before."""


class MachineRate(NamedTuple):
    """Matrix products of a program, and the machine's time for them alone."""

    flops: float
    """Operations of all products."""
    seconds: float
    """Wall time of the products, each measured by itself."""


def machine_rate(found: Counter[Product], repeats: int) -> MachineRate:
    """Measure the products of a program on all devices.

    Args:
        found: How often the program computes each product, see ``forecast.flops.products``.
        repeats: Samples per product.
    """
    flops = {
        product: product.flops * times
        for product, times in found.items()
        if min(product.rows, product.columns) > 1
    }
    total = sum(flops.values())
    covered = seconds = 0.0
    for product in sorted(flops, key=lambda x: -flops[x]):
        if covered < COVERED * total:
            covered += flops[product]
            seconds += found[product] * product_seconds(product, repeats)
    return MachineRate(total, seconds * total / covered)


def product_seconds(product: Product, repeats: int) -> float:
    """Return the seconds of one product while each device computes products of this shape."""
    batch, rows, depth, columns = product
    left = jnp.ones((batch, rows, depth))
    right = jnp.ones((batch, depth, columns))
    operands = [jax.device_put((left, right), device) for device in jax.devices()]
    multiply = jax.jit(jnp.matmul)
    count = max(1, round(CALL_FLOPS / product.flops))

    def call() -> list[jax.Array]:
        return [multiply(*pair) for _ in range(count) for pair in operands]

    return time_call(call, repeats, wall=True).best / (count * len(operands))
