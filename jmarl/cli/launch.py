"""``jmarl train <system>``: one run, or the runs of a sweep.

System modules import this one to print help, so nothing here imports JAX or Hydra.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from jmarl.cli.process import use_compile_cache
from jmarl.config import RunConfig, check


if TYPE_CHECKING:
    from jmarl.cli.sweep import Job
    from jmarl.launchers.processes import Launcher


def main(system: str) -> NoReturn:
    """Run ``jmarl train <system>`` with the arguments of this process, and exit."""
    from jmarl.cli import commands

    commands.main(["train", system, *sys.argv[1:]])


def launch(
    system: str, arguments: Sequence[str], run: Callable[[RunConfig], int]
) -> int:
    """Run one job, or with ``-m`` several jobs in sequence, and return the exit code.

    All jobs are checked before the first starts. With ``launcher=slurm`` they run on a cluster.

    Raises:
        ConfigError: If a job is invalid.
        ResourceError: If a job of a sweep needs more memory than the devices have.
    """
    from jmarl.launchers.cluster import composed_for, open_launcher, take_cluster

    cluster, words = take_cluster(arguments)
    rule = "a job of a launcher has one process; write a job script instead"
    check(not (cluster and "distributed=true" in words), "distributed", "true", rule)
    launcher = open_launcher(cluster)
    with composed_for(cluster):
        from jmarl.cli.jobs import compose_jobs

        jobs = compose_jobs(system, words)  # errors need none of the imports below

        from jmarl.cli.sweep import check_jobs
        from jmarl.runs.progress import optional_output

        if cluster or len(jobs) > 1:
            with optional_output():
                check_jobs(jobs)
    with optional_output():
        if not jobs:  # --cfg has printed the configuration
            return 0
        if cluster:
            return _run_with(launcher, system, jobs, cluster.jobs)
        return _run_here(jobs, run)


def _run_here(jobs: Sequence[Job], run: Callable[[RunConfig], int]) -> int:
    """Run jobs in this process."""
    from jmarl.cli.sweep import run_jobs

    def run_job(job: Job) -> int:
        use_compile_cache(job.config.arch)
        return run(job.config)

    if len(jobs) > 1:
        return run_jobs(jobs, run_job)
    print(jobs[0].sizes, end="", flush=True)
    return run_job(jobs[0])


def _run_with(
    launcher: Launcher, system: str, jobs: Sequence[Job], at_once: int
) -> int:
    """Run jobs with a launcher, several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from jmarl.cli.sweep import run_jobs
    from jmarl.launchers.processes import received_signals

    start = [sys.executable, "-m", f"jmarl.systems.{system}"]

    def run_job(job: Job) -> int:
        words = [w for w in job.words if not w.startswith("run_dir=")]
        place = [] if job.config.resume else [f"run_dir={job.config.run_dir}"]
        return launcher.run([*start, *words, *place])

    with received_signals(launcher), ThreadPoolExecutor(at_once) as pool:
        return run_jobs(jobs, run_job, pool.map)
