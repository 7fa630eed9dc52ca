"""Ablation of SPECTra's mixer: ST-HyperNet against QMIX's mixer, with the same agent.

    python -m benchmarks.ablation [maps=smax_3v3,smax_5v5,smax_3v3+5v5]
        [runs=spectra_qmix_plus,spectra_qmix] [seeds=3] [steps=300000] [episodes=128]
        [evaluations=6] [bar=0.9] [out=results/ablation.json]
        [overrides=system.mixer.mask_dead=true]

Options:

* ``maps``: environments. On ``smax_3v3+5v5`` the team size changes with every episode.
* ``runs``: systems. The first one is compared with the others.
* ``seeds``, ``steps``, ``episodes``, ``evaluations``, ``bar``: as in ``benchmarks.learning``.
* ``out``: JSON file of the records.
* ``overrides``: overrides of all runs. The default masks dead agents in both mixers, which QMIX's
  does not by default, so the mixers differ only in how their weights are made.

Method: every run is trained on every map through its command line, by ``benchmarks.learning``.

Output: ``out`` has the records of ``benchmarks.learning`` and the number of parameters of agent and
mixer. It is written after each run. A picture of the same name shows win rates and parameters by
map. The table has one row per map: the greedy win rate of the median seed at the last evaluation
with the worst and the best seed, and the trained parameters. It compares the first run with the
others: the difference of the mean win rates over all episodes of all seeds, with Newcombe's 95 %
interval, and ratios of parameters. The interval is for new episodes of the same trained seeds. It
does not include the variation between seeds.

Exit codes: 0 if all runs were trained, 1 if one failed, 2 if an argument is unknown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

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
from jmarl.results.intervals import Proportion, difference_interval


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


class WinRates(NamedTuple):
    """Greedy win rates of the seeds at one evaluation."""

    worst: float
    median: float
    best: float


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


def last_win_rates(record: dict[str, Any]) -> WinRates:
    """Return the win rates of the last evaluation."""
    won = record["evaluations"][-1]["greedy/won"]
    return WinRates(float(np.min(won)), float(np.median(won)), float(np.max(won)))


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
    won = last_win_rates(record)
    return f"{won.median:.2f} ({won.worst:.2f} to {won.best:.2f})"


def _difference_text(record: dict[str, Any], other: dict[str, Any]) -> str:
    difference, low, high = win_difference(record, other)
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def win_difference(
    record: dict[str, Any], other: dict[str, Any]
) -> tuple[float, float, float]:
    """Compute the difference of the mean win rates of the last evaluations.

    Returns:
        Win rate of ``record`` minus that of ``other``, and its 95 % interval over the
        episodes of these seeds.
    """
    return difference_interval(_pooled_wins(record), _pooled_wins(other))


def _pooled_wins(record: dict[str, Any]) -> Proportion:
    """Return the win rate over the episodes of all seeds."""
    won = record["evaluations"][-1]["greedy/won"]
    episodes = record["config"]["eval"]["episodes"]
    return Proportion(float(np.mean(won)), len(won) * episodes)


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
    """Draw win rate (median, worst and best seed) and parameters, by map."""
    from matplotlib.figure import Figure

    maps = args["maps"]
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    wins, sizes = figure.subplots(1, 2)
    for run in args["runs"]:
        own = [find_record(records, run, name) for name in maps]
        worst, median, best = np.array([last_win_rates(r) for r in own]).T
        (line,) = wins.plot(maps, median, marker="o", label=run)
        band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
        wins.fill_between(maps, worst, best, **band)
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
