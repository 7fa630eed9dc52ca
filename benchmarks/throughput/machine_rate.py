"""The machine's own rate of matrix products, at the shapes of a program.

The rate is measured product by product: row-major float32 matrices, one product at a time on each
device, as in a run. Products with a vector do not count, because they are bound by memory. Samples
of the program and of the products take turns, because the clock of a shared machine varies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.support.common import time_each
from jmarl.forecast.flops import Product


COVERED = 0.999
"""Share of the operations whose products are measured. The others count with the mean rate."""
CALL_FLOPS = 1e9
"""Operations of a measured call, so that its overhead is negligible."""


class MachineRate(NamedTuple):
    """Matrix products of a program, and the machine's time for them alone."""

    flops: float
    """Operations of all products."""
    seconds: float
    """Wall time of the products, each measured by itself. All times are medians."""
    program_seconds: float
    """Wall time of the program."""


def machine_rate(
    found: Counter[Product], program: Callable[[], Any], repeats: int
) -> MachineRate:
    """Measure a program, and each of its products on all devices, in turns.

    Args:
        found: How often the program computes each product, see ``forecast.flops.products``.
        program: A call of the program.
        repeats: Samples of the program and of each product.
    """
    flops = {
        product: product.flops * times
        for product, times in found.items()
        if min(product.rows, product.columns) > 1
    }
    total = sum(flops.values())
    measured: list[Product] = []
    for product in sorted(flops, key=lambda x: -flops[x]):
        if sum(flops[x] for x in measured) < COVERED * total:
            measured.append(product)
    calls = {product: product_call(product) for product in measured}
    times = time_each({None: program, **calls}, repeats, wall=True)
    devices = jax.device_count()
    seconds = sum(
        found[product] * times[product].wall_median / (call_products(product) * devices)
        for product in measured
    )
    covered = sum(flops[product] for product in measured)
    return MachineRate(total, seconds * total / covered, times[None].wall_median)


def call_products(product: Product) -> int:
    """Return how often a measured call computes a product on each device."""
    return max(1, round(CALL_FLOPS / product.flops))


def product_call(product: Product) -> Callable[[], list[jax.Array]]:
    """Return a call in which each device computes a product ``call_products`` times."""
    batch, rows, depth, columns = product
    left, other = jnp.ones((batch, rows, depth)), jnp.zeros((batch, rows, depth))
    operands = [
        jax.device_put((left, other, jnp.ones((batch, depth, columns))), device)
        for device in jax.devices()
    ]
    count = call_products(product)

    @jax.jit
    def multiply(left: jax.Array, other: jax.Array, right: jax.Array) -> jax.Array:
        def step(number: jax.Array, _: jax.Array) -> jax.Array:
            # XLA would compute the product of a single left side once, and copy a slice.
            is_even = number % 2 == 0
            return jax.lax.cond(is_even, lambda: left @ right, lambda: other @ right)

        return jax.lax.fori_loop(0, count, step, jnp.zeros((batch, rows, columns)))

    return lambda: [multiply(*each) for each in operands]
