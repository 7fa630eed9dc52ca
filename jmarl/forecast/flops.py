"""Count the floating-point operations of matrix products in a traced program."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core

from jmarl.forecast.hlo import is_in_scope


def matmul_flops(jaxpr: Any, scope: str = "") -> float:
    """Return the floating-point operations of all matrix products, two for each multiply-add.

    A scan counts as often as it runs, and a conditional as its largest branch. A loop of unknown
    length counts once. A program that is split over devices counts on all of them,
    and a kernel of Pallas as often as its grid has programs.

    Args:
        jaxpr: A jaxpr, closed or not.
        scope: Count only products in a scope of this name (``jax.named_scope``); empty for all.
    """
    return sum(_flops(eqn, scope) for eqn in _open(jaxpr).eqns)


def _flops(eqn: Any, scope: str) -> float:
    is_inside = not scope or is_in_scope(str(eqn.source_info.name_stack), scope)
    inner_scope = "" if is_inside else scope
    name = eqn.primitive.name
    if name == "dot_general":
        return _dot(eqn) if is_inside else 0.0
    if name == "cond":
        return max(matmul_flops(x, inner_scope) for x in eqn.params["branches"])
    return _times(eqn) * sum(matmul_flops(x, inner_scope) for x in _inner(eqn))


def _times(eqn: Any) -> int:
    """Return how often an equation runs its jaxprs: steps of a scan, devices, or programs."""
    if eqn.primitive.name == "pallas_call":
        return math.prod(eqn.params["grid_mapping"].grid)
    if eqn.primitive.name == "shard_map":
        return eqn.params["mesh"].size
    return eqn.params["length"] if eqn.primitive.name == "scan" else 1


def _dot(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    depth = math.prod(shape[axis] for axis in contracted)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth


def _inner(eqn: Any) -> Iterator[Any]:
    """Yield the jaxprs that an equation runs. Of a custom rule, that is the primal function."""
    for key, value in eqn.params.items():
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr) and "jvp" not in key:
            yield value


def _open(jaxpr: Any) -> Any:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
