"""Precision of matrix products: one policy for acting, learning and evaluation.

``precision=float32|tf32|bfloat16`` is the precision to which the inputs of matrix products are
rounded. Products are summed in float32. Everything else is float32, including parameters and the
state of the optimizer. So are products that state a precision of their own, such as those with
the state of a scan.

JAX and XLA compute the products of accelerators. JAX's own default is not one precision: float32 on
a CPU, TF32 on recent NVIDIA GPUs, bfloat16 on TPUs. A CPU has no products of lower precision. There
the traced program is changed, so that it rounds the inputs of each product to the same number of
bits. It gives results close to those of an accelerator, but it is slower than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
from jax import lax
from jax.extend import core

from jmarl.config import check
from jmarl.platforms import AMPERE, compute_capability, platform
from jmarl.system import System
from jmarl.types import Env


Function = TypeVar("Function", bound=Callable[..., Any])


class _Rounding(NamedTuple):
    """A precision in terms of JAX."""

    mantissa_bits: int
    """Bits after the leading one. The exponent has 8 bits, as in float32."""
    tpu: str
    """Value of ``jax.default_matmul_precision``, for a TPU and for programs to rewrite."""
    gpu: str
    """The same for a GPU, where JAX takes ``bfloat16`` for TF32."""


ROUNDINGS = {
    "float32": _Rounding(23, "float32", "float32"),
    "tf32": _Rounding(10, "tensorfloat32", "tensorfloat32"),
    "bfloat16": _Rounding(7, "bfloat16", "BF16_BF16_F32"),
}
"""Precisions of products. On a TPU, tf32 is the sum of three products of bfloat16."""
_EXACT = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def with_precision(system: System, precision: str) -> System:
    """Return a system that acts and learns with products of a precision.

    Parameters are initialized with products of float32.

    Args:
        system: System, built by ``make`` of its module.
        precision: A key of ``ROUNDINGS``.
    """
    return system._replace(
        init=in_precision(system.init, "float32"),
        act=in_precision(system.act, precision),
        update=in_precision(system.update, precision),
        policy=system.policy and in_precision(system.policy, precision),
    )


def env_in_float32(env: Env) -> Env:
    """Return an environment with products of float32, on accelerators too."""
    return env._replace(
        reset=in_precision(env.reset, "float32"),
        step=in_precision(env.step, "float32"),
        refresh=in_precision(env.refresh, "float32"),
    )


def in_precision(function: Function, precision: str) -> Function:
    """Return a function with the matrix products that it does not specify in a precision.

    Gradients must be taken within the function.

    Args:
        function: Function of arrays.
        precision: A key of ``ROUNDINGS``.
    """
    rounding = ROUNDINGS[precision]

    @wraps(function)
    def in_this_precision(*args: Any, **keywords: Any) -> Any:
        target = platform()
        if target != "cpu":
            with jax.default_matmul_precision(getattr(rounding, target)):
                return function(*args, **keywords)
        if precision == "float32":
            return function(*args, **keywords)
        return _call_rounded(function, rounding, *args, **keywords)

    return in_this_precision  # pyright: ignore[reportReturnType]


def check_devices(precision: str, devices: Sequence[Any]) -> None:
    """Check that devices have matrix products of a precision.

    Raises:
        ConfigError: For bfloat16 on NVIDIA GPUs that are older than Ampere.
    """
    first = devices[0]
    is_older = 0 < compute_capability(first) < AMPERE
    rule = f"{first.device_kind} has no such products; use precision=float32"
    check(precision != "bfloat16" or not is_older, "precision", precision, rule)


def _call_rounded(
    function: Callable[..., Any], rounding: _Rounding, *args: Any, **keywords: Any
) -> Any:
    """Call a function with the inputs of its products rounded."""
    with jax.default_matmul_precision(rounding.tpu):
        make_program = jax.make_jaxpr(function, return_shape=True)
        program, shapes = make_program(*args, **keywords)
    rounder = _Rounder(rounding.mantissa_bits)
    rounded = core.jaxpr_as_fun(rounder.close(program))
    leaves = rounded(*jax.tree.leaves((args, keywords)))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


class _Rounder:
    """Rewrite programs, each inner one once."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.done: dict[int, tuple[Any, Any]] = {}
        """Inner programs by their id, each with its result. A program that is kept keeps its id."""

    def close(self, closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
        """Return a closed program with rounded products."""
        return core.ClosedJaxpr(self.open(closed.jaxpr), closed.consts)

    def open(self, jaxpr: core.Jaxpr) -> core.Jaxpr:
        """Return an open program with rounded products."""
        return jaxpr.replace(
            eqns=[new for eqn in jaxpr.eqns for new in self.equations(eqn)]
        )

    def equations(self, eqn: core.JaxprEqn) -> list[core.JaxprEqn]:
        """Return an equation, with those that round its inputs before it."""
        if _must_round(eqn):
            return self.product(eqn)
        params = {key: self.inner(value) for key, value in eqn.params.items()}
        return [eqn.replace(params=params)]

    def inner(self, value: Any) -> Any:
        """Rewrite a parameter of an equation if it is a program, or several."""
        if type(value) is tuple:  # the branches of a conditional
            return tuple(map(self.inner, value))
        if not isinstance(value, core.Jaxpr | core.ClosedJaxpr):
            return value
        if id(value) not in self.done:
            is_open = isinstance(value, core.Jaxpr)
            result = self.open(value) if is_open else self.close(value)
            self.done[id(value)] = value, result
        return self.done[id(value)][1]

    def product(self, eqn: core.JaxprEqn) -> list[core.JaxprEqn]:
        """Return the equations that round both inputs of a product, and the product."""
        params = {"exponent_bits": 8, "mantissa_bits": self.bits}
        rounded = [core.Var(x.aval) for x in eqn.invars]
        inputs = zip(eqn.invars, rounded, strict=True)
        primitive = lax.reduce_precision_p
        rounding = [
            eqn.replace(invars=[x], outvars=[y], primitive=primitive, params=params)
            for x, y in inputs
        ]
        return [*rounding, eqn.replace(invars=[*rounded])]


def _must_round(eqn: core.JaxprEqn) -> bool:
    """Return whether an equation is a product of float32 that must not be exact."""
    if eqn.primitive is not lax.dot_general_p or eqn.params["precision"] == _EXACT:
        return False
    types: Any = [x.aval for x in eqn.invars]
    return all(x.dtype == "float32" for x in types)
