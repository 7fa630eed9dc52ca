"""Time and memory of acting and of learning against the number of agents, at fixed widths and on SMAX.

    python -m benchmarks.scaling [worlds=fixed,smax] [agents=3,10,32,64,100,256,512,1024]
                                 [smax_agents=3,10,32,100,256] [systems=MAPPO,MAT,MAM,rec-MAM,Sable] [envs=8]
                                 [rows=2] [recompute=100] [repeats=10] [updates=3] [out=results/scaling.json]

An evaluation step is one joint action of ``System.act`` for ``envs`` environments, sampled, with the memory that it
leaves; the values that training alone reads are not computed. An update is one whole ``System.update``, a gradient step
on ``rows`` rows of ``envs`` environments. ``fixed`` is a world whose observations and actions have one width; ``smax``
is ``smax_NvN``, where both grow with the team, so that the bytes of an observation of all agents grow with its square.
Observations are random: a program costs the same whatever it reads. ``MAT recompute`` runs the whole decoder again for
every agent, as the published code does, for at most ``recompute`` agents, and has no update of its own.

Every program is compiled once, with training's compiler options but on its own; its memory is the temporary memory that
XLA plans, arguments and results apart. Times are of the process's CPU time on a CPU. Before an update is timed it is
run once, and the program ends with exit status 1 unless every parameter has moved, the loss is finite, and learning
gives the actions the probabilities that acting gave them.
With ``out`` the figures are drawn beside it, as ``.png``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.support.common import arguments, moved, require, write_json
from benchmarks.support.growth import (
    QUANTITIES,
    Program,
    Study,
    brief,
    by_quantity,
    growth_table,
    picture,
    program,
    record,
)
from benchmarks.support.policies import (
    RECOMPUTE,
    SYSTEMS,
    away_from_init,
    configuration,
    fixed_spec,
    make_world,
    offset,
    policy_of,
    random_obs,
    recompute_act,
    system_of,
)
from jmarl.cli.process import exit_code
from jmarl.config import RunConfig, check
from jmarl.envs import make
from jmarl.networks.sequence.policy import action_codec
from jmarl.system import Learner, System
from jmarl.training.anakin import init_runner, rollout
from jmarl.types import Env, Key, Params, Rollout, Spec, TimeStep


DEFAULTS: dict[str, Any] = {
    "worlds": ("fixed", "smax"),
    "agents": (3, 10, 32, 64, 100, 256, 512, 1024),
    "smax_agents": (3, 10, 32, 100, 256),
    "systems": ("MAPPO", "MAT", "MAM", "rec-MAM", "Sable"),
    "envs": 8,
    "rows": 2,
    "recompute": 100,
    "repeats": 10,
    "updates": 3,
    "out": "",
}
WORLDS: dict[str, tuple[str, Callable[[int], Spec]]] = {
    "fixed": ("agents", fixed_spec),
    "smax": ("smax_agents", lambda n: make(f"smax_{n}v{n}").spec),
}
"""The argument that holds the sizes, and the shape of the world at a size."""
RATIO_WITHIN = 1e-3
"""Of 1, for the probability ratios of the first gradient step: what rounding may do."""

QUICK = "unsafe_rbg"
"""The generator of what is not measured: it compiles in no time."""


class Job(NamedTuple):
    """What is measured of one policy at one size."""

    step: Program
    update: Program | None = None


def noise(spec: Spec, envs: int, rows: int) -> TimeStep:
    """Time steps ``[rows + 1, envs]`` that show and reward noise; the first begins an episode, and none ends one."""
    steps = (rows + 1, envs)
    obs = jax.tree.map(jnp.asarray, random_obs(spec, *steps))
    reward = jnp.asarray(
        np.random.default_rng(2).standard_normal((*steps, spec.n_agents), np.float32)
    )
    no = jnp.zeros(steps, bool)
    return TimeStep(
        obs=obs,
        reward=reward,
        terminated=no,
        truncated=no,
        first=no.at[0].set(True),
        info={},
    )


def replay(spec: Spec, shown: TimeStep) -> Env:
    """A world that shows these time steps, one after the other, whatever is done in it."""

    def at(i: Any) -> TimeStep:
        return jax.tree.map(lambda x: x[i], shown)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state + 1, at(state + 1)

    return Env(
        "replay",
        spec._replace(outcomes=(), obs_codec=None),
        lambda key, batch: (jnp.int32(0), at(0)),
        step,
    )


def experience(
    spec: Spec, system: System, key: Key, away: Params, shown: TimeStep
) -> tuple[Learner, Rollout]:
    """A learner that stands ``away`` from its initialization, and a rollout in which its policy acted."""
    env, (rows, envs) = replay(spec, shown), shown.first.shape
    runner = init_runner(env, system, envs, key)
    learner = runner.learner.replace(
        params=jax.tree.map(jnp.add, runner.learner.params, away)
    )
    return learner, rollout(
        env, system, runner.replace(learner=learner), rows - 1, key
    )[1]


def job(name: str, config: RunConfig, spec: Spec, args: dict[str, Any]) -> Job:
    """The programs of a system, compiled."""
    system, key = system_of(name, spec, config), jax.random.key(2)
    away = offset(jax.eval_shape(system.init, key).params)
    begin = functools.partial(experience, spec, system)
    shown = noise(spec, args["envs"], args["rows"])
    learner, seen = program(
        begin, jax.random.key(0, impl=QUICK), away, shown, effort=0
    )()

    def act(params: Any, carry: Any, timestep: TimeStep, key: Key) -> Any:
        return system.act(params, carry, timestep, key, jnp.ones(()))[:2]

    step = program(act, learner.params, seen.last_carry, seen.last, key)
    return Job(step, program(system.update, learner, seen, key))


def recompute_job(config: RunConfig, spec: Spec, args: dict[str, Any]) -> Job:
    """MAT's policy without its cache."""
    policy, codec = policy_of("MAT", spec, config), action_codec(spec)
    params = away_from_init(
        program(policy.init, jax.random.key(3, impl=QUICK), effort=0)()
    )
    return Job(
        program(
            recompute_act(policy, codec), params, make_world(spec, codec, args["envs"])
        )
    )


def require_learning(name: str, update: Program) -> None:
    """Run an update; end the program unless it learnt from what its own policy did."""
    before, (after, metrics) = update.args[0], update()
    line = f"{name} did not learn: the figures would mean nothing"
    require(moved(before.params, after.params), f"a parameter did not move, {line}")
    require(bool(jnp.isfinite(metrics["loss"])), f"loss {metrics['loss']}, {line}")
    require(
        float(metrics["ratio_error"]) <= RATIO_WITHIN,
        f"ratio error {metrics['ratio_error']}, {line}",
    )


def jobs(spec: Spec, args: dict[str, Any]) -> dict[str, Job]:
    """Every policy's programs at one size, compiled side by side: XLA lets Python's lock go."""
    overrides = f"num_envs={args['envs']}", "system.epochs=1", "system.minibatches=1"
    configs = {name: configuration(name, *overrides) for name in args["systems"]}
    with ThreadPoolExecutor() as pool:
        ready = {
            name: pool.submit(job, name, config, spec, args)
            for name, config in configs.items()
        }
        if "MAT" in configs and spec.n_agents <= args["recompute"]:
            ready[RECOMPUTE] = pool.submit(recompute_job, configs["MAT"], spec, args)
        return {name: future.result() for name, future in ready.items()}


def measure(spec: Spec, args: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What each policy costs at one size: ``{policy: {quantity: number}}``."""
    costs = {}
    for name, (step, update) in jobs(spec, args).items():
        costs[name] = step.cost("step", args["repeats"])
        if update is not None:
            require_learning(f"{name} of {spec.n_agents} agents", update)
            costs[name] |= update.cost("update", args["updates"])
    return costs


def study(world: str, args: dict[str, Any]) -> Study:
    """All sizes of one world, a line each as they go."""
    sizes, shape = WORLDS[world]
    found = {}
    for n in args[sizes]:
        found[n] = measure(shape(n), args)
        line = "; ".join(f"{name} {brief(cost)}" for name, cost in found[n].items())
        print(f"{world}, {n} agents: {line}", flush=True)
    return by_quantity(found)


def report(world: str, found: Study, systems: Sequence[str]) -> str:
    """A table for each quantity."""
    parts = []
    for quantity, rows in found.items():
        names = [
            *systems,
            *([RECOMPUTE] if any(RECOMPUTE in row for row in rows.values()) else []),
        ]
        parts.append(f"{world}: {QUANTITIES[quantity]}\n\n{growth_table(rows, names)}")
    return "\n\n".join(parts)


def main() -> int:
    """Measure, print, and write and draw where ``out`` says."""
    args = arguments(DEFAULTS)
    for key, known in (("worlds", WORLDS), ("systems", SYSTEMS)):
        for name in args[key]:
            check(name in known, key, name, f"must be one of {', '.join(known)}")
    studies = {world: study(world, args) for world in args["worlds"]}
    for world, found in studies.items():
        print(f"\n{report(world, found, args['systems'])}")
    if args["out"]:
        write_json(
            args["out"],
            {
                "arguments": args,
                "worlds": {w: record(found) for w, found in studies.items()},
            },
        )
        picture(studies, Path(args["out"]).with_suffix(".png"), "agents")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
