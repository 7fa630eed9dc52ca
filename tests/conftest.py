"""Set environment variables before JAX is first imported.

They simulate four devices, and keep compiled programs, for the processes of the tests and for their
next run. A program runs once or twice here, so most of its time is compilation. LLVM's optimization
and XLA's slow compiler of fusions are therefore off: without them the same tests need a third less
processor time.
"""

import functools
import os
import pathlib
import signal

import pytest


CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture
def hangups():
    """Receive hangups, also if the tests were started with ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def interpreted_kernels(monkeypatch):
    """Compute kernels for accelerators one operation after another on the CPU."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    call = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", call)
    monkeypatch.setattr(triton, "debug_barrier", lambda: None)


def pytest_collection_modifyitems(items):
    """Record the faults of each test in the report, for ``tools/faults.py``."""
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties += [("fault", number) for number in mark.args]
