"""Time and memory of acting and learning against the number of agents.

    python -m benchmarks.scaling [worlds=fixed,smax] [agents=3,10,32,64,100,256,512,1024]
        [smax_agents=3,10,32,100,256] [systems=MAPPO,MAT,MAM,rec-MAM,Sable] [envs=8] [rows=2]
        [recompute=100] [repeats=10] [updates=3] [out=results/scaling.json]

Options:

* ``worlds``: kinds of environments. In ``fixed`` observations and actions have constant widths. In
  ``smax`` (``smax_<n>v<n>``) both widths grow with the team, so the bytes of the observations of
  all agents grow with its square.
* ``agents``, ``smax_agents``: numbers of agents in ``fixed`` and in ``smax``.
* ``systems``: policies. With MAT, ``MAT recompute`` is measured as well.
* ``envs``, ``rows``: environments, and time steps of an update.
* ``recompute``: largest number of agents for ``MAT recompute``.
* ``repeats``, ``updates``: samples per time of evaluation steps, and of updates.
* ``out``: JSON file of the record; none by default. The picture has the same name with ``.png``.

Method: an evaluation step is one sampled joint action of ``System.act`` for ``envs`` environments,
including the memory after it. Values for training are not computed. An update is one whole
``System.update``: a gradient step on ``rows`` rows of ``envs`` environments. ``MAT recompute`` runs
the whole decoder again for every agent, as the published code does, and has no update of its own.
Observations are random, because the cost does not depend on their values.

Every program is compiled once, separately, with the compiler options of training. Its memory is the
temporary memory that XLA plans, without arguments and results. Times are CPU time of the process on
a CPU. One update runs before it is timed, to check that every parameter changes, that the loss is
finite, and that learning gives the actions the same probabilities as acting.

Output: a line per size, then a table per quantity with fitted exponents.

Exit codes: 0 at the end, 1 if a system did not learn, 2 if an argument is unknown or invalid.
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

from benchmarks.support.common import (
    all_changed,
    parse_arguments,
    require,
    write_json,
)
from benchmarks.support.growth import (
    QUANTITIES,
    Program,
    Study,
    by_quantity,
    compile_program,
    growth_table,
    names_of,
    plot,
    progress_line,
    study_record,
)
from benchmarks.support.policies import (
    RECOMPUTE,
    SYSTEMS,
    away_from_init,
    fixed_spec,
    load_policy_config,
    make_policy,
    make_system,
    random_inputs,
    random_obs,
    random_offset,
    recompute_act,
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


def smax_spec(n_agents: int) -> Spec:
    """Return the spec of SMAX with equal teams."""
    return make(f"smax_{n_agents}v{n_agents}").spec


class Family(NamedTuple):
    """A kind of environments with any number of agents."""

    sizes: str
    """Argument with the numbers of agents."""
    make_spec: Callable[[int], Spec]


FAMILIES = {
    "fixed": Family("agents", fixed_spec),
    "smax": Family("smax_agents", smax_spec),
}
"""Family by its name in the argument ``worlds``."""
RATIO_TOLERANCE = 1e-3
"""Largest distance from 1 of a probability ratio in the first gradient step: rounding."""

QUICK = "unsafe_rbg"
"""Random generator of programs that are not measured. It compiles fastest."""


class Job(NamedTuple):
    """Programs of one policy at one size."""

    step: Program
    update: Program | None = None


def random_timesteps(spec: Spec, envs: int, rows: int) -> TimeStep:
    """Draw time steps ``[rows + 1, envs]`` with random observations and rewards.

    The first one begins an episode, and none ends one.
    """
    shape = (rows + 1, envs)
    rng = np.random.default_rng(2)
    reward = rng.standard_normal((*shape, spec.n_agents), np.float32)
    never = jnp.zeros(shape, bool)
    return TimeStep(
        obs=jax.tree.map(jnp.asarray, random_obs(spec, *shape)),
        reward=jnp.asarray(reward),
        terminated=never,
        truncated=never,
        first=never.at[0].set(True),
        info={},
    )


def replay_env(spec: Spec, timesteps: TimeStep) -> Env:
    """Return an environment that returns given time steps in turn, for any actions."""

    def timestep(i: Any) -> TimeStep:
        return jax.tree.map(lambda x: x[i], timesteps)

    def reset(key: Key, batch: int) -> tuple[Any, TimeStep]:
        return jnp.int32(0), timestep(0)

    def step(key: Key, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state + 1, timestep(state + 1)

    plain_spec = spec._replace(outcomes=(), obs_codec=None)
    return Env("replay", plain_spec, reset, step)


def collect(
    spec: Spec, system: System, key: Key, offset: Params, timesteps: TimeStep
) -> tuple[Learner, Rollout]:
    """Return a learner, offset from its initial parameters, and a rollout of its policy."""
    env = replay_env(spec, timesteps)
    rows, envs = timesteps.first.shape
    runner = init_runner(env, system, envs, key)
    params = jax.tree.map(jnp.add, runner.learner.params, offset)
    learner = runner.learner.replace(params=params)
    runner = runner.replace(learner=learner)
    _, experience, _ = rollout(env, system, runner, rows - 1, key)
    return learner, experience


def compile_job(name: str, config: RunConfig, spec: Spec, args: dict[str, Any]) -> Job:
    """Compile the programs of a system."""
    system = make_system(name, spec, config)
    key = jax.random.key(2)
    offset = random_offset(jax.eval_shape(system.init, key).params)
    timesteps = random_timesteps(spec, args["envs"], args["rows"])
    collect_in = functools.partial(collect, spec, system)
    quick_key = jax.random.key(0, impl=QUICK)
    prepare = compile_program(collect_in, quick_key, offset, timesteps, effort=0)
    learner, experience = prepare()

    def act(params: Any, carry: Any, timestep: TimeStep, key: Key) -> Any:
        return system.act(params, carry, timestep, key, jnp.ones(()))[:2]

    carry, last = experience.last_carry, experience.last
    step = compile_program(act, learner.params, carry, last, key)
    update = compile_program(system.update, learner, experience, key)
    return Job(step, update)


def compile_recompute_job(config: RunConfig, spec: Spec, args: dict[str, Any]) -> Job:
    """Compile MAT's policy without its cache."""
    policy = make_policy("MAT", spec, config)
    codec = action_codec(spec)
    init = compile_program(policy.init, jax.random.key(3, impl=QUICK), effort=0)
    params = away_from_init(init())
    inputs = random_inputs(spec, codec, args["envs"])
    return Job(compile_program(recompute_act(policy, codec), params, inputs))


def require_learning(name: str, update: Program) -> None:
    """Run an update; exit unless it learned from the actions of its own policy."""
    before = update.args[0]
    after, metrics = update()
    changed = all_changed(before.params, after.params)
    loss = float(metrics["loss"])
    ratio_error = float(metrics["ratio_error"])
    line = f"{name} did not learn, so its costs would mean nothing"
    require(changed, f"{line}: a parameter did not change")
    require(bool(np.isfinite(loss)), f"{line}: loss {loss} must be finite")
    require(
        ratio_error <= RATIO_TOLERANCE,
        f"{line}: ratio error {ratio_error} must be at most {RATIO_TOLERANCE}",
    )


def compile_jobs(spec: Spec, args: dict[str, Any]) -> dict[str, Job]:
    """Compile the programs of all policies at one size, side by side.

    XLA releases Python's global lock.
    """
    overrides = (f"num_envs={args['envs']}", "system.epochs=1", "system.minibatches=1")
    configs = {name: load_policy_config(name, *overrides) for name in args["systems"]}
    with ThreadPoolExecutor() as pool:
        futures = {
            name: pool.submit(compile_job, name, config, spec, args)
            for name, config in configs.items()
        }
        if "MAT" in configs and spec.n_agents <= args["recompute"]:
            futures[RECOMPUTE] = pool.submit(
                compile_recompute_job, configs["MAT"], spec, args
            )
        return {name: future.result() for name, future in futures.items()}


def measure(spec: Spec, args: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Check and measure all policies at one size; return ``{policy: {quantity: value}}``."""
    costs = {}
    for name, (step, update) in compile_jobs(spec, args).items():
        costs[name] = step.cost("step", args["repeats"])
        if update is not None:
            require_learning(f"{name} of {spec.n_agents} agents", update)
            costs[name] |= update.cost("update", args["updates"])
    return costs


def run_study(name: str, args: dict[str, Any]) -> Study:
    """Measure all sizes of one family, and print a line after each."""
    family = FAMILIES[name]
    costs = {}
    for n in args[family.sizes]:
        costs[n] = measure(family.make_spec(n), args)
        print(f"{name}, {n} agents: {progress_line(costs[n])}", flush=True)
    return by_quantity(costs)


def report(name: str, study: Study, systems: Sequence[str]) -> str:
    """Return a table per quantity."""
    parts = []
    for quantity, rows in study.items():
        names = list(systems)
        if RECOMPUTE in names_of(rows.values()):
            names.append(RECOMPUTE)
        table = growth_table(rows, names)
        parts.append(f"{name}: {QUANTITIES[quantity]}\n\n{table}")
    return "\n\n".join(parts)


def main() -> int:
    args = parse_arguments(DEFAULTS)
    for key, known in (("worlds", FAMILIES), ("systems", SYSTEMS)):
        for name in args[key]:
            check(name in known, key, name, f"must be one of {', '.join(known)}")
    studies = {name: run_study(name, args) for name in args["worlds"]}
    for name, study in studies.items():
        print(f"\n{report(name, study, args['systems'])}")
    if args["out"]:
        records = {name: study_record(study) for name, study in studies.items()}
        write_json(args["out"], {"arguments": args, "worlds": records})
        plot(studies, Path(args["out"]).with_suffix(".png"), "agents")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
