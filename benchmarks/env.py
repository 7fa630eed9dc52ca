"""Our battle against JaxMARL's SMAX: CPU time of an environment step, side by side.

    python -m benchmarks.env [name=smax_10v10] [envs=64,128,256] [length=50] [repeats=6] [pool=8] [out=results/env.json]

Both sides take random available actions, return observations, rewards and flags, and begin the next episode by
themselves; ``length`` steps are one compiled call. A step is one on which the action counted: the row between two
episodes that ours spends on the last observation is none, and its time is shared among the others. Transitions are
compared first, step by step with the same keys and actions. The side ``pool`` draws starts ahead (``reset_pool``), as
training does. Compile times are CPU seconds of tracing, lowering and compiling, without a cache, after a first program
has taken what a process pays once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.common import arguments, markdown_table, timed_pair, write_json
from jmarl.envs import make
from jmarl.envs.battle import smax
from jmarl.envs.battle.rules import scenario
from jmarl.envs.conformance import random_action
from jmarl.types import Key, TimeStep


DEFAULTS = {
    "name": "smax_10v10",
    "envs": (64, 128, 256),
    "length": 50,
    "repeats": 6,
    "pool": 8,
    "out": "",
}
TOLERANCE = 1e-4
COMPARED = ("start", "observation", "world", "reward", "state")


class Side(NamedTuple):
    """A compiled rollout that goes on from where it stopped, and what its compilation took."""

    call: Callable[[], Any]
    compile_seconds: float
    steps: Callable[[], float]
    """Environment steps a call, the mean of all calls so far."""


def main() -> None:
    """Compare, time, print, and write the record if ``out`` is given."""
    jax.config.update("jax_enable_compilation_cache", False)
    args = arguments(DEFAULTS)
    differences = check(args["name"])
    print("differences from JaxMARL, teacher-forced:", differences)
    warm_up()
    rows = [row for batch in args["envs"] for row in measure(batch, args)]
    header = [
        "envs",
        "side",
        "us / env step",
        "JaxMARL us",
        "speed-up",
        "env steps / call",
        "JaxMARL steps / call",
        "noise",
        "compile CPU s",
        "JaxMARL compile CPU s",
    ]
    print(markdown_table(header, [list(row.values()) for row in rows]))
    if args["out"]:
        write_json(
            args["out"], {"arguments": args, "differences": differences, "rows": rows}
        )


def check(name: str) -> dict[str, float]:
    """Differences over a short rollout; raises ``RuntimeError`` if the transitions are not the same."""
    rules = scenario(name)
    peer = smax.reference(rules)
    found = jax.jit(lambda key: smax.compare(rules, peer, key, batch=8, length=60))(
        jax.random.key(0)
    )
    values = {field: float(value) for field, value in found._asdict().items()}
    unequal = values["available"] + values["alive"] + values["ended"]
    if unequal or max(values[field] for field in COMPARED) > TOLERANCE:
        raise RuntimeError(f"{name}: transitions differ from JaxMARL's: {values}")
    return values


def warm_up() -> None:
    """Compile a program that nobody times, so that no side is charged for the start of the compiler."""

    def step(x: jax.Array, key: Key) -> tuple[jax.Array, None]:
        return x + jax.random.categorical(key, jnp.where(x > 0, x, 0.0)[:, None]), None

    jax.jit(lambda x, key: lax.scan(step, x, jax.random.split(key, 3))).lower(
        jnp.ones(3), jax.random.key(0)
    ).compile()


def measure(batch: int, args: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for resets drawn in the step, one for a pool of resets."""
    theirs = jaxmarl_rollout(args["name"], batch, args["length"])
    sides = {"exact": 0, "pool": args["pool"]}
    return [
        _row(
            name,
            batch,
            args,
            theirs,
            our_rollout(args["name"], batch, args["length"], pool),
        )
        for name, pool in sides.items()
    ]


def our_rollout(name: str, batch: int, length: int, pool: int) -> Side:
    """``length`` steps of our environment with random available actions."""
    env = make(name, reset_pool=pool)

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state, timestep, steps = carry
        after = env.step(step_key, state, random_action(action_key, timestep, env.spec))
        return (*after, steps + timestep.valid.sum(dtype=jnp.int32)), None

    def rollout(carry: tuple, key: Key) -> tuple:
        state = env.refresh(jax.random.fold_in(key, 0), carry[0])
        return lax.scan(step, (state, *carry[1:]), jax.random.split(key, length))[0]

    return _compiled(rollout, (*env.reset(jax.random.key(1), batch), jnp.int32(0)))


def jaxmarl_rollout(name: str, batch: int, length: int) -> Side:
    """The same with JaxMARL's ``step``, which resets by itself, vmapped over environments."""
    env = smax.reference(scenario(name))
    draw = _random_by_availability(name, batch)

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state, _, steps = carry
        available = jax.vmap(env.get_avail_actions)(state)
        action = draw(
            action_key, jnp.stack([available[agent] for agent in env.agents], axis=1)
        )
        actions = {agent: action[:, i] for i, agent in enumerate(env.agents)}
        obs, state, reward, done, _ = jax.vmap(env.step)(
            jax.random.split(step_key, batch), state, actions
        )
        return (state, (obs, reward, done), steps + batch), None

    def rollout(carry: tuple, key: Key) -> tuple:
        return lax.scan(step, carry, jax.random.split(key, length))[0]

    obs, state = jax.jit(jax.vmap(env.reset))(
        jax.random.split(jax.random.key(1), batch)
    )
    reward = {agent: jnp.zeros(batch) for agent in env.agents}
    done = {agent: jnp.zeros(batch, bool) for agent in (*env.agents, "__all__")}
    return _compiled(rollout, (state, (obs, reward, done), jnp.int32(0)))


def _random_by_availability(
    name: str, batch: int
) -> Callable[[Key, jax.Array], jax.Array]:
    """``random_action`` of our worlds, given only what is available: both sides draw alike."""
    env = make(name)
    shapes: TimeStep = jax.eval_shape(
        lambda key: env.reset(key, batch), jax.random.key(0)
    )[1]

    def draw(key: Key, available: jax.Array) -> jax.Array:
        obs = shapes.obs.replace(avail=available.astype(bool))
        return random_action(key, shapes.replace(obs=obs), env.spec)

    return draw


def _compiled(rollout: Callable[[tuple, Key], tuple], carry: tuple) -> Side:
    """The last entry of ``carry`` counts environment steps."""
    started = time.process_time()
    executable = jax.jit(rollout).lower(carry, jax.random.key(0)).compile()
    seconds = time.process_time() - started
    latest: list[Any] = [carry, jax.random.key(2), 0]

    def call() -> Any:
        key, latest[1] = jax.random.split(latest[1])
        latest[0] = executable(latest[0], key)
        latest[2] += 1
        return latest[0]

    return Side(call, seconds, lambda: int(latest[0][-1]) / latest[2])


def _row(
    name: str, batch: int, args: dict[str, Any], theirs: Side, ours: Side
) -> dict[str, Any]:
    timing = timed_pair(theirs.call, ours.call, args["repeats"])
    ours_us, theirs_us = (
        timing.candidate.best * 1e6 / ours.steps(),
        timing.baseline.best * 1e6 / theirs.steps(),
    )
    return {
        "envs": batch,
        "side": name,
        "us": ours_us,
        "jaxmarl_us": theirs_us,
        "speedup": theirs_us / ours_us,
        "steps_per_call": ours.steps(),
        "jaxmarl_steps_per_call": theirs.steps(),
        "noise": timing.noise,
        "compile_s": ours.compile_seconds,
        "jaxmarl_compile_s": theirs.compile_seconds,
    }


if __name__ == "__main__":
    main()
