"""Training throughput: jmarl's MAPPO against JaxMARL's own script, at the same sizes, side by side.

    python -m benchmarks.throughput peer=<checkout of JaxMARL> [units=10] [repeats=4] [peer_updates=2]
                                    [envs=128] [steps=128] [out=results/throughput.json]

Both train a GRU actor and a GRU critic of 128 with 128 environments x 128 steps, 4 epochs x 4
minibatches, and their parameters may differ by ``PARAMETERS_WITHIN``: what the critics read differs
in width, and both widths are printed. A figure counts only after a gradient step has been seen in
both: parameters changed here, a non-zero loss there. Without ``peer`` only the last table is made.
An environment step is one on which the action counted: jmarl's rows between episodes, which show
the last observation, take time and count for nothing. JaxMARL's script is loaded from its checkout and timed as
the difference between a run of ``1 + peer_updates`` updates and one of a single update, so that
its set-up cancels; jmarl is timed on the chunk that its command line runs, over the devices that its
command line uses. ``units`` names the scenarios ``smax_<n>v<n>`` and the peer's ``smacv2_<n>_units``.
Steps a second are of wall time, because how well the cores are used is half of the matter; the ratio by
CPU time stands beside it. (The peer's script runs on one device; that XLA's CPU backend has several costs it
nothing that could be measured.) The last table splits jmarl's time into environment, policy and update.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import arguments, count, markdown_table, moved, require, timed, timed_pair, write_json
from jmarl.envs.conformance import random_action
from jmarl.training.anakin import Runner, device_mesh, rollout
from jmarl.training.api import assemble
from jmarl.training.config import load_config
from jmarl.training.launch import use_cores
from jmarl.training.programs import compile_programs, programs, seed_keys, state_shapes


DEFAULTS: dict[str, Any] = {
    "peer": "",
    "units": 10,
    "repeats": 4,
    "peer_updates": 2,
    "envs": 128,
    "steps": 128,
    "out": "",
}
PARAMETERS_WITHIN = 0.05
OVERRIDES = (
    "network=gru",
    "network.torso=[128]",
    "network.memory_width=128",
    "network.head=[128]",
    "network.layer_norm=false",
    "system.epochs=4",
    "system.minibatches=4",
    "num_seeds=1",
)


def learned(losses: Sequence[float]) -> bool:
    """Whether losses were logged and the last is a number other than zero: a learner that never ran logs zeros."""
    return len(losses) > 0 and bool(np.isfinite(losses[-1])) and losses[-1] != 0.0


def require_moved(name: str, update: Callable[[], Any], params: Callable[[], Any]) -> None:
    """Run one update; end the program unless it changed every parameter, for its time would mean nothing."""
    before = jax.tree.map(jnp.copy, params())
    update()
    require(moved(before, params()), f"no gradient step was seen in {name}: the figures would mean nothing")


def require_equal_size(ours: int, theirs: int) -> float:
    """How far apart the two learners are in parameters; ends the program unless nearly equal."""
    apart = abs(1 - ours / theirs)
    line = f"{ours} parameters against {theirs} differ by {apart:.1%}, more than {PARAMETERS_WITHIN:.0%}"
    require(apart <= PARAMETERS_WITHIN, f"{line}: the figures would compare different networks")
    return apart


def first_width(params: Any, layer: str) -> int:
    """Inputs of a network: rows of the kernel of its first layer, ``layer`` in its path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
    return next(shape[-2] for name, shape in named.items() if name.endswith(f"{layer}/kernel"))


class Ours:
    """jmarl's MAPPO, compiled as the command line compiles it; each call trains one chunk of one update."""

    def __init__(self, units: int, envs: int, steps: int) -> None:
        overrides = [f"env=smax_{units}v{units}", f"num_envs={envs}", f"rollout_length={steps}", *OVERRIDES]
        self.config = load_config("mappo", [*overrides, "arch.updates_per_chunk=1"])
        self.env, self.system = assemble(self.config)
        plain = programs(self.config, self.env, self.system)
        ready, _ = compile_programs(self.config, plain, state_shapes(self.config, plain), fresh=True)
        self.runner, self.chunk = ready.init(seed_keys(self.config).init).runner, ready.chunk
        self.parameters = count(self.runner.learner.params)
        self.critic_input = first_width(self.runner.learner.params["critic"], "torso/dense_0")
        self.calls = 0

    def __call__(self) -> Any:
        """Train one update; returns what it reports."""
        self.runner, report = self.chunk(self.runner)
        self.calls += 1
        return report

    def steps(self) -> float:
        """Environment steps of one update, the mean of all so far."""
        return int(self.runner.env_steps[0]) / self.calls

    def check(self) -> None:
        """Raise unless an update changes every parameter."""
        require_moved("jmarl's update", self, lambda: self.runner.learner.params)

    def split(self, repeats: int) -> dict[str, float]:
        """Wall seconds of one update spent in the environment, in the policy and in learning."""
        steps, keys = self.config.rollout_length, jax.random.split(jax.random.key(1), 1)
        alone = jax.jit(jax.vmap(functools.partial(self._environment, steps=steps)))
        acting = jax.jit(jax.vmap(lambda r, k: rollout(self.env, self.system, r, steps, k)))
        with jax.set_mesh(device_mesh()):
            env_s = timed(lambda: alone(self.runner, keys), repeats, wall=True).best
            act_s = timed(lambda: acting(self.runner, keys), repeats, wall=True).best
        return {"environment": env_s, "policy": act_s - env_s, "all": timed(self, repeats, wall=True).best}

    def _environment(self, runner: Runner, key: jax.Array, *, steps: int) -> Any:
        """The same number of steps with random available actions and no network; every output is kept."""

        def step(loop: Any, keys: jax.Array) -> Any:
            state, timestep = loop
            state, timestep = self.env.step(keys[1], state, random_action(keys[0], timestep, self.env.spec))
            return (state, timestep), timestep

        state = self.env.refresh(key, runner.env_state)
        return jax.lax.scan(step, (state, runner.timestep), jax.random.split(key, (steps, 2)))


def load_peer(checkout: str) -> types.ModuleType:
    """JaxMARL's MAPPO script as a module, with its logger replaced by a list."""
    path = Path(checkout) / "baselines" / "MAPPO" / "mappo_rnn_smax.py"
    if not path.is_file():
        raise SystemExit(f"peer={checkout!r}: no {path.name} under it; give the checkout of JaxMARL, peer=<folder>")
    spec = importlib.util.spec_from_file_location("peer_mappo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Peer:
    """JaxMARL's script; a call trains for a fixed number of updates, set-up included."""

    def __init__(self, module: types.ModuleType, units: int, envs: int, steps: int) -> None:
        self.module, self.logs = module, []
        module.wandb = types.SimpleNamespace(log=self.logs.append)  # pyright: ignore[reportAttributeAccessIssue]
        self.base = {
            "LR": 0.002, "NUM_ENVS": envs, "NUM_STEPS": steps, "FC_DIM_SIZE": 128, "GRU_HIDDEN_DIM": 128,
            "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2,
            "SCALE_CLIP_EPS": False, "ENT_COEF": 0.0, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.25, "ACTIVATION": "relu",
            "OBS_WITH_AGENT_ID": True, "MAP_NAME": f"smacv2_{units}_units", "SEED": 0, "ANNEAL_LR": True,
            "ENV_KWARGS": {"see_enemy_actions": True, "walls_cause_death": True, "attack_mode": "closest"},
        }  # fmt: skip

    def program(self, updates: int) -> Callable[[], Any]:
        """A compiled run of so many updates."""
        steps = self.base["NUM_ENVS"] * self.base["NUM_STEPS"]
        train = self.module.make_train({**self.base, "TOTAL_TIMESTEPS": updates * steps})
        key = jax.random.PRNGKey(0)
        run = jax.jit(train).lower(key).compile()
        return lambda: run(key)

    def sizes(self, result: Any) -> tuple[int, int]:
        """Parameters of actor and critic in a finished run, and the width of what the critic reads."""
        actor, critic = (state.params for state in result["runner_state"][0][0])
        return count((actor, critic)), first_width(critic, "params/Dense_0")

    def check(self, result: Any) -> None:
        """Raise unless the finished run logged a loss other than zero."""
        jax.block_until_ready(result)
        jax.effects_barrier()
        losses = [float(log["total_loss"]) for log in self.logs]
        require(learned(losses), "no gradient step was seen in JaxMARL's script: the figures would mean nothing")


def main() -> None:
    """Run the comparison, print the tables, write ``out``."""
    args = arguments(DEFAULTS)
    use_cores()
    ours = Ours(args["units"], args["envs"], args["steps"])
    ours.check()
    record: dict[str, Any] = {"units": args["units"], "parameters": {"jmarl": ours.parameters}}
    if args["peer"]:
        record |= compare(ours, Peer(load_peer(args["peer"]), args["units"], args["envs"], args["steps"]), args)
    parts = ours.split(args["repeats"])
    parts["update"] = parts["all"] - parts["environment"] - parts["policy"]
    shares = {name: parts[name] / parts["all"] for name in ("environment", "policy", "update")}
    table = [[name, parts[name] / ours.steps() * 1e6, shares[name]] for name in shares]
    print(markdown_table(["part of jmarl's time", "us an environment step", "share"], table))
    record |= {"split_seconds": parts, "shares": shares}
    if args["out"]:
        write_json(args["out"], record, wall=True)


def compare(ours: Ours, peer: Peer, args: dict[str, Any]) -> dict[str, Any]:
    """Steps a second of both and their ratio."""
    rows = args["envs"] * args["steps"]
    one, more = peer.program(1), peer.program(1 + args["peer_updates"])
    result = more()
    peer.check(result)
    theirs, their_input = peer.sizes(result)
    inputs = {"jmarl": ours.critic_input, "jaxmarl": their_input}
    print(f"inputs of the critic: {inputs}")
    apart = require_equal_size(ours.parameters, theirs)
    pair = timed_pair(more, ours, args["repeats"], wall=True)
    setup = timed(one, max(2, args["repeats"] // 2), wall=True)
    theirs_wall, theirs_cpu = pair.baseline.wall_min - setup.wall_min, pair.baseline.cpu_min - setup.cpu_min
    seconds = {
        "wall": {"jmarl": pair.candidate.wall_min, "jaxmarl": theirs_wall / args["peer_updates"]},
        "cpu": {"jmarl": pair.candidate.cpu_min, "jaxmarl": theirs_cpu / args["peer_updates"]},
    }
    counts = {"jmarl": ours.parameters, "jaxmarl": theirs}
    steps = {"jmarl": ours.steps(), "jaxmarl": float(rows)}
    rates = {clock: {name: steps[name] / s[name] for name in s} for clock, s in seconds.items()}
    ratio, cpu_ratio = (rates[clock]["jmarl"] / rates[clock]["jaxmarl"] for clock in ("wall", "cpu"))
    lines = {
        "parameters": counts,
        "inputs of the critic": inputs,
        "environment steps an update": steps,
        "seconds an update": seconds["wall"],
        "environment steps a second": rates["wall"],
        "CPU seconds an update": seconds["cpu"],
        "environment steps a CPU second": rates["cpu"],
    }
    print(markdown_table(["", "jmarl", "JaxMARL"], [[name, x["jmarl"], x["jaxmarl"]] for name, x in lines.items()]))
    print(
        f"ratio {ratio:.2f}, by CPU time {cpu_ratio:.2f}; parameters differ by {apart:.1%}; A/A noise {pair.noise:.1%}"
    )
    sizes = {"parameters": counts, "critic_inputs": inputs, "env_steps_per_update": steps}
    speeds = {"seconds_per_update": seconds, "steps_per_second": rates}
    return sizes | speeds | {"ratio": ratio, "ratio_by_cpu_time": cpu_ratio, "noise": pair.noise}


if __name__ == "__main__":
    main()
