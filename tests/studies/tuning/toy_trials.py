"""Toy trials: runs without JAX that write the files of a run, with a known objective.

As a script it works on a tuning in a process of its own:
``python -m tests.studies.tuning.toy_trials <folder> <trials> <seconds of an evaluation>``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from jmarl.config import build
from jmarl.launchers.processes import Processes
from jmarl.studies.run_study import Limits
from jmarl.studies.tuning.run_tune import work_off
from jmarl.studies.tuning.search_space import Space
from jmarl.studies.tuning.tune_plan import Plan, TuneOptions, write_plan


EVALUATIONS = 4
PARAMETERS = {
    "system.lr": {"log_uniform": [1e-5, 1.0]},
    "system.gamma": {"uniform": [0.0, 1.0]},
    "system.epochs": {"int": [1, 8]},
    "network": {"choices": ["mlp", "gru"]},
}
SPACE = build(Space, {"title": "toy", "parameters": PARAMETERS, "name": "toy"})


def objective(params):
    """Return a value with its optimum, 0, at lr=0.01, gamma=0.7, epochs=5 and mlp."""
    distance = (math.log10(float(params["system.lr"])) + 2) ** 2 / 4
    distance += 4 * (float(params["system.gamma"]) - 0.7) ** 2
    distance += (int(params["system.epochs"]) - 5) ** 2 / 16
    return -distance - (params["network"] == "gru")


def curve(params):
    """Return the metric at each evaluation, of which the last is the objective."""
    final = objective(params)
    return [final - (EVALUATIONS - i) / 4 for i in range(1, EVALUATIONS + 1)]


def toy_plan(trials=40, **options):
    chosen = {"trials": trials, "metric": "return", "pruner": "none", **options}
    return Plan("toy", build(TuneOptions, chosen), (), SPACE)


def params_of(command):
    """Return the parameters of a toy's command, and the folder of its run."""
    words = dict(word.split("=", 1) for word in command if "=" in word)
    return words, Path(words.get("run_dir") or words["resume"])


def train_toy(folder, values, pause=0.0):
    """Write the files of a run, evaluation by evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "starts").open("a") as log:
        log.write(f"{folder.name}\n")
    (folder / "config.yaml").write_text(json.dumps({"values": values}))
    rows = [{"kind": "eval", "update": 0, "env_steps": [0, 0], "greedy/return": -9.0}]
    for update, value in enumerate(values, 1):
        time.sleep(pause)
        steps = {"env_steps": [8 * update] * 2}
        rows.append({"kind": "eval", "update": update, "greedy/return": value, **steps})
        scratch = folder / ".new"
        scratch.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(scratch, folder / "metrics.jsonl")
    (folder / "status.json").write_text('{"state": "finished"}')


class Toy:
    """Train a toy in this process; some trials end with an exit code instead."""

    def __init__(self, values=curve, **codes):
        self.values, self.codes = values, codes
        self.done = []

    def __call__(self, command, keep=(), stop_when=None):
        params, folder = params_of(command)
        self.done.append(folder.name)
        if code := self.codes.get(folder.name, 0):
            return code
        train_toy(folder, self.values(params))
        return 0


class ToyProcess:
    """Train a toy in a process of its own, which inherits the lock of its trial."""

    def __init__(self, pause):
        self.pause = pause

    def __call__(self, command, keep=(), stop_when=None):
        params, folder = params_of(command)
        config = folder / "config.yaml"
        known = json.loads(config.read_text())["values"] if config.exists() else None
        job = json.dumps([str(folder), known or curve(params), self.pause])
        words = [sys.executable, "-m", "tests.studies.tuning.toy_trials", job]
        return subprocess.run(words, pass_fds=keep, check=False).returncode


def work(plan, folder, run, jobs=1):
    """Work on a toy tuning until it ends."""
    write_plan(folder, plan)
    launcher = Processes()
    launcher.run = run
    return work_off(plan, folder, EVALUATIONS, Limits(jobs=jobs), launcher)


def main(*arguments):
    if len(arguments) == 1:
        folder, values, pause = json.loads(arguments[0])
        return train_toy(Path(folder), values, pause)
    folder, trials, pause = arguments
    plan = toy_plan(int(trials))
    return work(plan, Path(folder), ToyProcess(float(pause)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
