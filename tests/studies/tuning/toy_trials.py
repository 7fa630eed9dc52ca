"""Toy trials: runs without JAX that write the files of a run, with a known objective.

As a script it works on a tuning in a process of its own:
``python -m tests.studies.tuning.toy_trials <folder> <trials> <seconds of an evaluation>``.
"""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path

from jmarl.config import build
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
RUN = textwrap.dedent("""\
    import fcntl, json, os, pathlib, sys, time
    folder, values, pause = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent.parent / "started", "a") as log:
        log.write(folder.name + chr(10))
    (folder / "config.yaml").write_text("{}")
    lock = open(folder / ".lock", "a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    rows = [{"kind": "eval", "update": 0, "greedy/return": -100, "env_steps": [0]}]
    for update, value in enumerate(json.loads(values), 1):
        time.sleep(pause)
        rows.append({"kind": "eval", "update": update, "greedy/return": value})
        rows[-1]["env_steps"] = [8 * update, 8 * update]
        text = "".join(json.dumps(row) + chr(10) for row in rows)
        (folder / ".new").write_text(text)
        os.replace(folder / ".new", folder / "metrics.jsonl")
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))
""")


def objective(params):
    """Return a value with its optimum, 0, at lr=0.01, gamma=0.7, epochs=5 and mlp."""
    near = (math.log10(float(params["system.lr"])) + 2) ** 2 / 4
    near += 4 * (float(params["system.gamma"]) - 0.7) ** 2
    near += (int(params["system.epochs"]) - 5) ** 2 / 16
    return -near - (params["network"] == "gru")


def curve(params):
    """Return the metric at each evaluation, of which the last is the objective."""
    final = objective(params)
    return [final - (EVALUATIONS - i) / 4 for i in range(1, EVALUATIONS + 1)]


def toy_plan(trials=40, **options):
    chosen = {"trials": trials, "metric": "return", "pruner": "none", **options}
    return Plan("toy", build(TuneOptions, chosen), (), SPACE)


def params_of(words):
    return dict(word.split("=", 1) for word in words)


class InProcess:
    """Write the files of a run at once; some trials end with an exit code instead."""

    def __init__(self, values=curve, **codes):
        self.values, self.codes = values, codes
        self.done = []

    def __call__(self, command, keep=(), stop_when=None):
        folder = Path(command[-1].partition("=")[2])
        self.done.append(folder.name)
        if code := self.codes.get(folder.name, 0):
            return code
        run_toy(folder, self.values(self.params(command)), pause=0.0)
        return 0

    def params(self, command):
        return params_of(command[3:])


def run_toy(folder, values, pause, execute=None):
    text = "[" + ",".join(f"{value:.9g}" for value in values) + "]"
    command = [sys.executable, "-c", RUN, str(folder), text, str(pause)]
    if execute is None:
        script = ["-c", str(folder), text, str(pause)]
        before, sys.argv = sys.argv, script
        try:
            exec(RUN, {})
        finally:
            sys.argv = before
        return 0
    return execute(command)


def work(plan, folder, run, jobs=1):
    """Work on a toy tuning until it ends."""
    write_plan(folder, plan)
    return work_off(plan, folder, EVALUATIONS, Limits(jobs=jobs), run)


def main(folder, trials, pause):
    """Work on a toy tuning with a process for each run."""
    def run(command, keep=(), stop_when=None):
        place = Path(command[-1].partition("=")[2])
        words = params_of(command[3:]) if command[-1].startswith("run_dir") else None
        values = curve(words) if words else [-1.0] * EVALUATIONS
        return run_toy(
            place,
            values,
            pause,
            execute=lambda words: subprocess.run(
                words, pass_fds=keep, check=False
            ).returncode,
        )

    return work(toy_plan(trials), folder, run)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
