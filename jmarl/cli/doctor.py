"""``jmarl doctor``: versions, devices, and quick checks of the installation."""

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
from jmarl.platforms import ENV_AXIS
from jmarl.results.machine import PACKAGES, package_versions
from jmarl.runs.checkpoint import Checkpoints
from jmarl.runs.exit_codes import ExitCode
from jmarl.training.anakin import device_mesh


def doctor() -> int:
    """Print versions and run the checks; return 0 if all pass, else 1."""
    python = sys.version.split()[0]
    print(table({"jmarl": jmarl.__version__, "python": python, **_versions()}))
    print(table({"platform": platform.platform(), "devices": _devices()}), end="\n\n")
    checks = {
        "compiled matrix product": check_matmul,
        "sum over all devices": check_devices,
        "step of probe_two_phase": check_env,
        "save and restore of a checkpoint": check_checkpoint,
    }
    passed = [_passes(name, check) for name, check in checks.items()]
    return ExitCode.FINISHED if all(passed) else ExitCode.CRASHED


def _versions() -> dict[str, str]:
    return dict.fromkeys(PACKAGES, "not installed") | package_versions()


def _devices() -> str:
    kinds = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    return f"{jax.device_count()} x {jax.default_backend()} ({kinds})"


def _passes(name: str, check: Callable[[], None]) -> bool:
    start = time.perf_counter()
    try:
        check()
        outcome, reason = "ok", ""
    except Exception as error:
        outcome, reason = "FAILED", f": {error!r}"
    seconds = time.perf_counter() - start
    print(f"  {outcome:<6} {name} ({seconds:.1f} s){reason}", flush=True)
    return outcome == "ok"


def check_matmul() -> None:
    """Compare a compiled matrix product with NumPy's."""
    x = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    np.testing.assert_allclose(jax.jit(jnp.dot)(x, x), x @ x, rtol=1e-2, atol=1e-2)


def check_devices() -> None:
    """Compare the sum of an array, split over all local devices, with the known result."""
    split = NamedSharding(device_mesh(), PartitionSpec(ENV_AXIS))
    x = jax.device_put(jnp.arange(8.0 * jax.local_device_count()), split)
    np.testing.assert_allclose(jax.jit(jnp.sum)(x), x.size * (x.size - 1) / 2)


def check_env() -> None:
    """Reset and step a small environment, and check its reward."""
    env = registry.make("probe_two_phase")
    key = jax.random.key(0)
    state, timestep = jax.jit(env.reset, static_argnums=1)(key, 2)
    action = jnp.zeros(timestep.reward.shape, jnp.int32)
    _, timestep = jax.jit(env.step)(key, state, action)
    np.testing.assert_allclose(timestep.reward, 1.0)


def check_checkpoint() -> None:
    """Save and restore an array and a typed key, bit for bit."""
    state = {"x": jnp.arange(3.0), "key": jax.random.key(7)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoints"
        checkpoints = Checkpoints(path, keep=1, verify=True, warn=_raise)
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(state)
        checkpoints.close()
    assert restored is not None
    saved_key = jax.random.key_data(state["key"])
    restored_key = jax.random.key_data(restored.state["key"])
    np.testing.assert_array_equal(restored.state["x"], state["x"])
    np.testing.assert_array_equal(restored_key, saved_key)


def _raise(message: str) -> None:
    raise RuntimeError(message)
