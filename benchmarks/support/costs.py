"""Costs of an environment: time, compilation and replay memory, and their bounds."""

from __future__ import annotations

import jax

from benchmarks.support.common import Row, time_call, use_one_core
from benchmarks.support.rollouts import Side, warm_up
from jmarl import load_config
from jmarl.systems.kits.q_learning import empty_chunk
from jmarl.training.programs import number_of_bytes
from jmarl.types import Env


def prepare() -> None:
    """Keep the process on one core, turn the cache off, and start the compiler."""
    use_one_core()
    jax.config.update("jax_enable_compilation_cache", False)
    warm_up()


def cost(side: Side, repeats: int) -> Row:
    """Return microseconds of a step, CPU seconds of compilation, and the noise."""
    timing = time_call(side.call, repeats)
    return {
        "us": 1e6 * timing.best / side.steps(),
        "compile_s": side.compile_seconds,
        "noise": timing.noise,
    }


def replay_bytes(env: Env) -> Row:
    """Return the bytes of one step in a replay buffer."""
    config = load_config("qmix", ["num_envs=1", "rollout_length=1"])
    plain = env.spec._replace(obs_codec=None)
    stored, float32 = (
        number_of_bytes(jax.eval_shape(lambda spec=spec: empty_chunk(spec, config)))
        for spec in (env.spec, plain)
    )
    return {"bytes": stored, "uncompressed_bytes": float32}


def at_most(figure: str, value: float, most: float) -> Row:
    """Return the row of a figure with an upper bound."""
    return bound(figure, value, f"at most {most:g}", value <= most)


def at_least(figure: str, value: float, least: float) -> Row:
    """Return the row of a figure with a lower bound."""
    return bound(figure, value, f"at least {least:g}", value >= least)


def bound(figure: str, value: float, asked: str, met: bool) -> Row:
    """Return the row of a figure with a bound."""
    return {"figure": figure, "value": value, "asked": asked, "met": met}
