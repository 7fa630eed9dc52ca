"""The mixer's part in SPECTra: ST-HyperNet against QMIX's mixer, with the same agent, over team sizes.

    python -m benchmarks.ablation [maps=smax_3v3,smax_5v5,smax_3v3+5v5] [runs=spectra_qmix_plus,spectra_qmix] [seeds=3]
                                  [steps=300000] [episodes=128] [evaluations=6] [bar=0.9] [out=results/ablation.json]
                                  [overrides=system.mixer.mask_dead=true]

On a map like ``smax_3v3+5v5`` the size changes with every episode. Both mixers leave out the dead, which QMIX's does
not by default, so that they differ in what makes their weights alone. Every run is trained on every map through its
command line, as ``benchmarks.learning`` does; the first run is the one that the others are compared with. ``out``
holds those records and the parameters of agent and mixer, and is written after each run; the picture of the same name
shows win rates and parameters by map. The table says for each map the greedy win rate of the median seed at the last
evaluation with the worst and the best seed, the parameters that are trained, and ratios of the first run over the
others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import learning
from benchmarks.common import arguments, count, markdown_table, write_json
from jmarl.cli.launch import exit_code


DEFAULTS: dict[str, Any] = {
    "maps": ("smax_3v3", "smax_5v5", "smax_3v3+5v5"),
    "runs": ("spectra_qmix_plus", "spectra_qmix"),
    "seeds": 3,
    "steps": 300_000,
    "episodes": 128,
    "evaluations": 6,
    "bar": 0.9,
    "out": "results/ablation.json",
    "overrides": ("system.mixer.mask_dead=true",),
}


def parameters(run: str, args: dict[str, Any]) -> dict[str, int]:
    """How many numbers are trained, of the agent and of the mixer, and the team's size; nothing is computed."""
    from jmarl import load_config
    from jmarl.training.train import assemble

    system, *overrides = learning.RUNS.get(run, (run,))
    env, built = assemble(
        load_config(system, [f"env={args['map']}", *overrides, *args["overrides"]])
    )
    parts = jax.eval_shape(lambda: built.init(jax.random.key(0))).params
    counts = {name: count(part) for name, part in parts.items()}
    return counts | {"total": sum(counts.values()), "agents": env.spec.n_agents}


def last(record: dict[str, Any]) -> list[float]:
    """Greedy win rates at the last evaluation: the worst, the median and the best seed."""
    won = record["evaluations"][-1]["greedy/won"]
    return [float(np.min(won)), float(np.median(won)), float(np.max(won))]


def of(records: list[dict[str, Any]], run: str, name: str) -> dict[str, Any]:
    """The record of a run on a map."""
    return next(r for r in records if (r["run"], r["map"]) == (run, name))


def table(records: list[dict[str, Any]], args: dict[str, Any]) -> str:
    """One row for each map, as markdown."""
    first, *others = args["runs"]
    header = [
        "map",
        *(f"{run}: won" for run in args["runs"]),
        *(f"{run}: parameters (mixer)" for run in args["runs"]),
    ]
    header += [
        f"{what}, {first} / {run}"
        for run in others
        for what in ("won", "parameters", "mixer")
    ]
    rows = []
    for name in args["maps"]:
        on_map = [of(records, run, name) for run in args["runs"]]
        won = ["{1:.2f} ({0:.2f} to {2:.2f})".format(*last(r)) for r in on_map]
        counts = ["{total:,} ({mixer:,})".format(**r["parameters"]) for r in on_map]
        rows.append(
            [
                name,
                *won,
                *counts,
                *(x for r in on_map[1:] for x in ratios(on_map[0], r)),
            ]
        )
    return markdown_table(header, rows)


def ratios(record: dict[str, Any], other: dict[str, Any]) -> list[float | str]:
    """Win rate, parameters and the mixer's parameters of one record over those of another."""
    pairs = [(last(record)[1], last(other)[1])]
    pairs += [
        (record["parameters"][part], other["parameters"][part])
        for part in ("total", "mixer")
    ]
    return [a / b if b else "-" for a, b in pairs]


def picture(records: list[dict[str, Any]], args: dict[str, Any], path: Path) -> None:
    """Win rate (median seed, worst to best) and parameters, by map."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    wins, sizes = figure.subplots(1, 2)
    for run in args["runs"]:
        own = [of(records, run, name) for name in args["maps"]]
        low, middle, high = np.array([last(r) for r in own]).T
        (line,) = wins.plot(args["maps"], middle, marker="o", label=run)
        wins.fill_between(
            args["maps"], low, high, color=line.get_color(), alpha=0.15, linewidth=0
        )
        sizes.plot(
            args["maps"], [r["parameters"]["total"] for r in own], marker="o", label=run
        )
    wins.set(
        ylabel="greedy win rate",
        ylim=(-0.02, 1.02),
        title=f"after {args['steps']:,} steps",
    )
    sizes.set(ylabel="parameters", ylim=(0, None), title="agent and mixer")
    for axes in (wins, sizes):
        axes.grid(alpha=0.3)
    wins.legend()
    figure.savefig(path, dpi=140)


def main() -> int:
    """Train every run on every map; write what is done after each, then draw and tabulate."""
    args, records = arguments(DEFAULTS), []
    out = Path(args["out"])
    for name in args["maps"]:
        for run in args["runs"]:
            records.append(learning.train(run, args | {"map": name}))
            write_json(
                out,
                {
                    "environment": records[-1]["environment"],
                    "arguments": args,
                    "records": records,
                },
            )
    for record in records:  # last, because a backend in this process would keep GPU memory that training needs
        record["parameters"] = parameters(record["run"], args | {"map": record["map"]})
    write_json(
        out,
        {
            "environment": records[-1]["environment"],
            "arguments": args,
            "records": records,
        },
    )
    picture(records, args, out.with_suffix(".png"))
    print(table(records, args))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
