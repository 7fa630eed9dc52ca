"""Learning curves on record: train each system through its command line, keep what it reached.

    python -m benchmarks.learning [runs=ippo,mappo,mat_ppo,mam_ppo,mam_ppo:mam,rec_mam,sable,rec_sable] [map=smax_3m]
                                  [seeds=3] [steps=1500000] [episodes=512] [evaluations=10] [bar=0.9]
                                  [out=results/learning] [overrides=logger=none]
    python -m benchmarks.learning runs=hpn_qmix,qmix,pqn_vdn,spectra_qmix_plus bar=0.85 out=results/learning/value

A run is a name in ``RUNS``, which says what it adds to the defaults of its system (a smaller
width, for two CPU cores), or any other system with its defaults; ``overrides`` are added to all. For each,
``<out>/<map>_<run>.json`` holds the exact command, the commit, the device, the whole configuration
and every evaluation of every seed (``episodes`` episodes, greedy and sampled, of the very
parameters at that step); ``<out>/<map>.png`` shows all of this map, and the table says when the median
seed first reached ``bar``, how the last evaluation ended, and what the absolute metric gave.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import arguments, host_record, markdown_table, write_json
from jmarl.runs.loggers import read_rows


DEFAULTS: dict[str, Any] = {
    "runs": (
        "ippo",
        "mappo",
        "mat_ppo",
        "mam_ppo",
        "mam_ppo:mam",
        "rec_mam",
        "sable",
        "rec_sable",
    ),
    "map": "smax_3m",
    "steps": 1_500_000,
    "seeds": 3,
    "episodes": 512,
    "evaluations": 10,
    "bar": 0.9,
    "out": "results/learning",
    "overrides": ("logger=none",),
}


SMALL = "network.embed_dim=32"
RUNS = {
    "mat_ppo": ("mat_ppo", SMALL),
    "mam_ppo": ("mam_ppo", SMALL),
    "mam_ppo:mam": ("mam_ppo", SMALL, "network.bi_mode=mam"),
    "rec_mam": ("mam_ppo", "system=rec_mam", SMALL),
    "sable": ("sable", SMALL),
    "rec_sable": ("sable", "system=rec_sable", SMALL),
}
"""Module of the system, and the overrides."""


def command(run: str, folder: Path, args: dict[str, Any]) -> list[str]:
    """The command line that trains ``run`` into ``folder``."""
    system, *overrides = RUNS.get(run, (run,))
    words = [
        f"env={args['map']}",
        f"num_seeds={args['seeds']}",
        f"total_timesteps={args['steps']}",
        f"eval.episodes={args['episodes']}",
        f"eval.every={args['steps'] // args['evaluations']}",
        "eval.absolute_factor=1",
        f"run_dir={folder}",
        *overrides,
        *args["overrides"],
    ]
    return [sys.executable, "-m", f"jmarl.systems.{system}", *words]


def train(run: str, args: dict[str, Any]) -> dict[str, Any]:
    """Train, and return the record: the command as a user would type it, the curve, what it reached."""
    host = host_record()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        words = command(run, folder, args)
        clock = time.perf_counter()
        subprocess.run(words, check=True)
        seconds = time.perf_counter() - clock
        typed = shlex.join(
            ["python", *[w for w in words[1:] if not w.startswith("run_dir=")]]
        )
        rows = read_rows(folder / "metrics.jsonl")
        config = yaml.safe_load((folder / "config.yaml").read_text())
    config.pop("run_dir", None)
    evaluations = [row for row in rows if row["kind"] == "eval"]
    absolute = [row for row in rows if row["kind"] == "absolute"]
    record = {"run": run, "map": args["map"], "environment": host | device_of_a_child()}
    record |= {"train_command": typed, "wall_seconds": seconds, "config": config}
    return record | {
        "evaluations": evaluations,
        "absolute": absolute,
        **reached(evaluations, args["bar"]),
    }


def device_of_a_child() -> dict[str, Any]:
    """The device's part of the record, from a process that ends: this one would keep GPU memory that training needs."""
    code = (
        "import json; from jmarl.cli.launch import use_cores; use_cores();"
        "from benchmarks.common import device_record; print(json.dumps(device_record()))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def reached(evaluations: list[dict[str, Any]], bar: float) -> dict[str, Any]:
    """The greedy win rate of the median seed: where it first stood at the bar, and at the end."""
    medians = [float(np.median(row["greedy/won"])) for row in evaluations]
    over = [i for i, median in enumerate(medians) if median >= bar]
    first = max(evaluations[over[0]]["env_steps"]) if over else None
    return {
        "bar": bar,
        "env_steps_to_bar": first,
        "best_median": max(medians),
        "final_median": medians[-1],
    }


def table(records: list[dict[str, Any]]) -> str:
    """What each run reached, as markdown."""
    header = [
        "run",
        "median greedy win rate, last",
        "best",
        "env steps to the bar",
        "absolute, by seed",
        "minutes",
    ]
    rows = []
    for r in records:
        absolute = (
            ", ".join(f"{x:.3f}" for x in r["absolute"][0]["greedy/won"])
            if r["absolute"]
            else "-"
        )
        steps = r["env_steps_to_bar"]
        rows.append([r["run"], r["final_median"], r["best_median"], steps or "not reached", absolute,
                     round(r["wall_seconds"] / 60, 1)])  # fmt: skip
    return markdown_table(header, rows)


def on_record(out: Path, name: str) -> list[dict[str, Any]]:
    """The records in a folder that were made on this map; another's name may begin alike."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    return [record for record in records if record.get("map") == name]


def title(records: list[dict[str, Any]]) -> str:
    """Map, seeds and episodes as they are on record; runs that differ are all named."""
    seeds = {record["config"]["num_seeds"] for record in records}
    episodes = {record["config"]["eval"]["episodes"] for record in records}
    seeds, episodes = (
        " or ".join(map(str, sorted(numbers))) for numbers in (seeds, episodes)
    )
    return f"{records[0]['map']}, {seeds} seeds, {episodes} episodes"


def picture(records: list[dict[str, Any]], path: Path) -> None:
    """Greedy win rate against environment steps: the median seed, and a band from the worst to the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for record in records:
        steps = [max(row["env_steps"]) for row in record["evaluations"]]
        won = np.array([row["greedy/won"] for row in record["evaluations"]])
        (line,) = axes.plot(steps, np.median(won, axis=1), label=record["run"])
        axes.fill_between(
            steps,
            won.min(1),
            won.max(1),
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.axhline(records[0]["bar"], color="gray", linestyle="--", linewidth=0.8)
    axes.set(
        xlabel="environment steps",
        ylabel="greedy win rate",
        ylim=(-0.02, 1.02),
        title=title(records),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=140)


def main() -> None:
    """Train what was asked for; draw and tabulate all that is on record for this map."""
    args = arguments(DEFAULTS)
    out = Path(args["out"])
    for run in args["runs"]:
        write_json(
            out / f"{args['map']}_{run.replace(':', '_')}.json", train(run, args)
        )
    records = on_record(out, args["map"])
    picture(records, out / f"{args['map']}.png")
    print(table(records))


if __name__ == "__main__":
    main()
