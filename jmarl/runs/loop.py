"""The loop on the host: train a chunk, evaluate, log and save, until done or told to stop."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jmarl.config import RunConfig
from jmarl.runs import progress as report
from jmarl.runs.checkpoint import Checkpoints, Meta
from jmarl.runs.folder import versions, write_status
from jmarl.runs.loggers import Logger
from jmarl.runs.progress import Reporter
from jmarl.training.anakin import Runner, drop_env_state, is_whole
from jmarl.training.programs import ChunkReport, Keys, Programs, State, score_name
from jmarl.training.train import Stage


class NonFiniteError(ArithmeticError):
    """Training has left the numbers; the text names the updates, the seed and the leaf."""


class Progress(NamedTuple):
    """How far a run has come; saved in each checkpoint."""

    update: int
    evaluations: int
    last_evaluation: int
    """The update that was evaluated last; -1 before the first evaluation, which is of untrained parameters."""
    env_steps: list[int]
    """For each seed; does not wrap, as the counter on the device does after 2^32."""
    seconds: float
    """Spent training and evaluating, in all processes; compilation left out."""
    stage: int = 0
    """The stage, counted from 0, that the state is of; where one has just ended, still that one."""


class RunContext(NamedTuple):
    """What the loop needs and never changes."""

    config: RunConfig
    folder: pathlib.Path
    stages: tuple[Stage, ...]
    programs: tuple[Programs, ...]
    """Those of each stage."""
    keys: Keys
    checkpoints: Checkpoints | None
    logger: Logger
    reporter: Reporter
    stop: Callable[[], str]


def start(config: RunConfig) -> Progress:
    """Before anything was done."""
    return Progress(0, 0, -1, [0] * config.num_seeds, 0.0)


def train(
    s: RunContext, state: State, at: Progress, saved: Progress | None
) -> tuple[State, Progress, str]:
    """Go on from ``at`` to the end, or to a signal, whose name is the last result (else empty).

    ``saved`` is the position of the newest checkpoint. The signal is looked for before each
    chunk and each evaluation, so that it never waits for more than one of them.
    """
    while True:
        if signal := s.stop():
            if at.update and at != saved:
                save(s, state, at, None)
            return state, at, signal
        if evaluation_is_due(s.config, at):
            state, at, score = evaluate(s, state, at)
            if checkpoint_is_due(s.config, at):
                save(s, state, at, score)
                saved = at
        elif at.update >= s.config.num_updates:
            return state, at, ""
        else:
            state, at = advance(s, *enter(s, state, at))


def stage_due(config: RunConfig, at: Progress) -> int:
    """The stage that goes on from there; a run that was extended does not go back to one that it has left."""
    return max(at.stage, config.stage_at(at.update))


def enter(s: RunContext, state: State, at: Progress) -> tuple[State, Progress]:
    """Go over to another world if it is due, or into the same again if the checkpoint had left it out."""
    due = stage_due(s.config, at)
    again = due == at.stage
    if again and is_whole(state.runner):
        return state, at
    with report.stopwatch() as seconds:
        program = s.programs[due].again if again else s.programs[due].enter
        runner = jax.block_until_ready(program(_release(state.runner)))
        at = at._replace(stage=due, seconds=at.seconds + seconds())
    new = (
        "environments and replay"
        if hasattr(runner.learner, "replay")
        else "environments"
    )
    what = (
        f"inexact resume: {new} begin anew"
        if again
        else f"{report.stage_text(s.config, due)} begins"
    )
    s.reporter.say(f"{what} after update {at.update:,}")
    return state.replace(runner=runner), at


def _release(runner: Runner) -> Runner:
    """What was learnt; the rest of the memory is free, so that two worlds need not be held at once."""
    kept = drop_env_state(runner)
    held = {id(x) for x in jax.tree.leaves(kept)}
    for x in jax.tree.leaves(runner):
        if id(x) not in held:
            x.delete()
    return kept


def evaluation_is_due(config: RunConfig, at: Progress) -> bool:
    """At the start, whenever an interval has passed, and at the end."""
    interval = config.updates_per_evaluation
    over = at.update >= config.num_updates and at.last_evaluation < at.update
    return over or at.update // interval > at.last_evaluation // interval


def checkpoint_is_due(config: RunConfig, at: Progress) -> bool:
    """After every ``checkpoint.every``-th evaluation of trained parameters, and at the end."""
    due = (
        at.evaluations - 1
    ) % config.checkpoint.every == 0 or at.update >= config.num_updates
    return at.update > 0 and due


def advance(s: RunContext, state: State, at: Progress) -> tuple[State, Progress]:
    """One chunk: train, check, log, show. ``steps_per_second`` is the sum over the seeds."""
    with report.stopwatch() as seconds:
        runner, on_device = s.programs[at.stage].chunk(state.runner)
        result: ChunkReport = jax.device_get(on_device)
        elapsed = seconds()
    update = at.update + s.config.updates_per_chunk
    _check_finite(s.config, result, at.update + 1, update)
    env_steps = count_steps(at.env_steps, np.asarray(result.env_steps))
    rate = (sum(env_steps) - sum(at.env_steps)) / elapsed
    at = at._replace(update=update, env_steps=env_steps, seconds=at.seconds + elapsed)
    speed, spec = {"steps_per_second": rate}, s.stages[at.stage].env.spec
    speed |= {"agent_steps_per_second": rate * spec.n_agents} if spec.fixed_team else {}
    row = _row("train", at) | speed | _training_metrics(result)
    s.logger.log(row)
    remaining = at.seconds / update * max(0, s.config.num_updates - update)
    share = update / max(update, s.config.num_updates)
    s.reporter.progress(
        report.progress_line(
            row, share, remaining, report.stage_text(s.config, at.stage)
        )
    )
    write_status(s.folder, "running", update=update, env_steps=env_steps)
    return state.replace(runner=runner), at


def count_steps(before: list[int], counter: np.ndarray) -> list[int]:
    """Environment steps of each seed, from those before the chunk and the device's ``uint32`` after it."""
    old = np.asarray(before, np.int64)
    return (old + (counter - old.astype(np.uint32)).astype(np.int64)).tolist()


def _training_metrics(result: ChunkReport) -> dict[str, list[float]]:
    """For each seed the system's metrics, and means over the episodes that ended (NaN if none did)."""
    episodes = dict(result.metrics["episodes"])
    count = episodes.pop("count")
    with np.errstate(invalid="ignore"):
        means = {name: total / count for name, total in episodes.items()}
    per_seed = {**result.metrics["train"], **means, "episodes": count}
    return {name: np.asarray(x, np.float64).tolist() for name, x in per_seed.items()}


def _check_finite(
    config: RunConfig, result: ChunkReport, first: int, last: int
) -> None:
    """Of the parameters alone: a loss may be NaN in a chunk whose optimizer skipped that gradient and went on."""
    for name, finite in result.finite.items():
        if not finite.all():
            seed = config.seed + int(np.argmin(finite))
            raise NonFiniteError(
                f"not finite after updates {first} to {last}: {name} of seed {seed}"
            )


def evaluate(
    s: RunContext, state: State, at: Progress
) -> tuple[State, Progress, list[float]]:
    """Judge the parameters as they are now, for each seed; the best so far are kept in the state."""
    with report.stopwatch() as seconds:
        params = state.runner.learner.params
        best, on_device = s.programs[-1].evaluate(
            state.best, params, s.keys.at(at.evaluations), at.update
        )
        results = jax.device_get(on_device)
        elapsed = seconds()
    at = at._replace(
        evaluations=at.evaluations + 1,
        last_evaluation=at.update,
        seconds=at.seconds + elapsed,
    )
    row = _row("eval", at) | mean_results(results)
    s.logger.log(row)
    s.reporter.say(report.evaluation_line(row))
    return state.replace(best=best), at, row[f"greedy/{score_name(s.stages[-1].env)}"]


def log_absolute(
    s: RunContext, at: Progress, results: dict[str, dict[str, np.ndarray]]
) -> None:
    """The row of the absolute metric."""
    s.logger.log(_row("absolute", at) | mean_results(results))


def mean_results(results: dict[str, dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """``{mode/name: [mean over the episodes of each seed]}``."""
    return {
        f"{mode}/{name}": np.asarray(episodes, np.float64).mean(-1).tolist()
        for mode, by_name in results.items()
        for name, episodes in by_name.items()
    }


def _row(kind: str, at: Progress) -> dict[str, Any]:
    where = {
        "kind": kind,
        "update": at.update,
        "env_steps": at.env_steps,
        "time": at.seconds,
    }
    return where | {"stage": at.stage + 1}


def belongs_before(row: dict[str, Any], at: Progress) -> bool:
    """Whether a row of ``metrics.jsonl`` was written on the way to ``at``; what resumes there writes the others."""
    last = {"train": at.update, "eval": at.last_evaluation}
    return row["update"] <= last.get(row["kind"], -1)


def save(s: RunContext, state: State, at: Progress, score: list[float] | None) -> None:
    """Write a checkpoint. ``score`` is that of these very parameters, or None between evaluations.

    What is beside it says whether it is exact; one that is not stays so until its world was entered again.
    """
    if s.checkpoints:
        state = state if s.config.checkpoint.exact else _as_learnt(state)
        meta = {
            "position": at._asdict(),
            "score": score,
            "versions": versions(),
            "exact": is_whole(state.runner),
        }
        s.checkpoints.save(at.update, state, meta)


def saved_as(shapes: State, meta: Meta) -> State:
    """Of the shapes of a stage's state those that a checkpoint holds; one from before the option holds all."""
    return shapes if meta.get("exact", True) else _as_learnt(shapes)


def _as_learnt(state: State) -> State:
    return state.replace(runner=drop_env_state(state.runner))
