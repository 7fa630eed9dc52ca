"""The programs of a run's stages, with their seed axis, shardings and ahead-of-time compilation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jmarl.config import RunConfig
from jmarl.runs.progress import size
from jmarl.system import System
from jmarl.training import anakin
from jmarl.training import train as api
from jmarl.training.anakin import Runner, drop_env_state
from jmarl.types import Env, Key, Metrics, Params


ABSOLUTE = 2**31
"""Where the keys of the absolute metric begin; those of evaluations count from 0."""


COLLECTIVE_TIMEOUT_S = 10**6
"""Seconds that one device of a CPU waits for another before XLA ends the process: no run is to end for being halted."""


class Best(struct.PyTreeNode):
    """For each seed the parameters of its best evaluation so far; the later of two equal ones."""

    params: Params
    score: Float[Array, " S"]
    update: Int[Array, " S"]


class State(struct.PyTreeNode):
    """What a checkpoint holds, of the runner perhaps what is ``drop_env_state`` alone. Every leaf leads with the seed axis."""

    runner: Runner
    best: Best


class ChunkReport(NamedTuple):
    """What comes to the host after a chunk, in one transfer."""

    metrics: dict[str, Metrics]
    env_steps: Int[Array, " S"]
    finite: dict[str, Array]
    """For each leaf of the parameters, whether all of it is finite: ``bool[S]`` by path."""


class Programs(NamedTuple):
    """A stage of a run as functions over the seed axis.

    ``init(keys) -> State``; ``chunk(runner) -> (runner, ChunkReport)`` donates the runner;
    ``evaluate(best, params, keys, update) -> (best, {mode: {name: [S, episodes]}})``;
    ``enter(anakin.drop_env_state(runner)) -> runner`` goes on with what another stage left; ``again``, of the same type, with
    what a checkpoint of this stage holds that is not exact, so that the optimizer forgets nothing.
    """

    init: Callable[[Key], State]
    chunk: Callable[[Runner], tuple[Runner, ChunkReport]]
    evaluate: Callable[[Best, Params, Key, Any], tuple[Best, dict[str, Metrics]]]
    enter: Callable[[Runner], Runner]
    again: Callable[[Runner], Runner]


class Keys(NamedTuple):
    """Keys of all seeds ``[S]``: what training starts from and what evaluations fold their number into.

    Seed i is ``jax.random.key(seed + i)``, so it is the same run alone and among others; the split
    is that of ``jmarl.train``.
    """

    init: Key
    evaluation: Key

    def at(self, number: int) -> Key:
        """The keys of one evaluation; training never sees them."""
        return jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(number)))(
            self.evaluation
        )


def seed_keys(config: RunConfig) -> Keys:
    """The keys of a run's seeds."""
    seeds = np.arange(config.seed, config.seed + config.num_seeds, dtype=np.uint32)
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
    return Keys(pairs[:, 0], pairs[:, 1])


def score_name(env: Env) -> str:
    """What the best parameters are best at, greedily."""
    return "won" if "won" in env.spec.outcomes else "return"


def programs(config: RunConfig, env: Env, system: System) -> Programs:
    """The programs as plain functions, vmapped over seeds."""
    init_one, chunk_one, evaluate_one = api.programs(config, env, system)
    judged = score_name(env)

    def init(keys: Key) -> State:
        runner = jax.vmap(init_one)(keys)
        params = jax.tree.map(jnp.copy, runner.learner.params)
        seeds = keys.shape[0]
        return State(
            runner,
            Best(params, jnp.full(seeds, -jnp.inf), jnp.full(seeds, -1, jnp.int32)),
        )

    def chunk(runner: Runner) -> tuple[Runner, ChunkReport]:
        runner, metrics = jax.vmap(chunk_one)(runner)
        return runner, ChunkReport(
            metrics, runner.env_steps, _finite(runner.learner.params)
        )

    def evaluate(
        best: Best, params: Params, keys: Key, update: Array
    ) -> tuple[Best, dict[str, Metrics]]:
        results = jax.vmap(evaluate_one)(params, keys)
        score = results["greedy"][judged].mean(-1)
        return _better(best, params, score, update), results

    def enter(before: Runner, *, reset: bool) -> Runner:
        one = partial(
            anakin.next_runner, env, system, config.num_envs, reset_optimizer=reset
        )
        return jax.vmap(one)(before)

    reset = config.curriculum.reset_optimizer
    return Programs(
        init, chunk, evaluate, partial(enter, reset=reset), partial(enter, reset=False)
    )


def _finite(params: Params) -> dict[str, Array]:
    leaves = jax.tree.leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.isfinite(x)
        .reshape(x.shape[0], -1)
        .all(-1)
        for path, x in leaves
    }


def _better(best: Best, params: Params, score: Array, update: Array) -> Best:
    wins = score >= best.score

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(wins.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return Best(
        jax.tree.map(pick, params, best.params),
        pick(score, best.score),
        jnp.where(wins, update, best.update),
    )


def state_shapes(config: RunConfig, plain: Programs) -> State:
    """Shapes, types and shardings of a run's state, without computing it."""
    mesh = anakin.device_mesh()
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = jax.eval_shape(plain.init, jax.eval_shape(lambda: seed_keys(config).init))
    places = State(
        anakin.runner_shardings(mesh, shapes.runner),
        jax.tree.map(lambda _: whole, shapes.best),
    )
    return jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
        shapes,
        places,
    )


def compile_programs(
    config: RunConfig,
    plain: Sequence[Programs],
    shapes: Sequence[State],
    *,
    fresh: bool,
    again: bool = False,
    first: int = 0,
) -> tuple[tuple[Programs, ...], str]:
    """Compile the stages from ``first`` on ahead of time, side by side, because XLA lets Python's lock go.

    Tracing holds that lock, so it goes in order: a short one first, which compiles while the longest ones are
    traced. ``init`` is compiled for a ``fresh`` run alone, ``again`` if the first of the stages is entered so, and
    evaluation, which all stages share, for the last world. The text says what memory the largest compiled chunk takes.
    """
    best, whole = shapes[-1].best, jax.tree.leaves(shapes[-1].best)[0].sharding
    keys = _like(jax.eval_shape(lambda: seed_keys(config).init), whole)
    update = _like(jax.ShapeDtypeStruct((), jnp.int32), whole)
    stages = range(first, len(plain))
    with (
        jax.set_mesh(whole.mesh),
        ThreadPoolExecutor(2 + len(stages), thread_name_prefix="compile") as pool,
    ):
        submit = partial(_submit, pool)
        init = (
            submit(plain[0].init, keys, out=shardings_of(shapes[0]), effort=0)
            if fresh
            else None
        )
        chunks, enters, agains = {}, {}, {}
        for i in stages:
            out = shardings_of(shapes[i].runner)
            chunks[i] = submit(
                plain[i].chunk,
                shapes[i].runner,
                out=(out, whole),
                effort=1,
                donate=(0,),
            )
            if i:
                enters[i] = submit(
                    plain[i].enter,
                    drop_env_state(shapes[i - 1].runner),
                    out=out,
                    effort=0,
                )
            if again and i == first:
                agains[i] = submit(
                    plain[i].again, drop_env_state(shapes[i].runner), out=out, effort=0
                )
        evaluate = submit(
            plain[-1].evaluate, best, best.params, keys, update, out=whole, effort=1
        )

    def stage(i: int, program: Programs) -> Programs:
        all_stages = {"chunk": chunks, "enter": enters, "again": agains}
        compiled = {name: of[i].result() for name, of in all_stages.items() if i in of}
        return program._replace(
            init=lambda k: (
                init.result()(jax.device_put(k, whole)) if init else plain[0].init(k)
            ),
            evaluate=lambda b, p, k, u: evaluate.result()(
                b, p, *jax.device_put((k, np.int32(u)), whole)
            ),
            **compiled,
        )

    ready = tuple(stage(i, program) for i, program in enumerate(plain))
    return ready, _memory_text(
        [chunk.result().memory_analysis() for chunk in chunks.values()]
    )


def _submit(
    pool: ThreadPoolExecutor,
    program: Any,
    *like: Any,
    out: Any,
    effort: int,
    donate: tuple[int, ...] = (),
) -> Future[Any]:
    """Trace here and now; compile in the pool."""
    lowered = jax.jit(program, donate_argnums=donate, out_shardings=out).lower(*like)
    return pool.submit(lowered.compile, compiler_options(effort))


def shardings_of(shapes: Any) -> Any:
    """Where each leaf of a tree of shapes lies."""
    return jax.tree.map(lambda x: x.sharding, shapes)


def compiler_options(effort: int) -> dict[str, str | bool] | None:
    """XLA's options on a CPU, where it would spend an effort of 3; those of ``XLA_FLAGS`` win.

    With 1 a chunk compiles in three quarters of the time and runs no slower; ``init``, which runs once, needs none.
    """
    if jax.default_backend() != "cpu":
        return None
    options = {
        "xla_cpu_collective_call_terminate_timeout_seconds": str(COLLECTIVE_TIMEOUT_S),
        "xla_backend_optimization_level": str(effort),
    }
    return {
        name: value
        for name, value in options.items()
        if name not in os.environ.get("XLA_FLAGS", "")
    }


def _memory_text(analyses: list[Any]) -> str:
    """Of the chunk that needs most."""
    if None in analyses:
        return "the backend does not say how much memory that takes"
    largest = max(
        analyses, key=lambda a: a.temp_size_in_bytes + a.argument_size_in_bytes
    )
    parts = {
        "temporary": largest.temp_size_in_bytes,
        "state": largest.argument_size_in_bytes,
    }
    return (
        "a chunk takes "
        + ", ".join(f"{size(n)} {name}" for name, n in parts.items())
        + " a device"
    )


def _like(x: jax.ShapeDtypeStruct, at: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)


def count_parameters(shapes: State) -> int:
    """Parameters of one seed."""
    leaves = jax.tree.leaves(shapes.best.params)
    return sum(x.size for x in leaves) // leaves[0].shape[0]


def number_of_bytes(shapes: Any) -> int:
    """Bytes of all arrays of a tree of shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def rollout_bytes(config: RunConfig, env: Env, system: System, shapes: State) -> int:
    """Bytes of the experience that one update learns from, over all seeds."""

    def collect(runner: Runner, key: Key) -> Any:
        return anakin.rollout(env, system, runner, config.rollout_length, key)[1]

    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes.runner
    )
    return config.num_seeds * number_of_bytes(jax.eval_shape(collect, one, one.key))
