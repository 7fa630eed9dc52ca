"""Compile the programs of a run ahead of time, each stage while the one before it trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.config import RunConfig
from jmarl.runs.progress import size_text
from jmarl.training.anakin import Runner, drop_env_state
from jmarl.training.programs import (
    Best,
    ChunkReport,
    Programs,
    State,
    seed_keys,
    shardings_of,
    with_sharding,
)
from jmarl.types import Key, Metrics, Params


COLLECTIVE_TIMEOUT_S = 10**6
"""Time that one CPU device waits for another before XLA ends the process.

It is long, because a suspended run must not end.
"""


class CompiledStage(NamedTuple):
    """Compiled programs of one stage. ``continue_runner`` is None for a first stage."""

    chunk: Callable[[Runner], tuple[Runner, ChunkReport]]
    continue_runner: Callable[[Runner], Runner] | None
    memory: str
    """Memory of a chunk, as text."""


class CompiledRun(NamedTuple):
    """Compiled programs of a run.

    ``stage(i)`` waits for the programs of stage i, and starts to compile the next stage
    in the background. ``init`` and ``evaluate`` are those of ``training.Programs``.
    """

    init: Callable[[Key], State]
    evaluate: Callable[[Best, Params, Key, Any], tuple[Best, dict[str, Metrics]]]
    stage: Callable[[int], CompiledStage]
    close: Callable[[], None]


def compile_run(
    config: RunConfig,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    *,
    fresh: bool,
    restart: bool = False,
    first: int = 0,
) -> CompiledRun:
    """Compile the programs of a run's first stage, and prepare those of later stages.

    Args:
        config: Configuration of the run.
        programs: Programs of each stage.
        shapes: State of each stage, as shapes with shardings.
        fresh: True for a run that starts from the beginning. Only then is ``init``
            compiled.
        restart: True if the first stage restarts from an inexact checkpoint.
        first: Index of the stage to begin with.
    """
    mesh = jax.tree.leaves(shapes[-1].best)[0].sharding.mesh
    background = ThreadPoolExecutor(1, thread_name_prefix="compile-stage")
    stages: dict[int, Future[CompiledStage]] = {}

    def submit(i: int) -> None:
        if i not in stages and i < len(programs):
            task = partial(_compile_stage, mesh, programs, shapes, i)
            stages[i] = background.submit(task, restart=restart and i == first)

    def stage(i: int) -> CompiledStage:
        submit(i)
        compiled = stages[i].result()
        submit(i + 1)
        return compiled

    submit(first)
    init, evaluate = _compile_shared(config, mesh, programs, shapes, fresh=fresh)
    stages[first].result()
    close = partial(background.shutdown, wait=False, cancel_futures=True)
    return CompiledRun(init, evaluate, stage, close)


def _compile_stage(
    mesh: Any,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    i: int,
    *,
    restart: bool,
) -> CompiledStage:
    """Compile the chunk of stage i, and its start from the previous stage."""
    replicated = jax.tree.leaves(shapes[-1].best)[0].sharding
    runner = shapes[i].runner
    out = shardings_of(runner)
    start, previous = None, None
    if restart:
        start, previous = programs[i].restart_stage, drop_env_state(runner)
    elif i:
        start, previous = programs[i].start_stage, drop_env_state(shapes[i - 1].runner)
    with jax.set_mesh(mesh), ThreadPoolExecutor(2) as pool:
        submit = partial(_submit, pool)
        chunk = submit(
            programs[i].chunk, runner, out=(out, replicated), effort=1, donate=(0,)
        )
        starting = start and submit(start, previous, out=out, effort=0)
    compiled = chunk.result()
    memory = memory_text(compiled.memory_analysis())
    return CompiledStage(compiled, starting and starting.result(), memory)


def _compile_shared(
    config: RunConfig,
    mesh: Any,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    *,
    fresh: bool,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile ``init`` of the first stage and ``evaluate`` of the last one."""
    best = shapes[-1].best
    replicated = jax.tree.leaves(best)[0].sharding
    keys = with_sharding(jax.eval_shape(lambda: seed_keys(config).init), replicated)
    update = with_sharding(jax.ShapeDtypeStruct((), jnp.int32), replicated)
    with jax.set_mesh(mesh), ThreadPoolExecutor(2) as pool:
        submit = partial(_submit, pool)
        out = shardings_of(shapes[0])
        initial = submit(programs[0].init, keys, out=out, effort=0) if fresh else None
        evaluation = submit(
            programs[-1].evaluate,
            *(best, best.params, keys, update),
            out=replicated,
            effort=1,
        )

    def init(keys: Key) -> State:
        if initial is None:
            return programs[0].init(keys)
        return initial.result()(jax.device_put(keys, replicated))

    def evaluate(best: Best, params: Params, keys: Key, update: Any) -> Any:
        keys, update = jax.device_put((keys, np.int32(update)), replicated)
        return evaluation.result()(best, params, keys, update)

    return init, evaluate


def _submit(
    pool: ThreadPoolExecutor,
    program: Callable[..., Any],
    *shapes: Any,
    out: Any,
    effort: int,
    donate: tuple[int, ...] = (),
) -> Future[Any]:
    """Trace in this thread, which holds Python's lock, and compile in the pool."""
    jitted = jax.jit(program, donate_argnums=donate, out_shardings=out)
    lowered = jitted.lower(*shapes)
    return pool.submit(lowered.compile, compiler_options(effort))


def compiler_options(effort: int) -> dict[str, str | bool] | None:
    """Return XLA's options for a CPU; ``XLA_FLAGS`` takes precedence.

    XLA's default effort is 3. With 1, a chunk compiles in three quarters of the time and
    runs no slower. A program that runs once needs none.
    """
    if jax.default_backend() != "cpu":
        return None
    options = {
        "xla_cpu_collective_call_terminate_timeout_seconds": str(COLLECTIVE_TIMEOUT_S),
        "xla_backend_optimization_level": str(effort),
    }
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given}


def memory_text(analysis: Any) -> str:
    """Describe the memory of a compiled chunk."""
    if analysis is None:
        return "the backend does not report the memory of a chunk"
    temporary = size_text(analysis.temp_size_in_bytes)
    state = size_text(analysis.argument_size_in_bytes)
    return f"a chunk takes {temporary} temporary, {state} state per device"
