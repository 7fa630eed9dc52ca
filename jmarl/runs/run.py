"""A run on the command line: a folder, compiled programs, the loop, and an exit code.

Every number that a run reports or saves comes out of the functions behind ``jmarl.train``; the host
decides when each is called, and writes down what they return.
"""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from jmarl.config import ConfigError, RunConfig
from jmarl.runs import folder as run_folder
from jmarl.runs import loggers as log
from jmarl.runs import loop
from jmarl.runs import progress as report
from jmarl.runs.checkpoint import Checkpoints, Meta, Restored
from jmarl.runs.evaluate_saved import absolute_metric, evaluate_run
from jmarl.runs.exit_codes import PREEMPTED, stop_requests
from jmarl.runs.loop import NonFiniteError, Progress, RunContext
from jmarl.runs.progress import Reporter
from jmarl.runs.warm_start import apply_warm_start, load_warm_start
from jmarl.training.anakin import device_mesh, is_whole
from jmarl.training.programs import (
    State,
    compile_programs,
    count_parameters,
    number_of_bytes,
    programs,
    rollout_bytes,
    seed_keys,
    shardings_of,
    state_shapes,
)
from jmarl.training.train import Stage, stages


__all__ = ["evaluate_run", "run"]

CRASHED = 1
OUT_OF_MEMORY = 3
NUMERICAL = 4


def run(config: RunConfig) -> int:
    """Train as ``config`` says, in a folder of its own, or continue ``config.resume``.

    Returns the exit code: 0 finished, 3 out of memory, 4 not finite, 75 stopped by a signal and
    resumable. Raises ``ConfigError`` for a folder that cannot be used and a checkpoint that does not fit; what is
    wrong with the configuration alone, or with the run that ``init_from`` names, is said before there is a folder.
    """
    parts = stages(config)
    given = {} if config.resume else _given(config, parts)
    folder = run_folder.open_folder(config)
    reporter = report.open_reporter()
    with run_folder.locked(folder), stop_requests() as stop:
        try:
            code, message = _run(config, parts, given, folder, reporter, stop)
        except ConfigError:
            raise
        except Exception as error:
            code, message = _failure(config, error)
            if code == CRASHED:
                run_folder.write_status(
                    folder, "failed", exit_code=code, message=message
                )
                raise
        finally:
            reporter.close()
        state = {0: "finished", PREEMPTED: "interrupted"}.get(code, "failed")
        run_folder.write_status(folder, state, exit_code=code, message=message)
    (reporter.say if code in (0, PREEMPTED) else reporter.warn)(message)
    reporter.say(f"the run is in {folder}" if code == 0 else _hint(config, folder))
    return code


def _failure(config: RunConfig, error: Exception) -> tuple[int, str]:
    if isinstance(error, NonFiniteError):
        return NUMERICAL, str(error)
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(
        error
    ):
        return OUT_OF_MEMORY, _too_large(config, error)
    return CRASHED, f"{type(error).__name__}: {error}"


def _given(config: RunConfig, parts: Sequence[Stage]) -> dict[str, Any]:
    """The fields of a learner that a fresh run begins with."""
    return (
        load_warm_start(config, parts[-1].env, parts[-1].system)
        if config.init_from
        else {}
    )


def _run(
    config: RunConfig,
    parts: tuple[Stage, ...],
    given: dict[str, Any],
    folder: pathlib.Path,
    reporter: Reporter,
    stop: Callable[[], str],
) -> tuple[int, str]:
    """Set up and train; returns the exit code and the last words."""
    plain = tuple(programs(config, part.env, part.system) for part in parts)
    shapes = tuple(state_shapes(config, p) for p in plain)
    checkpoints = _open_checkpoints(config, folder, reporter)
    try:
        restored = (
            checkpoints.restore(partial(_shapes_of, shapes))
            if checkpoints and config.resume
            else None
        )
        at = Progress(**restored.meta["position"]) if restored else loop.start(config)
        if _finished(config, folder, at):
            return (
                0,
                f"already finished, all {at.update:,} updates; total_timesteps=<more> extends the run",
            )
        if config.resume and restored is None:
            given = _given(config, parts)
        reporter.say(_plan(config, parts, shapes))
        reporter.say(_beginning(config, folder, at, restored))
        _prepare(config, folder, at, restored, checkpoints, reporter)
        with report.stopwatch() as seconds:
            first, fresh = loop.stage_due(config, at), restored is None
            again = (
                restored is not None
                and not is_whole(restored.state.runner)
                and first == at.stage
            )
            ready, memory = compile_programs(
                config, plain, shapes, fresh=fresh, again=again, first=first
            )
        reporter.say(
            f"compiled in {seconds():.1f} s, which no steps/s below contains; {memory}"
        )
        keys = seed_keys(config)
        logger = log.open_loggers(config.logger, folder, folder.name, reporter.warn)
        session = RunContext(
            config, folder, parts, ready, keys, checkpoints, logger, reporter, stop
        )
        if restored is None:
            return _train(
                session, apply_warm_start(ready[0].init(keys.init), given), at, None
            )
        there = shardings_of(_shapes_of(shapes, restored.meta))
        return _train(session, jax.device_put(restored.state, there), at, at)
    finally:
        if checkpoints:
            checkpoints.close()


def _shapes_of(shapes: Sequence[State], meta: Meta) -> State:
    """What a checkpoint holds is in the shapes of the stage that it is of."""
    return loop.saved_as(shapes[Progress(**meta["position"]).stage], meta)


def _finished(config: RunConfig, folder: pathlib.Path, at: Progress) -> bool:
    judged = not config.eval.absolute_factor or (folder / "evaluation.json").exists()
    return (
        judged
        and at.update >= config.num_updates
        and not loop.evaluation_is_due(config, at)
    )


def _train(
    s: RunContext, state: State, at: Progress, saved: Progress | None
) -> tuple[int, str]:
    try:
        state, at, signal = loop.train(s, state, at, saved)
        if signal:
            return PREEMPTED, f"stopped by {signal} after update {at.update}"
        if s.config.eval.absolute_factor:
            table = absolute_metric(s, state, at)
            if not table:
                return (
                    PREEMPTED,
                    f"stopped by {s.stop()} before the absolute metric was complete",
                )
            s.reporter.say(table)
    finally:
        s.logger.close()
    _draw(s.folder, s.reporter)
    return (
        0,
        f"finished: {at.update:,} updates, {report.mean_steps(at.env_steps):,} env steps a seed",
    )


def _draw(folder: pathlib.Path, reporter: Reporter) -> None:
    """A picture is no reason for a finished run to fail."""
    try:
        from jmarl.runs.curves import draw

        draw(folder)
    except Exception as error:
        reporter.warn(f"no curve.png: {type(error).__name__}: {error}")


def _open_checkpoints(
    config: RunConfig, folder: pathlib.Path, reporter: Reporter
) -> Checkpoints | None:
    cfg = config.checkpoint
    if not (cfg.enabled or config.resume):
        return None
    return Checkpoints(
        folder / "checkpoints", keep=cfg.keep, verify=cfg.verify, warn=reporter.warn
    )


def _prepare(
    config: RunConfig,
    folder: pathlib.Path,
    at: Progress,
    restored: Restored | None,
    checkpoints: Checkpoints | None,
    reporter: Reporter,
) -> None:
    """Describe the run in its folder, and take back what a resumed one will write again."""
    for change in (
        run_folder.version_changes(restored.meta["versions"]) if restored else ()
    ):
        reporter.warn(
            f"the run resumes on something else and may go another way: {change}"
        )
    if restored and (
        change := _new_schedule(config, run_folder.read_tree(folder)["total_timesteps"])
    ):
        reporter.say(change)
    if restored and checkpoints:
        checkpoints.discard_after(restored.step)
    log.truncate_rows(
        folder / "metrics.jsonl", lambda row: loop.belongs_before(row, at)
    )
    (folder / "evaluation.json").unlink(missing_ok=True)
    run_folder.write_config(folder, config)
    run_folder.write_versions(folder, run_folder.versions())
    run_folder.write_status(folder, "running", update=at.update, env_steps=at.env_steps)


def _new_schedule(config: RunConfig, before: int) -> str:
    if before == config.total_timesteps or not getattr(
        config.system, "anneal_lr", False
    ):
        return ""
    return (
        f"total_timesteps was {before:,} and is {config.total_timesteps:,}: with system.anneal_lr=true "
        "the learning rate now falls to zero over the new length"
    )


def _plan(config: RunConfig, parts: Sequence[Stage], shapes: Sequence[State]) -> str:
    """What is about to happen, and how much memory it takes at least."""
    devices = device_mesh().devices.ravel()
    seeds = (
        f"{config.num_seeds} seeds from {config.seed}"
        if config.num_seeds > 1
        else f"seed {config.seed}"
    )
    sizes = [
        (number_of_bytes(of), rollout_bytes(config, part.env, part.system, of))
        for part, of in zip(parts, shapes, strict=True)
    ]
    state, rows = max(sizes, key=sum)
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    room = f" of {report.size(limit * devices.size)}" if limit else ""
    updates, chunk, interval = (
        config.num_updates,
        config.updates_per_chunk,
        config.updates_per_evaluation,
    )
    lines = [
        f"{config.system_name} on {parts[-1].env.name}, {seeds}",
        f"  parameters  {count_parameters(shapes[-1]):,} a seed",
        f"  devices     {devices.size} x {devices[0].device_kind} ({devices[0].platform})",
        f"  memory      at least {report.size(state + rows)}{room}: "
        f"state {report.size(state)}, experience of one update {report.size(rows)}",
        f"  updates     {updates:,} of {config.num_envs} environments x {config.rollout_length} steps, "
        f"{chunk} in a call, an evaluation every {interval}",
    ]
    worlds = [
        f"{name} to update {end:,}"
        for name, end in zip(config.stage_envs, config.stage_ends, strict=True)
    ]
    return "\n".join(
        lines
        + [f"  stages      {', '.join(worlds)}; evaluations on the last"]
        * (len(worlds) > 1)
    )


def _beginning(
    config: RunConfig, folder: pathlib.Path, at: Progress, restored: Restored | None
) -> str:
    if restored:
        how = f"resumes after update {at.update:,} ({report.mean_steps(at.env_steps):,} env steps a seed)"
    elif config.resume:
        how = "holds no checkpoint yet; starts from the beginning"
    elif config.init_from:
        how = f"starts with the best parameters of {config.init_from}"
    else:
        how = "starts from the beginning"
    return f"  run folder  {folder}: {how}"


def _hint(config: RunConfig, folder: pathlib.Path) -> str:
    if not config.checkpoint.enabled:
        return "it cannot be resumed, because of checkpoint.enabled=false"
    return f"resume with: python -m jmarl.systems.{config.system_name} resume={shlex.quote(str(folder))}"


def _too_large(config: RunConfig, error: Exception) -> str:
    minibatches: Any = getattr(config.system, "minibatches", None)
    more = f" or system.minibatches={2 * minibatches}" if minibatches else ""
    first_line = str(error).partition("\n")[0]
    return f"out of memory: {first_line}; try num_envs={max(1, config.num_envs // 2)}{more}"
