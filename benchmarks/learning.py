"""Learning curves: train systems through their command line and record all evaluations.

    python -m benchmarks.learning
        [runs=ippo,mappo,mat_ppo,mam_ppo,rec_mam,sable,rec_sable,qmix,hpn_qmix,pqn_vdn]
        [map=smax_3m] [seeds=3] [steps=700000] [episodes=512] [evaluations=10] [bar=0.85]
        [out=results/learning] [overrides=logger=none] [folder=runs/benchmarks] [keep=false]
    python -m benchmarks.learning out=results/learning/gpu_sizes overrides=logger=none,arch=gpu

Options:

* ``runs``: systems, with the overrides that ``RUNS`` has for some of them (a smaller width, for two
  CPU cores). Further overrides follow a colon: ``mappo:system.gamma=0.9+system.clip=0.1``.
* ``map``: environment.
* ``seeds``, ``steps``: seeds, and rows of each seed.
* ``episodes``, ``evaluations``: episodes per evaluation, and evaluations per run.
* ``bar``: win rate to reach; the return, if the environment has no win rate.
* ``out``: folder of the records.
* ``overrides``: further overrides of all runs.
* ``folder``: folder of the runs. The same arguments resume a run that was interrupted.
* ``keep``: keep the finished runs, for example for ``jmarl transfer``.

Method: each run is trained by one command in its own process. Evaluations are greedy and sampled,
with the parameters of that step. ``wall_seconds`` is the time of training and evaluation, without
compilation, ``cpu_seconds`` the CPU time of all processes that worked on the run.

Output: ``<out>/<map>_<run>.json`` has the command, the commit, the device, the whole configuration
and every evaluation of every seed. ``<out>/<map>.png`` shows all runs of this map. The table has
the absolute metric (greedy win rate, or return, of the best parameters on fresh episodes): the mean
over seeds, its 95 % interval (Student's t), and the value of each seed. It also has the gradient
steps, the environment steps until the median seed reached ``bar``, and, in battles in which allies
can heal, the health that they restored per greedy episode.

Exit codes: 0 if all runs were trained, 1 if one failed, 2 if an argument is unknown.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.common import (
    host_record,
    markdown_table,
    parse_arguments,
    require,
    write_json,
)
from jmarl.cli.process import exit_code
from jmarl.config.compose import from_tree, load_config
from jmarl.results.intervals import seed_interval, win_rate_variance
from jmarl.runs.folder import read_tree
from jmarl.saved.comparison.run_files import read_folder, run_record


DEFAULTS: dict[str, Any] = {
    "runs": (
        "ippo",
        "mappo",
        "mat_ppo",
        "mam_ppo",
        "rec_mam",
        "sable",
        "rec_sable",
        "qmix",
        "hpn_qmix",
        "pqn_vdn",
    ),
    "map": "smax_3m",
    "steps": 700_000,
    "seeds": 3,
    "episodes": 512,
    "evaluations": 10,
    "bar": 0.85,
    "out": "results/learning",
    "overrides": ("logger=none",),
    "folder": "runs/benchmarks",
    "keep": False,
}
SMALL = "network.embed_dim=32"
RUNS = {
    "mat_ppo": (SMALL,),
    "mam_ppo": (SMALL,),
    "rec_mam": (SMALL,),
    "sable": (SMALL,),
    "rec_sable": (SMALL,),
}
"""Overrides of a system."""
HEADER = (
    "run",
    "absolute metric",
    "95 % interval",
    "by seed",
    "env steps to the bar",
    "gradient steps",
    "minutes",
)
HEALED = "health restored"
"""Column of the mean over seeds, in the table of runs that restored any."""


def system_and_overrides(run: str) -> tuple[str, list[str]]:
    """Split a run such as ``mappo:system.gamma=0.9`` into the system and its overrides."""
    system, _, changes = run.partition(":")
    return system, [*RUNS.get(system, ()), *filter(None, changes.split("+"))]


def file_stem(name: str, run: str) -> str:
    """Return the name of a run's record on a map, without the suffix."""
    return re.sub(r"[^\w.]+", "_", f"{name}_{run}")


def train_command(run: str, folder: Path, args: dict[str, Any]) -> list[str]:
    """Return the command that trains a run into a folder."""
    system, overrides = system_and_overrides(run)
    words = [
        f"env={args['map']}",
        f"num_seeds={args['seeds']}",
        f"total_timesteps={args['steps']}",
        f"eval.episodes={args['episodes']}",
        f"eval.every={args['steps'] // args['evaluations']}",
        "eval.absolute_factor=2",
        f"run_dir={folder}",
        *overrides,
        *args["overrides"],
    ]
    return [sys.executable, "-m", f"jmarl.systems.{system}", *words]


def train(run: str, args: dict[str, Any]) -> dict[str, Any]:
    """Train a run, or resume it; return its record with the command and all evaluations."""
    host = host_record()
    folder = run_folder(run, args)
    command = train_command(run, folder, args)
    has_begun = (folder / "config.yaml").exists()
    _call([*command[:3], f"resume={folder}"] if has_begun else command)
    finished = run_record(read_folder(folder))
    record = {
        "run": run,
        "map": args["map"],
        **finished,
        "environment": host | finished["environment"] | {"command": host["command"]},
        "gradient_steps": from_tree(read_tree(folder)).gradient_steps,
        **summarize(finished["evaluations"], args["bar"]),
    }
    if not args["keep"]:
        shutil.rmtree(folder)
    return record


def run_folder(run: str, args: dict[str, Any]) -> Path:
    """Return the folder of a run, whose name depends on the whole configuration.

    The configuration has the text of a scenario file, which may change between two runs.
    """
    system, _ = system_and_overrides(run)
    words = train_command(run, Path("run"), args)[3:]
    config = repr(load_config(system, words))
    digest = hashlib.sha256(config.encode()).hexdigest()[:8]
    return Path(args["folder"]) / f"{file_stem(args['map'], run)}-{digest}"


def _call(command: list[str]) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: the command failed.
    """
    code = subprocess.run(command).returncode
    text = f"exit code {code} of: {shlex.join(command)}"
    require(code == 0, f"{text}; the same arguments resume the run")


def scores(row: Mapping[str, Any], mode: str = "greedy") -> list[float]:
    """Return the win rate of each seed in an evaluation, or the return if there is none."""
    won = f"{mode}/won"
    return row[won if won in row else f"{mode}/return"]


def summarize(evaluations: list[dict[str, Any]], bar: float) -> dict[str, Any]:
    """Summarize the greedy win rate, or return, of the median seed.

    Returns:
        The bar, environment steps of the first evaluation at the bar or None, and the
        best and last median.
    """
    medians = [float(np.median(scores(row))) for row in evaluations]
    at_bar = [i for i, median in enumerate(medians) if median >= bar]
    first = max(evaluations[at_bar[0]]["env_steps"]) if at_bar else None
    return {
        "bar": bar,
        "env_steps_to_bar": first,
        "best_median": max(medians),
        "final_median": medians[-1],
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the summary of each run as a Markdown table."""
    healed = any(map(healed_cell, records))
    header = (*HEADER, HEALED) if healed else HEADER
    rows = [[*_row(r), healed_cell(r)] if healed else _row(r) for r in records]
    return markdown_table(header, rows)


def _row(record: dict[str, Any]) -> list[Any]:
    return [
        record["run"],
        *absolute_cells(record),
        record["env_steps_to_bar"] or "not reached",
        record.get("gradient_steps", "-"),
        round(record["wall_seconds"] / 60, 1),
    ]


def absolute_cells(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the absolute metric: mean over seeds, 95 % interval, and value of each seed.

    Win rates of seeds vary at least as much as their numbers of episodes imply. One seed has no
    interval.
    """
    if not record["absolute"]:
        return "-", "-", "-"
    row = record["absolute"][0]
    values, won = scores(row), "greedy/won" in row
    variance = _episode_variance(record, values) if won else 0.0
    mean, low, high = seed_interval(np.array(values), variance)
    if won:
        low, high = max(0, low), min(1, high)
    interval = f"{low:.3f} to {high:.3f}" if len(values) > 1 else "-"
    return f"{mean:.3f}", interval, ", ".join(f"{x:.3f}" for x in values)


def _episode_variance(record: Mapping[str, Any], values: list[float]) -> float:
    """Return the variance of the win rate of one seed in the absolute metric."""
    protocol = record["config"]["eval"]
    episodes = protocol["episodes"] * protocol["absolute_factor"]
    return win_rate_variance(float(np.mean(values)), len(values), episodes)


def healed_cell(record: Mapping[str, Any]) -> str:
    """Return the health restored per greedy episode, mean over seeds; empty if not recorded."""
    rows = [row for row in record["absolute"] if "greedy/healed" in row]
    return f"{np.mean(rows[0]['greedy/healed']):.1f}" if rows else ""


def load_records(folder: Path, name: str) -> list[dict[str, Any]]:
    """Load the records of a map. File names of another map may have the same prefix."""
    paths = sorted(folder.glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    return [record for record in records if record.get("map") == name]


def title(records: list[dict[str, Any]]) -> str:
    """Return map, seeds and episodes of some records, with all values that differ."""
    configs = [record["config"] for record in records]
    seeds = _alternatives(config["num_seeds"] for config in configs)
    episodes = _alternatives(config["eval"]["episodes"] for config in configs)
    return f"{records[0]['map']}, {seeds} seeds, {episodes} episodes"


def _alternatives(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Draw greedy scores by environment steps: the median seed, and the range of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for record in records:
        steps = [max(row["env_steps"]) for row in record["evaluations"]]
        values = np.array([scores(row) for row in record["evaluations"]])
        (line,) = axes.plot(steps, np.median(values, axis=1), label=record["run"])
        band = {"color": line.get_color(), "alpha": 0.15, "linewidth": 0}
        axes.fill_between(steps, values.min(1), values.max(1), **band)
    axes.axhline(records[0]["bar"], color="gray", linestyle="--", linewidth=0.8)
    axes.set(xlabel="environment steps", title=title(records))
    if "greedy/won" in records[0]["evaluations"][0]:
        axes.set(ylabel="greedy win rate", ylim=(-0.02, 1.02))
    else:
        axes.set(ylabel="greedy return")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=140)


def main() -> int:
    """Train the given runs; then draw and tabulate all records of the map."""
    args = parse_arguments(DEFAULTS)
    out = Path(args["out"])
    for run in args["runs"]:
        file = out / f"{file_stem(args['map'], run)}.json"
        write_json(file, train(run, args))
    records = load_records(out, args["map"])
    plot(records, out / f"{args['map']}.png")
    print(table(records))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
