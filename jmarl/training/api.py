"""Training as a function: ``jmarl.train(config, key)``."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import jax

from jmarl.config import RunConfig
from jmarl.envs import registry
from jmarl.system import System
from jmarl.training.anakin import Runner, init_runner, train_chunk
from jmarl.training.evaluate import evaluate_modes
from jmarl.types import Env, Key, Metrics, Params


def assemble(config: RunConfig) -> tuple[Env, System]:
    """The world and the algorithm that a configuration names."""
    options = dict(config.env)
    env = registry.make(options.pop("name"), **options)
    module = importlib.import_module(f"jmarl.systems.{config.system_name}")
    return env, module.make(env.spec, config)


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
        return train_chunk(env, system, config.rollout_length, config.updates_per_chunk, runner)

    def evaluation(params: Params, key: Key) -> dict[str, Metrics]:
        return evaluate_modes(env, system, params, key, config.eval.episodes)

    return init, chunk, evaluation


def train(config: RunConfig, key: Key) -> tuple[Runner, dict[str, dict]]:
    """A whole run of one seed as one pure function; jit it, and vmap it over keys.

    Returns the final ``Runner`` and the metrics: ``train`` and ``episodes`` (as ``train_chunk``
    has them) with a leading axis of chunks, and ``eval`` (``{greedy, sampled}`` of per-episode
    arrays) with a leading axis of ``config.num_evaluations + 1``, the first of untrained
    parameters. Writes nothing and prints nothing; the command line calls the same three
    functions and adds progress, logs and checkpoints.
    """
    env, system = assemble(config)
    init, chunk, evaluation = programs(config, env, system)
    k_init, k_eval = jax.random.split(key)
    eval_keys = jax.random.split(k_eval, config.num_evaluations + 1)

    def interval(runner: Runner, key: Key) -> tuple[Runner, tuple[dict, dict]]:
        chunks = config.updates_per_evaluation // config.updates_per_chunk
        runner, metrics = jax.lax.scan(lambda r, _: chunk(r), runner, None, length=chunks)
        return runner, (metrics, evaluation(runner.learner.params, key))

    runner = init(k_init)
    before = evaluation(runner.learner.params, eval_keys[0])
    runner, (metrics, evals) = jax.lax.scan(interval, runner, eval_keys[1:])
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), metrics)
    joined = jax.tree.map(lambda a, b: jax.numpy.concatenate([a[None], b]), before, evals)
    return runner, {**flat, "eval": joined}
