"""CPU time, compilation, memory and a profile of football, beside Google Research Football.

    python -m benchmarks.football [scenarios=3_vs_1_with_keeper,counterattack_hard]
        [envs=64,256,1024] [length=50] [repeats=6] [profile=256] [out=results/football.json]

Options:

* ``scenarios``: scenarios to measure, without ``football_``.
* ``envs``: numbers of parallel environments.
* ``length``: steps per compiled call.
* ``repeats``: samples per time.
* ``profile``: environments of the profile; 0 leaves it out.
* ``out``: JSON file of the record; none by default.

Method: process CPU time of one process on one core. jmarl takes random available actions, returns
observations, rewards and flags, and resets ended episodes. Only steps with an effect of the action
count; the row between two episodes is shared among them. jmarl's time includes drawing the actions.
Compile times are CPU seconds of tracing, lowering and compiling a rollout, without a cache. Another
program is compiled before.

The engine's steps per CPU second were measured on another machine, with gfootball 2.10.2, without a
display and without observations of pixels. So a ratio is a comparison across machines.

``state`` is what an environment keeps between steps. ``replay step`` is what a replay buffer stores
of a step: the encoded observation, actions, reward and flags.

Output: tables of costs, memory, parts of a step, and of the figures with a bound.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks.football.football_profile import measure_parts
from benchmarks.support.common import Row, parse_arguments, show, write_json
from benchmarks.support.costs import (
    at_least,
    at_most,
    cost,
    prepare,
    replay_bytes,
)
from benchmarks.support.rollouts import jmarl_rollout
from jmarl.cli.process import exit_code
from jmarl.envs import make
from jmarl.envs.football import Player, Scenario
from jmarl.envs.football.football_env import build, make_setup
from jmarl.training.programs import number_of_bytes
from jmarl.types import Env


DEFAULTS: dict[str, Any] = {
    "scenarios": ("3_vs_1_with_keeper", "counterattack_hard"),
    "envs": (64, 256, 1024),
    "length": 50,
    "repeats": 6,
    "profile": 256,
    "out": "",
}
ENGINE_STEPS = {"3_vs_1_with_keeper": 320.0, "counterattack_hard": 145.0}
"""Steps per CPU second of the engine."""
LEAST_RATIO = {"3_vs_1_with_keeper": 100.0, "counterattack_hard": 40.0}
MOST_COMPILE_S = 30.0
MOST_STATE_BYTES, MOST_REPLAY_BYTES = 2000, 1500
"""Bounds for eleven players against eleven."""
BATCH = 64
"""Environments whose state is measured."""

Tables = dict[str, list[Row]]


def main() -> int:
    """Measure, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    prepare()
    tables: Tables = {
        "costs": show(costs(args)),
        "memory": show(memory(args["scenarios"])),
        "parts": show(profile(args)),
    }
    tables["bounds"] = show(bounds(tables))
    if args["out"]:
        write_json(args["out"], {"arguments": args, **tables})
    return 0


def costs(args: dict[str, Any]) -> Iterator[Row]:
    """Yield time and compile time for each scenario and number of environments."""
    for name in args["scenarios"]:
        engine = ENGINE_STEPS.get(name)
        for envs in args["envs"]:
            side = jmarl_rollout(make(f"football_{name}"), envs, args["length"])
            row = cost(side, args["repeats"])
            ours = 1e6 / row["us"]
            yield {
                "scenario": name,
                "envs": envs,
                "steps_per_cpu_s": ours,
                "engine_steps_per_cpu_s": engine,
                "ratio": engine and ours / engine,
                "compile_s": row["compile_s"],
                "noise": row["noise"],
            }


def memory(names: tuple[str, ...]) -> Iterator[Row]:
    """Yield bytes of a state and of a replay step, of eleven against eleven at last."""
    envs = {name: make(f"football_{name}") for name in names}
    setup = make_setup(eleven_against_eleven(), {})
    envs[setup.scenario.name] = build(setup, setup.scenario.name)
    for name, env in envs.items():
        yield {"scenario": name, "state_bytes": state_bytes(env), **replay_bytes(env)}


def eleven_against_eleven() -> Scenario:
    """Return a scenario with the largest teams."""
    keeper = Player("GK", -1.0, 0.0)
    team = (keeper, *(Player("CM", -0.05 * i, 0.03 * i) for i in range(1, 11)))
    return Scenario(
        name="eleven_against_eleven",
        description="eleven players against eleven",
        ball=(0.0, 0.0),
        left=team,
        right=team,
    )


def state_bytes(env: Env) -> float:
    """Return the bytes of the state of one environment."""
    state, _ = jax.eval_shape(lambda key: env.reset(key, BATCH), jax.random.key(0))
    return number_of_bytes(state) / BATCH


def profile(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the share of each part in the time of a step, for each scenario."""
    if not args["profile"]:
        return
    sizes = {name: args[name] for name in ("length", "repeats")}
    for name in args["scenarios"]:
        parts = measure_parts(f"football_{name}", batch=args["profile"], **sizes)
        yield {"scenario": name, "envs": args["profile"], **parts}


def bounds(tables: Tables) -> Iterator[Row]:
    """Yield the figures that have a bound, and whether they are within it."""
    for row in tables["costs"]:
        name, where = row["scenario"], f"{row['scenario']}, {row['envs']} envs"
        if name in LEAST_RATIO:
            yield at_least(f"{where} over the engine", row["ratio"], LEAST_RATIO[name])
        yield at_most(f"compile CPU s of {where}", row["compile_s"], MOST_COMPILE_S)
    largest = tables["memory"][-1]
    name = largest["scenario"]
    yield at_most(
        f"bytes of a state of {name}", largest["state_bytes"], MOST_STATE_BYTES
    )
    yield at_most(
        f"bytes of a replay step of {name}", largest["bytes"], MOST_REPLAY_BYTES
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
