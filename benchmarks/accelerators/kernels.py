"""Kernels of parts of a program, compiled for an accelerator that is not there.

    python -m benchmarks.accelerators.kernels [target=h100] [parts=env,acting,training]
        [num_envs=512] [env=smax_10v10] [systems=mappo,mam_ppo,mat_ppo,sable] [agents=10,40]
        [peer=<checkout of JaxMARL>] [units=10] [out=results/kernels.json]

Options:

* ``target``: device, see ``jmarl plan``.
* ``parts``: ``env`` is the environment's step with observations, masks, opponents and resets,
  beside the step of JaxMARL's own code. ``acting`` is a policy's choice of a joint action, with all
  that is stored of it. ``training`` is an update of MAPPO with its rollout, beside JaxMARL's script
  at the same sizes (``benchmarks/support/peers.py``), without its logs.
* ``num_envs``: environments of a call.
* ``env``: SMAX environment of ``env``.
* ``systems``, ``agents``: systems and sizes of the teams of ``acting``, on ``smax_NvN``.
* ``peer``: checkout of JaxMARL, for ``training``.
* ``units``: allied units of ``training``, on ``smacv2_<units>_units`` of SMAX.
* ``out``: JSON file of the record; none by default.

Method: a step of the environment is the body of a loop of 16 steps with the actions as its
input. Acting is a program of its own. Counts are those of ``jmarl plan``: launches in the optimized
program, the bytes that they read and write, and operations of matrix products.

Output: kernels, bytes, operations and seconds to compile of each part, and the time that ``jmarl
plan`` would forecast.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.support import smax_reference
from benchmarks.support.common import (
    Row,
    parse_arguments,
    require,
    show_and_record,
)
from benchmarks.support.peers import MAPPO, Peer, load_script
from jmarl.cli.process import exit_code
from jmarl.config.compose import load_config
from jmarl.envs.battle.scenario import get_scenario
from jmarl.envs.registry import make
from jmarl.forecast import kernels
from jmarl.forecast.compile_plan import Cost, bounds, compile_lowered, plan_run
from jmarl.forecast.described import described_devices
from jmarl.forecast.flops import matmul_flops
from jmarl.forecast.hlo import parse
from jmarl.forecast.kernels import Loop
from jmarl.forecast.targets import Target, find_target
from jmarl.training.anakin import device_mesh
from jmarl.training.build import build_run
from jmarl.training.packing import pack, unpack
from jmarl.training.programs import with_sharding


DEFAULTS: dict[str, Any] = {
    "target": "h100",
    "parts": ("env", "acting", "training"),
    "num_envs": 512,
    "env": "smax_10v10",
    "systems": ("mappo", "mam_ppo", "mat_ppo", "sable"),
    "agents": (10, 40),
    "peer": "",
    "units": 10,
    "out": "",
}
LENGTH = 16
SCOPE = "steps"
UPDATES = 7
"""Updates of a run of JaxMARL's script."""


def main() -> int:
    """Count, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    missing = "training" in args["parts"] and not args["peer"]
    require(not missing, "peer=: must be a checkout of JaxMARL for parts=training")
    jax.config.update("jax_platforms", "cpu")  # the target is described, not used
    show_and_record(args, count_all(args))
    return 0


def count_all(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the counts of each part."""
    target = find_target(args["target"])
    makers = {"env": env_parts, "acting": acting_parts, "training": training_parts}
    for part in args["parts"]:
        for name, env, count in makers[part](args):
            started = time.perf_counter()
            cost = count(target)
            seconds = time.perf_counter() - started
            row = {"part": name, "env": env, "kernels": cost.work.launches}
            row |= {"mb": cost.work.nbytes / 1e6, "gflop": cost.flops / 1e9}
            row["forecast_us"] = 1e6 * sum(bounds(target, cost, "float32"))
            yield row | {"compile_s": seconds}


Program = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments as shapes."""
Count = Callable[[Target], Cost]
Part = tuple[str, str, Count]
"""Name, environment, and the function that counts the work."""


def env_parts(args: dict[str, Any]) -> Iterator[Part]:
    """Yield the step of jmarl's environment and that of JaxMARL's."""
    env, num_envs = args["env"], args["num_envs"]
    for name, make_step in (("jmarl", own_step), ("JaxMARL", jaxmarl_step)):
        program = partial(make_step, env, num_envs)
        yield f"step of {name}", env, partial(count_program, program)


def acting_parts(args: dict[str, Any]) -> Iterator[Part]:
    """Yield the acting of each system with each number of agents."""
    for system, agents in product(args["systems"], args["agents"]):
        env = f"smax_{agents}v{agents}"
        program = partial(acting, system, env, args["num_envs"])
        yield f"acting of {system}", env, partial(count_program, program)


def training_parts(args: dict[str, Any]) -> Iterator[Part]:
    """Yield an update of jmarl's MAPPO and one of JaxMARL's."""
    env = f"smax_smacv2_{args['units']}_units"
    yield "update of jmarl", env, partial(count_own_update, env)
    script = load_script(args["peer"], MAPPO.script)
    peer = Peer(script, MAPPO, args["units"])
    yield "update of JaxMARL", env, partial(count_jaxmarl_update, peer)


def count_own_update(env: str, target: Target) -> Cost:
    """Count an update of jmarl's MAPPO with its rollout, at the sizes of JaxMARL's script."""
    sizes = [f"num_envs={MAPPO.envs}", f"rollout_length={MAPPO.steps}"]
    return plan_run("mappo", [f"env={env}", *sizes, *MAPPO.overrides], target).whole


def count_jaxmarl_update(peer: Peer, target: Target) -> Cost:
    """Count the same of JaxMARL's script, whose run is a loop of updates."""

    def program() -> Program:
        train = peer.train_function(UPDATES, logging=False)
        return train, (jax.eval_shape(partial(jax.random.PRNGKey, 0)),)

    # nothing calls the host, which a described device does not have
    with target.tracing(), mock.patch("jax.experimental.io_callback"):
        run, flops = compiled(target, *program())
    (updates,) = (loop for loop in run.loops if loop.trips == UPDATES)
    return Cost(updates.iteration, flops / UPDATES)


def own_step(name: str, num_envs: int) -> Program:
    """Return a loop of steps of jmarl's environment."""
    env = make(name)

    def start(key: jax.Array) -> Any:
        return pack(env.reset(key, num_envs))

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        key, action = inputs
        state, timestep = env.step(key, unpack(carry)[0], action)
        return pack((state, timestep)), None

    return loop(start, step, (num_envs, env.spec.n_agents))


def jaxmarl_step(name: str, num_envs: int) -> Program:
    """Return the same of JaxMARL's environment, whose step resets by itself."""
    env = smax_reference.reference(get_scenario(name))

    def with_masks(state: Any, results: Any) -> Any:
        return state, results, jax.vmap(env.get_avail_actions)(state)

    def start(key: jax.Array) -> Any:
        return with_masks(*smax_reference.reset(env, key, num_envs))

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        key, action = inputs
        return with_masks(*smax_reference.step(env, key, carry[0], action)), None

    return loop(start, step, (num_envs, len(env.agents)))


def loop(
    start: Callable[[jax.Array], Any],
    step: Callable[[Any, Any], tuple[Any, Any]],
    actions: tuple[int, int],
) -> Program:
    """Return a program of ``LENGTH`` steps with a key and actions for each.

    Args:
        start: Function of a key that returns the carry of the loop.
        step: Body of the loop.
        actions: Numbers of environments and of agents.
    """

    def run(carry: Any, inputs: Any) -> Any:
        with jax.named_scope(SCOPE):
            return jax.lax.scan(step, carry, inputs)

    def arguments(key: jax.Array) -> Any:
        inputs = jax.random.split(key, LENGTH), jnp.zeros((LENGTH, *actions), jnp.int32)
        return start(key), inputs

    return run, jax.eval_shape(arguments, jax.random.key(0))


def acting(system: str, env: str, num_envs: int) -> Program:
    """Return the choice of a joint action."""
    overrides = [f"env={env}", f"num_envs={num_envs}", "logger=none"]
    run = build_run(load_config(system, overrides))

    def arguments(key: jax.Array) -> Any:
        _, timestep = run.env.reset(key, num_envs)
        params = run.system.init(key).params
        return params, run.system.carry(num_envs), timestep, key

    def act(params: Any, carry: Any, timestep: Any, key: jax.Array) -> Any:
        return run.system.act(params, carry, timestep, key, jnp.float32(0))

    return act, jax.eval_shape(arguments, jax.random.key(0))


def count_program(make_program: Callable[[], Program], target: Target) -> Cost:
    """Count the work of a program, or of one iteration of its loop ``SCOPE``."""
    with target.tracing():
        program, flops = compiled(target, *make_program())
    steps = kernels.find(program, SCOPE)
    if steps is None:
        return Cost(program.iteration, flops)
    return Cost(steps.iteration, flops / LENGTH)


def compiled(
    target: Target, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Loop, float]:
    """Compile a function for one device; return its loops and its operations."""
    mesh = device_mesh(described_devices(target)[:1])
    sharding = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda x: with_sharding(x, sharding), arguments)
    with jax.set_mesh(mesh):
        traced = jax.jit(function).trace(*placed)
        text = compile_lowered(traced.lower()).as_text()
    return kernels.count(parse(text)), matmul_flops(traced.jaxpr)


if __name__ == "__main__":
    sys.exit(exit_code(main))
