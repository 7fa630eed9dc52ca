"""Compile the programs of a run for a target, and forecast their memory and speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.stages import Traced

from jmarl.config import ConfigError, RunConfig
from jmarl.forecast import kernels
from jmarl.forecast.described import described_programs, load_config_for
from jmarl.forecast.flops import matmul_flops
from jmarl.forecast.hlo import parse
from jmarl.forecast.kernels import Loop, Repetition, Work
from jmarl.forecast.targets import Target
from jmarl.runs.compilation import training_options
from jmarl.runs.exit_codes import ResourceError
from jmarl.training.anakin import ROLLOUT
from jmarl.training.programs import Best, number_of_bytes, trace_chunk, trace_evaluation


USABLE = 0.9
"""Share of a device's memory that a program may take. The rest is for the runtime."""
NO_TRITON = {"xla_gpu_enable_triton_gemm": False}
"""XLA's option for a program whose fused matrix products find no tiling without autotuning."""


class Cost(NamedTuple):
    """Cost of a part of a program.

    In a ``Plan``, the work is that of each device, and the operations are those of all of them.
    """

    work: Work
    flops: float
    """Operations of matrix products."""


class Plan(NamedTuple):
    """What a run needs on a target."""

    target: Target
    config: RunConfig
    devices: int
    """Devices that share the environments."""
    state_bytes: int
    """Bytes of the runner and the best parameters on each device."""
    temporary_bytes: int
    """Further bytes of the program that needs most, on each device."""
    step: Cost
    """One time step of all environments of all seeds."""
    update: Cost
    """One update without its rollout."""
    step_loops: tuple[Repetition, ...]
    """What the loops of a time step repeat."""
    update_loops: tuple[Repetition, ...]
    """What the loops of an update without its rollout repeat."""
    unknown: tuple[str, ...]
    """Paths of loops whose length XLA does not know, counted once."""
    arrays: tuple[tuple[int, str, str], ...]
    """Bytes, type and line of code of the largest arrays."""
    compile_seconds: float

    @property
    def whole(self) -> Cost:
        """One update with its rollout."""
        length = self.config.rollout_length
        work = self.update.work.plus(self.step.work, length)
        return Cost(work, self.update.flops + length * self.step.flops)

    @property
    def needed(self) -> int:
        """Bytes on each device."""
        return self.state_bytes + self.temporary_bytes

    @property
    def usable(self) -> int:
        """Bytes that a program may take on each device."""
        return int(USABLE * self.target.memory)

    @property
    def fits(self) -> bool:
        """Return whether the memory of a device is enough."""
        return self.needed <= self.usable


def plan_run(system: str, overrides: Sequence[str], target: Target) -> Plan:
    """Compose the configuration of a run for a target, and plan it.

    Args:
        system: The system.
        overrides: Overrides, as on its command line.
        target: Devices.

    Raises:
        ConfigError: As ``plan``, or if the configuration is invalid.
        ResourceError: As ``plan``.
    """
    return plan(load_config_for(target, system, overrides), target)


def plan(config: RunConfig, target: Target) -> Plan:
    """Compile training and evaluation of a run's last stage for a target.

    Args:
        config: Configuration, composed for the platform of the target.
        target: Devices.

    Raises:
        ConfigError: If the compiler of the target is not installed, if the target lacks the
            precision of the run, or if the rollout is too short to be a loop of the compiled
            program.
        ResourceError: If XLA compiles no program because it would not fit into the memory.
    """
    with described_programs(config, target) as (programs, shapes, _):
        started = time.perf_counter()
        chunk = trace_chunk(programs, shapes)
        evaluation = trace_evaluation(config, programs, shapes.best)
        compiled = compile_all(config, target, (chunk, evaluation))
        seconds = time.perf_counter() - started
    return count_run(config, target, chunk, compiled, shapes.best, seconds)


def count_run(
    config: RunConfig,
    target: Target,
    chunk: Traced,
    compiled: Sequence[Any],
    best: Best,
    seconds: float,
) -> Plan:
    """Count what compiled programs need.

    Args:
        config: Configuration of the run.
        target: Devices.
        chunk: Traced program of training.
        compiled: Programs of the run. The first is that of training.
        best: Shapes of the best parameters, with shardings.
        seconds: Time that the compilation took.

    Raises:
        ConfigError: As ``split``.
    """
    module = parse(compiled[0].as_text())
    parts = split(kernels.count(module), config.rollout_length)
    rollout_flops = matmul_flops(chunk.jaxpr, ROLLOUT)
    all_flops = matmul_flops(chunk.jaxpr)
    analyses = [each.memory_analysis() for each in compiled]
    return Plan(
        target=target,
        config=config,
        devices=jax.tree.leaves(best)[0].sharding.num_devices,
        state_bytes=analyses[0].argument_size_in_bytes + number_of_bytes(best),
        temporary_bytes=max(each.temp_size_in_bytes for each in analyses),
        step=Cost(parts.step, rollout_flops / config.rollout_length),
        update=Cost(parts.update, all_flops - rollout_flops),
        step_loops=parts.step_loops,
        update_loops=parts.update_loops,
        unknown=parts.unknown,
        arrays=tuple(kernels.largest_arrays(module)),
        compile_seconds=seconds,
    )


def compile_all(
    config: RunConfig, target: Target, programs: Sequence[Any]
) -> list[Any]:
    """Compile traced programs at the same time, each on a processor.

    Raises:
        ResourceError: If XLA does not compile one because it would not fit into the memory.
    """
    lowered = [each.lower() for each in programs]
    try:
        options = training_options(config)
        with ThreadPoolExecutor(len(lowered)) as pool:
            return list(pool.map(partial(compile_lowered, options=options), lowered))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).partition("\n")[0].split())
    text = f"does not fit {target.name}; choose fewer environments ({reason})"
    raise ResourceError(f"num_envs={config.num_envs}: {text}")


def compile_lowered(lowered: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Compile a program; without Triton's matrix products if XLA finds no tiling for one.

    Args:
        lowered: The program.
        options: XLA's options.
    """
    try:
        return lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "tile sizes" not in str(error):
            raise
        return lowered.compile({**(options or {}), **NO_TRITON})


class Parts(NamedTuple):
    """Work of a program that trains, as the fields of ``Plan`` with these names."""

    step: Work
    update: Work
    step_loops: tuple[Repetition, ...]
    update_loops: tuple[Repetition, ...]
    unknown: tuple[str, ...]


def split(program: Loop, rollout_length: int) -> Parts:
    """Return the work of a time step and of an update without its rollout.

    Args:
        program: Tree of the loops of the program that trains.
        rollout_length: Time steps of a rollout.

    Raises:
        ConfigError: If the program has no loop for the rollout. XLA has none for a single step.
    """
    rollout = kernels.find(program, ROLLOUT)
    if rollout is None:
        text = "has no loop in the compiled program; choose a longer rollout"
        raise ConfigError(f"rollout_length={rollout_length}: {text}")
    updates = next(x for x in program.loops if rollout in _all_loops(x))
    # XLA may have unrolled the loop, so that an iteration is more than one step.
    steps = rollout_length if rollout.trips is None else rollout.trips
    step = Work().plus(rollout.iteration, steps / rollout_length)
    update = updates.iteration.plus(rollout.iteration, -rollout.times)
    return Parts(
        step=step,
        update=update,
        step_loops=tuple(kernels.repetitions(rollout)),
        update_loops=tuple(kernels.repetitions(updates, skipped=rollout)),
        unknown=tuple(loop.path for loop in kernels.unknown(updates)),
    )


def _all_loops(loop: Loop) -> Iterator[Loop]:
    yield loop
    for inner in loop.loops:
        yield from _all_loops(inner)


class Forecast(NamedTuple):
    """Time of an update with its rollout, in seconds, by what it is spent on.

    The sum is an estimate, because a device overlaps some of the four. All matrix products count
    with the rate of the run's precision, and all collectives as sums over the devices.
    """

    launches: float
    memory: float
    arithmetic: float
    transfers: float
    """Time of the collectives between devices."""
    rows: int
    """Rows of experience of an update, over all seeds."""

    @property
    def seconds(self) -> float:
        """Time of an update."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Times by name."""
        return {name: getattr(self, name) for name in self._fields[:-1]}

    @property
    def rows_per_second(self) -> float:
        """Rows of experience per second, over all seeds."""
        return self.rows / self.seconds

    @property
    def bound(self) -> str:
        """Name of the largest part."""
        return max(self.parts, key=self.parts.__getitem__)


def forecast(plan: Plan, devices: int = 0) -> Forecast:
    """Estimate the time of an update from the counts of a plan.

    Args:
        plan: The plan.
        devices: Number of devices, each with the work of a device of the plan; by default those of
            the plan.
    """
    config, target = plan.config, plan.target
    devices = devices or plan.devices
    work, flops = plan.whole
    cost = Cost(work, flops / plan.devices)
    rows = config.num_seeds * config.num_envs * config.rollout_length
    return Forecast(
        *bounds(target, cost, config.precision),
        transfers=target.links.reduce_seconds(
            work.collectives, work.collective_bytes, devices
        ),
        rows=rows * devices // plan.devices,
    )


def bounds(target: Target, cost: Cost, precision: str) -> tuple[float, float, float]:
    """Return the seconds of launches, of memory traffic and of arithmetic on one device.

    Args:
        target: The device.
        cost: Work and matrix products of that device.
        precision: Precision of the products.
    """
    launches = cost.work.launches * target.launch_s
    memory = cost.work.nbytes / target.bandwidth
    return launches, memory, cost.flops / target.rate(precision)
