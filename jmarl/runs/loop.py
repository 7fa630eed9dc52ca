"""The loop on the host: train chunks, evaluate, log and save until the end or a stop request."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jmarl.config import RunConfig
from jmarl.hosts.process_group import agreed
from jmarl.results.machine import versions
from jmarl.runs import progress as report
from jmarl.runs.checkpoint import Checkpoints, Meta
from jmarl.runs.compilation import CompiledRun
from jmarl.runs.exit_codes import ResourceError
from jmarl.runs.loggers import Logger
from jmarl.runs.progress import Reporter
from jmarl.runs.status import write_status
from jmarl.training.anakin import Runner, drop_env_state, has_env_state
from jmarl.training.build import BuiltRun
from jmarl.training.nonfinite import NonFiniteWatch, find_causes
from jmarl.training.programs import ChunkReport, Keys, State, score_name


class Progress(NamedTuple):
    """Progress of a run; part of each checkpoint."""

    update: int
    evaluations: int
    last_evaluation: int
    """Update of the last evaluation; -1 before the first."""
    env_steps: list[int]
    """Environment steps of each seed, without the overflow of the counter on the device."""
    seconds: float
    """Time of training and evaluation over all processes of the run, without compilation."""
    stage: int = 0
    """Index of the stage of the state. It increases when the next stage starts."""


class RunContext(NamedTuple):
    """Constant inputs of the loop."""

    config: RunConfig
    folder: pathlib.Path
    stages: tuple[BuiltRun, ...]
    programs: CompiledRun
    keys: Keys
    checkpoints: Checkpoints | None
    logger: Logger
    reporter: Reporter
    nonfinite: NonFiniteWatch
    stop: Callable[[], str]
    """Function that returns the name of the signal that requested a stop, or an empty string."""


def initial_progress(config: RunConfig) -> Progress:
    """Return the progress of a run before its first step."""
    return Progress(
        update=0,
        evaluations=0,
        last_evaluation=-1,
        env_steps=[0] * config.num_seeds,
        seconds=0.0,
    )


def train(
    ctx: RunContext, state: State, progress: Progress, saved: Progress | None
) -> tuple[State, Progress, str]:
    """Continue from ``progress`` to the end of the run, or until a stop request.

    Stop requests are checked before each chunk and each evaluation.

    Args:
        ctx: Context of the run.
        state: State of the run.
        progress: Progress of that state.
        saved: Progress of the newest checkpoint; None if there is none.

    Returns:
        The state, its progress, and the name of the signal that stopped the run, or an
        empty string.
    """
    while True:
        if signal := ctx.stop():
            _save_unless_saved(ctx, state, progress, saved)
            return state, progress, signal
        if evaluation_is_due(ctx.config, progress):
            state, progress, score = evaluate(ctx, state, progress)
            if checkpoint_is_due(ctx.config, progress):
                save(ctx, state, progress, score)
                saved = progress
        elif progress.update >= ctx.config.num_updates:
            return state, progress, ""
        else:
            state, progress, saved = _train_once(ctx, state, progress, saved)


def _train_once(
    ctx: RunContext, state: State, progress: Progress, saved: Progress | None
) -> tuple[State, Progress, Progress | None]:
    """Train one chunk, unless its stage is still being compiled.

    In that case the caller checks for a stop request and tries again.
    """
    due = due_stage(ctx.config, progress)
    if due != progress.stage:  # nothing is lost if the new stage fails
        saved = _save_unless_saved(ctx, state, progress, saved)
    if agreed(ctx.programs.is_ready(due)):
        state, progress = start_stage(ctx, state, progress)
        state, progress = train_chunk(ctx, state, progress)
    return state, progress, saved


def _save_unless_saved(
    ctx: RunContext, state: State, progress: Progress, saved: Progress | None
) -> Progress | None:
    """Save a trained state that the newest checkpoint does not hold."""
    if not progress.update or progress == saved:
        return saved
    save(ctx, state, progress, None)
    return progress


def due_stage(config: RunConfig, progress: Progress) -> int:
    """Return the stage of the next update.

    After a run is extended, it does not return to an earlier stage.
    """
    return max(progress.stage, config.schedule.stage_at(progress.update))


def start_stage(
    ctx: RunContext, state: State, progress: Progress
) -> tuple[State, Progress]:
    """Start the stage that is due, unless the state already belongs to it.

    After an inexact checkpoint, the environments of the same stage are reset.
    """
    due = due_stage(ctx.config, progress)
    restart = due == progress.stage
    if restart and has_env_state(state.runner):
        return state, progress
    continue_runner = ctx.programs.stage(due).continue_runner
    if continue_runner is None:
        raise RuntimeError(f"stage {due} was compiled as the first stage of a new run")
    with report.stopwatch() as seconds:
        runner = continue_runner(_free_env_state(state.runner))
        runner = jax.block_until_ready(runner)
        elapsed = seconds()
    progress = progress._replace(stage=due, seconds=progress.seconds + elapsed)
    ctx.reporter.info(_start_text(ctx, runner, progress, restart=restart))
    return state.replace(runner=runner), progress


def _start_text(
    ctx: RunContext, runner: Runner, progress: Progress, *, restart: bool
) -> str:
    after = f"after update {progress.update:,}"
    if not restart:
        stage = report.stage_text(ctx.config, progress.stage)
        memory = ctx.programs.stage(progress.stage).memory
        return f"{stage} starts {after}; {memory}"
    has_replay = runner.learner.replay is not None
    parts = "environments and replay" if has_replay else "environments"
    return f"inexact resume: {parts} are reset {after}"


def _free_env_state(runner: Runner) -> Runner:
    """Drop the environment state and free its memory.

    Otherwise the environments of two stages would be in memory together.
    """
    kept = drop_env_state(runner)
    held = {id(x) for x in jax.tree.leaves(kept)}
    for x in jax.tree.leaves(runner):
        if id(x) not in held:
            x.delete()
    return kept


def evaluation_is_due(config: RunConfig, progress: Progress) -> bool:
    """Return True at the start, at each evaluation of the schedule, and at the end."""
    last = progress.last_evaluation
    return last < progress.update >= config.schedule.next_evaluation(last)


def checkpoint_is_due(config: RunConfig, progress: Progress) -> bool:
    """Return True after every ``checkpoint.every``-th evaluation, and at the end.

    The evaluation of untrained parameters is not counted.
    """
    at_end = progress.update >= config.num_updates
    due = (progress.evaluations - 1) % config.checkpoint.every == 0
    return progress.update > 0 and (due or at_end)


def train_chunk(
    ctx: RunContext, state: State, progress: Progress
) -> tuple[State, Progress]:
    """Train one chunk, check the parameters, log, and report progress."""
    chunk = ctx.programs.stage(progress.stage).chunk
    previous, config = progress, ctx.config
    update = config.schedule.chunk_end(previous.update)
    with report.stopwatch() as seconds:
        runner, on_device = chunk(state.runner, update - previous.update)
        result: ChunkReport = jax.device_get(on_device)
        elapsed = seconds()
    _check_finite(ctx, result, previous)
    progress = previous._replace(
        update=update,
        env_steps=count_steps(previous.env_steps, np.asarray(result.env_steps)),
        seconds=previous.seconds + elapsed,
    )
    speed = _speed(ctx, previous, progress)
    row = _row("train", progress) | speed | _training_metrics(result)
    ctx.logger.log(row)
    _report_progress(ctx, progress, row)
    write_status(ctx.folder, "running", update=update, env_steps=progress.env_steps)
    return state.replace(runner=runner), progress


def _check_finite(ctx: RunContext, result: ChunkReport, previous: Progress) -> None:
    """Warn or raise ``NonFiniteError`` if a value of the chunk is not finite."""
    env = ctx.config.stage_envs[previous.stage]
    found = result.metrics["nonfinite"]
    first = previous.update + 1
    ctx.nonfinite.check(find_causes(found, first, ctx.config.seeds, env))


def _speed(ctx: RunContext, previous: Progress, progress: Progress) -> dict[str, float]:
    """Return environment and agent steps per second, summed over seeds."""
    steps = sum(progress.env_steps) - sum(previous.env_steps)
    rate = steps / (progress.seconds - previous.seconds)
    spec = ctx.stages[progress.stage].env.spec
    speed = {"steps_per_second": rate}
    if spec.fixed_team:
        speed["agent_steps_per_second"] = rate * spec.n_agents
    return speed


def _report_progress(ctx: RunContext, progress: Progress, row: dict[str, Any]) -> None:
    total = ctx.config.num_updates
    remaining = max(0, total - progress.update)
    eta_s = progress.seconds / progress.update * remaining
    share = progress.update / max(progress.update, total)
    stage = report.stage_text(ctx.config, progress.stage)
    ctx.reporter.progress(report.progress_line(row, share, eta_s, stage))


def count_steps(previous: list[int], counter: np.ndarray) -> list[int]:
    """Return the environment steps of each seed after a chunk.

    Args:
        previous: Environment steps before the chunk.
        counter: Counter on the device after the chunk, ``uint32[S]``, which can overflow.
    """
    old = np.asarray(previous, np.int64)
    difference = counter - old.astype(np.uint32)
    return (old + difference.astype(np.int64)).tolist()


def _training_metrics(result: ChunkReport) -> dict[str, list[float]]:
    """Return the system's metrics and the episode means of each seed.

    A mean is NaN if no episode ended.
    """
    episodes = dict(result.metrics["episodes"])
    count = episodes.pop("count")
    with np.errstate(invalid="ignore"):
        means = {name: total / count for name, total in episodes.items()}
    per_seed = {**result.metrics["train"], **means, "episodes": count}
    return {name: np.asarray(x, np.float64).tolist() for name, x in per_seed.items()}


def evaluate(
    ctx: RunContext, state: State, progress: Progress
) -> tuple[State, Progress, list[float]]:
    """Evaluate the current parameters of each seed, and keep the best in the state.

    Returns:
        The state, its progress, and the greedy score of each seed.
    """
    keys = ctx.keys.of_evaluation(progress.evaluations)
    with report.stopwatch() as seconds:
        best, on_device = ctx.programs.evaluate(
            state.best, state.runner.learner.params, keys, progress.update
        )
        results = jax.device_get(on_device)
        elapsed = seconds()
    progress = progress._replace(
        evaluations=progress.evaluations + 1,
        last_evaluation=progress.update,
        seconds=progress.seconds + elapsed,
    )
    row = _row("eval", progress) | mean_results(results)
    ctx.logger.log(row)
    ctx.reporter.info(report.evaluation_line(row))
    score = row[f"greedy/{score_name(ctx.stages[-1].env)}"]
    return state.replace(best=best), progress, score


def log_absolute(
    ctx: RunContext, progress: Progress, results: dict[str, dict[str, np.ndarray]]
) -> None:
    """Log the row of the absolute metric."""
    ctx.logger.log(_row("absolute", progress) | mean_results(results))


def mean_results(results: dict[str, dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """Return ``{mode/name: [mean over the episodes of each seed]}``."""
    return {
        f"{mode}/{name}": np.asarray(episodes, np.float64).mean(-1).tolist()
        for mode, by_name in results.items()
        for name, episodes in by_name.items()
    }


def _row(kind: str, progress: Progress) -> dict[str, Any]:
    return {
        "kind": kind,
        "update": progress.update,
        "env_steps": progress.env_steps,
        "time": progress.seconds,
        "stage": progress.stage + 1,
    }


def belongs_before(row: dict[str, Any], progress: Progress) -> bool:
    """Return True if a row of ``metrics.jsonl`` was written before ``progress``.

    A run that resumes at ``progress`` writes all other rows again.
    """
    last = {"train": progress.update, "eval": progress.last_evaluation}
    return row["update"] <= last.get(row["kind"], -1)


def save(
    ctx: RunContext, state: State, progress: Progress, score: list[float] | None
) -> None:
    """Write a checkpoint. Its metadata include a flag for exact checkpoints.

    Args:
        ctx: Context of the run.
        state: State to save.
        progress: Progress of that state.
        score: Score of these parameters; None between evaluations.
    """
    if not ctx.checkpoints:
        return
    if not ctx.config.checkpoint.exact:
        state = _without_env_state(state)
    meta = {
        "position": progress._asdict(),
        "score": score,
        "versions": versions(),
        "seed": ctx.config.seed,
        "exact": has_env_state(state.runner),
    }
    ctx.checkpoints.save(progress.update, state, meta)
    if ctx.config.checkpoint.required and (reason := ctx.checkpoints.wait()):
        message = f"checkpoint {progress.update} not written: {reason}"
        raise ResourceError(f"{message}; it is required by checkpoint.required=true")


def saved_shapes(shapes: State, meta: Meta) -> State:
    """Return the shapes that a checkpoint with this metadata holds."""
    return shapes if meta.get("exact", True) else _without_env_state(shapes)


def _without_env_state(state: State) -> State:
    return state.replace(runner=drop_env_state(state.runner))
