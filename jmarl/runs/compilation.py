"""Ahead-of-time compilation of the programs of a run.

Each later stage is compiled while the stage before it trains.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jmarl.config import RunConfig
from jmarl.hosts.arrays import place
from jmarl.platforms import platform
from jmarl.runs.exit_codes import COMPILE_THREAD
from jmarl.runs.progress import size_text
from jmarl.training.anakin import Runner, drop_env_state
from jmarl.training.programs import (
    Best,
    ChunkReport,
    Programs,
    State,
    seed_keys,
    shardings_of,
    trace_chunk,
    trace_evaluation,
    with_sharding,
)
from jmarl.types import Key, Metrics, Params


COLLECTIVE_TIMEOUT_S = 10**6
"""Seconds that one CPU device waits for another before XLA ends the process.

The limit is long, so that a suspended run can continue.
"""
CACHE_REQUEST = "/jax/compilation_cache/compile_requests_use_cache"
CACHE_HIT = "/jax/compilation_cache/cache_hits"


class CompiledStage(NamedTuple):
    """Compiled programs of one stage. ``continue_runner`` is None for a first stage."""

    chunk: Callable[[Runner, int], tuple[Runner, ChunkReport]]
    continue_runner: Callable[[Runner], Runner] | None
    memory: str
    """Memory of a chunk, as text."""
    working_bytes: int
    """Bytes that a chunk needs besides the state, on all devices."""


class CompiledRun(NamedTuple):
    """Compiled programs of a run.

    ``init`` and ``evaluate`` are those of ``training.Programs``.

    ``stage(i)`` waits for the programs of stage i, and starts to compile the next stage
    in the background. ``is_ready(i)`` returns True once stage i is compiled; it waits at
    most a second. ``close()`` cancels compilations that have not started.
    """

    init: Callable[[Key], State]
    evaluate: Callable[[Best, Params, Key, Any], tuple[Best, dict[str, Metrics]]]
    stage: Callable[[int], CompiledStage]
    is_ready: Callable[[int], bool]
    close: Callable[[], None]


class _PendingStage(NamedTuple):
    """A stage that is being compiled."""

    chunk: Future[Any]
    start: Future[Any] | None
    replicated: Any
    """Sharding of an array that every device holds."""

    def result(self) -> CompiledStage:
        """Wait for the compiled programs."""
        compiled = self.chunk.result()
        analysis = compiled.memory_analysis()
        working = working_bytes(analysis, self.replicated.num_devices)

        def chunk(runner: Runner, updates: int) -> tuple[Runner, ChunkReport]:
            placed = place(np.int32(updates), self.replicated)
            return compiled(runner, placed)

        start = self.start and self.start.result()
        return CompiledStage(chunk, start, memory_text(analysis), working)


def compile_run(
    config: RunConfig,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    *,
    fresh: bool,
    restart: bool = False,
    first: int = 0,
    check_memory: Callable[[int, int], None] = lambda stage, working_bytes: None,
) -> CompiledRun:
    """Compile the programs of a run's first stage, and prepare those of later stages.

    All programs are traced in the calling thread, so that its JAX configuration applies.

    Args:
        config: Configuration of the run.
        programs: Programs of each stage.
        shapes: State of each stage, as shapes with shardings.
        fresh: True for a run that starts from the beginning. Only then is ``init``
            compiled.
        restart: True if the first stage restarts from an inexact checkpoint.
        first: Index of the first stage to train.
        check_memory: Function that is called with the index of a stage, and the bytes
            that a program needs besides the state of that stage. It may raise an error.
    """
    mesh = jax.tree.leaves(shapes[-1].best)[0].sharding.mesh
    pool = ThreadPoolExecutor(4, thread_name_prefix=COMPILE_THREAD)
    close = partial(pool.shutdown, wait=False, cancel_futures=True)
    options = training_options(config)
    stages: dict[int, _PendingStage] = {}
    checked: dict[int, CompiledStage] = {}

    def request(i: int) -> None:
        if i not in stages and i < len(programs):
            with jax.set_mesh(mesh):
                again = restart and i == first
                stages[i] = _submit_stage(
                    pool, programs, shapes, i, options=options, restart=again
                )

    def stage(i: int) -> CompiledStage:
        request(i)
        if i not in checked:
            compiled = stages[i].result()
            check_memory(i, compiled.working_bytes)
            checked[i] = compiled
        request(i + 1)
        return checked[i]

    def is_ready(i: int) -> bool:
        request(i)
        pending = filter(None, (stages[i].chunk, stages[i].start))
        return not wait(pending, timeout=1.0).not_done

    try:
        request(first)
        with jax.set_mesh(mesh):
            shared = _submit_shared(pool, config, programs, shapes, fresh=fresh)
        check_memory(first, stages[first].result().working_bytes)
        init, evaluate = _shared_programs(programs, shapes, *shared)
        analysis = shared[1].result().memory_analysis()
        check_memory(first, working_bytes(analysis, mesh.size))
    except BaseException:
        close()
        raise
    return CompiledRun(init, evaluate, stage, is_ready, close)


def _submit_stage(
    pool: ThreadPoolExecutor,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    i: int,
    *,
    options: dict[str, Any] | None,
    restart: bool,
) -> _PendingStage:
    """Trace the chunk of stage i and the program that starts the stage."""
    replicated = jax.tree.leaves(shapes[-1].best)[0].sharding
    runner = shapes[i].runner
    out = shardings_of(runner)
    lowered = trace_chunk(programs[i], shapes[i]).lower()
    chunk = pool.submit(lowered.compile, options)
    if restart:
        start, previous = programs[i].restart_stage, drop_env_state(runner)
    elif i:
        start, previous = programs[i].start_stage, drop_env_state(shapes[i - 1].runner)
    else:
        return _PendingStage(chunk, None, replicated)
    start = _submit(pool, start, previous, out=out)
    return _PendingStage(chunk, start, replicated)


def _submit_shared(
    pool: ThreadPoolExecutor,
    config: RunConfig,
    programs: Sequence[Programs],
    shapes: Sequence[State],
    *,
    fresh: bool,
) -> tuple[Future[Any] | None, Future[Any]]:
    """Trace ``init`` of the first stage and ``evaluate`` of the last one."""
    lowered = trace_evaluation(config, programs[-1], shapes[-1].best).lower()
    evaluate = pool.submit(lowered.compile, training_options(config))
    if not fresh:
        return None, evaluate
    replicated = jax.tree.leaves(shapes[-1].best)[0].sharding
    keys = with_sharding(jax.eval_shape(lambda: seed_keys(config).init), replicated)
    init = _submit(pool, programs[0].init, keys, out=shardings_of(shapes[0]))
    return init, evaluate


def _shared_programs(
    programs: Sequence[Programs],
    shapes: Sequence[State],
    initial: Future[Any] | None,
    evaluation: Future[Any],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return ``init`` and ``evaluate``, which place their arguments on the devices."""
    replicated = jax.tree.leaves(shapes[-1].best)[0].sharding
    compiled_init = initial and initial.result()
    compiled_evaluate = evaluation.result()

    def init(keys: Key) -> State:
        if compiled_init is None:
            return programs[0].init(keys)
        return compiled_init(place(keys, replicated))

    def evaluate(best: Best, params: Params, keys: Key, update: Any) -> Any:
        keys, update = place((keys, np.int32(update)), replicated)
        return compiled_evaluate(best, params, keys, update)

    return init, evaluate


def _submit(
    pool: ThreadPoolExecutor,
    program: Callable[..., Any],
    shapes: Any,
    *,
    out: Any,
) -> Future[Any]:
    """Trace a program that runs once in this thread, and compile it in the pool.

    Tracing holds Python's lock, so that further threads would not make it faster.
    """
    lowered = jax.jit(program, out_shardings=out).lower(shapes)
    return pool.submit(lowered.compile, compiler_options(0, -1.0))


@contextmanager
def cache_use() -> Iterator[Callable[[], str]]:
    """Count the programs that are looked up in the compilation cache, and those found there.

    Yields:
        Function that returns both as text; empty if nothing was looked up.
    """
    counts: Counter[str] = Counter()

    def count(event: str, **_: Any) -> None:
        counts[event] += 1

    def text() -> str:
        found, all_programs = counts[CACHE_HIT], counts[CACHE_REQUEST]
        if not all_programs:
            return ""
        return f"{found} of {all_programs} programs from the compilation cache"

    jax.monitoring.register_event_listener(count)
    try:
        yield text
    finally:
        jax.monitoring.unregister_event_listener(count)


def training_options(config: RunConfig) -> dict[str, Any] | None:
    """Return XLA's options for training and evaluation of a run."""
    return compiler_options(1, config.arch.compile_effort)


def compiler_options(cpu_effort: int, tpu_effort: float = 0.0) -> dict[str, Any] | None:
    """Return XLA's options for the platform; for a CPU, ``XLA_FLAGS`` takes precedence.

    XLA's default effort for a CPU is 3. With effort 1, a chunk compiles in three quarters of the
    time and runs no slower. Effort 0 suits a program that runs once.

    Args:
        cpu_effort: Level of optimization for a CPU, from 0 to 3.
        tpu_effort: Effort for a TPU, from -1 to 1. 0 is XLA's default.
    """
    if platform() == "tpu" and tpu_effort:
        return {"exec_time_optimization_effort": tpu_effort}
    if platform() != "cpu":
        return None
    options = {
        "xla_cpu_collective_call_terminate_timeout_seconds": str(COLLECTIVE_TIMEOUT_S),
        "xla_backend_optimization_level": str(cpu_effort),
    }
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given}


def working_bytes(analysis: Any, devices: int) -> int:
    """Return the bytes that a compiled program needs besides its arguments, on all devices.

    They are 0 if the backend does not report them.
    """
    if analysis is None:
        return 0
    new_outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return devices * (analysis.temp_size_in_bytes + max(0, new_outputs))


def memory_text(analysis: Any) -> str:
    """Describe the memory of a compiled chunk."""
    if analysis is None:
        return "the backend does not report the memory of a chunk"
    temporary = size_text(analysis.temp_size_in_bytes)
    state = size_text(analysis.argument_size_in_bytes)
    return f"a chunk takes {temporary} temporary, {state} state per device"
