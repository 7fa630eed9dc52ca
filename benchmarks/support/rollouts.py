"""Compiled rollouts of environments with random available actions, timed without a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jmarl.envs.conformance import random_action
from jmarl.types import Env, Key


class Side(NamedTuple):
    """A compiled rollout. Each call continues from the end of the previous one."""

    call: Callable[[], Any]
    compile_seconds: float
    """CPU seconds of tracing, lowering and compiling."""
    steps: Callable[[], float]
    """``steps() -> environment steps per call``, the mean of all calls so far."""


def warm_up() -> None:
    """Compile another program, so that no side is charged for the start of the compiler."""

    def step(x: jax.Array, key: Key) -> tuple[jax.Array, None]:
        logits = jnp.where(x > 0, x, 0.0)[:, None]
        return x + jax.random.categorical(key, logits), None

    def program(x: jax.Array, key: Key) -> Any:
        return lax.scan(step, x, jax.random.split(key, 3))

    jax.jit(program).lower(jnp.ones(3), jax.random.key(0)).compile()


def jmarl_rollout(env: Env, batch: int, length: int) -> Side:
    """Compile ``length`` steps of jmarl's environment with random available actions."""

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state, timestep, steps = carry
        action = random_action(action_key, timestep, env.spec)
        steps = steps + timestep.valid.sum(dtype=jnp.int32)
        return (*env.step(step_key, state, action), steps), None

    def rollout(carry: tuple, key: Key) -> tuple:
        state, timestep, steps = carry
        state = env.refresh(jax.random.fold_in(key, 0), state)
        keys = jax.random.split(key, length)
        return lax.scan(step, (state, timestep, steps), keys)[0]

    state, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(1), batch)
    return compile_side(rollout, (state, timestep, jnp.int32(0)))


def compile_side(rollout: Callable[[tuple, Key], tuple], carry: tuple) -> Side:
    """Compile a rollout. The last entry of ``carry`` counts environment steps."""
    started = time.process_time()
    executable = jax.jit(rollout).lower(carry, jax.random.key(0)).compile()
    seconds = time.process_time() - started
    key = jax.random.key(2)
    calls = 0

    def call() -> Any:
        nonlocal carry, key, calls
        call_key, key = jax.random.split(key)
        carry = executable(carry, call_key)
        calls += 1
        return carry

    return Side(call, seconds, lambda: int(carry[-1]) / calls)
