"""Learning of MAPPO and PQN-VDN beside JaxMARL's scripts, with the same hyper-parameters.

    python -m benchmarks.anchor peer=<checkout of JaxMARL> [system=mappo] [units=5] [seeds=3]
        [steps=3000000] [folder=runs/anchor] [out=runs/anchor.json]

Options:

* ``peer``: checkout of JaxMARL.
* ``system``: ``mappo`` or ``pqn_vdn``.
* ``units``: allied units; the task is ``smacv2_<units>_units`` of SMAX.
* ``seeds``: seeds of each side.
* ``steps``: rows of each seed (environments x time steps), rounded down to whole updates.
* ``folder``: folder of jmarl's runs.
* ``out``: JSON file of the record. Each seed is written to it as it ends. The same arguments
  continue from the record, also on another machine. An interrupted run of jmarl continues from its
  checkpoint in ``folder``, one of the script from its start.

Method: the script is loaded unchanged (``benchmarks/support/peers.py``), with the values of its own
configuration file. jmarl gets the same environments, widths, minibatches, and values. A win rate is
that of the episodes of training in the last tenth of the updates.

* ``mappo_rnn_smax.py``: no entropy bonus, no normalization of values, no Huber loss. Both sides
  act by sampling.
* ``pqn_vdn_rnn.py``: on both sides, layers are 128 wide instead of 512 and have layer
  normalization. Batch normalization and rows of the previous rollout, which jmarl lacks, are off.
  The script uses RAdam, jmarl Adam. The script normalizes before the activation, jmarl after it.
  The script does not learn from the last row of a rollout. Both sides act epsilon-greedily, with
  0.01 at the end. The script logs a mean over time steps of the last result in each environment,
  jmarl a mean over episodes.

Output: mean win rates with 95 % intervals over seeds, and the difference with its interval (Welch).
``equal`` in the record is true if that interval contains 0. The record also has the win rate of
each seed. If seeds are missing, it names them under ``unfinished`` and has no such figures.

Exit codes: 0 at the end, 1 if a run failed, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.anchor.systems import ANCHORS
from benchmarks.support.common import (
    UNFINISHED,
    environment_record,
    markdown_table,
    parse_arguments,
    require,
    write_json,
)
from benchmarks.support.peers import Peer, load_script
from jmarl.cli.process import exit_code
from jmarl.config import ConfigError, check
from jmarl.results.files import read_json
from jmarl.results.intervals import seed_difference, seed_interval
from jmarl.results.metrics_file import read_rows


DEFAULTS: dict[str, Any] = {
    "peer": "",
    "system": "mappo",
    "units": 5,
    "seeds": 3,
    "steps": 3_000_000,
    "folder": "runs/anchor",
    "out": "runs/anchor.json",
}
LAST = 0.1
"""Share of the updates whose episodes count."""
SIDES = ("jaxmarl", "jmarl")
Runs = dict[str, list[dict[str, Any]]]
"""Seed, win rate of each update, and environment of the finished runs of each side."""


def main() -> int:
    """Train the seeds that the record lacks, write each as it ends, and print the results."""
    args = parse_arguments(DEFAULTS)
    check(bool(args["peer"]), "peer", args["peer"], "must be a checkout of JaxMARL")
    rule = f"must be one of {', '.join(ANCHORS)}"
    check(args["system"] in ANCHORS, "system", args["system"], rule)
    path = Path(args["out"])
    runs = read_runs(path, args)
    train = {"jaxmarl": _peer_run, "jmarl": _own_run}
    for side, seed in missing(args, runs):
        print(f"training {side}, seed {seed}", flush=True)
        run = {"seed": seed, "win_rate": train[side](args, seed)}
        runs[side].append({**run, "environment": environment_record()})
        write_json(path, make_record(args, runs))
    rows = read_json(path)["rows"]
    print(markdown_table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    print(f"\nrecord: {path}")
    return 0


def settings(args: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a record that its seeds have in common."""
    arguments = {key: args[key] for key in ("system", "units", "seeds", "steps")}
    overrides = ANCHORS[args["system"]].own(args["steps"])
    return {"arguments": arguments, "overrides": overrides}


def read_runs(path: Path, args: dict[str, Any]) -> Runs:
    """Return the finished seeds of each side in a record; none if there is no record.

    Raises:
        ConfigError: If the record has other settings, or the file is no record.
    """
    if not path.exists():
        return {side: [] for side in SIDES}
    fix = "name another file, or remove this one"
    try:
        record = read_json(path)
        runs = {side: record["runs"][side] for side in SIDES}
    except (KeyError, TypeError, ValueError):
        rule = f"is not a record of this benchmark; {fix}"
        raise ConfigError(f"out={path}: {rule}") from None
    for key, value in settings(args).items():
        rule = f"has {key} {record.get(key)}, not {value}; give the same, or {fix}"
        check(record.get(key) == value, "out", str(path), rule)
    return runs


def missing(args: dict[str, Any], runs: Runs) -> list[tuple[str, int]]:
    """Return side and seed of the runs that are not finished, the sides in turn."""
    wanted = itertools.product(range(args["seeds"]), SIDES)
    return [(side, seed) for seed, side in wanted if seed >= len(runs[side])]


def make_record(args: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """Return the record. It has no results before all seeds are finished.

    Args:
        args: Arguments of the benchmark.
        runs: Finished seeds of each side, in order.
    """
    left = [f"{side}, seed {seed}" for side, seed in missing(args, runs)]
    record = {**settings(args), UNFINISHED: left, "runs": runs}
    if left:
        return record
    curves = {side: [run["win_rate"] for run in runs[side]] for side in SIDES}
    found = {side: summarize(curves[side]) for side in SIDES}
    difference = compare(found)
    estimates = {side: found[side]["mean"] for side in SIDES}
    estimates["jmarl minus JaxMARL"] = difference["difference"]
    rows = [
        {"side": side, "win rate": mean, "low": low, "high": high}
        for side, (mean, low, high) in estimates.items()
    ]
    return {**record, "sides": found, "difference": difference, "rows": rows}


def _peer_run(args: dict[str, Any], seed: int) -> list[float]:
    """Return the win rate of each update of the script."""
    anchor = ANCHORS[args["system"]]
    updates = args["steps"] // anchor.rows
    script = load_script(args["peer"], anchor.match.script)
    peer = Peer(script, anchor.match, args["units"])
    result = peer.program(updates, logging=True, seed=seed)()
    peer.check(result, updates)
    ordered = sorted(peer.logs, key=lambda log: int(log["env_step"]))
    return [float(log[anchor.win_rate]) for log in ordered]


def _own_run(args: dict[str, Any], seed: int) -> list[float]:
    """Return the win rate of each update of jmarl's run."""
    system, steps = args["system"], args["steps"]
    anchor = ANCHORS[system]
    folder = Path(args["folder"]) / f"{system}_{args['units']}_{steps}_{seed}"
    command = [sys.executable, "-m", f"jmarl.systems.{system}"]
    words = [
        f"env=smax_smacv2_{args['units']}_units",
        f"seed={seed}",
        f"total_timesteps={steps // anchor.rows * anchor.rows}",
        "eval.episodes=64",
        "logger=none",
        f"run_dir={folder}",
        *anchor.own(steps),
    ]
    resume = [f"resume={folder}"] if (folder / "config.yaml").exists() else words
    code = subprocess.run([*command, *resume]).returncode
    require(code == 0, f"exit code {code}; the same arguments resume the run")
    rows = read_rows(folder / "metrics.jsonl")
    return [float(row["won"][0]) for row in rows if row["kind"] == "train"]


def summarize(curves: list[list[float]]) -> dict[str, Any]:
    """Return the win rate of each seed at the end, and the mean with its interval.

    Args:
        curves: Win rate of each update, NaN if no episode ended, for each seed.
    """
    last = max(1, round(LAST * len(curves[0])))
    values = [float(np.nanmean(curve[-last:])) for curve in curves]
    return {
        "by_seed": values,
        "mean": list(map(float, seed_interval(np.array(values)))),
    }


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the difference of the sides with its interval, and whether it contains 0."""
    ours, theirs = (np.array(found[name]["by_seed"]) for name in ("jmarl", "jaxmarl"))
    mean, low, high = map(float, seed_difference(ours, theirs))
    return {"difference": [mean, low, high], "equal": low <= 0 <= high}


if __name__ == "__main__":
    sys.exit(exit_code(main))
