"""``jmarl train <system>``: one run, or the runs of a sweep.

System modules import this one to print help, so nothing here imports JAX or Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from jmarl.cli.process import use_compile_cache
from jmarl.config import RunConfig


def main(system: str) -> NoReturn:
    """Run ``jmarl train <system>`` with the arguments of this process, and exit."""
    from jmarl.cli import commands

    commands.main(["train", system, *sys.argv[1:]])


def launch(
    system: str, arguments: Sequence[str], run: Callable[[RunConfig], int]
) -> int:
    """Run one job, or with ``-m`` several jobs in sequence, and return the exit code.

    All jobs are checked before the first starts.

    Raises:
        ConfigError: If a job is invalid.
        ResourceError: If a job of a sweep needs more memory than the devices have.
    """
    from jmarl.cli.jobs import compose_jobs

    jobs = compose_jobs(system, arguments)  # errors need none of the imports below

    from jmarl.cli.sweep import check_jobs, run_jobs
    from jmarl.runs.progress import optional_output

    with optional_output():
        if len(jobs) > 1:
            check_jobs(jobs)
            return run_jobs(jobs, run)
        if not jobs:  # --cfg has printed the configuration
            return 0
        print(jobs[0].sizes, end="", flush=True)
        use_compile_cache(jobs[0].config.arch)
        return run(jobs[0].config)
