"""Training throughput: jmarl's MAPPO against JaxMARL's own script, at the same sizes, side by side.

    python -m benchmarks.throughput peer=<checkout of JaxMARL> [map=10v10] [repeats=4] [out=results/throughput.json]

Both train a GRU actor and a GRU critic of 128 with 128 environments x 128 steps, 4 epochs x 4
minibatches. A figure counts only after a gradient step has been seen in both: parameters
changed here, a non-zero loss there. JaxMARL's script is loaded from its checkout and timed as
the difference between a run of ``1 + peer_updates`` updates and one of a single update, so that
its set-up cancels; jmarl is timed on the chunk that its command line runs. The peer's scenario
is ``smacv2_<n>_units``. The last table splits jmarl's time into environment, policy and update.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Timing, arguments, environment_record, markdown_table, timed, timed_pair, write_json
from jmarl.training.anakin import Runner, rollout
from jmarl.training.api import assemble, programs
from jmarl.training.config import load_config


DEFAULTS: dict[str, Any] = {
    "peer": "",
    "units": 10,
    "repeats": 4,
    "peer_updates": 2,
    "envs": 128,
    "steps": 128,
    "out": "",
}
OVERRIDES = (
    "network=gru",
    "network.torso=[128]",
    "network.memory_width=128",
    "network.head=[128]",
    "system.epochs=4",
    "system.minibatches=4",
    "num_seeds=1",
)


def count(params: Any) -> int:
    """Numbers in a tree of parameters."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def moved(before: Any, after: Any) -> bool:
    """Whether every parameter array changed: a gradient step happened."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(bool(jnp.any(a != b)) for a, b in pairs)


class Ours:
    """jmarl's MAPPO, compiled as the command line compiles it; each call trains one chunk of one update."""

    def __init__(self, units: int, envs: int, steps: int) -> None:
        overrides = [f"env=smax_{units}v{units}", f"num_envs={envs}", f"rollout_length={steps}", *OVERRIDES]
        self.config = load_config("mappo", [*overrides, "arch.updates_per_chunk=1"])
        self.env, self.system = assemble(self.config)
        init, chunk, _ = programs(self.config, self.env, self.system)
        self.runner = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 1))
        self.chunk = jax.jit(jax.vmap(chunk), donate_argnums=0).lower(self.runner).compile()
        self.parameters = count(self.runner.learner.params)

    def __call__(self) -> Any:
        """Train one update; returns the metrics."""
        self.runner, metrics = self.chunk(self.runner)
        return metrics

    def check(self) -> None:
        """Raise unless an update changes every parameter."""
        before = jax.tree.map(lambda x: x.copy(), self.runner.learner.params)
        self()
        if not moved(before, self.runner.learner.params):
            raise SystemExit("no gradient step was seen in jmarl's update: the figures would mean nothing")

    def split(self, repeats: int) -> dict[str, float]:
        """Seconds of one update spent in the environment, in the policy and in learning."""
        runner: Runner = jax.tree.map(lambda x: x[0], self.runner)
        steps = self.config.rollout_length
        spec = self.env.spec
        alone = jax.jit(functools.partial(self._environment, steps=steps, actions=spec.n_actions))
        acting = jax.jit(lambda r, k: rollout(self.env, self.system, r, steps, k))
        key = jax.random.key(1)
        env_s = timed(lambda: alone(runner, key), repeats).best
        act_s = timed(lambda: acting(runner, key), repeats).best
        return {"environment": env_s, "policy": act_s - env_s, "all": timed(self, repeats).best}

    def _environment(self, runner: Runner, key: jax.Array, *, steps: int, actions: int) -> Any:
        """The same number of steps with random available actions and no network; every output is kept."""

        def step(loop: Any, keys: jax.Array) -> Any:
            state, timestep = loop
            noise = jax.random.uniform(keys[0], timestep.obs.avail.shape)
            action = jnp.argmax(jnp.where(timestep.obs.avail, noise, -1.0), -1)
            state, timestep = self.env.step(keys[1], state, action)
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

    def parameters(self, result: Any) -> int:
        """Parameters of actor and critic in a finished run."""
        states = result["runner_state"][0][0]
        return sum(count(state.params) for state in states)

    def check(self, result: Any) -> None:
        """Raise unless the finished run logged a loss other than zero."""
        jax.block_until_ready(result)
        jax.effects_barrier()
        losses = [log["total_loss"] for log in self.logs]
        if not losses or float(losses[-1]) == 0.0:
            raise SystemExit("no gradient step was seen in JaxMARL's script: the figures would mean nothing")


def per_second(rows: int, timing: Timing) -> float:
    return rows / timing.best


def main() -> None:
    """Run the comparison, print the tables, write ``out``."""
    args = arguments(DEFAULTS)
    rows = args["envs"] * args["steps"]
    ours = Ours(args["units"], args["envs"], args["steps"])
    ours.check()
    record: dict[str, Any] = {"units": args["units"], "parameters": {"jmarl": ours.parameters}, "environment": {}}
    if args["peer"]:
        record |= compare(ours, Peer(load_peer(args["peer"]), args["units"], args["envs"], args["steps"]), args)
    parts = ours.split(args["repeats"])
    parts["update"] = parts["all"] - parts["environment"] - parts["policy"]
    shares = {name: parts[name] / parts["all"] for name in ("environment", "policy", "update")}
    table = [[name, parts[name] / rows * 1e6, shares[name]] for name in shares]
    print(markdown_table(["part of jmarl's time", "us an environment step", "share"], table))
    record |= {"split_seconds": parts, "shares": shares}
    if args["out"]:
        record["environment"] = environment_record()
        write_json(args["out"], record)


def compare(ours: Ours, peer: Peer, args: dict[str, Any]) -> dict[str, Any]:
    """Steps a second of both and their ratio."""
    rows = args["envs"] * args["steps"]
    one, more = peer.program(1), peer.program(1 + args["peer_updates"])
    result = more()
    peer.check(result)
    theirs = peer.parameters(result)
    pair = timed_pair(more, ours, args["repeats"])
    setup = timed(one, max(2, args["repeats"] // 2))
    peer_seconds = (pair.baseline.best - setup.best) / args["peer_updates"]
    rates = {"jaxmarl": rows / peer_seconds, "jmarl": per_second(rows, pair.candidate)}
    ratio = rates["jmarl"] / rates["jaxmarl"]
    counts = {"jmarl": ours.parameters, "jaxmarl": theirs}
    print(markdown_table(["", "jmarl", "JaxMARL"], [
        ["parameters", counts["jmarl"], counts["jaxmarl"]],
        ["environment steps a second (this clock)", rates["jmarl"], rates["jaxmarl"]],
        ["wall seconds an update", pair.candidate.wall_min,
         (pair.baseline.wall_min - setup.wall_min) / args["peer_updates"]],
    ]))  # fmt: skip
    print(
        f"ratio {ratio:.2f}; parameters differ by {abs(1 - counts['jmarl'] / theirs):.1%}; A/A noise {pair.noise:.1%}"
    )
    return {"parameters": counts, "steps_per_second": rates, "ratio": ratio, "noise": pair.noise}


if __name__ == "__main__":
    main()
