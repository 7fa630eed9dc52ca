"""Training as a function: ``jmarl.train(config, key)``.

The command ``jmarl train`` does not call ``train``. It compiles the same ``seed_programs``,
through ``training/programs.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmarl.config import RunConfig, check
from jmarl.training.anakin import Runner, continue_in_env, init_runner, train_chunk
from jmarl.training.build import BuiltRun
from jmarl.training.evaluation import evaluate_modes
from jmarl.training.stages import build_stages
from jmarl.types import Key, Metrics, Params


class SeedPrograms(NamedTuple):
    """Pure functions of a stage, for one seed."""

    init: Callable[[Key], Runner]
    chunk: Callable[[Runner], tuple[Runner, dict[str, Metrics]]]
    evaluate: Callable[[Params, Key], dict[str, Metrics]]


def seed_programs(run: BuiltRun) -> SeedPrograms:
    """Return the pure functions of a built run, for one seed."""
    config, env, system = run

    def init(key: Key) -> Runner:
        return init_runner(env, system, config.num_envs, key)

    def chunk(runner: Runner) -> tuple[Runner, dict[str, Metrics]]:
        updates = config.updates_per_chunk
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
        The final ``Runner``, and the metrics. ``train`` and ``episodes`` are those of
        ``train_chunk`` with a leading axis of chunks. ``eval`` is
        ``{"greedy": ..., "sampled": ...}`` with arrays ``[evaluations, episodes]``. There
        are ``config.num_evaluations + 1`` evaluations; the first is of untrained parameters.

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
    eval_keys = jax.random.split(k_eval, config.num_evaluations + 1)
    runner = seed_programs(stages[0]).init(k_init)
    first = evaluate(runner.learner.params, eval_keys[0])
    metrics, evals = [], [jax.tree.map(lambda x: x[None], first)]
    done = 1  # evaluations so far
    for number, (stage, end) in enumerate(zip(stages, config.stage_ends, strict=True)):
        if number:
            runner = _start_stage(config, stage, runner)
        total = 1 + end // config.updates_per_evaluation
        keys = eval_keys[done:total]
        runner, (stage_metrics, stage_evals) = _train_stage(
            config, stage, evaluate, runner, keys
        )
        done = total
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
    config: RunConfig,
    stage: BuiltRun,
    evaluate: Callable[[Params, Key], dict[str, Metrics]],
    runner: Runner,
    keys: Key,
) -> tuple[Runner, tuple[dict, dict]]:
    """Train one evaluation interval per key, and evaluate after each.

    Metrics have a leading axis of chunks. Evaluations have a leading axis of intervals.
    """
    chunk = seed_programs(stage).chunk
    chunks = config.updates_per_evaluation // config.updates_per_chunk

    def interval(runner: Runner, key: Key) -> tuple[Runner, tuple[dict, dict]]:
        runner, metrics = jax.lax.scan(
            lambda runner, _: chunk(runner), runner, None, length=chunks
        )
        return runner, (metrics, evaluate(runner.learner.params, key))

    runner, (metrics, evals) = jax.lax.scan(interval, runner, keys)
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics)
    return runner, (merged, evals)


def _concatenate(parts: Sequence[dict]) -> dict:
    """Concatenate trees along the leading axis."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
