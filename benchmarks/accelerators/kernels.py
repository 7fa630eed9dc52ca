"""Kernels of parts of a program, compiled for an accelerator that is not there.

    python -m benchmarks.accelerators.kernels [target=h100] [parts=env,acting] [num_envs=512]
        [env=smax_10v10] [systems=mappo,mam_ppo,mat_ppo,sable] [agents=10,40]
        [out=results/kernels.json]

Options:

* ``target``: device, see ``jmarl plan``.
* ``parts``: ``env`` is the environment's step with observations, masks, opponents and resets, beside
  the step of JaxMARL's own code. ``acting`` is a policy's choice of a joint action, with all that
  is stored of it.
* ``num_envs``: environments of a call.
* ``env``: SMAX environment of ``env``.
* ``systems``, ``agents``: systems and sizes of the teams of ``acting``, on ``smax_NvN``.
* ``out``: JSON file of the record; none by default.

Method: a step of the environment is the body of a loop of 16 steps with the actions as its
input. Acting is a program of its own. Counts are those of ``jmarl plan``: launches in the optimized
program, and the bytes that they read and write.

Output: kernels, bytes and seconds to compile of each part.

Exit codes: 0 at the end, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.support import smax_reference
from benchmarks.support.common import Row, parse_arguments, show_and_record
from jmarl.cli.process import exit_code
from jmarl.config.compose import load_config
from jmarl.envs.battle.scenario import get_scenario
from jmarl.envs.registry import make
from jmarl.forecast import kernels
from jmarl.forecast.compile_plan import compile_traced
from jmarl.forecast.described import described_devices
from jmarl.forecast.hlo import parse
from jmarl.forecast.targets import Target, find_target
from jmarl.platforms import tracing_for
from jmarl.training.anakin import device_mesh
from jmarl.training.build import build_run
from jmarl.training.packing import pack, unpack


DEFAULTS: dict[str, Any] = {
    "target": "h100",
    "parts": ("env", "acting"),
    "num_envs": 512,
    "env": "smax_10v10",
    "systems": ("mappo", "mam_ppo", "mat_ppo", "sable"),
    "agents": (10, 40),
    "out": "",
}
LENGTH = 16
SCOPE = "steps"


def main() -> int:
    """Count, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    jax.config.update("jax_platforms", "cpu")  # the target is described, not used
    show_and_record(args, count_all(args))
    return 0


def count_all(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the counts of each part."""
    target = find_target(args["target"])
    if "env" in args["parts"]:
        for side in (own_step, jaxmarl_step):
            with tracing_for(target.platform):
                step, carry, action = side(args["env"], args["num_envs"])
                name = side.__name__
                yield {"part": name, "of": args["env"]} | count(
                    target, loop(step), carry, action
                )
    if "acting" in args["parts"]:
        for system in args["systems"]:
            for agents in args["agents"]:
                env = f"smax_{agents}v{agents}"
                with tracing_for(target.platform):
                    act, arguments = acting(system, env, args["num_envs"])
                    row = {"part": f"{system} acts", "of": env}
                    yield row | count(target, act, *arguments)


def loop(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a program of ``LENGTH`` steps with the actions of each."""

    def run(carry: Any, actions: Any) -> Any:
        with jax.named_scope(SCOPE):
            return jax.lax.scan(step, carry, actions)

    return run


def own_step(name: str, num_envs: int) -> tuple[Callable[..., Any], Any, Any]:
    """Return a step of jmarl's environment, its state and its inputs as shapes."""
    env = make(name)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        key, action = inputs
        state, timestep = env.step(key, unpack(carry)[0], action)
        return pack((state, timestep)), None

    def start(key: jax.Array) -> Any:
        return pack(env.reset(key, num_envs))

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), LENGTH))
    sizes = (LENGTH, num_envs, env.spec.n_agents)
    actions = jax.ShapeDtypeStruct(sizes, jnp.int32)
    return step, jax.eval_shape(start, jax.random.key(0)), (keys, actions)


def jaxmarl_step(name: str, num_envs: int) -> tuple[Callable[..., Any], Any, Any]:
    """Return the same of JaxMARL's environment, whose step resets by itself."""
    env = smax_reference.reference(get_scenario(name))

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        key, action = inputs
        actions = {agent: action[:, i] for i, agent in enumerate(env.agents)}
        keys = jax.random.split(key, num_envs)
        obs, state, reward, done, _ = jax.vmap(env.step)(keys, carry[0], actions)
        return (state, obs, reward, done, jax.vmap(env.get_avail_actions)(state)), None

    def start(key: jax.Array) -> Any:
        obs, state = jax.vmap(env.reset)(jax.random.split(key, num_envs))
        reward = {agent: jnp.zeros(num_envs) for agent in env.agents}
        names = (*env.agents, "__all__")
        done = {agent: jnp.zeros(num_envs, bool) for agent in names}
        return state, obs, reward, done, jax.vmap(env.get_avail_actions)(state)

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), LENGTH))
    actions = jax.ShapeDtypeStruct((LENGTH, num_envs, len(env.agents)), jnp.int32)
    return step, jax.eval_shape(start, jax.random.key(0)), (keys, actions)


def acting(system: str, env: str, num_envs: int) -> tuple[Callable[..., Any], Any]:
    """Return the choice of a joint action, and its arguments as shapes."""
    overrides = [f"env={env}", f"num_envs={num_envs}", "logger=none"]
    run = build_run(load_config(system, overrides))

    def arguments(key: jax.Array) -> Any:
        _, timestep = run.env.reset(key, num_envs)
        params = run.system.init(key).params
        return params, run.system.carry(num_envs), timestep, key

    def act(params: Any, carry: Any, timestep: Any, key: jax.Array) -> Any:
        return run.system.act(params, carry, timestep, key, jnp.float32(0))

    return act, jax.eval_shape(arguments, jax.random.key(0))


def count(target: Target, function: Callable[..., Any], *arguments: Any) -> Row:
    """Compile a function for one device of a target, and count its work or that of its loop."""
    mesh = device_mesh(described_devices(target)[:1])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def place(x: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    started = time.perf_counter()
    with jax.set_mesh(mesh):
        traced = jax.jit(function).trace(*jax.tree.map(place, arguments))
        program = kernels.count(parse(compile_traced(traced).as_text()))
    found = kernels.find(program, SCOPE) or program
    work = found.iteration
    seconds = time.perf_counter() - started
    return {"kernels": work.launches, "mb": work.nbytes / 1e6, "compile_s": seconds}


if __name__ == "__main__":
    sys.exit(exit_code(main))
