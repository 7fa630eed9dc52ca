"""CPU time of a step of the warehouse and of foraging, beside Jumanji's forms.

    python -m benchmarks.grid_worlds [names=rware_tiny-4ag,lbf_8x8-2p-2f-coop,lbf_15x15-4p-5f]
        [envs=64,512] [length=50] [repeats=6] [out=results/grid_worlds.json]

Options:

* ``names``: environments; Jumanji's form of each has the same name after ``jumanji_``.
* ``envs``: numbers of parallel environments.
* ``length``: steps per compiled call.
* ``repeats``: samples per time.
* ``out``: JSON file of the record; none by default.

Method: CPU time of one process on one core, samples of both sides interleaved. Both sides run under
jmarl's interface, take the same uniform random actions, drawn before the measurement, return
observations, rewards and flags, and reset ended episodes. Only steps with an effect of the action
count. Both have the same episode limits. The tasks are not equal: random robots collide, which ends
an episode of Jumanji's warehouse, so Jumanji resets more often.

Output: a table with microseconds per environment step and the speed-up.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.support.common import (
    Row,
    parse_arguments,
    show,
    time_pair,
    write_json,
)
from benchmarks.support.costs import at_least, prepare
from benchmarks.support.rollouts import Side, compile_side
from jmarl.cli.process import exit_code
from jmarl.envs import make
from jmarl.types import Env, Key


DEFAULTS: dict[str, Any] = {
    "names": ("rware_tiny-4ag", "lbf_8x8-2p-2f-coop", "lbf_15x15-4p-5f"),
    "envs": (64, 512),
    "length": 50,
    "repeats": 6,
    "out": "",
}
LEAST_SPEEDUP = 5.0


def main() -> int:
    """Measure, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    prepare()
    rows = show(measure(args))
    bounds = show(
        at_least(f"{row['name']}, {row['envs']}", row["speedup"], LEAST_SPEEDUP)
        for row in rows
    )
    if args["out"]:
        record = {
            "arguments": args,
            "rows": rows,
            "bounds": bounds,
        }
        write_json(args["out"], record)
    return 0


def measure(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the times of each environment beside Jumanji's."""
    for name in args["names"]:
        ours = make(name)
        limit = ours.spec.episode_limit
        theirs = make(f"jumanji_{name}", episode_limit=limit)
        for batch in args["envs"]:
            baseline = rollout(theirs, batch, args["length"])
            candidate = rollout(ours, batch, args["length"])
            times = _compare(baseline, candidate, args["repeats"])
            yield {"name": name, "envs": batch, **times}


def _compare(
    theirs: Side,
    ours: Side,
    repeats: int,
) -> Row:
    timing = time_pair(theirs.call, ours.call, repeats)
    us = 1e6 * timing.candidate.best / ours.steps()
    jumanji_us = 1e6 * timing.baseline.best / theirs.steps()
    return {
        "us": us,
        "jumanji_us": jumanji_us,
        "speedup": jumanji_us / us,
        "noise": timing.noise,
        "compile_s": ours.compile_seconds,
        "jumanji_compile_s": theirs.compile_seconds,
    }


def rollout(
    env: Env,
    batch: int,
    length: int,
) -> Side:
    """Compile ``length`` steps with uniform actions."""
    spec = env.spec
    shape = length, batch, spec.n_agents

    def step(
        carry: tuple,
        x: tuple[Key, jax.Array],
    ) -> tuple[tuple, None]:
        state, timestep, steps = carry
        steps = steps + timestep.valid.sum(dtype=jnp.int32)
        return (*env.step(x[0], state, x[1]), steps), None

    def play(
        carry: tuple,
        key: Key,
    ) -> tuple:
        keys = jax.random.split(key, length)
        actions, *start = carry
        return actions, *lax.scan(step, tuple(start), (keys, actions))[0]

    action_key, reset_key = jax.random.split(jax.random.key(1))
    actions = jax.random.randint(action_key, shape, 0, spec.n_actions)
    state, timestep = jax.jit(env.reset, static_argnums=1)(reset_key, batch)
    return compile_side(play, (actions, state, timestep, jnp.int32(0)))


if __name__ == "__main__":
    sys.exit(exit_code(main))
