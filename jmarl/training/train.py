"""Training as a function: ``jmarl.train(config, key)``.

The command ``jmarl train`` does not call ``train``. It compiles the same ``seed_programs``,
through ``training/programs.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.config import RunConfig, check
from jmarl.config.schedule import Schedule
from jmarl.training.anakin import Runner, continue_in_env, init_runner, train_chunk
from jmarl.training.build import BuiltRun
from jmarl.training.evaluation import evaluate_modes
from jmarl.training.stages import build_stages
from jmarl.types import Key, Metrics, Params


class SeedPrograms(NamedTuple):
    """Pure functions of a stage, for one seed."""

    init: Callable[[Key], Runner]
    chunk: Callable[[Runner, Any], tuple[Runner, dict[str, Metrics]]]
    evaluate: Callable[[Params, Key], dict[str, Metrics]]


class _Chunks(NamedTuple):
    """Chunks of a stage, ``[C]``."""

    updates: np.ndarray
    evaluates: np.ndarray
    """True if an evaluation follows."""
    evaluation: np.ndarray
    """Number of that evaluation."""

    @classmethod
    def of(cls, schedule: Schedule, start: int, lengths: list[int]) -> _Chunks:
        """Return the chunks of these lengths, after ``start`` updates."""
        ends = start + np.cumsum(lengths)
        evaluates = np.array([schedule.is_evaluation(int(end)) for end in ends])
        before = schedule.evaluations_until(start)
        return cls(
            np.asarray(lengths, np.int32), evaluates, before + np.cumsum(evaluates)
        )


def seed_programs(run: BuiltRun) -> SeedPrograms:
    """Return the pure functions of a built run, for one seed."""
    config, env, system = run

    def init(key: Key) -> Runner:
        return init_runner(env, system, config.num_envs, key)

    def chunk(runner: Runner, updates: Any) -> tuple[Runner, dict[str, Metrics]]:
        return train_chunk(env, system, config.rollout_length, updates, runner)

    def evaluate(params: Params, key: Key) -> dict[str, Metrics]:
        return evaluate_modes(env, system, params, key, config.eval.episodes)

    return SeedPrograms(init, chunk, evaluate)


def train(config: RunConfig, key: Key) -> tuple[Runner, dict[str, Any]]:
    """Train one seed from start to end, as a pure function.

    Use ``jax.jit``, and ``jax.vmap`` over keys for several seeds. The function writes no
    files and prints nothing. The command line uses the same functions and adds progress,
    logs and checkpoints.

    Args:
        config: Configuration of the run, from ``jmarl.load_config``.
        key: Random key of the run.

    Returns:
        The final ``Runner`` and the metrics. ``vmap`` over keys adds a leading axis of seeds to
        every array of both.

        * ``metrics["train"][name]``: ``float32[chunks]``, mean over the updates of the chunk.
          The names are those of the system, such as ``loss``.
        * ``metrics["episodes"][name]``: ``float32[chunks]``, sum over the episodes that ended in
          the chunk. The names are ``count``, ``return``, ``length`` and the environment's
          outcomes, such as ``won``.
        * ``metrics["nonfinite"][name]``: ``int32[chunks]``, first update of the chunk, counted
          from 0, at which the value ``name`` was not finite, or -1.
        * ``metrics["eval"][mode][name]``: ``float32[evaluations, episodes]``, result of each
          episode. Modes are ``greedy`` and ``sampled``. The names are ``return``, ``length`` and
          the outcomes.

        The number of chunks is ``len(config.schedule.chunks(0, config.num_updates))``. The number
        of evaluations is ``config.schedule.num_evaluations + 1``, and the first is of untrained
        parameters. Each has ``config.eval.episodes`` episodes.

    Raises:
        ConfigError: If the configuration cannot be built, or if it sets ``init_from``. A
            pure function cannot read a run folder.

    Examples:
        >>> config = jmarl.load_config("mappo", ["env=smax_3m"])
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> train = jax.jit(jax.vmap(functools.partial(jmarl.train, config)))
        >>> runner, metrics = train(keys)  # doctest: +SKIP
    """
    rule = "reads a folder, which a pure function cannot; run it from the command line"
    check(not config.init_from, "init_from", config.init_from, rule)
    # The construction of some environments runs JAX code, which must not be traced.
    with jax.ensure_compile_time_eval():
        stages = build_stages(config)
    evaluate = seed_programs(stages[-1]).evaluate
    k_init, k_eval = jax.random.split(key)
    schedule = config.schedule
    eval_keys = jax.random.split(k_eval, schedule.num_evaluations + 1)
    runner = seed_programs(stages[0]).init(k_init)
    first = evaluate(runner.learner.params, eval_keys[0])
    metrics, evals = [], [jax.tree.map(lambda x: x[None], first)]
    starts = (0, *schedule.stage_ends)
    for number, (stage, start) in enumerate(zip(stages, starts, strict=False)):
        if number:
            runner = _start_stage(config, stage, runner)
        lengths = schedule.chunks(start, starts[number + 1])
        runner, (stage_metrics, stage_evals) = _train_stage(
            stage, evaluate, runner, _Chunks.of(schedule, start, lengths), eval_keys
        )
        metrics.append(stage_metrics)
        evals.append(stage_evals)
    return runner, {**_concatenate(metrics), "eval": _concatenate(evals)}


def _start_stage(config: RunConfig, stage: BuiltRun, previous: Runner) -> Runner:
    return continue_in_env(
        stage.env,
        stage.system,
        config.num_envs,
        previous,
        reset_optimizer=config.curriculum.reset_optimizer,
    )


def _train_stage(
    stage: BuiltRun,
    evaluate: Callable[[Params, Key], dict[str, Metrics]],
    runner: Runner,
    chunks: _Chunks,
    keys: Key,
) -> tuple[Runner, tuple[dict, dict]]:
    """Train one chunk per call, and evaluate after those that end with an evaluation.

    Metrics have a leading axis of chunks. Evaluations have a leading axis of evaluations.
    """
    chunk = seed_programs(stage).chunk
    shapes = jax.eval_shape(evaluate, runner.learner.params, keys[0])
    skipped = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def step(runner: Runner, plan: _Chunks) -> tuple[Runner, tuple[dict, dict]]:
        runner, metrics = chunk(runner, plan.updates)
        results = jax.lax.cond(
            plan.evaluates,
            lambda: evaluate(runner.learner.params, keys[plan.evaluation]),
            lambda: skipped,
        )
        return runner, (metrics, results)

    runner, (metrics, results) = jax.lax.scan(step, runner, chunks)
    evals = jax.tree.map(lambda x: x[chunks.evaluates], results)
    return runner, (metrics, evals)


def _concatenate(parts: Sequence[dict]) -> dict:
    """Concatenate trees along the leading axis."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
