"""Ablation of SPECTra's mixer: ST-HyperNet against QMIX's mixer, with the same agent.

    python -m benchmarks.ablation [maps=smax_3v3,smax_5v5,smax_3v3+5v5]
        [runs=spectra_qmix_plus,spectra_qmix] [seeds=3] [steps=300000] [episodes=128]
        [evaluations=6] [bar=0.9] [out=results/ablation.json]
        [overrides=system.mixer.mask_dead=true] [folder=runs/benchmarks]

Options:

* ``maps``: environments. On ``smax_3v3+5v5`` the team size changes with every episode.
* ``runs``: systems. The first one is compared with the others.
* ``seeds``, ``steps``, ``episodes``, ``evaluations``, ``bar``, ``folder``: as in
  ``benchmarks.learning``.
* ``out``: JSON file of the records.
* ``overrides``: overrides of all runs. The default masks dead agents in both mixers, which QMIX's
  does not by default, so the mixers differ only in how their weights are made.

Method: every run is trained on every map through its command line, by ``benchmarks.learning``.

Output: ``out`` has the records of ``benchmarks.learning`` and the number of parameters of agent and
mixer. It is written after each run. A picture of the same name shows win rates and parameters by
map. The table has one row per map: the absolute metric (greedy win rate of the best parameters on
fresh episodes) with its 95 % interval over seeds (Student's t), and the trained parameters. It
compares the first run with the others: the difference of the mean win rates with its 95 % interval
over seeds (Welch), and ratios of parameters.

Exit codes: 0 if all runs were trained, 1 if one failed, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import learning
from benchmarks.support.common import (
    count_parameters,
    markdown_table,
    parse_arguments,
    write_json,
)
from jmarl.cli.process import exit_code
from jmarl.results.intervals import seed_difference


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
    "folder": "runs/benchmarks",
}


def parameter_counts(run: str, args: dict[str, Any]) -> dict[str, int]:
    """Return the parameters of agent and mixer, their sum, and the number of agents.

    Only shapes are computed.
    """
    from jmarl import load_config
    from jmarl.training.build import build_run

    system, overrides = learning.system_and_overrides(run)
    words = [f"env={args['map']}", *overrides, *args["overrides"]]
    built = build_run(load_config(system, words))
    learner = jax.eval_shape(lambda: built.system.init(jax.random.key(0)))
    parts = learner.params.items()
    counts = {name: count_parameters(part) for name, part in parts}
    total = sum(counts.values())
    return {**counts, "total": total, "agents": built.env.spec.n_agents}


def absolute_win_rates(record: Mapping[str, Any]) -> np.ndarray:
    """Return the absolute metric of each seed."""
    return np.array(learning.scores(record["absolute"][0]))


def find_record(records: list[dict[str, Any]], run: str, name: str) -> dict[str, Any]:
    """Return the record of a run on a map."""
    return next(r for r in records if (r["run"], r["map"]) == (run, name))


def table(records: list[dict[str, Any]], args: dict[str, Any]) -> str:
    """Return one row per map as a Markdown table."""
    runs = args["runs"]
    rows = []
    for name in args["maps"]:
        on_map = [find_record(records, run, name) for run in runs]
        first, *others = on_map
        row = [name, *map(_win_text, on_map), *map(_count_text, on_map)]
        for other in others:
            row += [_difference_text(first, other), *ratios(first, other)]
        rows.append(row)
    return markdown_table(_header(runs), rows)


def _header(runs: tuple[str, ...]) -> list[str]:
    first, *others = runs
    header = ["map", *(f"{run}: won" for run in runs)]
    header += [f"{run}: parameters (mixer)" for run in runs]
    for run in others:
        header.append(f"won, {first} - {run} [95 % interval]")
        header += [f"{name}, {first} / {run}" for name in ("parameters", "mixer")]
    return header


def _win_text(record: dict[str, Any]) -> str:
    mean, interval, _ = learning.absolute_cells(record)
    return f"{mean} [{interval}]"


def _difference_text(record: dict[str, Any], other: dict[str, Any]) -> str:
    difference, low, high = win_difference(record, other)
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def win_difference(
    record: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Compute the difference of the mean win rates and its 95 % interval over seeds."""
    return seed_difference(absolute_win_rates(record), absolute_win_rates(other))


def _count_text(record: dict[str, Any]) -> str:
    counts = record["parameters"]
    return f"{counts['total']:,} ({counts['mixer']:,})"


def ratios(record: dict[str, Any], other: dict[str, Any]) -> list[float | str]:
    """Return parameters and mixer parameters of a record over another's."""
    pairs = [
        (record["parameters"][name], other["parameters"][name])
        for name in ("total", "mixer")
    ]
    return [a / b if b else "-" for a, b in pairs]


def plot(records: list[dict[str, Any]], args: dict[str, Any], path: Path) -> None:
    """Draw win rate (mean, worst and best seed) and parameters, by map."""
    from matplotlib.figure import Figure

    maps = args["maps"]
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    wins, sizes = figure.subplots(1, 2)
    for run in args["runs"]:
        own = [find_record(records, run, name) for name in maps]
        won = np.array([absolute_win_rates(record) for record in own])
        (line,) = wins.plot(maps, won.mean(1), marker="o", label=run)
        band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
        wins.fill_between(maps, won.min(1), won.max(1), **band)
        totals = [r["parameters"]["total"] for r in own]
        sizes.plot(maps, totals, marker="o", label=run)
    title = f"after {args['steps']:,} steps"
    wins.set(ylabel="greedy win rate", ylim=(-0.02, 1.02), title=title)
    sizes.set(ylabel="parameters", ylim=(0, None), title="agent and mixer")
    for axes in (wins, sizes):
        axes.grid(alpha=0.3)
    wins.legend()
    figure.savefig(path, dpi=140)


def write(path: Path, args: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write all records, with the circumstances of the last one."""
    environment = records[-1]["environment"]
    record = {"environment": environment, "arguments": args, "records": records}
    write_json(path, record)


def main() -> int:
    """Train every run on every map and write each record; then draw and tabulate."""
    args = parse_arguments(DEFAULTS)
    out = Path(args["out"])
    records = []
    for name in args["maps"]:
        for run in args["runs"]:
            records.append(learning.train(run, args | {"map": name}))
            write(out, args, records)
    # At the end, because the backend of this process would keep GPU memory that
    # training needs.
    for record in records:
        on_map = args | {"map": record["map"]}
        record["parameters"] = parameter_counts(record["run"], on_map)
    write(out, args, records)
    plot(records, args, out.with_suffix(".png"))
    print(table(records, args))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
