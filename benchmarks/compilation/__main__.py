"""CPU time until the end of the first update, by what the compilation cache holds.

    python -m benchmarks.compilation [systems=mappo] [env=smax_3m] [seeds=2]
        [out=results/compilation.json]

Options:

* ``systems``: systems to train.
* ``env``: environment.
* ``seeds``: seeds per run, trained in one program.
* ``out``: JSON file of the record; none by default.

Method: each run is a process of its own, which trains one update and evaluates few episodes. Three
runs of a system follow each other: with an empty cache, with another learning rate, and with the
first one again. Their CPU times contain the start of Python and JAX, tracing and compilation. The
environment variable ``JAX_COMPILATION_CACHE_DIR`` has no effect.

Output: CPU seconds of each run, and the seconds that a run would save if its learning rate were
an argument of the compiled programs.

Exit codes: 0 at the end, 1 if a run failed, 2 if an argument is unknown or invalid.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.support.common import (
    Row,
    parse_arguments,
    require,
    show_and_record,
)
from jmarl.cli.process import exit_code


DEFAULTS: dict[str, Any] = {
    "systems": ("mappo",),
    "env": "smax_3m",
    "seeds": 2,
    "out": "",
}
RATES = {"empty": "4e-4", "another_rate": "3e-4", "equal": "4e-4"}
"""Learning rate of each run, in order."""


def main() -> int:
    """Measure, print, and write the record if ``out`` is given."""
    args = parse_arguments(DEFAULTS)
    show_and_record(args, measure(args))
    return 0


def measure(args: dict[str, Any]) -> Iterator[Row]:
    """Yield the CPU seconds of the runs of each system."""
    for system in args["systems"]:
        with tempfile.TemporaryDirectory() as folder:
            seconds = {
                name: train(system, rate, Path(folder) / name, args)
                for name, rate in RATES.items()
            }
        saved = seconds["another_rate"] - seconds["equal"]
        yield {"system": system, **seconds, "saved": saved}


def train(system: str, rate: str, run: Path, args: dict[str, Any]) -> float:
    """Train one update in a process of its own; return its CPU seconds."""
    settings = {
        "env": args["env"],
        "num_seeds": args["seeds"],
        "total_timesteps": 1,
        "eval.episodes": 8,
        "system.lr": rate,
        "arch.compile_cache": run.parent / "cache",
        "run_dir": run,
        "logger": "none",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", f"jmarl.systems.{system}", *overrides]
    # It would take precedence over the empty folder.
    variables = os.environ.keys() - {"JAX_COMPILATION_CACHE_DIR"}
    environment = {name: os.environ[name] for name in variables}
    before = _cpu_seconds()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment)
    require(done.returncode == 0, f"{system} ended with code {done.returncode}")
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    """Return the CPU seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(exit_code(main))
