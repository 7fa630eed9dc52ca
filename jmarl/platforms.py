"""Platform and devices that programs are traced for.

The platform is the one that JAX found, or the target of a plan. Some layers choose a form by
platform. They call this module instead of JAX, because ``jmarl plan`` traces for absent devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax


ENV_AXIS = "env"
"""Mesh axis along which the environment axis B of every array is split."""
AMPERE = 8.0
"""Least compute capability of a GPU with products of bfloat16 and with Triton's kernels."""
_target: list[tuple[str, bool]] = []


def platform() -> str:
    """Return ``cpu``, ``gpu`` or ``tpu``."""
    return _target[-1][0] if _target else jax.default_backend()


def has_target() -> bool:
    """Return True if programs are traced for devices that may be absent here."""
    return bool(_target)


def has_gpu_kernels() -> bool:
    """Return whether to use jmarl's kernels for GPUs.

    XLA compiles Triton's kernels for NVIDIA GPUs of compute capability 8 or more.
    """
    if _target:
        return _target[-1][1]
    return compute_capability(jax.devices()[0]) >= AMPERE


def compute_capability(device: Any) -> float:
    """Return the compute capability of an NVIDIA GPU, or 0 for any other device."""
    text = str(getattr(device, "compute_capability", ""))
    is_nvidia = device.platform == "gpu" and text[:1].isdigit()
    return float(text) if is_nvidia else 0.0


def short_loop() -> bool:
    """Return whether to unroll a loop of few iterations: on accelerators, but not on a CPU.

    It is the argument ``unroll`` of ``lax.scan``. On an accelerator, each iteration of a loop
    launches further kernels for its index and its slices. On a CPU a loop compiles faster.
    """
    return platform() != "cpu"


def env_devices() -> int:
    """Return the number of devices that share the environments in the program being traced.

    Returns:
        Size of ``ENV_AXIS`` in the current mesh, or 1 without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape.get(ENV_AXIS, 1)


def arrays_are_local() -> bool:
    """Return whether the arrays being traced are on one device: without a mesh or in ``shard_map``.

    XLA's partitioner would gather the arguments of a kernel that are split over devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return env_devices() == 1 or bool(mesh.manual_axes)


def on_each_device(
    function: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Return a function that each device applies to its part of the arguments.

    Args:
        function: Function of arrays.
        in_specs: Partition of each argument along ``ENV_AXIS``.
        out_specs: Partition of the results.
    """
    # check_vma=True needs constants of a network (a zero state) to be marked as varying
    return jax.shard_map(
        function, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


@contextmanager
def tracing_for(name: str, capability: float = AMPERE) -> Iterator[None]:
    """Trace programs for another platform.

    JAX's caches of traces are cleared on both sides, because their keys lack the platform.

    Args:
        name: ``cpu``, ``gpu`` or ``tpu``.
        capability: Compute capability of a GPU.
    """
    _target.append((name, name == "gpu" and capability >= AMPERE))
    jax.clear_caches()
    try:
        yield
    finally:
        _target.pop()
        jax.clear_caches()
