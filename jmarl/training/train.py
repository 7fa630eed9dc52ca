"""Training as a function: ``jmarl.train(config, key)``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmarl.config import RunConfig, check
from jmarl.envs import registry
from jmarl.system import System
from jmarl.training.anakin import Runner, init_runner, next_runner, train_chunk
from jmarl.training.compatibility import Side, check_fit
from jmarl.training.evaluation import evaluate_modes
from jmarl.types import Env, Key, Metrics, Params


def assemble(config: RunConfig) -> tuple[Env, System]:
    """The world and the algorithm that a configuration names."""
    options = dict(config.env)
    env = registry.make(options.pop("name"), **options)
    module = importlib.import_module(f"jmarl.systems.{config.system_name}")
    return env, module.make(env.spec, config)


class Stage(NamedTuple):
    """A part of a run: a world, the algorithm in its shapes, and the updates of the run by its end."""

    env: Env
    system: System
    end: int


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """The parts of a run in order; evaluations are on the last one's world.

    Raises ``ConfigError`` unless parameters have the same shapes in all of them.
    """
    configs = [config.with_env(name) for name in config.stage_envs]
    parts = tuple(
        Stage(*assemble(c), end)
        for c, end in zip(configs, config.stage_ends, strict=True)
    )
    sides = [
        Side(c, part.env, part.system) for c, part in zip(configs, parts, strict=True)
    ]
    for side in sides[:-1]:
        check_fit("curriculum.stages", side.config.env["name"], side, sides[-1])
    return parts


def programs(
    config: RunConfig, env: Env, system: System
) -> tuple[
    Callable[[Key], Runner],
    Callable[[Runner], tuple[Runner, dict[str, Metrics]]],
    Callable[[Params, Key], dict[str, Metrics]],
]:
    """The three pure functions of a run, for one seed: ``init``, ``chunk`` and ``evaluation``."""

    def init(key: Key) -> Runner:
        return init_runner(env, system, config.num_envs, key)

    def chunk(runner: Runner) -> tuple[Runner, dict[str, Metrics]]:
        return train_chunk(
            env, system, config.rollout_length, config.updates_per_chunk, runner
        )

    def evaluation(params: Params, key: Key) -> dict[str, Metrics]:
        return evaluate_modes(env, system, params, key, config.eval.episodes)

    return init, chunk, evaluation


def train(config: RunConfig, key: Key) -> tuple[Runner, dict[str, dict]]:
    """A whole run of one seed as one pure function; jit it, and vmap it over keys.

    Returns the final ``Runner`` and the metrics: ``train`` and ``episodes`` (as ``train_chunk``
    has them) with a leading axis of chunks, and ``eval`` (``{greedy, sampled}`` of per-episode
    arrays) with a leading axis of ``config.num_evaluations + 1``, the first of untrained
    parameters. Writes nothing and prints nothing; the command line calls the same
    functions and adds progress, logs and checkpoints.
    """
    check(
        not config.init_from,
        "init_from",
        config.init_from,
        "reads a folder, which this pure function does not",
    )
    parts = stages(config)
    init, _, _ = programs(config, parts[0].env, parts[0].system)
    _, _, evaluation = programs(config, parts[-1].env, parts[-1].system)
    k_init, k_eval = jax.random.split(key)
    eval_keys = jax.random.split(k_eval, config.num_evaluations + 1)
    runner = init(k_init)
    metrics, evals = (
        [],
        [
            jax.tree.map(
                lambda x: x[None], evaluation(runner.learner.params, eval_keys[0])
            )
        ],
    )
    reset, evaluations = config.curriculum.reset_optimizer, 1
    for number, part in enumerate(parts):
        if number:
            runner = next_runner(
                part.env, part.system, config.num_envs, runner, reset_optimizer=reset
            )
        before, evaluations = evaluations, 1 + part.end // config.updates_per_evaluation
        runner, found = _train_stage(
            config, part, evaluation, runner, eval_keys[before:evaluations]
        )
        metrics, evals = [*metrics, found[0]], [*evals, found[1]]
    return runner, {**_joined(metrics), "eval": _joined(evals)}


def _train_stage(
    config: RunConfig,
    part: Stage,
    evaluation: Callable[[Params, Key], dict[str, Metrics]],
    runner: Runner,
    keys: Key,
) -> tuple[Runner, tuple[dict, dict]]:
    """An interval for each of the keys, with the evaluation at its end; metrics lead with an axis of chunks."""
    _, chunk, _ = programs(config, part.env, part.system)
    chunks = config.updates_per_evaluation // config.updates_per_chunk

    def interval(runner: Runner, key: Key) -> tuple[Runner, tuple[dict, dict]]:
        runner, metrics = jax.lax.scan(
            lambda r, _: chunk(r), runner, None, length=chunks
        )
        return runner, (metrics, evaluation(runner.learner.params, key))

    runner, (metrics, evals) = jax.lax.scan(interval, runner, keys)
    return runner, (jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics), evals)


def _joined(parts: Sequence[dict]) -> dict:
    """One after the other along the leading axis."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
