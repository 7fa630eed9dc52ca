"""Time and memory of an agent network against the number of entities that an agent observes.

    python -m benchmarks.entities [agents=saqa,hpn,updet] [entities=5,10,20,50,100,200]
        [n_agents=8] [envs=32] [rows=4] [repeats=10] [updates=4] [out=results/entities.json]

Options:

* ``agents``: networks, at their default widths and depths (one layer of SAQA, two blocks of UPDeT).
* ``entities``: numbers of entities. Half of them are allies, half are enemies that can be attacked.
* ``n_agents``: number of agents, the same at all sizes. Only the cost of an agent grows.
* ``envs``, ``rows``: environments, and time steps of an update.
* ``repeats``, ``updates``: samples per time of evaluation steps, and of updates.
* ``out``: JSON file of the record; none by default. The picture has the same name with ``.png``.

Method: the environment has the widths of SMAX. An evaluation step is the network's part of acting:
one row of ``envs`` environments, or ``envs x n_agents`` observing agents. An update is the
network's part of learning: value and gradient of half the mean square of all Q-values over ``rows``
rows. Mixer, choice of actions and optimizer are left out, because they do not depend on the
entities. One update runs before it is timed, to check that every parameter has a gradient. The
clock stops when the results are ready. Times are CPU time of the process on a CPU, and memory is
the temporary memory that XLA plans.

Exponents are fitted from 32 entities on, at the default sizes from 50 on. A part of every cost does
not grow (memory, own features), so at small numbers an exponent is too low. A second exponent is
therefore fitted to the cost added to that at 50 entities, against the number of entities added.

Output: a line per size, then tables of costs and exponents, the numbers of parameters, and the
ratio of UPDeT over SAQA at the largest size, interleaved.

Exit codes: 0 at the end, 1 if a parameter has no gradient, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from benchmarks.support.common import (
    PairTiming,
    all_changed,
    count_parameters,
    markdown_table,
    parse_arguments,
    ratio_text,
    require,
    time_pair,
    write_json,
)
from benchmarks.support.growth import (
    FIT_FROM,
    QUANTITIES,
    Costs,
    Program,
    Study,
    by_quantity,
    compile_program,
    exponents,
    growth_table,
    plot,
    progress_line,
    study_record,
)
from benchmarks.support.policies import random_obs, random_offset
from jmarl import load_config
from jmarl.cli.process import exit_code
from jmarl.config import check
from jmarl.networks.agents import AgentConfig, make_agent
from jmarl.types import Carry, EntityObs, Group, Params, Spec


DEFAULTS: dict[str, Any] = {
    "agents": ("saqa", "hpn", "updet"),
    "entities": (5, 10, 20, 50, 100, 200),
    "n_agents": 8,
    "envs": 32,
    "rows": 4,
    "repeats": 10,
    "updates": 4,
    "out": "",
}
AGENTS = ("saqa", "hpn", "updet")

# Widths of SMAX.
OWN_WIDTH = 10
ROW_WIDTH = 12
N_OWN_ACTIONS = 5


class Job(NamedTuple):
    """Programs of one network at one size."""

    step: Program
    update: Program


def entity_spec(entities: int, n_agents: int) -> Spec:
    """Return the spec of an environment with so many entities; enemies are targets."""
    allies = entities // 2
    sizes = {"allies": allies, "enemies": entities - allies}
    groups = tuple(
        Group(name, size, ROW_WIDTH, size, OWN_WIDTH) for name, size in sizes.items()
    )
    target = (-1,) * N_OWN_ACTIONS + tuple(range(allies, entities))
    return Spec(n_agents, len(target), OWN_WIDTH, groups, 1, 1, target)


def compile_job(config: AgentConfig, spec: Spec, envs: int, rows: int) -> Job:
    """Compile the programs of a network.

    Parameters are random, because the cost does not depend on their values.
    """
    net = make_agent(spec, config)
    carry = net.initial(envs)
    obs = jax.tree.map(jnp.asarray, random_obs(spec, rows, envs))
    first = jnp.zeros((rows, envs), bool)
    row_obs = jax.tree.map(lambda x: x[:1], obs)
    row_first = first[:1]
    key = jax.random.key(0)
    shapes = jax.eval_shape(net.init, key, carry, row_obs, row_first)
    params = jax.tree.map(jnp.asarray, random_offset(shapes))

    def act(params: Params, carry: Carry, obs: EntityObs, first: jax.Array) -> Any:
        out = cast(
            tuple[Any, jax.Array, jax.Array], net.apply(params, carry, obs, first)
        )
        return out[:2]

    def learn(params: Params, carry: Carry, obs: EntityObs, first: jax.Array) -> Any:
        def loss(params: Params) -> jax.Array:
            _, q = act(params, carry, obs, first)
            return 0.5 * (q**2).mean()

        return jax.value_and_grad(loss)(params)

    return Job(
        step=compile_program(act, params, carry, row_obs, row_first),
        update=compile_program(learn, params, carry, obs, first),
    )


def require_gradient(name: str, job: Job) -> None:
    """Run an update; exit unless every parameter has a finite gradient that is not zero."""
    params = job.update.args[0]
    _, gradients = job.update()
    zeros = jax.tree.map(jnp.zeros_like, params)
    require(
        all_changed(zeros, gradients),
        f"{name}: a parameter has no gradient, so the costs would mean nothing",
    )


def compile_jobs(spec: Spec, args: dict[str, Any]) -> dict[str, Job]:
    """Compile the programs of all networks at one size, side by side."""
    configs = {
        name: load_config("qmix", [f"network={name}"]).network
        for name in args["agents"]
    }
    with ThreadPoolExecutor() as pool:
        futures = {
            name: pool.submit(compile_job, config, spec, args["envs"], args["rows"])
            for name, config in configs.items()
        }
        return {name: future.result() for name, future in futures.items()}


def measure(
    jobs: dict[str, Job], spec: Spec, args: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Check and measure all networks at one size; return ``{network: {quantity: value}}``."""
    costs = {}
    for name, job in jobs.items():
        require_gradient(f"{name} with {spec.n_slots} entities", job)
        step = job.step.cost("step", args["repeats"])
        update = job.update.cost("update", args["updates"])
        costs[name] = step | update
    return costs


def ratios(jobs: dict[str, Job], args: dict[str, Any]) -> dict[str, PairTiming]:
    """Time UPDeT and SAQA interleaved, if both are measured."""
    if not {"saqa", "updet"} <= set(jobs):
        return {}
    updet, saqa = jobs["updet"], jobs["saqa"]
    return {
        "step": time_pair(updet.step, saqa.step, args["repeats"], attempts=3),
        "update": time_pair(updet.update, saqa.update, args["updates"], attempts=3),
    }


def added_costs(rows: Costs) -> Costs:
    """Subtract the smallest fitted number, and its costs, from all larger ones.

    Costs that are not larger are left out.
    """
    smallest = min((n for n in rows if n >= FIT_FROM), default=min(rows))
    base = rows[smallest]
    return {
        n - smallest: {
            name: x - base[name] for name, x in row.items() if x > base[name]
        }
        for n, row in rows.items()
        if n > smallest
    }


def report(study: Study, names: tuple[str, ...]) -> str:
    """Return a table per quantity, and one of the exponents of the added costs."""
    tables = []
    fits = []
    for quantity, rows in study.items():
        title = QUANTITIES[quantity]
        tables.append(f"{title}\n\n{growth_table(rows, names, 'entities')}")
        fit = exponents(added_costs(rows))
        fits.append([title, *(fit.get(name, "-") for name in names)])
    header = ["exponent of what entities add", *names]
    return "\n\n".join([*tables, markdown_table(header, fits)])


def main() -> int:
    args = parse_arguments(DEFAULTS)
    for name in args["agents"]:
        check(name in AGENTS, "agents", name, f"must be one of {', '.join(AGENTS)}")
    costs = {}
    jobs = {}
    for n in sorted(args["entities"]):
        spec = entity_spec(n, args["n_agents"])
        jobs = compile_jobs(spec, args)
        costs[n] = measure(jobs, spec, args)
        print(f"{n} entities: {progress_line(costs[n])}", flush=True)
    study = by_quantity(costs)
    pairs = ratios(jobs, args)  # of the largest size
    sizes = {name: count_parameters(job.step.args[0]) for name, job in jobs.items()}
    print(f"\n{report(study, args['agents'])}\n\nparameters: {sizes}")
    most = max(args["entities"])
    for kind, pair in pairs.items():
        ratio = ratio_text(pair)
        print(f"UPDeT over SAQA at {most} entities, {kind}, interleaved: {ratio}")
    if args["out"]:
        write_record(args, study, pairs, sizes)
        path = Path(args["out"]).with_suffix(".png")
        plot({"entities": study}, path, "entities")
    return 0


def write_record(
    args: dict[str, Any],
    study: Study,
    pairs: dict[str, PairTiming],
    sizes: dict[str, int],
) -> None:
    """Write the record to ``out``."""
    added = {quantity: exponents(added_costs(rows)) for quantity, rows in study.items()}
    record = {
        "arguments": args,
        **study_record(study),
        "exponents_added": added,
        "updet_over_saqa": {kind: pair._asdict() for kind, pair in pairs.items()},
        "parameters": sizes,
    }
    write_json(args["out"], record)


if __name__ == "__main__":
    sys.exit(exit_code(main))
