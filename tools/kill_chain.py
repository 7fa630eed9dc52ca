"""Kill runs at random moments, resume them, and compare them with uninterrupted ones.

    python -m tools.kill_chain [systems=ippo,mam_ppo,qmix] [kills=4] [seed=0] [key=value ...]

Each system is trained twice: once to the end, and once in processes that end with SIGKILL. The
moments are uniform over the remaining wall time, including start-up, compilation and saving. All
other arguments are keys of the runs. The exit code is 1 if the results of any two runs differ.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from jmarl.results.metrics_file import read_rows
from tools.compare_runs import differences, digest, logged_rows, saved_steps


OPTIONS: dict[str, str] = {"systems": "ippo,mam_ppo,qmix", "kills": "4", "seed": "0"}
SIZES: tuple[str, ...] = (
    "env=smax_3m",
    "num_envs=16",
    "rollout_length=16",
    "total_timesteps=40_000",
    "eval.every=2_000",
    "eval.episodes=32",
    "seed=3",
)
"""A run with 20 evaluations and checkpoints. Later arguments take precedence."""
INCOMPLETE = "*.orbax-checkpoint-tmp*"


class Reference(NamedTuple):
    """An uninterrupted run, and how its wall time is divided."""

    folder: pathlib.Path
    starting_s: float
    training_s: float
    updates: int


class Attempt(NamedTuple):
    """The end of a process: its exit code and its output."""

    code: int
    output: str
    seconds: float


def run_process(
    system: str, folder: pathlib.Path, overrides: list[str], limit_s: float | None
) -> Attempt:
    """Start or resume a run, and kill it after ``limit_s`` seconds unless it ends earlier."""
    where = [*overrides, f"run_dir={folder}"]
    if (folder / "config.yaml").exists():
        where = [f"resume={folder}"]
    command = [sys.executable, "-m", "jmarl", "train", system, *where]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}.cache"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=env
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
        code = process.wait()
        output.seek(0)
        return Attempt(code, output.read(), time.monotonic() - start)


def train_reference(
    system: str, folder: pathlib.Path, overrides: list[str]
) -> Reference:
    """Train a run without interruption, and measure its parts."""
    attempt = run_process(system, folder, overrides, None)
    if attempt.code:
        raise SystemExit(f"{system}: exit code {attempt.code}\n{attempt.output}")
    last = read_rows(folder / "metrics.jsonl")[-1]
    training_s = min(last["time"], attempt.seconds)
    return Reference(
        folder, attempt.seconds - training_s, training_s, saved_steps(folder)[-1]
    )


def expected_s(reference: Reference, folder: pathlib.Path) -> float:
    """Return the expected wall time of a process that resumes a run now."""
    done = max(saved_steps(folder), default=0) / reference.updates
    return reference.starting_s + (1 - done) * reference.training_s


def kill_once(
    system: str,
    folder: pathlib.Path,
    overrides: list[str],
    moment_s: float,
) -> Attempt:
    """Kill a run at a moment. If it ends first, repeat with an earlier moment."""
    before = folder.with_suffix(".before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, before)
    while True:
        attempt = run_process(system, folder, overrides, moment_s)
        if attempt.code and "finished: " not in attempt.output:
            return attempt
        shutil.rmtree(folder)
        if before.exists():
            shutil.copytree(before, folder)
        moment_s /= 2


def first_report(output: str) -> str:
    """Return the text that a run printed about its start."""
    lines = [line for line in output.splitlines() if "  run folder  " in line]
    return lines[0].rpartition(": ")[2] if lines else "nothing yet"


def phase(folder: pathlib.Path, output: str) -> str:
    """Return the phase in which a process was killed."""
    if "  run folder  " not in output:
        return "during start-up"
    if "compiled in" not in output:
        return "during compilation"
    if list((folder / "checkpoints").glob(INCOMPLETE)):
        return "while a checkpoint was written"
    return "during training"


def last_update(folder: pathlib.Path) -> int:
    """Return the last update of a run in its metrics."""
    path = folder / "metrics.jsonl"
    return max((row["update"] for row in read_rows(path)), default=0)


def report_kill(
    number: int, expected: float, folder: pathlib.Path, attempt: Attempt
) -> None:
    """Describe a process that was killed."""
    if attempt.code != -9:
        raise SystemExit(f"exit code {attempt.code}\n{attempt.output}")
    print(
        f"  process {number}: {first_report(attempt.output)}\n"
        f"    SIGKILL after {attempt.seconds:.1f} of about {expected:.1f} s "
        f"{phase(folder, attempt.output)}, at update {last_update(folder)}, "
        f"checkpoints: {', '.join(map(str, saved_steps(folder))) or 'none'}",
        flush=True,
    )


def run_chain(
    system: str, kills: int, chance: random.Random, overrides: list[str]
) -> bool:
    """Compare a run that is killed several times with an uninterrupted one."""
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent, "killed")
        reference = train_reference(system, pathlib.Path(parent, "whole"), overrides)
        seconds = reference.starting_s + reference.training_s
        print(
            f"{system}: {reference.updates} updates without interruption "
            f"in {seconds:.1f} s",
            flush=True,
        )
        for number in range(1, kills + 1):
            expected = expected_s(reference, folder)
            moment_s = chance.uniform(0, expected)
            attempt = kill_once(system, folder, overrides, moment_s)
            report_kill(number, expected, folder, attempt)
        attempt = run_process(system, folder, overrides, None)
        print(f"  process {kills + 1}: {first_report(attempt.output)}")
        print(f"    exit code {attempt.code} after {attempt.seconds:.1f} s", flush=True)
        return attempt.code == 0 and report_comparison(reference.folder, folder)


def report_comparison(whole: pathlib.Path, killed: pathlib.Path) -> bool:
    """Print whether two runs are equal."""
    found = differences(whole, killed)
    print(f"  digest of the uninterrupted run  {digest(whole)}")
    print(f"  digest of the killed run         {digest(killed)}")
    for line in found:
        print(f"  {line}")
    if not found:
        rows = len(logged_rows(killed))
        print(f"  equal: final state, {rows} rows of metrics, evaluation.json")
    return not found


def read_arguments(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split arguments into the options of this command and the keys of the runs."""
    options, overrides = dict(OPTIONS), list(SIZES)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in options:
            options[key] = value
        else:
            overrides.append(argument)
    return options, overrides


def main(arguments: list[str]) -> int:
    """Run the chains; return the exit code."""
    options, overrides = read_arguments(arguments)
    chance = random.Random(int(options["seed"]))
    equal = [
        run_chain(system, int(options["kills"]), chance, overrides)
        for system in options["systems"].split(",")
    ]
    print(
        f"{sum(equal)} of {len(equal)} chains have the results of the uninterrupted run"
    )
    return int(not all(equal))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
