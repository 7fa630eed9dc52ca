"""Runs of the command line: a folder, compiled programs, the loop, and an exit code.

All numbers that a run reports or saves are computed by the functions behind ``jmarl.train``.
The code on the host only schedules the calls and records the results.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import signal
from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax

from jmarl.config import ConfigError, RunConfig
from jmarl.config.experience import learning_text, learning_warnings
from jmarl.hosts import watch
from jmarl.hosts.arrays import place
from jmarl.hosts.process_group import AgreedStop, by_writer, count, writer_only
from jmarl.results.curves import draw
from jmarl.results.metrics_file import (
    mean_steps,
    row_filter,
    row_interval,
    truncate_rows,
)
from jmarl.runs import device_memory, loggers, loop
from jmarl.runs import folder as run_folder
from jmarl.runs import progress as report
from jmarl.runs.absolute import absolute_metric
from jmarl.runs.checkpoint import Checkpoints, Meta, Restored
from jmarl.runs.compilation import CompiledRun, cache_use, compile_run
from jmarl.runs.device_memory import Memory
from jmarl.runs.exit_codes import (
    STOP_SIGNALS,
    ExitCode,
    ResourceError,
    StopRequested,
    StopRequests,
    full_disk_reason,
    stop_requests,
)
from jmarl.runs.loop import Progress, RunContext
from jmarl.runs.progress import Reporter
from jmarl.runs.status import (
    PLACEHOLDER,
    fill_in_folder,
    heartbeat,
    is_recorded,
    resume_command,
    write_end,
    write_status,
)
from jmarl.runs.warm_start import apply_warm_start, load_warm_start
from jmarl.training.anakin import has_env_state
from jmarl.training.build import BuiltRun
from jmarl.training.nonfinite import NonFiniteError, NonFiniteWatch, advice
from jmarl.training.precision import check_devices
from jmarl.training.programs import (
    Programs,
    State,
    count_parameters,
    fold_in,
    run_mesh,
    seed_keys,
    shardings_of,
    stage_programs,
    state_shapes,
)
from jmarl.training.stages import build_stages


MAX_ROLLBACKS = 3
"""Largest number of rollbacks to the same checkpoint."""
ROLLBACK = 2**32 - 1
"""Number that is folded into a key before the number of a rollback, which may equal a seed."""


class _Setup(NamedTuple):
    """Inputs of a run before its programs are compiled."""

    config: RunConfig
    folder: pathlib.Path
    stages: tuple[BuiltRun, ...]
    programs: tuple[Programs, ...]
    shapes: tuple[State, ...]
    memory: Memory
    reporter: Reporter
    stop: StopRequests


class _Start(NamedTuple):
    """Start of training: a checkpoint, or None for the beginning of the run."""

    restored: Restored | None
    rollbacks: int = 0
    """Number of rollbacks to this start."""


class Prepared(NamedTuple):
    """Everything about a run that is known before its folder exists."""

    stages: tuple[BuiltRun, ...]
    programs: tuple[Programs, ...]
    shapes: tuple[State, ...]
    memory: Memory
    warm_start: dict[str, Any]


def prepare(config: RunConfig) -> Prepared:
    """Build a run and check it, without creating its folder.

    Raises:
        ConfigError: If the configuration or the run named by ``init_from`` cannot be used.
        ResourceError: If the estimated memory exceeds that of the devices.
    """
    check_devices(config.precision, jax.local_devices())
    stages = build_stages(config)
    warm_start = {} if config.resume else _load_warm_start(config, stages[-1])
    programs = tuple(stage_programs(stage) for stage in stages)
    shapes = tuple(state_shapes(config, p) for p in programs)
    memory = device_memory.check_estimate(stages, shapes)
    return Prepared(stages, programs, shapes, memory, warm_start)


def check_runs(configs: Iterable[RunConfig]) -> None:
    """Check several configurations as ``run`` does. Runs that differ in the seed are checked once.

    Raises:
        ConfigError: As ``prepare``.
        ResourceError: As ``prepare``.
    """
    checked: list[RunConfig] = []
    for config in configs:
        alike = dataclasses.replace(config, seed=0, run_dir="")
        if alike not in checked:
            prepare(config)
        checked.append(alike)


def run(config: RunConfig) -> ExitCode:
    """Train a configuration in a run folder of its own, or continue ``config.resume``.

    Returns:
        ``FINISHED``, ``RESOURCE``, ``NON_FINITE``, or ``PREEMPTED`` if a signal
        stopped the run.

    Raises:
        ConfigError: If the configuration, the folder, the checkpoint to resume, or the
            run named by ``init_from`` cannot be used. An invalid configuration or
            ``init_from`` leaves no folder behind.
        ResourceError: If the estimated memory exceeds that of the devices. It leaves
            no folder behind either.
    """
    prepared = prepare(config)
    folder = run_folder.open_folder(config)
    lost = watch.recorded_loss(partial(_record_loss, folder))
    with report.optional_output(), run_folder.locked(folder), heartbeat(folder), lost:
        reporter = report.open_reporter()
        with stop_requests(reporter.info, partial(_record_exit, folder)) as stop:
            setup = _Setup(config, folder, *prepared[:-1], reporter, stop)
            code, message = _outcome(setup, prepared.warm_start)
            _write_end(setup, code, message)
        _report_end(config, folder, reporter, code, message)
    return code


def _write_end(setup: _Setup, code: ExitCode, message: str) -> None:
    """Write the final status. A resumed run that did not start keeps its status."""
    states = {ExitCode.FINISHED: "finished", ExitCode.PREEMPTED: "interrupted"}
    always = not setup.config.resume or code == ExitCode.FINISHED
    details = {"exit_code": int(code), "message": message}
    write_end(setup.folder, states.get(code, "failed"), always=always, **details)


def _outcome(setup: _Setup, warm_start: dict[str, Any]) -> tuple[ExitCode, str]:
    """Run to the end. Return the exit code and a message, also for known failures."""
    try:
        return _restore_and_train(setup, warm_start)
    except run_folder.FolderError:
        raise
    except ConfigError as error:
        if is_recorded(setup.folder):
            _write_end(setup, ExitCode.USER_ERROR, str(error))
        raise
    except StopRequested as request:
        message = f"stopped by {request} during compilation; nothing to save"
        return ExitCode.PREEMPTED, message
    except BaseException as error:
        code, message = _failure(setup, error)
        if code == ExitCode.CRASHED:
            watch.settle()
            _write_end(setup, code, message)
            raise
        return code, message
    finally:
        setup.reporter.close()


def _record_exit(folder: pathlib.Path, number: int) -> None:
    """Record that a second signal ends the process."""
    name = signal.Signals(number).name
    message = f"{name} while stopping; exited without saving"
    write_end(folder, "killed", exit_code=128 + number, message=message)


def _record_loss(folder: pathlib.Path, message: str) -> None:
    """Record that the process ends because another is lost."""
    write_end(folder, "failed", exit_code=watch.LOST, message=message)


def _failure(setup: _Setup, error: BaseException) -> tuple[ExitCode, str]:
    if isinstance(error, NonFiniteError):
        return ExitCode.NON_FINITE, _nonfinite_text(setup, error)
    if isinstance(error, ResourceError):
        return ExitCode.RESOURCE, str(error)
    if device_memory.is_out_of_memory(error):
        text = device_memory.out_of_memory_text(setup.config, setup.memory, error)
        return ExitCode.RESOURCE, text
    if reason := full_disk_reason(error):
        return ExitCode.RESOURCE, f"{reason}; free space, then resume the run"
    return ExitCode.CRASHED, f"{type(error).__name__}: {error}"


def _nonfinite_text(setup: _Setup, error: NonFiniteError) -> str:
    """Return the causes and the advice, which depends on whether there is a checkpoint."""
    folders = (setup.folder / "checkpoints").glob("*")
    is_saved = any(path.name.isdigit() for path in folders)
    command = resume_command(setup.config.system_name, pathlib.Path(PLACEHOLDER))
    resume = command if is_saved else ""
    return f"{error}; {advice(setup.config, error.root, resume)}"


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
        restored = None
        if checkpoints and config.resume:
            restored = _restore(setup, checkpoints)
        progress = _progress(config, restored)
        if _is_finished(setup, progress):
            updates = f"all {progress.update:,} updates"
            hint = "total_timesteps=<more> extends the run"
            return ExitCode.FINISHED, f"already finished, {updates}; {hint}"
        if config.resume and restored is None:
            warm_start = _load_warm_start(config, setup.stages[-1])
        reporter.info(_plan_text(setup))
        reporter.info(_start_text(setup, progress, restored))
        _prepare_folder(setup, progress, restored, checkpoints)
        return _train_and_roll_back(setup, checkpoints, restored, warm_start)
    finally:
        if checkpoints:
            checkpoints.close()


def _train_and_roll_back(
    setup: _Setup,
    checkpoints: Checkpoints | None,
    restored: Restored | None,
    warm_start: dict[str, Any],
) -> tuple[ExitCode, str]:
    """Train to the end of the run, from a new start after each rollback."""
    start, compiled = _Start(restored), _compile_first(setup, restored)
    try:
        while True:
            ctx = _context(setup, compiled, checkpoints)
            state = _first_state(setup, compiled, start, warm_start)
            progress = _progress(setup.config, start.restored)
            saved = progress if start.restored else None
            try:
                return _train(ctx, state, progress, saved)
            except NonFiniteError as error:
                failure = error.with_traceback(None)  # frees the memory of the state
            start = _roll_back(setup, checkpoints, start, failure)
            if start.restored and not has_env_state(start.restored.state.runner):
                compiled.close()
                compiled = _compile(setup, start.restored)
    finally:
        compiled.close()


def _compile_first(setup: _Setup, restored: Restored | None) -> CompiledRun:
    """Compile a run. A new run that needs too much memory leaves no folder behind."""
    try:
        return _compile(setup, restored)
    except ResourceError as error:
        if setup.config.resume:
            raise
        run_folder.discard(setup.folder)
        raise run_folder.FolderError(str(error)) from None


def _first_state(
    setup: _Setup, compiled: CompiledRun, start: _Start, warm_start: dict[str, Any]
) -> State:
    """Return the state at the start, with other random keys if the run must diverge."""
    config, restored = setup.config, start.restored
    if restored is None:
        state = compiled.init(seed_keys(config).init)
        state = apply_warm_start(state, warm_start)
    else:
        shardings = shardings_of(_saved_shapes(setup, restored.meta))
        state = place(restored.state, shardings)
        if restored.meta["seed"] != config.seed:
            state = _diverge(state, config.seeds)
    if start.rollbacks:
        state = _diverge(state, ROLLBACK, start.rollbacks)
    return state


def _diverge(state: State, *numbers: Any) -> State:
    """Fold numbers into the random keys of training."""
    runner = state.runner
    key = reduce(fold_in, numbers, runner.key)
    key = place(key, runner.key.sharding)
    return state.replace(runner=runner.replace(key=key))


def _roll_back(
    setup: _Setup,
    checkpoints: Checkpoints | None,
    start: _Start,
    failure: NonFiniteError,
) -> _Start:
    """Return to the newest checkpoint, and remove later rows of metrics.

    Raises:
        NonFiniteError: If the run must stop instead.
    """
    config = setup.config
    if config.on_nonfinite != "rollback" or not checkpoints:
        raise failure
    checkpoints.wait()
    restored = _restore(setup, checkpoints)
    progress = _progress(config, restored)
    is_same = progress == _progress(config, start.restored)
    number = start.rollbacks + 1 if is_same else 1
    where = f"update {progress.update:,}"
    if number > MAX_ROLLBACKS:
        note = f" after {MAX_ROLLBACKS} rollbacks to {where}"
        raise NonFiniteError(failure.causes, failure.root, note)
    text = f"rollback {number} of {MAX_ROLLBACKS} to {where} with other random numbers"
    setup.reporter.warn(f"{failure}; {text}")
    if restored:
        checkpoints.discard_after(restored.step)
    _write_progress(setup.folder, progress)
    _truncate_metrics(config, setup.folder, progress)
    return _Start(restored, number)


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


def _restore(setup: _Setup, checkpoints: Checkpoints) -> Restored | None:
    """Restore the newest checkpoint. Checkpoints of older versions lack the seed."""
    restored = checkpoints.restore(partial(_saved_shapes, setup))
    if restored:
        before = run_folder.read_tree(setup.folder)
        restored.meta.setdefault("seed", before["seed"])
    return restored


def _progress(config: RunConfig, restored: Restored | None) -> Progress:
    if restored is None:
        return loop.initial_progress(config)
    return Progress(**restored.meta["position"])


def _saved_shapes(setup: _Setup, meta: Meta) -> State:
    """Return the shapes of a checkpoint, which are those of its stage."""
    stage = Progress(**meta["position"]).stage
    return loop.saved_shapes(setup.shapes[stage], meta)


def _is_finished(setup: _Setup, progress: Progress) -> bool:
    config = setup.config
    evaluated = _is_evaluated(setup.folder)
    if config.eval.absolute_factor and not evaluated:
        return False
    if loop.evaluation_is_due(config, progress):
        return False
    return progress.update >= config.num_updates


def _is_evaluated(folder: pathlib.Path) -> bool:
    return by_writer((folder / "evaluation.json").exists)


def _compile(setup: _Setup, restored: Restored | None) -> CompiledRun:
    """Compile the run. A stop request ends the compilation."""
    progress = _progress(setup.config, restored)
    first = loop.due_stage(setup.config, progress)
    inexact = restored is not None and not has_env_state(restored.state.runner)

    def check_memory(stage: int, working_bytes: int) -> None:
        state = device_memory.bytes_on_devices(setup.shapes[stage])
        needed = state + working_bytes
        device_memory.check_fits(setup.config, setup.memory, needed)

    with setup.stop.raised(), report.stopwatch() as seconds, cache_use() as cached:
        compiled = compile_run(
            setup.config,
            setup.programs,
            setup.shapes,
            fresh=restored is None,
            restart=inexact and first == progress.stage,
            first=first,
            check_memory=check_memory,
        )
        elapsed = seconds()
    facts = ["not included in steps/s", compiled.stage(first).memory, cached()]
    text = "; ".join(filter(None, facts))
    setup.reporter.info(f"compiled in {elapsed:.1f} s, {text}")
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
        checkpoints=checkpoints if config.checkpoint.enabled else None,
        logger=loggers.open_loggers(
            config.logger, folder, folder.name, warn, _train_row_interval(config)
        ),
        reporter=setup.reporter,
        nonfinite=NonFiniteWatch(config, warn),
        stop=_agreed(setup.stop),
    )


def _agreed(stop: StopRequests) -> Callable[[], str]:
    """Return the stop requests of all processes."""
    if count() == 1:
        return stop
    return AgreedStop(stop, tuple(number.name for number in STOP_SIGNALS))


def _train(
    ctx: RunContext, state: State, progress: Progress, saved: Progress | None
) -> tuple[ExitCode, str]:
    try:
        state, progress, signal = loop.train(ctx, state, progress, saved)
        if signal:
            message = f"stopped by {signal} after update {progress.update}"
            return _end(ctx, progress, ExitCode.PREEMPTED, message)
        if ctx.config.eval.absolute_factor:
            table = absolute_metric(ctx, state, progress)
            if not table:
                message = f"stopped by {ctx.stop()} during the absolute metric"
                return _end(ctx, progress, ExitCode.PREEMPTED, message)
            ctx.reporter.info(table)
    finally:
        ctx.logger.close()
    _draw_curve(ctx)
    message = f"finished: {_length_text(ctx.config, progress)}"
    return _end(ctx, progress, ExitCode.FINISHED, message)


def _end(
    ctx: RunContext, progress: Progress, code: ExitCode, message: str
) -> tuple[ExitCode, str]:
    """Wait for the last checkpoint. A run whose last results are not saved has failed."""
    lost = []
    if ctx.checkpoints and (reason := ctx.checkpoints.wait()):
        lost.append(f"the state after update {progress.update:,} ({reason})")
    evaluated = code == ExitCode.FINISHED and ctx.config.eval.absolute_factor
    if evaluated and not _is_evaluated(ctx.folder):
        lost.append("evaluation.json")
    if not lost:
        return code, message
    message += f"; not saved: {' and '.join(lost)}; remove the cause, then resume"
    return ExitCode.RESOURCE, message


def _length_text(config: RunConfig, progress: Progress) -> str:
    rows = progress.update * config.rows_per_update
    steps = mean_steps(progress.env_steps)
    return (
        f"{progress.update:,} updates, {rows:,} rows per seed: "
        f"{steps:,} environment steps and {rows - steps:,} resets"
    )


@writer_only
def _draw_curve(ctx: RunContext) -> None:
    """Draw ``curve.png``. A failure must not fail a finished run."""
    try:
        draw(ctx.folder)
    except Exception as error:
        ctx.reporter.warn(f"no curve.png: {type(error).__name__}: {error}")
        if full_disk_reason(error):
            (ctx.folder / "curve.png").unlink(missing_ok=True)


@writer_only
def _prepare_folder(
    setup: _Setup,
    progress: Progress,
    restored: Restored | None,
    checkpoints: Checkpoints | None,
) -> None:
    """Write the files that describe the run; remove results that a resumed run repeats."""
    config, folder, reporter = setup.config, setup.folder, setup.reporter
    for warning in learning_warnings(config):
        reporter.warn(warning)
    if restored:
        for change in run_folder.version_changes(restored.meta["versions"]):
            reporter.warn(f"the resumed run may diverge from the original: {change}")
        before = run_folder.read_tree(folder)
        for change in _divergences(config, before, restored.meta["seed"]):
            reporter.warn(change)
        if change := _schedule_change(config, before["total_timesteps"]):
            reporter.info(change)
        if checkpoints:
            checkpoints.discard_after(restored.step)
    # Written first, so that on a full disk the final status can overwrite it
    _write_progress(folder, progress)
    _write_description(config, folder, progress)
    (folder / "evaluation.json").unlink(missing_ok=True)


def _write_description(
    config: RunConfig, folder: pathlib.Path, progress: Progress
) -> None:
    """Write the files that a run needs. A new run that cannot write them leaves none."""
    try:
        run_folder.write_config(folder, config)
        run_folder.write_versions(folder, run_folder.versions())
        _truncate_metrics(config, folder, progress)
    except OSError as error:
        if config.resume:
            raise
        run_folder.discard(folder)
        raise run_folder.write_error(folder, error) from None


def _write_progress(folder: pathlib.Path, progress: Progress) -> None:
    done = {"update": progress.update, "env_steps": progress.env_steps}
    write_status(folder, "running", **done)


@writer_only
def _truncate_metrics(
    config: RunConfig, folder: pathlib.Path, progress: Progress
) -> None:
    is_kept = row_filter(_train_row_interval(config))
    truncate_rows(
        folder / "metrics.jsonl",
        lambda row: loop.belongs_before(row, progress) and is_kept(row),
    )


def _train_row_interval(config: RunConfig) -> int:
    """Return the updates from one training row of ``metrics.jsonl`` to the next."""
    schedule = config.schedule
    return row_interval(schedule.num_updates, updates_per_row=schedule.chunk_end(0))


def _divergences(config: RunConfig, before: dict[str, Any], seed: int) -> list[str]:
    """Describe the changed keys that make a run diverge from the original.

    Args:
        config: Configuration of the resumed run.
        before: The ``config.yaml`` of the run so far.
        seed: Seed of the checkpoint.
    """
    changes = {
        "seed": (seed, config.seed),
        "system.lr": (before["system"].get("lr"), config.system.learning_rate),
    }
    return [
        f"{key} changed from {old} to {new}: the run no longer follows the original"
        for key, (old, new) in changes.items()
        if old != new
    ]


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
    seeds = f"seed {config.seed}"
    if config.num_seeds > 1:
        seeds = f"{config.num_seeds} seeds from {config.seed}"
    lines = [
        f"{config.system_name} on {stages[-1].env.name}, {seeds}",
        f"  parameters  {count_parameters(setup.shapes[-1]):,} per seed",
        f"  devices     {_devices_text(config)}",
        f"  memory      {device_memory.memory_text(config, setup.memory)}",
        *_length_lines(config),
    ]
    if len(stages) > 1:
        ends = zip(config.stage_envs, config.schedule.stage_ends, strict=True)
        spans = ", ".join(f"{name} to update {end:,}" for name, end in ends)
        lines.append(f"  stages      {spans}; evaluations use the last")
    return "\n".join(lines)


def _devices_text(config: RunConfig) -> str:
    devices = run_mesh(config).devices.ravel()
    kind = f"{devices[0].device_kind} ({devices[0].platform})"
    idle = jax.device_count() - devices.size
    reason = f", {idle} idle: minibatches divide among {devices.size}" if idle else ""
    several = f" of {count()} processes" if count() > 1 else ""
    return f"{devices.size} x {kind}{several}{reason}"


def _length_lines(config: RunConfig) -> list[str]:
    """Describe the length of the run: rows, updates, gradient steps and evaluations."""
    schedule = config.schedule
    updates = schedule.num_updates
    rows = updates * schedule.rows_per_update
    sizes = f"{config.num_envs:,} environments x {config.rollout_length:,} time steps"
    evaluations = schedule.num_evaluations + 1
    return [
        f"  length      {rows:,} rows = {updates:,} updates x {sizes}",
        "              (the row that resets an environment is not an environment step)",
        f"  learning    {learning_text(config)}",
        f"  evaluation  {evaluations:,} times, every {config.eval.every:,} rows",
    ]


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
        reporter.warn(fill_in_folder(message, folder))
    if code in (ExitCode.FINISHED, ExitCode.NON_FINITE):
        reporter.info(f"run folder: {folder}")
    elif device_memory.is_own_message(message):
        reporter.info(f"run folder: {folder}")
    elif config.checkpoint.enabled:
        command = resume_command(config.system_name, folder)
        reporter.info(f"resume with: {command}")
    else:
        reporter.info("cannot be resumed, because checkpoint.enabled=false")
    if config.logger.tensorboard:
        viewer = f"tensorboard --logdir {shlex.quote(str(folder))}"
        reporter.info(f"view the event files with: {viewer}")
