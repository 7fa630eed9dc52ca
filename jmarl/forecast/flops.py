"""Find the matrix products of a traced program, and count their floating-point operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from jmarl.forecast.hlo import is_in_scope


class Product(NamedTuple):
    """Shapes of a matrix product ``[batch, rows, depth] @ [batch, depth, columns]``."""

    batch: int
    rows: int
    depth: int
    columns: int

    @property
    def flops(self) -> float:
        """Floating-point operations, two for each multiply-add."""
        return 2.0 * math.prod(self)


def matmul_flops(jaxpr: Any, scope: str = "") -> float:
    """Return the floating-point operations of all matrix products.

    Args:
        jaxpr: A jaxpr, closed or not.
        scope: Count only products in a scope of this name (``jax.named_scope``); empty for all.
    """
    return _total(products(jaxpr, scope))


def products(jaxpr: Any, scope: str = "") -> Counter[Product]:
    """Return how often a program computes each matrix product.

    A scan counts as often as it runs, and a conditional as its largest branch. A loop of unknown
    length counts once. A program that is split over devices counts on all of them,
    and a kernel of Pallas as often as its grid has programs. Products that no output depends on do
    not count, because XLA removes them.

    Args:
        jaxpr: A jaxpr, closed or not.
        scope: Count only products in a scope of this name (``jax.named_scope``); empty for all.
    """
    found: Counter[Product] = Counter()
    for eqn in _live(jaxpr).eqns:
        found.update(_products(eqn, scope))
    return found


def _total(found: Counter[Product]) -> float:
    return sum(product.flops * times for product, times in found.items())


def _products(eqn: Any, scope: str) -> Counter[Product]:
    is_inside = not scope or is_in_scope(str(eqn.source_info.name_stack), scope)
    inner_scope = "" if is_inside else scope
    name = eqn.primitive.name
    if name == "dot_general":
        return Counter([_dot(eqn)] if is_inside else [])
    if name == "cond":
        branches = (products(x, inner_scope) for x in eqn.params["branches"])
        return max(branches, key=_total)
    found: Counter[Product] = Counter()
    for inner in _inner(eqn):
        found.update(products(inner, inner_scope))
    times = _times(eqn)
    return Counter({product: times * count for product, count in found.items()})


def _times(eqn: Any) -> int:
    """Return how often an equation runs its jaxprs: steps of a scan, devices, or programs."""
    if eqn.primitive.name == "pallas_call":
        return math.prod(eqn.params["grid_mapping"].grid)
    if eqn.primitive.name == "shard_map":
        return eqn.params["mesh"].size
    return eqn.params["length"] if eqn.primitive.name == "scan" else 1


def _dot(eqn: Any) -> Product:
    (contracted, _), (batched, _) = eqn.params["dimension_numbers"]
    left, right = (x.aval.shape for x in eqn.invars)
    depth = math.prod(left[axis] for axis in contracted)
    batch = math.prod(left[axis] for axis in batched)
    both = max(1, batch * depth)
    return Product(batch, math.prod(left) // both, depth, math.prod(right) // both)


def _inner(eqn: Any) -> Iterator[Any]:
    """Yield the jaxprs that an equation runs. Of a custom rule, that is the primal function."""
    for key, value in eqn.params.items():
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr) and "jvp" not in key:
            yield value


def _live(jaxpr: Any) -> Any:
    """Return an open jaxpr without equations that have no effect."""
    opened = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return dce_jaxpr(opened, [True] * len(opened.outvars))[0]
