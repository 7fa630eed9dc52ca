"""Time and memory of an agent network against the number of entities that an agent sees.

    python -m benchmarks.entities [agents=saqa,hpn,updet] [entities=5,10,20,50,100,200] [n_agents=8] [envs=32] [rows=4]
                                  [repeats=10] [updates=4] [out=results/entities.json]

Networks at their default widths and depths (one layer of SAQA, two blocks of UPDeT), in a world with the widths of
SMAX: half of the entities are allies, half are enemies that can be attacked. The number of agents stays ``n_agents``,
whatever they see: what grows is the cost of an agent.

An evaluation step is what acting asks of the network, one row of ``envs`` environments, and so of ``envs x n_agents``
observers. An update is what learning asks of it: value and gradient of half the mean square of all Q-values over
``rows`` rows. No mixer, no choice of actions, no optimizer: these do not depend on the entities. Before an update is
timed it is run once, and the program ends with exit status 1 unless every parameter has a gradient. A call is waited
for before the clock stops; times are of the process's CPU time on a CPU, and memory is the temporary memory that XLA
plans.

Exponents are fitted from 50 entities on. A part of every cost does not grow (the memory, the own features), so an
exponent looks the better the smaller the numbers. The second exponent is therefore of what an agent adds to its cost
at 50 entities, against the entities added. UPDeT over SAQA at the most entities is taken in turn. With ``out`` a
picture is drawn beside it, as ``.png``.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.support.common import (
    PairTiming,
    arguments,
    count,
    markdown_table,
    moved,
    ratio_text,
    require,
    timed_pair,
    write_json,
)
from benchmarks.support.growth import (
    FIT_FROM,
    QUANTITIES,
    Costs,
    Program,
    Study,
    brief,
    by_quantity,
    exponents,
    growth_table,
    picture,
    program,
    record,
)
from benchmarks.support.policies import offset, random_obs
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
OWN_WIDTH, ROW_WIDTH, N_OWN_ACTIONS = 10, 12, 5
"""Of SMAX."""


class Job(NamedTuple):
    """What is measured of one network at one size."""

    step: Program
    update: Program


def entity_spec(entities: int, n_agents: int) -> Spec:
    """A world of agents that each see so many entities, the enemies among them being targets."""
    allies = entities // 2
    sizes = {"allies": allies, "enemies": entities - allies}
    groups = tuple(
        Group(name, size, ROW_WIDTH, size, OWN_WIDTH) for name, size in sizes.items()
    )
    target = (-1,) * N_OWN_ACTIONS + tuple(range(allies, entities))
    return Spec(n_agents, len(target), OWN_WIDTH, groups, 1, 1, target)


def job(config: AgentConfig, spec: Spec, envs: int, rows: int) -> Job:
    """The two programs of a network, compiled, with random parameters: it costs the same whatever they are."""
    net = make_agent(spec, config)
    carry, obs = (
        net.initial(envs),
        jax.tree.map(jnp.asarray, random_obs(spec, rows, envs)),
    )
    row, first = jax.tree.map(lambda x: x[:1], obs), jnp.zeros((rows, envs), bool)
    params = jax.tree.map(
        jnp.asarray,
        offset(jax.eval_shape(net.init, jax.random.key(0), carry, row, first[:1])),
    )

    def act(params: Params, carry: Carry, obs: EntityObs, first: jax.Array) -> Any:
        return net.apply(params, carry, obs, first)

    def learn(params: Params, carry: Carry, obs: EntityObs, first: jax.Array) -> Any:
        return jax.value_and_grad(
            lambda p: 0.5 * (act(p, carry, obs, first)[1] ** 2).mean()
        )(params)

    return Job(
        program(act, params, carry, row, first[:1]),
        program(learn, params, carry, obs, first),
    )


def require_gradient(name: str, job: Job) -> None:
    """Run an update; end the program unless every parameter has a gradient, and each gradient is finite."""
    params, (_, gradients) = job.update.args[0], job.update()
    zeros = jax.tree.map(jnp.zeros_like, params)
    require(
        moved(zeros, gradients),
        f"{name} has a parameter without gradient: the figures would mean nothing",
    )


def measure(
    spec: Spec, args: dict[str, Any]
) -> tuple[dict[str, Job], dict[str, dict[str, float]]]:
    """The programs at one size, compiled side by side, and ``{network: {quantity: number}}``."""
    configs = {
        name: load_config("qmix", [f"network={name}"]).network
        for name in args["agents"]
    }
    with ThreadPoolExecutor() as pool:
        ready = {
            name: pool.submit(job, c, spec, args["envs"], args["rows"])
            for name, c in configs.items()
        }
        jobs = {name: future.result() for name, future in ready.items()}
    costs = {}
    for name, ours in jobs.items():
        require_gradient(f"{name} with {spec.n_slots} entities", ours)
        costs[name] = ours.step.cost("step", args["repeats"]) | ours.update.cost(
            "update", args["updates"]
        )
    return jobs, costs


def ratios(jobs: dict[str, Job], args: dict[str, Any]) -> dict[str, PairTiming]:
    """UPDeT's time over SAQA's, in turn, where both are asked for."""
    if not {"saqa", "updet"} <= set(jobs):
        return {}
    slow, fast, repeats = (
        jobs["updet"],
        jobs["saqa"],
        {"step": args["repeats"], "update": args["updates"]},
    )
    return {
        kind: timed_pair(getattr(slow, kind), getattr(fast, kind), n, attempts=3)
        for kind, n in repeats.items()
    }


def added(rows: Costs) -> Costs:
    """What each adds to its cost at the fewest that exponents are fitted from, against what is added to the number."""
    least = min((n for n in rows if n >= FIT_FROM), default=min(rows))
    above = {
        n: {name: x - rows[least][name] for name, x in row.items()}
        for n, row in rows.items()
        if n > least
    }
    return {
        n - least: {name: x for name, x in row.items() if x > 0}
        for n, row in above.items()
    }


def report(found: Study, names: tuple[str, ...]) -> str:
    """A table for each quantity, and the exponents without the part that does not grow."""
    tables = [
        f"{QUANTITIES[q]}\n\n{growth_table(rows, names, 'entities')}"
        for q, rows in found.items()
    ]
    fits = {QUANTITIES[q]: exponents(added(rows)) for q, rows in found.items()}
    body = [
        [title, *(fit.get(name, "-") for name in names)] for title, fit in fits.items()
    ]
    return "\n\n".join(
        [*tables, markdown_table(["exponent of what entities add", *names], body)]
    )


def main() -> int:
    """Measure, print, and write and draw where ``out`` says."""
    args = arguments(DEFAULTS)
    for name in args["agents"]:
        check(name in AGENTS, "agents", name, f"must be one of {', '.join(AGENTS)}")
    costs, jobs = {}, {}
    for n in sorted(args["entities"]):
        jobs, costs[n] = measure(entity_spec(n, args["n_agents"]), args)
        print(
            f"{n} entities: "
            + "; ".join(f"{name} {brief(cost)}" for name, cost in costs[n].items()),
            flush=True,
        )
    found, pairs, most = by_quantity(costs), ratios(jobs, args), max(args["entities"])
    sizes = {name: count(ours.step.args[0]) for name, ours in jobs.items()}
    print(f"\n{report(found, args['agents'])}\n\nparameters: {sizes}")
    for kind, pair in pairs.items():
        print(
            f"UPDeT over SAQA at {most} entities, {kind}, in turn: {ratio_text(pair)}"
        )
    if args["out"]:
        grown = {quantity: exponents(added(rows)) for quantity, rows in found.items()}
        taken = {kind: pair._asdict() for kind, pair in pairs.items()}
        kept = {
            **record(found),
            "exponents_added": grown,
            "updet_over_saqa": taken,
            "parameters": sizes,
        }
        write_json(args["out"], {"arguments": args, **kept})
        picture({"entities": found}, Path(args["out"]).with_suffix(".png"), "entities")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
