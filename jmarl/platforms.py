"""Platform that programs are traced for: the one that JAX found, or the target of a plan.

Some layers choose a form by platform. They ask this module, because a plan traces programs for a
device that this machine does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax


_target: list[str] = []


def platform() -> str:
    """Return ``cpu``, ``gpu`` or ``tpu``."""
    return _target[-1] if _target else jax.default_backend()


def short_loop() -> bool:
    """Return whether to unroll a loop of few iterations: on accelerators, but not on a CPU.

    It is the argument ``unroll`` of ``lax.scan``. On an accelerator, each iteration of a loop
    launches further kernels for its index and its slices. On a CPU a loop compiles faster.
    """
    return platform() != "cpu"


@contextmanager
def tracing_for(name: str) -> Iterator[None]:
    """Trace programs for another platform.

    JAX's caches of traces are cleared on both sides, because they do not know the platform.

    Args:
        name: ``cpu``, ``gpu`` or ``tpu``.
    """
    _target.append(name)
    jax.clear_caches()
    try:
        yield
    finally:
        _target.pop()
        jax.clear_caches()
