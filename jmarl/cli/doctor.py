"""``jmarl doctor``: versions, devices, and a self-test of the stack that takes seconds."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import jmarl
from jmarl.cli.help import table
from jmarl.envs import registry
from jmarl.learning.parallel import ENV_AXIS
from jmarl.runs.checkpoint import Checkpoints
from jmarl.runs.folder import PACKAGES, package_versions
from jmarl.training.anakin import device_mesh


FAILED = 1


def doctor() -> int:
    """Print what is installed and what works; 0 if every check passes, else 1."""
    print(
        "\n".join(
            table(
                {
                    "jmarl": jmarl.__version__,
                    "python": sys.version.split()[0],
                    **_versions(),
                }
            )
        )
    )
    print(
        "\n".join(table({"platform": platform.platform(), "devices": _devices()})),
        end="\n\n",
    )
    checks = {
        "matrix product, compiled": check_matmul,
        "sum over all devices": check_devices,
        "one step of probe_two_phase": check_env,
        "checkpoint round trip": check_checkpoint,
    }
    return (
        FAILED
        if [name for name, check in checks.items() if not _passes(name, check)]
        else 0
    )


def _versions() -> dict[str, str]:
    return dict.fromkeys(PACKAGES, "not installed") | package_versions()


def _devices() -> str:
    kinds = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    return f"{jax.device_count()} x {jax.default_backend()} ({kinds})"


def _passes(name: str, check: Callable[[], None]) -> bool:
    began = time.perf_counter()
    try:
        check()
        outcome, error = "ok", None
    except Exception as raised:
        outcome, error = "FAILED", raised
    print(
        f"  {outcome:<6} {name} ({time.perf_counter() - began:.1f} s){f': {error!r}' if error else ''}",
        flush=True,
    )
    return error is None


def check_matmul() -> None:
    """A compiled product equals NumPy's."""
    x = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    np.testing.assert_allclose(jax.jit(jnp.dot)(x, x), x @ x, rtol=1e-2, atol=1e-2)


def check_devices() -> None:
    """An array split over all local devices has the sum of its parts."""
    spread = NamedSharding(device_mesh(), PartitionSpec(ENV_AXIS))
    x = jax.device_put(jnp.arange(8.0 * jax.local_device_count()), spread)
    np.testing.assert_allclose(jax.jit(jnp.sum)(x), x.size * (x.size - 1) / 2)


def check_env() -> None:
    """A small world resets and steps, and pays what it should."""
    env = registry.make("probe_two_phase")
    key = jax.random.key(0)
    state, timestep = jax.jit(env.reset, static_argnums=1)(key, 2)
    action = jnp.zeros(timestep.reward.shape, jnp.int32)
    _, after = jax.jit(env.step)(key, state, action)
    np.testing.assert_allclose(after.reward, 1.0)


def check_checkpoint() -> None:
    """What is saved is restored bit for bit, a typed key included."""
    state = {"x": jnp.arange(3.0), "key": jax.random.key(7)}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(
            Path(folder) / "checkpoints", keep=1, verify=True, warn=_raise
        )
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(state)
        checkpoints.close()
    assert restored is not None
    np.testing.assert_array_equal(restored.state["x"], state["x"])
    np.testing.assert_array_equal(
        jax.random.key_data(restored.state["key"]), jax.random.key_data(state["key"])
    )


def _raise(message: str) -> None:
    raise RuntimeError(message)
