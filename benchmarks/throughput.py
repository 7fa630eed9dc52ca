"""Training throughput: jmarl's systems against JaxMARL's own scripts, at the same sizes, side by side.

    python -m benchmarks.throughput peer=<checkout of JaxMARL> [systems=mappo,pqn_vdn,qmix] [units=10] [repeats=4]
                                    [peer_updates=2] [envs=128] [steps=128] [out=results]

``benchmarks/peers.py`` has the sizes, and says what is not equal and what the scripts need. Parameters may differ by
5 %, or 10 % in Q-learning: what the networks read differs in width, and the widths are printed. A figure counts only
after both have been seen to learn: every parameter changed here; there, every gradient step taken and losses that
move. Without ``peer`` only the last table is made; ``envs=0`` and ``steps=0``, the defaults, are the script's own
numbers. An environment step is one on which the action counted: jmarl's rows between episodes, which show the last
observation, take time and count for nothing. JaxMARL's script is timed as the difference between a run of ``1 +
peer_updates`` updates and one of a single update, so that its set-up cancels; jmarl on ``peer_updates`` calls of the
chunk that its command line runs, over the devices that its command line uses. The A/A noise is that of the runs, and
a difference of two has more. ``units`` names the scenarios ``smax_<n>v<n>`` and the peer's ``smacv2_<n>_units``.
Steps a second are of wall time, because how well the cores are used is half of the matter; the ratio by CPU time
stands beside it. (The peer's scripts run on one device; that XLA's CPU backend has several cost MAPPO's nothing that
could be measured.) The last table splits jmarl's time into environment, policy and update.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.support.common import (
    PairTiming,
    Timing,
    arguments,
    count,
    markdown_table,
    moved,
    require,
    timed,
    timed_pair,
    write_json,
)
from benchmarks.support.peers import MATCHES, STORED, Match, Peer, load_script
from jmarl.cli.process import exit_code, use_cores
from jmarl.config import check
from jmarl.config.compose import load_config
from jmarl.envs.conformance import random_action
from jmarl.runs.compilation import compile_run
from jmarl.training.anakin import Runner, device_mesh, rollout
from jmarl.training.build import build_run
from jmarl.training.programs import seed_keys, stage_programs, state_shapes


DEFAULTS: dict[str, Any] = {
    "peer": "",
    "systems": ("mappo",),
    "units": 10,
    "repeats": 4,
    "peer_updates": 2,
    "envs": 0,
    "steps": 0,
    "out": "",
}
CLOCKS = {
    "wall_min": ("seconds an update", "environment steps a second"),
    "cpu_min": ("CPU seconds an update", "environment steps a CPU second"),
}


def require_moved(
    name: str, update: Callable[[], Any], params: Callable[[], Any]
) -> None:
    """Run one update; end the program unless it changed every parameter, for its time would mean nothing."""
    before = jax.tree.map(jnp.copy, params())
    update()
    require(
        moved(before, params()),
        f"no gradient step was seen in {name}: the figures would mean nothing",
    )


def require_equal_size(jmarl: int, jaxmarl: int, within: float) -> float:
    """How far apart the two learners are in parameters; ends the program unless nearly equal."""
    apart = abs(1 - jmarl / jaxmarl)
    line = f"{jmarl} parameters against {jaxmarl} differ by {apart:.1%}, more than {within:.0%}"
    require(apart <= within, f"{line}: the figures would compare different networks")
    return apart


def first_width(params: Any, layer: str) -> int:
    """Inputs of a network: rows of the kernel of its first layer, ``layer`` in its path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in leaves
    }
    return next(
        shape[-2] for name, shape in named.items() if name.endswith(f"{layer}/kernel")
    )


class Ours:
    """A system of jmarl, compiled as the command line compiles it; each call trains one chunk of one update."""

    def __init__(self, name: str, match: Match, units: int) -> None:
        stored = STORED * match.envs * match.steps
        sizes = [
            f"env=smax_{units}v{units}",
            f"num_envs={match.envs}",
            f"rollout_length={match.steps}",
        ]
        overrides = [text.format(stored=stored) for text in match.overrides]
        self.config = load_config(
            name, [*sizes, *overrides, "arch.updates_per_chunk=1"]
        )
        built = build_run(self.config)
        self.env, self.system = built.env, built.system
        programs = stage_programs(built)
        shapes = state_shapes(self.config, programs)
        compiled = compile_run(self.config, [programs], [shapes], fresh=True)
        self.runner = compiled.init(seed_keys(self.config).init).runner
        self.chunk = compiled.stage(0).chunk
        self.calls = 0

    def __call__(self) -> Any:
        """Train one update; returns what it reports."""
        self.runner, report = self.chunk(self.runner)
        self.calls += 1
        return report

    @property
    def params(self) -> Any:
        """What it has learnt."""
        return self.runner.learner.params

    def steps(self) -> float:
        """Environment steps of one update, the mean of all so far."""
        return int(self.runner.env_steps[0]) / self.calls

    def check(self) -> None:
        """Raise unless an update changes every parameter."""
        require_moved("jmarl's update", self, lambda: self.params)

    def split(self, repeats: int) -> dict[str, float]:
        """Wall seconds of one update spent in the environment, in the policy and in learning."""
        steps, keys = self.config.rollout_length, jax.random.split(jax.random.key(1), 1)
        alone = jax.jit(jax.vmap(functools.partial(self._environment, steps=steps)))
        acting = jax.jit(
            jax.vmap(lambda r, k: rollout(self.env, self.system, r, steps, k)[1:])
        )
        with jax.set_mesh(device_mesh()):
            env_s = timed(lambda: alone(self.runner, keys), repeats, wall=True).best
            act_s = timed(lambda: acting(self.runner, keys), repeats, wall=True).best
        return {
            "environment": env_s,
            "policy": act_s - env_s,
            "all": timed(self, repeats, wall=True).best,
        }

    def _environment(self, runner: Runner, key: jax.Array, *, steps: int) -> Any:
        """The same number of steps with random available actions and no network; every output is kept."""

        def step(loop: Any, keys: jax.Array) -> Any:
            state, timestep = loop
            state, timestep = self.env.step(
                keys[1], state, random_action(keys[0], timestep, self.env.spec)
            )
            return (state, timestep), timestep

        state = self.env.refresh(key, runner.env_state)
        return jax.lax.scan(
            step, (state, runner.timestep), jax.random.split(key, (steps, 2))
        )


def run(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Measure one system, and print its tables."""
    match = MATCHES[name]
    match = match._replace(
        envs=args["envs"] or match.envs, steps=args["steps"] or match.steps
    )
    ours = Ours(name, match, args["units"])
    ours.check()
    sizes = {
        "envs": match.envs,
        "steps": match.steps,
        "gradient_steps": match.gradient_steps,
    }
    record: dict[str, Any] = {"system": name, "units": args["units"], **sizes}
    record["parameters"] = {"jmarl": count(ours.params)}
    print(f"\n{name} at smax_{args['units']}v{args['units']}: {sizes}")
    if args["peer"]:
        peer = Peer(load_script(args["peer"], match.script), match, args["units"])
        record |= compare(ours, peer, args)
    parts = ours.split(args["repeats"])
    parts["update"] = parts["all"] - parts["environment"] - parts["policy"]
    shares = {
        part: parts[part] / parts["all"] for part in ("environment", "policy", "update")
    }
    table = [[part, parts[part] / ours.steps() * 1e6, shares[part]] for part in shares]
    print(
        markdown_table(
            ["part of jmarl's time", "us an environment step", "share"], table
        )
    )
    return record | {"split_seconds": parts, "shares": shares}


def compare(ours: Ours, peer: Peer, args: dict[str, Any]) -> dict[str, Any]:
    """Sizes of both, steps a second of both, and their ratio."""
    updates = args["peer_updates"]
    result = peer.program(1 + updates, logging=True)()
    peer.check(result, 1 + updates)
    one, more = (peer.program(n, logging=False) for n in (1, 1 + updates))
    params = {"jmarl": ours.params, "jaxmarl": peer.match.params(result)}
    sizes = {
        "parameters": {side: count(x) for side, x in params.items()},
        "inputs": inputs(params, peer.match),
    }
    print(f"inputs: {sizes['inputs']}; parameters: {sizes['parameters']}", flush=True)
    apart = require_equal_size(**sizes["parameters"], within=peer.match.within)
    pair = timed_pair(
        more, lambda: [ours() for _ in range(updates)], args["repeats"], wall=True
    )
    setup = timed(one, args["repeats"], wall=True)
    steps = {
        "jmarl": ours.steps(),
        "jaxmarl": float(peer.match.envs * peer.match.steps),
    }
    speeds = rates(pair, setup, updates, steps)
    lines = sizes | {"environment steps an update": steps} | speeds
    print(
        markdown_table(
            ["", "jmarl", "JaxMARL"],
            [[name, x["jmarl"], x["jaxmarl"]] for name, x in lines.items()],
        )
    )
    ratio, by_cpu = (
        speeds[name]["jmarl"] / speeds[name]["jaxmarl"] for _, name in CLOCKS.values()
    )
    print(
        f"ratio {ratio:.2f}, by CPU time {by_cpu:.2f}; parameters differ by {apart:.1%}; A/A noise {pair.noise:.1%}"
    )
    return lines | {"ratio": ratio, "ratio_by_cpu_time": by_cpu, "noise": pair.noise}


def inputs(params: dict[str, Any], match: Match) -> dict[str, dict[str, int]]:
    """Side -> network -> width of what it reads."""
    return {
        side: {
            net: first_width(params[side][net], layers[i])
            for net, layers in match.inputs.items()
        }
        for i, side in enumerate(params)
    }


def rates(
    pair: PairTiming, setup: Timing, updates: int, steps: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Seconds and steps a second of both sides, of ``updates``; the peer's are what they added to its ``setup``."""
    lines = {}
    for clock, (cost, rate) in CLOCKS.items():
        theirs = (getattr(pair.baseline, clock) - getattr(setup, clock)) / updates
        seconds = {"jmarl": getattr(pair.candidate, clock) / updates, "jaxmarl": theirs}
        lines |= {
            cost: seconds,
            rate: {side: steps[side] / seconds[side] for side in steps},
        }
    return lines


def main() -> int:
    """Run the comparisons, print the tables, write a file for each system into ``out``."""
    args = arguments(DEFAULTS)
    for name in args["systems"]:
        check(name in MATCHES, "systems", name, f"must be one of {', '.join(MATCHES)}")
    use_cores()
    for name in args["systems"]:
        record = run(name, args)
        if args["out"]:
            write_json(Path(args["out"]) / f"throughput_{name}.json", record, wall=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
