"""Programs of a stage: pure functions over a leading seed axis S."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.interpreters import partial_eval
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Traced
from jaxtyping import Array, Float, Int

from jmarl.config import RunConfig, check
from jmarl.hosts import process_group
from jmarl.learning.minibatch import num_env_shards
from jmarl.training import anakin
from jmarl.training.anakin import Runner
from jmarl.training.build import BuiltRun
from jmarl.training.train import seed_programs
from jmarl.types import Env, Key, Metrics, Params


FIRST_ABSOLUTE_KEY = 2**31
"""Number of the first key of the absolute metric. Other evaluations count from 0."""


class Best(struct.PyTreeNode):
    """Parameters of each seed's best evaluation so far. Ties keep the latest."""

    params: Params
    score: Float[Array, " S"]
    update: Int[Array, " S"]


class State(struct.PyTreeNode):
    """Content of a checkpoint. Every leaf has a leading seed axis.

    An inexact checkpoint holds ``anakin.drop_env_state`` of the runner.
    """

    runner: Runner
    best: Best


class ChunkReport(NamedTuple):
    """Results of a chunk, sent to the host in one transfer."""

    metrics: dict[str, Metrics]
    """``train``, ``episodes`` and ``nonfinite`` of ``anakin.train_chunk``, each ``[S]``."""
    env_steps: Int[Array, " S"]


class Programs(NamedTuple):
    """Pure functions of a stage, over the seed axis.

    ``init(keys) -> State``
    ``chunk(runner, updates) -> (runner, ChunkReport)`` trains; it donates the runner.
    ``evaluate(best, params, keys, update) -> (best, {mode: {name: [S, episodes]}})``
    ``start_stage(previous) -> runner`` continues from the previous stage.
    ``restart_stage(previous) -> runner`` continues from an inexact checkpoint of this
    stage, and keeps the whole state of the optimizer.

    Both ``previous`` are results of ``anakin.drop_env_state``.
    """

    init: Callable[[Key], State]
    chunk: Callable[[Runner, Any], tuple[Runner, ChunkReport]]
    evaluate: Callable[[Best, Params, Key, Any], tuple[Best, dict[str, Metrics]]]
    start_stage: Callable[[Runner], Runner]
    restart_stage: Callable[[Runner], Runner]


class Keys(NamedTuple):
    """Random keys of all seeds ``[S]``, for initialization and for evaluations.

    Seed i is ``jax.random.key(seed + i)``. A seed therefore gives the same run with any
    ``num_seeds``. The key is split as in ``jmarl.train``.
    """

    init: Key
    evaluation: Key

    def of_evaluation(self, number: int) -> Key:
        """Return the keys ``[S]`` of one evaluation. Training never uses them."""
        return fold_in(self.evaluation, number)


def fold_in(keys: Key, numbers: Any) -> Key:
    """Fold one number, or one for each seed, into the keys ``[S]`` of all seeds."""
    data = np.broadcast_to(np.asarray(numbers, np.uint32), keys.shape)
    return jax.vmap(jax.random.fold_in)(keys, data)


def seed_keys(config: RunConfig) -> Keys:
    """Return the keys of a run's seeds."""
    seeds = np.arange(config.seed, config.seed + config.num_seeds, dtype=np.uint32)
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
    return Keys(pairs[:, 0], pairs[:, 1])


def score_name(env: Env) -> str:
    """Return the name of the greedy result that selects the best parameters."""
    return "won" if "won" in env.spec.outcomes else "return"


def stage_programs(run: BuiltRun) -> Programs:
    """Return the programs of a built run, vmapped over seeds."""
    config, env, system = run
    single = seed_programs(run)
    score = score_name(env)

    def init(keys: Key) -> State:
        runner = jax.vmap(single.init)(keys)
        seeds = keys.shape[0]
        best = Best(
            params=jax.tree.map(jnp.copy, runner.learner.params),
            score=jnp.full(seeds, -jnp.inf),
            update=jnp.full(seeds, -1, jnp.int32),
        )
        return State(runner, best)

    def chunk(runner: Runner, updates: Any) -> tuple[Runner, ChunkReport]:
        runner, metrics = jax.vmap(single.chunk, in_axes=(0, None))(runner, updates)
        return runner, ChunkReport(metrics, runner.env_steps)

    def evaluate(
        best: Best, params: Params, keys: Key, update: Array
    ) -> tuple[Best, dict[str, Metrics]]:
        results = jax.vmap(single.evaluate)(params, keys)
        scores = results["greedy"][score].mean(-1)
        return _update_best(best, params, scores, update), results

    def continue_stage(previous: Runner, *, reset_optimizer: bool) -> Runner:
        one = partial(
            anakin.continue_in_env,
            env,
            system,
            config.num_envs,
            reset_optimizer=reset_optimizer,
        )
        return jax.vmap(one)(previous)

    reset = config.curriculum.reset_optimizer
    return Programs(
        init=init,
        chunk=chunk,
        evaluate=evaluate,
        start_stage=partial(continue_stage, reset_optimizer=reset),
        restart_stage=partial(continue_stage, reset_optimizer=False),
    )


def _update_best(best: Best, params: Params, score: Array, update: Array) -> Best:
    improved = score >= best.score

    def select(new: Array, old: Array) -> Array:
        mask = improved.reshape(-1, *[1] * (new.ndim - 1))
        return jnp.where(mask, new, old)

    return Best(
        params=jax.tree.map(select, params, best.params),
        score=select(score, best.score),
        update=jnp.where(improved, update, best.update),
    )


def run_mesh(config: RunConfig, devices: Sequence[Any] = ()) -> Mesh:
    """Return the mesh of a run: the most devices that can share its environment shards.

    Args:
        config: Configuration of the run.
        devices: Devices to choose from; by default those of all processes.

    Raises:
        ConfigError: If a process would have no device in the mesh.
    """
    system = config.system
    minibatch = config.num_envs // (system.num_minibatches or 1)
    shards = num_env_shards(minibatch, system.replay_batch)
    devices = devices or jax.devices()
    counts = range(1, len(devices) + 1)
    most = max(count for count in counts if shards % count == 0)
    several = process_group.count()
    rule = (
        f"minibatches divide among {most} of {len(devices)} devices, and each of "
        f"{several} processes needs all of its own; num_envs must be a multiple of "
        f"minibatches x {len(devices)}, and system.batch_size of {len(devices)}"
    )
    check(several == 1 or most == len(devices), "num_envs", config.num_envs, rule)
    return anakin.device_mesh(devices[:most])


def state_shapes(
    config: RunConfig, programs: Programs, devices: Sequence[Any] = ()
) -> State:
    """Return shapes, dtypes and shardings of a run's state, without computing it.

    Args:
        config: Configuration of the run.
        programs: Programs of a stage.
        devices: Devices to choose from; by default those of all processes.
    """
    mesh = run_mesh(config, devices)
    keys = jax.eval_shape(lambda: seed_keys(config).init)
    shapes = jax.eval_shape(programs.init, keys)
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = State(
        runner=anakin.runner_shardings(mesh, shapes.runner),
        best=jax.tree.map(lambda _: replicated, shapes.best),
    )
    return jax.tree.map(with_sharding, shapes, shardings)


def trace_chunk(programs: Programs, shapes: State) -> Traced:
    """Trace the program that trains; it donates the runner.

    The mesh of the shapes must be set.

    Args:
        programs: Programs of a stage.
        shapes: State of the stage, as shapes with shardings.
    """
    replicated = jax.tree.leaves(shapes.best)[0].sharding
    updates = with_sharding(jax.ShapeDtypeStruct((), jnp.int32), replicated)
    out = shardings_of(shapes.runner), replicated
    jitted = jax.jit(programs.chunk, donate_argnums=0, out_shardings=out)
    return jitted.trace(shapes.runner, updates)


def trace_evaluation(config: RunConfig, programs: Programs, best: Best) -> Traced:
    """Trace the program that evaluates.

    The mesh of the shapes must be set.

    Args:
        config: Configuration of the run.
        programs: Programs of its last stage.
        best: Best parameters, as shapes with shardings.
    """
    replicated = jax.tree.leaves(best)[0].sharding
    keys = with_sharding(jax.eval_shape(lambda: seed_keys(config).init), replicated)
    update = with_sharding(jax.ShapeDtypeStruct((), jnp.int32), replicated)
    jitted = jax.jit(programs.evaluate, out_shardings=replicated)
    return jitted.trace(best, best.params, keys, update)


def with_sharding(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    """Return a shape with a sharding."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def shardings_of(shapes: Any) -> Any:
    """Return the sharding of each leaf of a tree of shapes."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def count_parameters(shapes: State) -> int:
    """Return the number of parameters of one seed."""
    leaves = jax.tree.leaves(shapes.best.params)
    return sum(x.size for x in leaves) // leaves[0].shape[0]


def number_of_bytes(shapes: Any) -> int:
    """Return the bytes of all arrays of a tree of shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def rollout_bytes(run: BuiltRun, shapes: State) -> int:
    """Return the bytes of the experience of one update, over all seeds."""
    _, experience = _runner_and_experience(run, shapes)
    return run.config.num_seeds * number_of_bytes(experience)


def used_rollout_bytes(run: BuiltRun, shapes: State) -> int:
    """Return the bytes of the experience that an update reads, over all seeds.

    XLA does not store the other arrays. Unlike ``rollout_bytes``, this traces the update.
    """
    runner, experience = _runner_and_experience(run, shapes)
    arguments = (experience, runner.learner, runner.key)

    def update(experience: Any, learner: Any, key: Key) -> Any:
        return run.system.update(learner, experience, key)

    jaxpr = jax.make_jaxpr(update)(*arguments).jaxpr
    _, is_used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    leaves = jax.tree.leaves(experience)
    used = [x for x, read in zip(leaves, is_used, strict=False) if read]
    return run.config.num_seeds * number_of_bytes(used)


def _runner_and_experience(run: BuiltRun, shapes: State) -> tuple[Runner, Any]:
    """Return the shapes of a runner of one seed, and of the result of its rollout."""
    config, env, system = run

    def collect(runner: Runner, key: Key) -> Any:
        return anakin.rollout(env, system, runner, config.rollout_length, key)[1]

    runner = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes.runner
    )
    return runner, jax.eval_shape(collect, runner, runner.key)
