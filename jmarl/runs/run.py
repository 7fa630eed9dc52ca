"""Runs of the command line: a folder, compiled programs, the loop, and an exit code.

All numbers that a run reports or saves are computed by the functions behind ``jmarl.train``.
The code on the host only schedules the calls and records the results.
"""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from jmarl.config import ConfigError, RunConfig
from jmarl.results.curves import draw
from jmarl.results.metrics_file import mean_steps, truncate_rows
from jmarl.runs import folder as run_folder
from jmarl.runs import loggers, loop
from jmarl.runs import progress as report
from jmarl.runs.absolute import absolute_metric
from jmarl.runs.checkpoint import Checkpoints, Meta, Restored
from jmarl.runs.compilation import CompiledRun, compile_run
from jmarl.runs.exit_codes import ExitCode, stop_requests
from jmarl.runs.loop import NonFiniteError, Progress, RunContext
from jmarl.runs.progress import Reporter
from jmarl.runs.status import write_status
from jmarl.runs.warm_start import apply_warm_start, load_warm_start
from jmarl.training.anakin import device_mesh, has_env_state
from jmarl.training.build import BuiltRun
from jmarl.training.programs import (
    Programs,
    State,
    count_parameters,
    number_of_bytes,
    rollout_bytes,
    seed_keys,
    shardings_of,
    stage_programs,
    state_shapes,
)
from jmarl.training.stages import build_stages


class _Setup(NamedTuple):
    """Inputs of a run before its programs are compiled."""

    config: RunConfig
    folder: pathlib.Path
    stages: tuple[BuiltRun, ...]
    programs: tuple[Programs, ...]
    shapes: tuple[State, ...]
    reporter: Reporter
    stop: Callable[[], str]


def run(config: RunConfig) -> ExitCode:
    """Train a configuration in a run folder of its own, or continue ``config.resume``.

    Returns:
        ``FINISHED``, ``OUT_OF_MEMORY``, ``NON_FINITE``, or ``PREEMPTED`` if a signal
        stopped the run.

    Raises:
        ConfigError: If the configuration, the folder, the checkpoint to resume, or the
            run named by ``init_from`` cannot be used. An invalid configuration or
            ``init_from`` leaves no folder behind.
    """
    stages = build_stages(config)
    warm_start = {} if config.resume else _load_warm_start(config, stages[-1])
    folder = run_folder.open_folder(config)
    reporter = report.open_reporter()
    with run_folder.locked(folder), stop_requests() as stop:
        try:
            programs = tuple(stage_programs(stage) for stage in stages)
            shapes = tuple(state_shapes(config, p) for p in programs)
            setup = _Setup(config, folder, stages, programs, shapes, reporter, stop)
            code, message = _restore_and_train(setup, warm_start)
        except ConfigError:
            raise
        except Exception as error:
            code, message = _failure(config, error)
            if code == ExitCode.CRASHED:
                write_status(folder, "failed", exit_code=int(code), message=message)
                raise
        finally:
            reporter.close()
        states = {ExitCode.FINISHED: "finished", ExitCode.PREEMPTED: "interrupted"}
        state = states.get(code, "failed")
        write_status(folder, state, exit_code=int(code), message=message)
    _report_end(config, folder, reporter, code, message)
    return code


def _failure(config: RunConfig, error: Exception) -> tuple[ExitCode, str]:
    if isinstance(error, NonFiniteError):
        return ExitCode.NON_FINITE, str(error)
    is_runtime_error = isinstance(error, jax.errors.JaxRuntimeError)
    if is_runtime_error and "RESOURCE_EXHAUSTED" in str(error):
        return ExitCode.OUT_OF_MEMORY, _out_of_memory_text(config, error)
    return ExitCode.CRASHED, f"{type(error).__name__}: {error}"


def _load_warm_start(config: RunConfig, stage: BuiltRun) -> dict[str, Any]:
    """Return the fields of the warm start; empty without ``init_from``."""
    if not config.init_from:
        return {}
    return load_warm_start(stage._replace(config=config))


def _restore_and_train(
    setup: _Setup, warm_start: dict[str, Any]
) -> tuple[ExitCode, str]:
    """Restore a checkpoint if there is one, then train to the end of the run.

    Returns the exit code and the last message to the user.
    """
    config, reporter = setup.config, setup.reporter
    checkpoints = _open_checkpoints(setup)
    try:
        restored = _restore(setup, checkpoints)
        progress = loop.initial_progress(config)
        if restored:
            progress = Progress(**restored.meta["position"])
        if _is_finished(setup, progress):
            updates = f"all {progress.update:,} updates"
            hint = "total_timesteps=<more> extends the run"
            return ExitCode.FINISHED, f"already finished, {updates}; {hint}"
        if config.resume and restored is None:
            warm_start = _load_warm_start(config, setup.stages[-1])
        reporter.info(_plan_text(setup))
        reporter.info(_start_text(setup, progress, restored))
        _prepare_folder(setup, progress, restored, checkpoints)
        compiled = _compile(setup, progress, restored)
        try:
            ctx = _context(setup, compiled, checkpoints)
            if restored:
                shardings = shardings_of(_saved_shapes(setup, restored.meta))
                state = jax.device_put(restored.state, shardings)
                return _train(ctx, state, progress, saved=progress)
            state = compiled.init(ctx.keys.init)
            return _train(ctx, apply_warm_start(state, warm_start), progress, None)
        finally:
            compiled.close()
    finally:
        if checkpoints:
            checkpoints.close()


def _open_checkpoints(setup: _Setup) -> Checkpoints | None:
    options = setup.config.checkpoint
    if not (options.enabled or setup.config.resume):
        return None
    return Checkpoints(
        setup.folder / "checkpoints",
        keep=options.keep,
        verify=options.verify,
        warn=setup.reporter.warn,
    )


def _restore(setup: _Setup, checkpoints: Checkpoints | None) -> Restored | None:
    if not (checkpoints and setup.config.resume):
        return None
    return checkpoints.restore(partial(_saved_shapes, setup))


def _saved_shapes(setup: _Setup, meta: Meta) -> State:
    """Return the shapes of a checkpoint, which are those of its stage."""
    stage = Progress(**meta["position"]).stage
    return loop.saved_shapes(setup.shapes[stage], meta)


def _is_finished(setup: _Setup, progress: Progress) -> bool:
    config = setup.config
    evaluated = (setup.folder / "evaluation.json").exists()
    if config.eval.absolute_factor and not evaluated:
        return False
    if loop.evaluation_is_due(config, progress):
        return False
    return progress.update >= config.num_updates


def _compile(
    setup: _Setup, progress: Progress, restored: Restored | None
) -> CompiledRun:
    first = loop.due_stage(setup.config, progress)
    inexact = restored is not None and not has_env_state(restored.state.runner)
    with report.stopwatch() as seconds:
        compiled = compile_run(
            setup.config,
            setup.programs,
            setup.shapes,
            fresh=restored is None,
            restart=inexact and first == progress.stage,
            first=first,
        )
        elapsed = seconds()
    memory = compiled.stage(first).memory
    setup.reporter.info(
        f"compiled in {elapsed:.1f} s, not included in steps/s; {memory}"
    )
    return compiled


def _context(
    setup: _Setup, compiled: CompiledRun, checkpoints: Checkpoints | None
) -> RunContext:
    config, folder, warn = setup.config, setup.folder, setup.reporter.warn
    return RunContext(
        config=config,
        folder=folder,
        stages=setup.stages,
        programs=compiled,
        keys=seed_keys(config),
        checkpoints=checkpoints,
        logger=loggers.open_loggers(config.logger, folder, folder.name, warn),
        reporter=setup.reporter,
        stop=setup.stop,
    )


def _train(
    ctx: RunContext, state: State, progress: Progress, saved: Progress | None
) -> tuple[ExitCode, str]:
    try:
        state, progress, signal = loop.train(ctx, state, progress, saved)
        if signal:
            message = f"stopped by {signal} after update {progress.update}"
            return ExitCode.PREEMPTED, message
        if ctx.config.eval.absolute_factor:
            table = absolute_metric(ctx, state, progress)
            if not table:
                message = f"stopped by {ctx.stop()} during the absolute metric"
                return ExitCode.PREEMPTED, message
            ctx.reporter.info(table)
    finally:
        ctx.logger.close()
    _draw_curve(ctx)
    steps = f"{mean_steps(progress.env_steps):,} environment steps per seed"
    return ExitCode.FINISHED, f"finished: {progress.update:,} updates, {steps}"


def _draw_curve(ctx: RunContext) -> None:
    """Draw ``curve.png``. A failure must not fail a finished run."""
    try:
        draw(ctx.folder)
    except Exception as error:
        ctx.reporter.warn(f"no curve.png: {type(error).__name__}: {error}")


def _prepare_folder(
    setup: _Setup,
    progress: Progress,
    restored: Restored | None,
    checkpoints: Checkpoints | None,
) -> None:
    """Write the files that describe the run; remove results that a resumed run repeats."""
    config, folder, reporter = setup.config, setup.folder, setup.reporter
    if restored:
        for change in run_folder.version_changes(restored.meta["versions"]):
            reporter.warn(f"the resumed run may diverge from the original: {change}")
        before = run_folder.read_tree(folder)["total_timesteps"]
        if change := _schedule_change(config, before):
            reporter.info(change)
        if checkpoints:
            checkpoints.discard_after(restored.step)
    metrics = folder / "metrics.jsonl"
    truncate_rows(metrics, lambda row: loop.belongs_before(row, progress))
    (folder / "evaluation.json").unlink(missing_ok=True)
    run_folder.write_config(folder, config)
    run_folder.write_versions(folder, run_folder.versions())
    write_status(
        folder, "running", update=progress.update, env_steps=progress.env_steps
    )


def _schedule_change(config: RunConfig, before: int) -> str:
    if before == config.total_timesteps or not config.system.anneals_lr:
        return ""
    return (
        f"total_timesteps changed from {before:,} to {config.total_timesteps:,}: with "
        "system.anneal_lr=true the learning rate now anneals over the new length"
    )


def _plan_text(setup: _Setup) -> str:
    """Describe the run: parameters, devices, minimum memory, updates and stages."""
    config, stages = setup.config, setup.stages
    devices = device_mesh().devices.ravel()
    kind = f"{devices[0].device_kind} ({devices[0].platform})"
    seeds = f"seed {config.seed}"
    if config.num_seeds > 1:
        seeds = f"{config.num_seeds} seeds from {config.seed}"
    lines = [
        f"{config.system_name} on {stages[-1].env.name}, {seeds}",
        f"  parameters  {count_parameters(setup.shapes[-1]):,} per seed",
        f"  devices     {devices.size} x {kind}",
        f"  memory      {_memory_text(setup)}",
        f"  updates     {config.num_updates:,} of {config.num_envs} environments "
        f"x {config.rollout_length} steps, {config.updates_per_chunk} per call, "
        f"an evaluation every {config.updates_per_evaluation}",
    ]
    if len(stages) > 1:
        ends = zip(config.stage_envs, config.stage_ends, strict=True)
        spans = ", ".join(f"{name} to update {end:,}" for name, end in ends)
        lines.append(f"  stages      {spans}; evaluations use the last")
    return "\n".join(lines)


def _memory_text(setup: _Setup) -> str:
    """Describe the minimum memory of the largest stage."""
    sizes = [
        (number_of_bytes(shapes), rollout_bytes(stage, shapes))
        for stage, shapes in zip(setup.stages, setup.shapes, strict=True)
    ]
    state, experience = max(sizes, key=sum)
    devices = device_mesh().devices.ravel()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    available = f" of {report.size_text(limit * devices.size)}" if limit else ""
    return (
        f"at least {report.size_text(state + experience)}{available}: "
        f"state {report.size_text(state)}, "
        f"experience of one update {report.size_text(experience)}"
    )


def _start_text(setup: _Setup, progress: Progress, restored: Restored | None) -> str:
    if restored:
        steps = f"{mean_steps(progress.env_steps):,} environment steps per seed"
        how = f"resumes after update {progress.update:,} ({steps})"
    elif setup.config.resume:
        how = "holds no checkpoint yet; starts from the beginning"
    elif setup.config.init_from:
        how = f"starts with the best parameters of {setup.config.init_from}"
    else:
        how = "starts from the beginning"
    return f"  run folder  {setup.folder}: {how}"


def _report_end(
    config: RunConfig,
    folder: pathlib.Path,
    reporter: Reporter,
    code: ExitCode,
    message: str,
) -> None:
    if code in (ExitCode.FINISHED, ExitCode.PREEMPTED):
        reporter.info(message)
    else:
        reporter.warn(message)
    if code == ExitCode.FINISHED:
        reporter.info(f"run folder: {folder}")
    elif config.checkpoint.enabled:
        command = f"python -m jmarl.systems.{config.system_name}"
        reporter.info(f"resume with: {command} resume={shlex.quote(str(folder))}")
    else:
        reporter.info("cannot be resumed, because checkpoint.enabled=false")


def _out_of_memory_text(config: RunConfig, error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    fixes = [f"num_envs={max(1, config.num_envs // 2)}"]
    minibatches = config.system.num_minibatches
    if minibatches is not None:
        fixes.append(f"system.minibatches={2 * minibatches}")
    return f"out of memory: {first_line}; try {' or '.join(fixes)}"
