"""Costs of the systems for heterogeneous teams.

    python -m benchmarks.heterogeneous [parts=update,arms,growth] [env=smac_MMM2]
        [groups=2,4,8,16] [agents=3,6,12,24] [compiled=3,27] [envs=16] [rows=32]
        [repeats=6] [out=results/heterogeneous.json]

Options:

* ``parts``: parts to measure. ``update``: an update of U-MAPPO, SHPPO and HAPPO relative to MAPPO,
  and of U-QMIX relative to QMIX. ``arms``: an update of U-MAPPO by number of action groups, for
  each way to share parameters. ``growth``: an update of HAPPO by number of agents.
* ``env``: environment of ``update``.
* ``groups``: numbers of action groups of ``arms``.
* ``agents``: numbers of agents of the timed updates of ``growth``.
* ``compiled``: numbers of agents of the timed compilations of ``growth``.
* ``envs``, ``rows``: environments, and time steps of an update.
* ``repeats``: samples per time of an update. A compilation has half as many.
* ``out``: JSON file of the record; none by default.

Method of ``update``: all systems have the network ``gru`` with its default widths, the same rows
and the same number of gradient steps. An update is one whole ``System.update`` on experience of the
environment, after one update that changed every parameter. Samples of the systems are interleaved.

Method of ``arms``: 16 agents observe random vectors. Each group has 6 actions that all groups have,
and 30 or 16 actions of its own. FLOPs are those that XLA counts: the body of a loop counts once.
The loops of all arms have the same length.

Method of ``growth``: an update is one whole ``System.update`` on random observations of constant
widths, after a check that it changes every parameter. Compilation includes tracing and lowering,
with the options of training and without the persistent cache. It is measured with constant widths
and with those of ``smax_<n>v<n>``. Times are the minimum of the samples: CPU time of the process on
a CPU.

Output: a table for each part. ``growth`` prints a linear fit of the update time, and the ratio of
the compile times of the largest and smallest team.

Exit codes: 0 at the end, 1 if a system did not learn, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.scaling import (
    FAMILIES,
    collect,
    compile_job,
    random_timesteps,
    require_learning,
)
from benchmarks.support.common import (
    compile_for,
    markdown_table,
    parse_arguments,
    time_call,
    write_json,
)
from benchmarks.support.policies import (
    fixed_spec,
    load_policy_config,
    make_system,
    random_offset,
)
from benchmarks.support.sharing_cost import run_arms
from benchmarks.support.update_cost import run_updates
from jmarl.cli.process import exit_code
from jmarl.config import RunConfig, check
from jmarl.runs.compilation import compiler_options
from jmarl.types import Spec


DEFAULTS: dict[str, Any] = {
    "parts": ("update", "arms", "growth"),
    "env": "smac_MMM2",
    "groups": (2, 4, 8, 16),
    "agents": (3, 6, 12, 24),
    "compiled": (3, 27),
    "envs": 16,
    "rows": 32,
    "repeats": 6,
    "out": "",
}


class LinearFit(NamedTuple):
    """Least-squares line through costs by number of agents."""

    intercept: float
    slope: float
    r2: float
    """Share of the variance that the line explains."""


def fit_line(costs: Mapping[int, float]) -> LinearFit:
    """Fit a line to costs by number of agents."""
    x, y = np.asarray(list(costs.items()), float).T
    slope, intercept = np.polyfit(x, y, 1)
    residual = ((y - intercept - slope * x) ** 2).sum()
    r2 = 1.0 - residual / ((y - y.mean()) ** 2).sum()
    return LinearFit(float(intercept), float(slope), float(r2))


def run_growth(args: dict[str, Any]) -> dict[str, Any]:
    """Measure updates and compilations, print their tables, and return the record."""
    sizes = (f"num_envs={args['envs']}", "system.epochs=2", "system.minibatches=2")
    config = load_policy_config("HAPPO", *sizes)
    updates = {n: update_ms(config, fixed_spec(n), args) for n in args["agents"]}
    print(markdown_table(["agents", "update, ms"], list(updates.items())))
    fit = fit_line(updates)
    print(
        f"\nupdate, ms = {fit.intercept:.3g} + {fit.slope:.3g} N (R^2 {fit.r2:.4f})\n"
    )
    compiled = {name: compile_times(config, name, args) for name in FAMILIES}
    ratios = {name: max_over_min(seconds) for name, seconds in compiled.items()}
    rows = [[name, *compiled[name].values(), ratios[name]] for name in compiled]
    header = [f"compilation, s, {n} agents" for n in args["compiled"]]
    print(markdown_table(["widths", *header, "ratio"], rows))
    return {
        "update_ms": updates,
        "fit": fit._asdict(),
        "compile_s": compiled,
        "compile_ratio": ratios,
    }


def max_over_min(costs: Mapping[int, float]) -> float:
    """Return the cost of the largest team over that of the smallest."""
    return costs[max(costs)] / costs[min(costs)]


def update_ms(config: RunConfig, spec: Spec, args: dict[str, Any]) -> float:
    """Return the milliseconds of an update, after a check that it learns."""
    update = compile_job("HAPPO", config, spec, args).update
    assert update is not None
    require_learning(f"HAPPO of {spec.n_agents} agents", update)
    return 1e3 * time_call(update, args["repeats"]).best


def compile_times(
    config: RunConfig, family: str, args: dict[str, Any]
) -> dict[int, float]:
    """Return the seconds to trace and compile an update, by number of agents.

    Samples of all team sizes are interleaved, so that machine drift affects all of them.
    """
    specs = {n: FAMILIES[family].make_spec(n) for n in args["compiled"]}
    samples = {n: [] for n in specs}
    for _ in range(max(1, args["repeats"] // 2)):
        for n, spec in specs.items():
            samples[n].append(compile_seconds(config, spec, args))
    return {n: min(seconds) for n, seconds in samples.items()}


def compile_seconds(config: RunConfig, spec: Spec, args: dict[str, Any]) -> float:
    """Return the CPU seconds of one compilation, without any cache."""
    system = make_system("HAPPO", spec, config)
    key = jax.random.key(0)
    offset = random_offset(jax.eval_shape(system.init, key).params)
    timesteps = random_timesteps(spec, args["envs"], args["rows"])
    start = functools.partial(collect, spec, system)
    learner, experience = jax.eval_shape(start, key, offset, timesteps)
    jax.clear_caches()
    cached = jax.config.jax_enable_compilation_cache  # pyright: ignore
    jax.config.update("jax_enable_compilation_cache", False)
    begin = time.process_time()
    compile_for(system.update, learner, experience, key, options=compiler_options(1))
    seconds = time.process_time() - begin
    jax.config.update("jax_enable_compilation_cache", cached)
    return seconds


PARTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "update": run_updates,
    "arms": run_arms,
    "growth": run_growth,
}
"""Functions from the arguments to the record of a part. Each prints its tables."""


def main() -> int:
    """Measure all parts, and write their records into one file."""
    args = parse_arguments(DEFAULTS)
    for part in args["parts"]:
        check(part in PARTS, "parts", part, f"must be one of {', '.join(PARTS)}")
    records = {part: PARTS[part](args) for part in args["parts"]}
    if args["out"]:
        write_json(args["out"], {"arguments": args, **records})
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
