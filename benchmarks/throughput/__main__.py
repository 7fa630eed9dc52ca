"""Training throughput of jmarl's systems against JaxMARL's scripts, at the same sizes.

    python -m benchmarks.throughput [peer=<checkout of JaxMARL>] [systems=mappo,pqn_vdn,qmix]
        [units=10] [repeats=4] [peer_updates=2] [envs=128] [steps=128] [out=results]

Options:

* ``peer``: checkout of JaxMARL. Without it only the parts of jmarl's time are measured.
* ``systems``: systems of jmarl; ``mappo`` by default.
* ``units``: units per team, in jmarl's ``smax_<n>v<n>`` and JaxMARL's ``smacv2_<n>_units``.
* ``repeats``: samples per time.
* ``peer_updates``: updates per measurement.
* ``envs``, ``steps``: environments, and steps per rollout. 0, the default, is the number of the
  script.
* ``out``: folder of the records; none by default.

Method: ``benchmarks/support/peers.py`` has the sizes, the remaining differences, and the modules
that the scripts need. Numbers of parameters may differ by 5 %, or by 10 % in Q-learning, because
the inputs of the networks have different widths; both are printed. Both sides must learn before
they are timed. In jmarl every parameter must change. In JaxMARL every gradient step must be taken,
and the losses must change.

A step counts if its action had an effect. jmarl's rows between episodes, which show the last
observation, take time and do not count. JaxMARL's time is the difference between a run of
``1 + peer_updates`` updates and a run of one update, which cancels the setup. jmarl's time is
that of ``peer_updates`` calls of the chunk of its command line, on the same devices as there. The
A/A noise is that of the runs; a difference of two runs has more.

Rates are of wall time, because the use of the cores is half of the result. The ratio by CPU time
is printed as well. The scripts run on one device. XLA's CPU backend has several, which made no
measurable difference to JaxMARL's MAPPO.

The matrix products of an update are also measured by themselves, in the same process and at the
same shapes (``machine_rate.py``). Their time is the least that an update could take, and its share
of jmarl's time is printed.

Output: parameters, rates and their ratio, the shares of environment, policy and update in
jmarl's time, and the rates of matrix products. A record is ``<out>/throughput_<system>.json``.

Exit codes: 0 at the end, 1 if a side did not learn, if parameters differ by too much or if a script
cannot be loaded, 2 if an argument is unknown or invalid.
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
    all_changed,
    count_parameters,
    markdown_table,
    parse_arguments,
    require,
    time_call,
    time_pair,
    write_json,
)
from benchmarks.support.peers import MATCHES, STORED, Match, Peer, load_script
from benchmarks.throughput.machine_rate import machine_rate
from jmarl import load_config
from jmarl.cli.process import exit_code, use_cores
from jmarl.config import check
from jmarl.envs.conformance import random_action
from jmarl.forecast.flops import products
from jmarl.runs.compilation import compile_run
from jmarl.training.anakin import Runner, device_mesh, rollout
from jmarl.training.build import build_run
from jmarl.training.programs import (
    ChunkReport,
    seed_keys,
    stage_programs,
    state_shapes,
    trace_chunk,
)
from jmarl.types import Key, Params


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
"""Field of ``Timing`` -> names of its time and of its rate in the record."""
PARTS = ("environment", "policy", "update")


def require_change(
    name: str, update: Callable[[], Any], params: Callable[[], Params]
) -> None:
    """Run one update; exit unless it changes every parameter."""
    before = jax.tree.map(jnp.copy, params())
    update()
    require(
        all_changed(before, params()),
        f"{name} took no gradient step, so its time would mean nothing: "
        "every parameter must change",
    )


def require_equal_size(jmarl: int, jaxmarl: int, within: float) -> float:
    """Return the relative difference of the numbers of parameters; exit if it is too large."""
    difference = abs(1 - jmarl / jaxmarl)
    require(
        difference <= within,
        f"{jmarl} parameters against {jaxmarl} differ by {difference:.1%}; must be at "
        f"most {within:.0%}, so that networks are comparable",
    )
    return difference


def first_width(params: Params, layer: str) -> int:
    """Return the number of inputs of the layer with this path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(f"{layer}/kernel"):
            return leaf.shape[-2]
    raise KeyError(f"{layer}/kernel")


class CompiledSystem:
    """A system of jmarl, compiled as by the command line. A call trains for one update."""

    def __init__(self, name: str, match: Match, units: int) -> None:
        stored = STORED * match.envs * match.steps
        overrides = [
            f"env=smax_{units}v{units}",
            f"num_envs={match.envs}",
            f"rollout_length={match.steps}",
            *(text.format(stored=stored) for text in match.overrides),
            "arch.updates_per_chunk=1",
        ]
        built = build_run(load_config(name, overrides))
        self.config = built.config
        self.env = built.env
        self.system = built.system
        programs = stage_programs(built)
        shapes = state_shapes(built.config, programs)
        with jax.set_mesh(device_mesh()):
            self.products = products(trace_chunk(programs, shapes).jaxpr)
        compiled = compile_run(built.config, [programs], [shapes], fresh=True)
        self.runner = compiled.init(seed_keys(built.config).init).runner
        self.chunk = compiled.stage(0).chunk
        self.calls = 0

    def __call__(self) -> ChunkReport:
        """Train for one update."""
        self.runner, report = self.chunk(self.runner, 1)
        self.calls += 1
        return report

    @property
    def params(self) -> Params:
        """Parameters after the last update."""
        return self.runner.learner.params

    def steps(self) -> float:
        """Return the environment steps per update, the mean of all updates so far."""
        return int(self.runner.env_steps[0]) / self.calls

    def check(self) -> None:
        """Exit unless an update changes every parameter."""
        require_change("jmarl's update", self, lambda: self.params)

    def split(self, repeats: int) -> dict[str, float]:
        """Return the wall seconds of one update: environment, policy and all."""
        steps = self.config.rollout_length
        keys = jax.random.split(jax.random.key(1), 1)

        def play(runner: Runner, key: Key) -> Any:
            return rollout(self.env, self.system, runner, steps, key)[1:]

        step_only = functools.partial(self._step_env, steps=steps)
        step_env = functools.partial(jax.jit(jax.vmap(step_only)), self.runner, keys)
        act = functools.partial(jax.jit(jax.vmap(play)), self.runner, keys)
        with jax.set_mesh(device_mesh()):
            env_seconds = time_call(step_env, repeats, wall=True).best
            act_seconds = time_call(act, repeats, wall=True).best
        return {
            "environment": env_seconds,
            "policy": act_seconds - env_seconds,
            "all": time_call(self, repeats, wall=True).best,
        }

    def _step_env(self, runner: Runner, key: Key, *, steps: int) -> Any:
        """Take random available actions, without a network; return every output."""

        def step(carry: Any, keys: Key) -> Any:
            state, timestep = carry
            action = random_action(keys[0], timestep, self.env.spec)
            state, timestep = self.env.step(keys[1], state, action)
            return (state, timestep), timestep

        state = self.env.refresh(key, runner.env_state)
        keys = jax.random.split(key, (steps, 2))
        return jax.lax.scan(step, (state, runner.timestep), keys)


def run(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Measure one system, print its tables, and return its record."""
    match = MATCHES[name]
    match = match._replace(
        envs=args["envs"] or match.envs, steps=args["steps"] or match.steps
    )
    system = CompiledSystem(name, match, args["units"])
    system.check()
    sizes = {
        "envs": match.envs,
        "steps": match.steps,
        "gradient_steps": match.gradient_steps,
    }
    print(f"\n{name} at smax_{args['units']}v{args['units']}: {sizes}")
    record: dict[str, Any] = {"system": name, "units": args["units"], **sizes}
    record["parameters"] = {"jmarl": count_parameters(system.params)}
    if args["peer"]:
        script = load_script(args["peer"], match.script)
        peer = Peer(script, match, args["units"])
        record |= compare(system, peer, args)
    record |= time_shares(system, args["repeats"])
    return record | product_shares(system, args["repeats"])


def time_shares(system: CompiledSystem, repeats: int) -> dict[str, Any]:
    """Split jmarl's time into its parts, print them, and return their record."""
    seconds = system.split(repeats)
    seconds["update"] = seconds["all"] - seconds["environment"] - seconds["policy"]
    shares = {part: seconds[part] / seconds["all"] for part in PARTS}
    steps = system.steps()
    rows = [[part, seconds[part] / steps * 1e6, shares[part]] for part in PARTS]
    header = ["part of jmarl's time", "us an environment step", "share"]
    print(markdown_table(header, rows))
    return {"split_seconds": seconds, "shares": shares}


def product_shares(system: CompiledSystem, repeats: int) -> dict[str, Any]:
    """Measure the products of an update by themselves, print their rates, and return the record."""
    rate = machine_rate(system.products, system, repeats)
    gflop, share = rate.flops / 1e9, rate.seconds / rate.program_seconds
    speeds = {
        "update": gflop / rate.program_seconds,
        "products alone": gflop / rate.seconds,
    }
    print(
        f"{gflop:.0f} GFLOP an update at {speeds['update']:.0f} GFLOP/s, {share:.0%} of the "
        f"{speeds['products alone']:.0f} GFLOP/s of the products alone"
    )
    record = {
        "gflop an update": gflop,
        "gflop_per_second": speeds,
        "share of the products' own rate": share,
    }
    return {"products": record}


def compare(system: CompiledSystem, peer: Peer, args: dict[str, Any]) -> dict[str, Any]:
    """Check and time both sides, print sizes and rates, and return their record."""
    updates, repeats = args["peer_updates"], args["repeats"]
    result = peer.program(1 + updates, logging=True)()
    peer.check(result, 1 + updates)
    setup = peer.program(1, logging=False)
    run_peer = peer.program(1 + updates, logging=False)
    params = {"jmarl": system.params, "jaxmarl": peer.match.params(result)}
    counts = {side: count_parameters(tree) for side, tree in params.items()}
    widths = input_widths(params, peer.match)
    print(f"inputs: {widths}; parameters: {counts}", flush=True)
    difference = require_equal_size(**counts, within=peer.match.within)
    pair = time_pair(
        run_peer, lambda: [system() for _ in range(updates)], repeats, wall=True
    )
    setup_timing = time_call(setup, repeats, wall=True)
    peer_steps = float(peer.match.envs * peer.match.steps)
    steps = {"jmarl": system.steps(), "jaxmarl": peer_steps}
    speeds = rates(pair, setup_timing, updates, steps)
    record: dict[str, Any] = {
        "parameters": counts,
        "inputs": widths,
        "environment steps an update": steps,
        **speeds,
    }
    rows = [[name, x["jmarl"], x["jaxmarl"]] for name, x in record.items()]
    print(markdown_table(["", "jmarl", "JaxMARL"], rows))
    ratio, by_cpu = (
        speeds[rate]["jmarl"] / speeds[rate]["jaxmarl"] for _, rate in CLOCKS.values()
    )
    print(
        f"ratio {ratio:.2f}, by CPU time {by_cpu:.2f}; "
        f"parameters differ by {difference:.1%}; A/A noise {pair.noise:.1%}"
    )
    return record | {"ratio": ratio, "ratio_by_cpu_time": by_cpu, "noise": pair.noise}


def input_widths(params: dict[str, Any], match: Match) -> dict[str, dict[str, int]]:
    """Return ``{side: {network: width of its input}}``."""
    widths: dict[str, dict[str, int]] = {side: {} for side in params}
    for network, layers in match.inputs.items():
        for side, layer in zip(params, layers, strict=True):
            widths[side][network] = first_width(params[side][network], layer)
    return widths


def rates(
    pair: PairTiming, setup: Timing, updates: int, steps: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Return seconds per update and steps per second of both sides, on both clocks.

    Args:
        pair: The script as baseline, jmarl as candidate.
        setup: Time of the script with one update, which is subtracted.
        updates: Updates of jmarl; the script has one more.
        steps: Environment steps per update of each side.
    """
    rows = {}
    for clock, (time_name, rate_name) in CLOCKS.items():
        added = getattr(pair.baseline, clock) - getattr(setup, clock)
        ours = getattr(pair.candidate, clock)
        seconds = {"jmarl": ours / updates, "jaxmarl": added / updates}
        rows[time_name] = seconds
        rows[rate_name] = {side: steps[side] / seconds[side] for side in steps}
    return rows


def main() -> int:
    """Measure all systems, and write a record for each into ``out``."""
    args = parse_arguments(DEFAULTS)
    for name in args["systems"]:
        check(name in MATCHES, "systems", name, f"must be one of {', '.join(MATCHES)}")
    use_cores()
    for name in args["systems"]:
        record = run(name, args)
        if args["out"]:
            file = Path(args["out"]) / f"throughput_{name}.json"
            write_json(file, record, wall=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
