"""Rates of the accelerator of this machine, and the speed of programs beside their forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.support.common import Row, require, show, time_call, write_json
from jmarl.config import check
from jmarl.config.compose import load_config
from jmarl.forecast import kernels
from jmarl.forecast.calibration import Calibration, calibration_file
from jmarl.forecast.compile_plan import Plan, count_run, forecast
from jmarl.forecast.hlo import parse
from jmarl.forecast.targets import PASSES, Target, find_target, table
from jmarl.runs.compilation import training_options
from jmarl.training.build import build_run
from jmarl.training.precision import in_precision
from jmarl.training.programs import (
    seed_keys,
    shardings_of,
    stage_programs,
    state_shapes,
    trace_chunk,
)


PROGRAMS = ("mappo", "mam_ppo", "qmix", "pqn_vdn", "spectra_qmix_plus")
ENV = "smax_10v10"
LAUNCHES = 500
"""Small kernels of the program that measures their time."""
BYTES = 2**30
"""Bytes of the array that measures the bandwidth."""
WIDTH = 8192
"""Rows and columns of the products that measure the rate."""
REPEATS = 5


def calibrate(out: str = "") -> Path:
    """Measure the first device, print the results, and write them beside the table of devices.

    The record is written after the rates and after each program, so that a program that fails
    loses no measurement.

    Args:
        out: Other path of the record.

    Returns:
        Path of the record.

    Raises:
        ConfigError: If the table has no device of this kind.
    """
    device = this_device()
    target = find_target(device)
    rates = measure_rates(precisions(target))
    show([{key: str(value) for key, value in rates.items()}])
    measured = Calibration(
        launch_s=1e-6 * rates["launch_us"],
        bandwidth=rates["bandwidth"],
        flops=rates["flops"],
        ratios=(),
        source="",
    )
    path = Path(out) if out else calibration_file(device)
    rows: list[Row] = []
    write_json(path, {"rates": rates, "rows": rows}, wall=True)
    for row in measure_programs(target._replace(**measured._asdict())):
        rows += show([row])
        write_json(path, {"rates": rates, "rows": rows}, wall=True)
    return path


def this_device() -> str:
    """Return the name of this machine's first device in the table.

    Raises:
        ConfigError: If the table has no device of this kind.
    """
    kind = jax.devices()[0].device_kind
    names = [name for name, entry in table().items() if entry["kind"] == kind]
    kinds = ", ".join(entry["kind"] for entry in table().values())
    rule = (
        f"the first device is {kind}, which jmarl/forecast/targets.yaml lacks; run on one of "
        f"{kinds}, or add an entry"
    )
    check(bool(names), "calibrate", True, rule)
    return names[0]


def precisions(target: Target) -> Sequence[str]:
    """Return the precisions of matrix products that a device has."""
    return tuple(PASSES if target.platform == "tpu" else target.flops)


def measure_rates(names: Sequence[str]) -> dict[str, Any]:
    """Return the time of a small kernel, the bandwidth, and the rate of products.

    Args:
        names: Precisions of the products.
    """
    return {
        "launch_us": 1e6 * launch_seconds(),
        "bandwidth": bandwidth(),
        "flops": {name: product_rate(name) for name in names},
    }


def launch_seconds() -> float:
    """Return the time of a kernel that does next to nothing, in a program of many."""

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(LAUNCHES):
            # The barrier keeps XLA from fusing the steps into one kernel.
            x = jax.lax.optimization_barrier(jnp.sin(x))
        return x

    x = jnp.ones((8, 128))
    compiled = jax.jit(chain).lower(x).compile()
    launched = kernels.count(parse(compiled.as_text() or "")).iteration.launches
    require(launched >= LAUNCHES, f"XLA fused {LAUNCHES} kernels into {launched:.0f}")
    return _seconds(lambda: compiled(x)) / launched


def bandwidth() -> float:
    """Return the bytes per second that a kernel reads and writes."""
    x = jnp.ones(BYTES // 4)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / _seconds(lambda: add(x))


def product_rate(precision: str) -> float:
    """Return the floating-point operations per second of a large product."""
    # A device that is limited by power multiplies constants faster.
    x = jax.random.normal(jax.random.key(0), (WIDTH, WIDTH))
    multiply = jax.jit(in_precision(jnp.matmul, precision))
    return 2 * WIDTH**3 / _seconds(lambda: multiply(x, x))


def _seconds(call: Callable[[], Any]) -> float:
    return time_call(call, REPEATS, wall=True).wall_min


def measure_programs(target: Target) -> Iterator[Row]:
    """Yield the measured and the forecast speed of the programs of training.

    Args:
        target: Device, with its measured rates.
    """
    for system in PROGRAMS:
        plan, update = compile_program(system, target)
        expected = forecast(plan)
        measured = expected.rows / update()
        yield {
            "system": system,
            "env": ENV,
            "num_envs": plan.config.num_envs,
            "bound": expected.bound,
            "forecast rows/s": expected.rows_per_second,
            "measured rows/s": measured,
            "measured / forecast": measured / expected.rows_per_second,
        }


def compile_program(
    system: str, target: Target, overrides: Sequence[str] = ()
) -> tuple[Plan, Callable[[], float]]:
    """Compile a program of training for this machine's first device.

    Args:
        system: The system.
        target: Device.
        overrides: Overrides of the run.

    Returns:
        Its counts, and a function that trains and returns the seconds of an update.
    """
    config = load_config(system, [f"env={ENV}", "logger=none", *overrides])
    programs = stage_programs(build_run(config))
    shapes = state_shapes(config, programs, jax.devices()[:1])
    mesh = jax.tree.leaves(shapes.best)[0].sharding.mesh
    updates = config.arch.updates_per_chunk
    with jax.set_mesh(mesh):
        started = time.perf_counter()
        traced = trace_chunk(programs, shapes)
        compiled = traced.lower().compile(training_options(config))
        taken = time.perf_counter() - started
        init = jax.jit(programs.init, out_shardings=shardings_of(shapes))
        runner = init(seed_keys(config).init).runner
    train = _Trainer(lambda x: compiled(x, np.int32(updates)), runner)
    plan = count_run(config, target, traced, [compiled], shapes.best, taken)
    return plan, lambda: _seconds(train) / updates


class _Trainer:
    """A call continues the training; each call donates the state of the last one."""

    def __init__(self, chunk: Callable[[Any], Any], runner: Any) -> None:
        self.chunk = chunk
        self.runner = runner

    def __call__(self) -> Any:
        self.runner, report = self.chunk(self.runner)
        return report
