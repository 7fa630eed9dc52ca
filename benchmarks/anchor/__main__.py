"""Learning of MAPPO beside JaxMARL's script, with the same hyper-parameters.

    python -m benchmarks.anchor peer=<checkout of JaxMARL> [units=5] [seeds=3] [steps=3000000]
        [folder=runs/anchor] [out=results/anchor.json]

Options:

* ``peer``: checkout of JaxMARL.
* ``units``: allied units; the task is ``smacv2_<units>_units`` of SMAX.
* ``seeds``: seeds of each side.
* ``steps``: rows of each seed (environments x time steps), rounded down to whole updates.
* ``folder``: folder of the runs. The same arguments continue after an interruption: jmarl's runs
  from their checkpoints, the script's with the first seed that is not finished.
* ``out``: JSON file of the record; none by default.

Method: ``mappo_rnn_smax.py`` is loaded unchanged (``benchmarks/support/peers.py``), with the values
of its own configuration file. jmarl gets the same environments, widths, minibatches, and values:
no entropy bonus, no normalization of values, and no Huber loss. Both sides act by sampling. A win
rate is that of the episodes of training in the last tenth of the updates.

Output: win rates of each seed, their means with 95 % intervals over seeds, and the interval of the
difference (Welch). ``equal`` is true if it contains 0.

Exit codes: 0 at the end, 1 if a run failed, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.common import (
    markdown_table,
    parse_arguments,
    require,
    write_json,
)
from benchmarks.support.peers import MAPPO, Peer, load_script
from jmarl.cli.process import exit_code
from jmarl.results.files import read_json
from jmarl.results.files import write_json as write_file
from jmarl.results.intervals import seed_difference, seed_interval
from jmarl.results.metrics_file import read_rows


DEFAULTS: dict[str, Any] = {
    "peer": "",
    "units": 5,
    "seeds": 3,
    "steps": 3_000_000,
    "folder": "runs/anchor",
    "out": "",
}
SAME = (
    "system.lr=0.002",
    "system.gamma=0.99",
    "system.gae_lambda=0.95",
    "system.clip=0.2",
    "system.value_clip=0.2",
    "system.entropy_coef=0",
    "system.value_coef=0.5",
    "system.max_grad_norm=0.25",
    "system.value_memory=0",
    "system.huber_delta=0",
    f"num_envs={MAPPO.envs}",
    f"rollout_length={MAPPO.steps}",
)
"""The values of the script's configuration file, as overrides of jmarl's."""
ROWS = MAPPO.envs * MAPPO.steps
"""Rows of an update."""
LAST = 0.1
"""Share of the updates whose episodes count."""


def main() -> int:
    """Train both sides, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    require(bool(args["peer"]), "peer=: must be a checkout of JaxMARL")
    rates = {"jaxmarl": peer_rates(args), "jmarl": own_rates(args)}
    found = {name: summarize(curves) for name, curves in rates.items()}
    difference = compare(found)
    rows = [(name, *cells(side)) for name, side in found.items()]
    print(markdown_table(("side", "win rate", "95 % interval", "by seed"), rows))
    print(f"\njmarl minus JaxMARL: {difference}")
    if args["out"]:
        record = {"arguments": {**args, "peer": "JaxMARL"}, "overrides": overrides()}
        record |= {"sides": found, "curves": rates, "difference": difference}
        write_json(args["out"], record)
    return 0


def overrides() -> list[str]:
    """Return the overrides of jmarl's runs, without environment and budget."""
    return [*(word for word in MAPPO.overrides if word != "num_seeds=1"), *SAME]


def peer_rates(args: dict[str, Any]) -> list[list[float]]:
    """Return the win rate of each update of the script, for each seed."""
    return [_peer_run(args, seed) for seed in range(args["seeds"])]


def _peer_run(args: dict[str, Any], seed: int) -> list[float]:
    updates = args["steps"] // ROWS
    name = f"jaxmarl_{args['units']}_{updates}_{seed}.json"
    path = Path(args["folder"]) / name
    if not path.exists():
        peer = Peer(load_script(args["peer"], MAPPO.script), MAPPO, args["units"])
        result = peer.program(updates, logging=True, seed=seed)()
        peer.check(result, updates)
        ordered = sorted(peer.logs, key=lambda log: int(log["env_step"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, {"win_rate": [float(log["win_rate"]) for log in ordered]})
    return read_json(path)["win_rate"]


def own_rates(args: dict[str, Any]) -> list[list[float]]:
    """Return the win rate of each update of jmarl's run, for each seed."""
    folder = Path(args["folder"]) / f"jmarl_{args['units']}_{args['steps']}"
    command = [sys.executable, "-m", "jmarl.systems.mappo"]
    words = [
        f"env=smax_smacv2_{args['units']}_units",
        f"num_seeds={args['seeds']}",
        f"total_timesteps={args['steps'] // ROWS * ROWS}",
        "eval.episodes=64",
        "logger=none",
        f"run_dir={folder}",
        *overrides(),
    ]
    resume = [f"resume={folder}"] if (folder / "config.yaml").exists() else words
    code = subprocess.run([*command, *resume]).returncode
    require(code == 0, f"exit code {code}; the same arguments resume the run")
    rows = [
        row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"
    ]
    return np.array([row["won"] for row in rows], float).T.tolist()


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


def cells(side: dict[str, Any]) -> tuple[str, str, str]:
    """Return mean, interval and values of one side as text."""
    mean, low, high = side["mean"]
    values = ", ".join(f"{value:.3f}" for value in side["by_seed"])
    return f"{mean:.3f}", f"{low:.3f} to {high:.3f}", values


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the difference of the sides with its interval, and whether it contains 0."""
    ours, theirs = (np.array(found[name]["by_seed"]) for name in ("jmarl", "jaxmarl"))
    mean, low, high = map(float, seed_difference(ours, theirs))
    return {"difference": [mean, low, high], "equal": low <= 0 <= high}


if __name__ == "__main__":
    sys.exit(exit_code(main))
