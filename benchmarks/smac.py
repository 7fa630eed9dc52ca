"""CPU time, memory and a profile of battles under the rules of SMAC, beside SMAX and SMAClite.

    python -m benchmarks.smac [maps=smac_3m,smac_MMM2,...] [twins=10m_vs_11m] [envs=64,256]
        [length=50] [repeats=6] [pool=0] [profile=64] [peer=<checkout of SMAClite>]
        [peer_python=<its Python>] [peer_maps=all] [peer_seconds=4] [out=results/smac.json]

Options:

* ``maps``: environments to measure.
* ``twins``: maps that are measured under the rules of SMAC and of SMAX, interleaved.
* ``envs``: numbers of parallel environments.
* ``length``: steps per compiled call.
* ``repeats``: samples per time.
* ``pool``: ``reset_pool`` of all environments.
* ``profile``: environments of the profile; 0 leaves it out.
* ``peer``: checkout of SMAClite, to be compared on the maps of both.
* ``peer_python``: Python that has SMAClite's modules; this one by default.
* ``peer_maps``: maps of the comparison, without a prefix.
* ``peer_seconds``: CPU seconds of a sample of SMAClite, rounded up to whole episodes.
* ``out``: JSON file of the record; none by default.

Method: process CPU time of one process on one core, because other processes make wall time noisy.
All sides take random available actions, return observations, rewards and flags, and reset ended
episodes. Only steps with an effect of the action count; jmarl's row between two episodes is shared
among them. jmarl's time includes drawing the actions. Compile times are CPU seconds of tracing,
lowering and compiling a rollout, without a cache. Another program is compiled before.

SMAClite plays one battle at a time in a process of its own, before and after jmarl's samples on the
same core. The second run repeats the episodes of the first, and the shorter time counts.
``benchmarks/support/smaclite_peer.py`` has the remaining differences.

A replay step is what a replay buffer stores of a step: the encoded observation, actions, reward and
flags. The memory of agents, stored once in a rollout, is not part of it.

The profile gives shares of a step: physics (``ticks``), opponents, observation, starts of episodes,
the drawing of actions, and the rest. A share is the time that a step without this part saves; see
``benchmarks/support/step_profile.py``.

Output: tables of costs, twins, replay steps, parts of a step, and of the figures with a bound.

Exit codes: 0 at the end, 1 if SMAClite cannot be run, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.support.common import (
    Row,
    parse_arguments,
    require,
    show,
    time_call,
    time_pair,
    write_json,
)
from benchmarks.support.costs import (
    at_least,
    at_most,
    cost,
    prepare,
    replay_bytes,
)
from benchmarks.support.rollouts import Side, jmarl_rollout
from benchmarks.support.smaclite_peer import Episodes, SMAClite
from benchmarks.support.step_profile import measure_parts
from jmarl.cli.process import exit_code
from jmarl.envs import make


DEFAULTS: dict[str, Any] = {
    "maps": (
        "smac_3m",
        "smac_MMM2",
        "smac_27m_vs_30m",
        "smac_corridor",
        "smac_2c_vs_64zg",
        "smac_so_many_baneling",
    ),
    "twins": ("10m_vs_11m",),
    "envs": (64, 256),
    "length": 50,
    "repeats": 6,
    "pool": 0,
    "profile": 64,
    "peer": "",
    "peer_python": "",
    "peer_maps": ("all",),
    "peer_seconds": 4.0,
    "out": "",
}
MOST_TWIN_RATIO = 1.5
LEAST_PEER_RATIO = 200.0
MOST_COMPILE_S = {"smac_MMM2": 15.0}
"""Bounds on the CPU seconds of compilation."""
MOST_BYTES = {"smac_MMM2": 1500, "smac_2c_vs_64zg": 5000}
"""Bounds on the bytes of a replay step."""

Tables = dict[str, list[Row]]


def main() -> int:
    """Measure, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    prepare()
    python = args["peer_python"] or sys.executable
    peer = SMAClite(args["peer"], python) if args["peer"] else None
    shared = shared_maps(peer, args["peer_maps"]) if peer else ()
    tables: Tables = {
        "costs": show(costs(args)),
        "twins": show(twins(args)),
        "replay": show({"map": m} | replay_bytes(make(m)) for m in args["maps"]),
        "parts": show(profile(args)),
        "peer": show(peer_rows(peer, shared, args)) if peer else [],
    }
    tables["bounds"] = show(bounds(tables))
    if args["out"]:
        write_json(args["out"], {"arguments": args, **tables})
    return 0


def build(name: str, envs: int, args: dict[str, Any]) -> Side:
    """Compile a rollout of an environment."""
    env = make(name, reset_pool=args["pool"])
    return jmarl_rollout(env, envs, args["length"])


def costs(args: dict[str, Any]) -> Iterator[Row]:
    """Yield time and compile time for each map and number of environments."""
    for name in args["maps"]:
        for envs in args["envs"]:
            side = build(name, envs, args)
            yield {"map": name, "envs": envs, **cost(side, args["repeats"])}


def twins(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the times of a map under the rules of SMAC and of SMAX."""
    for name in args["twins"]:
        for envs in args["envs"]:
            smax, smac = (
                build(rules + name, envs, args) for rules in ("smax_", "smac_")
            )
            pair = time_pair(smax.call, smac.call, args["repeats"])
            smac_us = 1e6 * pair.candidate.best / smac.steps()
            smax_us = 1e6 * pair.baseline.best / smax.steps()
            yield {
                "map": name,
                "envs": envs,
                "smac_us": smac_us,
                "smax_us": smax_us,
                "ratio": smac_us / smax_us,
                "noise": pair.noise,
            }


def profile(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the share of each part in the time of a step, for each map."""
    if not args["profile"]:
        return
    sizes = {name: args[name] for name in ("length", "repeats")}
    for name in args["maps"]:
        parts = measure_parts(
            name, batch=args["profile"], reset_pool=args["pool"], **sizes
        )
        yield {"map": name, "envs": args["profile"], **parts}


def shared_maps(peer: SMAClite, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the maps of the comparison."""
    names = peer.names()
    unknown = set(chosen) - {*names, "all"}
    require(
        not unknown, f"peer_maps={','.join(unknown)}: not a map of {', '.join(names)}"
    )
    return names if chosen == ("all",) else chosen


def peer_rows(
    peer: SMAClite, names: tuple[str, ...], args: dict[str, Any]
) -> Iterator[Row]:
    """Yield steps per CPU second of jmarl and SMAClite, for each map and batch."""
    for name in names:
        limit = make(f"smac_{name}").spec.episode_limit
        for envs in args["envs"]:
            side = build(f"smac_{name}", envs, args)
            before = peer.play(name, limit, args["peer_seconds"])
            timing = time_call(side.call, args["repeats"])
            after = peer.play(name, limit, 0.0, before.episodes)
            ours = side.steps() / timing.best
            yield {"map": name, "envs": envs, **peer_cells(ours, before, after)}


def peer_cells(ours: float, before: Episodes, after: Episodes) -> Row:
    """Return rates, their ratio and the noise of SMAClite's time."""
    require(
        after.steps == before.steps,
        f"SMAClite took {before.steps} steps, and then {after.steps} with the same "
        "seeds; its times cannot be compared",
    )
    seconds = before.cpu_s, after.cpu_s
    theirs = before.steps / min(seconds)
    return {
        "steps_per_cpu_s": ours,
        "smaclite_steps_per_cpu_s": theirs,
        "ratio": ours / theirs,
        "smaclite_noise": max(seconds) / min(seconds) - 1,
        "smaclite_steps": before.steps,
    }


def bounds(tables: Tables) -> Iterator[Row]:
    """Yield the figures that have a bound, and whether they are within it."""
    for row in tables["twins"]:
        figure = f"smac_{row['map']} over smax_{row['map']}, {row['envs']} envs"
        yield at_most(figure, row["ratio"], MOST_TWIN_RATIO)
    for row in tables["costs"]:
        if row["map"] in MOST_COMPILE_S:
            figure = f"compile CPU s of {row['map']}, {row['envs']} envs"
            yield at_most(figure, row["compile_s"], MOST_COMPILE_S[row["map"]])
    for row in tables["replay"]:
        if row["map"] in MOST_BYTES:
            figure = f"bytes of a replay step of {row['map']}"
            yield at_most(figure, row["bytes"], MOST_BYTES[row["map"]])
    for row in tables["peer"]:
        figure = f"{row['map']} over SMAClite, {row['envs']} envs"
        yield at_least(figure, row["ratio"], LEAST_PEER_RATIO)


if __name__ == "__main__":
    sys.exit(exit_code(main))
