"""CPU time of an environment step: jmarl's battle against JaxMARL's SMAX.

    python -m benchmarks.env [name=smax_10v10] [envs=64,128,256] [length=50] [repeats=6]
        [pool=8] [out=results/env.json]

Options:

* ``name``: environment.
* ``envs``: numbers of parallel environments.
* ``length``: steps per compiled call.
* ``repeats``: samples per time.
* ``pool``: ``reset_pool`` of the side ``pool``.
* ``out``: JSON file of the record; none by default.

Method: transitions are compared first, step by step with the same keys and actions. Then both sides
take random available actions, return observations, rewards and flags, and reset ended episodes. The
side ``exact`` draws each initial state in the step; the side ``pool`` draws them ahead, as training
does. Only steps with an effect of the action count. jmarl spends one row between two episodes on
the last observation; its time is shared among the other steps. Compile times are CPU seconds of
tracing, lowering and compiling, without a cache. Another program is compiled before, so no side
pays for the start of the compiler.

Output: a table with microseconds per environment step, the speed-up, and compile times.

Exit codes: 0 if the transitions are equal, 1 if not, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.support import smax_reference
from benchmarks.support.common import (
    markdown_table,
    parse_arguments,
    require,
    time_pair,
    write_json,
)
from benchmarks.support.rollouts import Side, compile_side, jmarl_rollout, warm_up
from jmarl.cli.process import exit_code
from jmarl.envs import make
from jmarl.envs.battle.scenario import get_scenario
from jmarl.envs.conformance import random_action
from jmarl.types import Key


DEFAULTS: dict[str, Any] = {
    "name": "smax_10v10",
    "envs": (64, 128, 256),
    "length": 50,
    "repeats": 6,
    "pool": 8,
    "out": "",
}
TOLERANCE = 1e-4
COMPARED = ("start", "observation", "world", "reward", "state")
HEADER = (
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
)


def main() -> int:
    """Compare, time and print; write the record if ``out`` is given."""
    jax.config.update("jax_enable_compilation_cache", False)
    args = parse_arguments(DEFAULTS)
    differences = check(args["name"])
    print("differences from JaxMARL, teacher-forced:", differences)
    warm_up()
    rows = [row for batch in args["envs"] for row in measure(batch, args)]
    print(markdown_table(HEADER, [list(row.values()) for row in rows]))
    if args["out"]:
        record = {"arguments": args, "differences": differences, "rows": rows}
        write_json(args["out"], record)
    return 0


def check(name: str) -> dict[str, float]:
    """Return the differences over a short rollout; exit if the transitions differ."""
    scenario = get_scenario(name)
    smax = smax_reference.reference(scenario)

    @jax.jit
    def compare(key: Key) -> smax_reference.Differences:
        return smax_reference.compare(scenario, smax, key, batch=8, length=60)

    differences = compare(jax.random.key(0))._asdict()
    values = {field: float(value) for field, value in differences.items()}
    unequal = values["available"] + values["alive"] + values["ended"]
    largest = max(values[field] for field in COMPARED)
    require(
        unequal == 0 and largest <= TOLERANCE,
        f"name={name}: transitions differ from JaxMARL's: {values}",
    )
    return values


def measure(batch: int, args: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for resets in the step, and one for a pool of resets."""
    name, length = args["name"], args["length"]
    theirs = jaxmarl_rollout(name, batch, length)
    rows = []
    for side, pool in (("exact", 0), ("pool", args["pool"])):
        ours = jmarl_rollout(make(name, reset_pool=pool), batch, length)
        rows.append(_row(side, batch, args["repeats"], theirs, ours))
    return rows


def jaxmarl_rollout(name: str, batch: int, length: int) -> Side:
    """Compile the same with JaxMARL's ``step``, which resets by itself, under ``vmap``."""
    env = smax_reference.reference(get_scenario(name))
    draw = _random_by_availability(name, batch)

    def step(carry: tuple, key: Key) -> tuple[tuple, None]:
        action_key, step_key = jax.random.split(key)
        state, _, steps = carry
        by_agent = jax.vmap(env.get_avail_actions)(state)
        available = jnp.stack([by_agent[agent] for agent in env.agents], axis=1)
        action = draw(action_key, available)
        state, results = smax_reference.step(env, step_key, state, action)
        return (state, results, steps + batch), None

    def rollout(carry: tuple, key: Key) -> tuple:
        return lax.scan(step, carry, jax.random.split(key, length))[0]

    reset = jax.jit(partial(smax_reference.reset, env, batch=batch))
    return compile_side(rollout, (*reset(jax.random.key(1)), jnp.int32(0)))


def _random_by_availability(
    name: str, batch: int
) -> Callable[[Key, jax.Array], jax.Array]:
    """Return ``random_action`` as a function of availability, so both sides draw alike."""
    env = make(name)
    _, timestep = jax.eval_shape(lambda key: env.reset(key, batch), jax.random.key(0))

    def draw(key: Key, available: jax.Array) -> jax.Array:
        obs = timestep.obs.replace(avail=available.astype(bool))
        return random_action(key, timestep.replace(obs=obs), env.spec)

    return draw


def _row(
    name: str, batch: int, repeats: int, theirs: Side, ours: Side
) -> dict[str, Any]:
    timing = time_pair(theirs.call, ours.call, repeats)
    ours_us = timing.candidate.best * 1e6 / ours.steps()
    theirs_us = timing.baseline.best * 1e6 / theirs.steps()
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
    sys.exit(exit_code(main))
