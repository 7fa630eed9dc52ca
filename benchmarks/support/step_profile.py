"""Share of each part in the time of a step under the rules of SMAC, by leaving one part out.

A trajectory of random available actions is recorded first, from a state in which the episodes are
in different phases. Then rollouts with these actions and keys are compiled and timed, interleaved:
the whole step, and steps without one part. Its function returns zeros there. The time of the part
is the difference. The observation does not change the trajectory; the others change it, but a step
does the same work in every state. Only starts are drawn on demand. The time of drawing the actions
is that of a rollout that does so, minus the whole step.

The time of the ticks is what as many further ticks add, in steps without starts. The rest of a step
is the time that no part accounts for: orders, rewards, ends, and the selection at a reset. XLA
fuses operations across parts, so the parts are not exact; differences are as noisy as the times.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int
from jaxtyping import Key as Keys

from benchmarks.support.common import compile_for, time_each
from benchmarks.support.rollouts import jmarl_rollout
from jmarl.envs import make
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.conformance import random_action
from jmarl.types import Env, EnvState, Key, TimeStep


FUNCTIONS = {
    "observation": "observe",
    "opponents": "choose_orders",
    "starts": "draw_starts",
}
"""Part -> its function in ``smac_battle``."""
FURTHER_TICKS = "further ticks"
"""Variant of a step without starts, with twice as many ticks."""
VARIANTS = ("whole", *FUNCTIONS, FURTHER_TICKS)


class Trajectory(NamedTuple):
    """A start, and the keys and actions of the steps from there."""

    state: EnvState
    timestep: TimeStep
    keys: Keys[Array, "T"]
    action: Int[Array, "T B N"]
    steps: int
    """Steps whose action has an effect."""


def measure_parts(
    name: str, batch: int, length: int, repeats: int, **options: Any
) -> dict[str, float]:
    """Return the microseconds of an environment step with random actions, and shares of parts.

    Args:
        name: Environment.
        batch: Number of environments.
        length: Steps per compiled call.
        repeats: Samples per time.
        **options: Options of the environment.
    """
    env = make(name, **options)
    path = record(env, batch, length)
    drawn = jmarl_rollout(env, batch, length)
    calls = {"drawn": drawn.call}
    for variant in VARIANTS:
        with changed(variant):
            calls[variant] = compile_steps(make(name, **options), path)
    timings = time_each(calls, repeats)
    steps = {variant: path.steps for variant in VARIANTS} | {"drawn": drawn.steps()}
    us = {name: 1e6 * timing.best / steps[name] for name, timing in timings.items()}
    noise = max(timing.noise for timing in timings.values())
    return {"us": us["drawn"], **shares(us), "noise": noise}


def shares(us: dict[str, float]) -> dict[str, float]:
    """Return the share of each part from the times of all variants."""
    parts = {"ticks": us[FURTHER_TICKS] - us["starts"]}
    parts |= {part: us["whole"] - us[part] for part in FUNCTIONS}
    parts["rest"] = us["whole"] - sum(parts.values())
    parts["actions"] = us["drawn"] - us["whole"]
    return {part: time / us["drawn"] for part, time in parts.items()}


def record(env: Env, batch: int, length: int) -> Trajectory:
    """Record ``length`` steps, after at least one whole episode in each environment."""

    def step(carry: tuple, key: Key) -> tuple[tuple, tuple]:
        action_key, step_key = jax.random.split(key)
        state, timestep = carry
        action = random_action(action_key, timestep, env.spec)
        after = env.step(step_key, state, action)
        return after, (step_key, action, timestep.valid)

    @jax.jit
    def play(carry: tuple, key: Key) -> tuple[tuple, tuple]:
        return lax.scan(step, carry, jax.random.split(key, length))

    carry = jax.jit(env.reset, static_argnums=1)(jax.random.key(1), batch)
    for i in range(math.ceil(env.spec.episode_limit / length)):
        carry, _ = play(carry, jax.random.key(2 + i))
    state, timestep = carry
    _, (keys, action, valid) = play(carry, jax.random.key(0))
    return Trajectory(state, timestep, keys, action, int(valid.sum()))


def compile_steps(env: Env, path: Trajectory) -> Callable[[], Any]:
    """Compile the steps of a trajectory, which return the last state and time step."""

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        key, action = inputs
        return env.step(key, carry[0], action), None

    def rollout(path: Trajectory) -> tuple:
        state = env.refresh(path.keys[0], path.state)
        return lax.scan(step, (state, path.timestep), (path.keys, path.action))[0]

    return partial(compile_for(rollout, path), path)


@contextlib.contextmanager
def changed(variant: str) -> Iterator[None]:
    """Build and trace environments as a variant within this context."""
    left_out = [variant] if variant in FUNCTIONS else []
    change: dict[str, Any] = {"TICKS": smac_battle.TICKS}
    if variant == FURTHER_TICKS:
        left_out, change = ["starts"], {"TICKS": 2 * smac_battle.TICKS}
    for part in left_out:
        function = FUNCTIONS[part]
        change[function] = zeros_of(getattr(smac_battle, function))
    with mock.patch.multiple(smac_battle, **change):
        yield


def zeros_of(function: Callable) -> Callable:
    """Return a function with the same outputs, all zero, which XLA must not fold."""

    def zeros(*args: Any) -> Any:
        shapes = jax.eval_shape(lambda: function(*args))
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return lax.optimization_barrier(blank)

    return zeros
