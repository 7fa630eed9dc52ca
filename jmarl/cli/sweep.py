"""Sweeps: several runs, checked before the first one starts."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from jmarl.config import ConfigError, RunConfig, check
from jmarl.runs.exit_codes import ExitCode, ResourceError


TRACEBACK = "traceback.txt"
"""File of a run folder with the traceback of an unexpected exception."""


class Job(NamedTuple):
    """A run of the command line."""

    config: RunConfig
    changes: str
    """Overrides of a sweep that apply to this job."""
    sizes: str
    """Line with the values of sizes that were null; empty for none."""
    words: tuple[str, ...] = ()
    """Arguments of ``jmarl train <system>`` for this job alone."""


RunJob = Callable[[Job], int]
"""Function that trains a job in its ``config.run_dir``, and returns an exit code."""
Outcome = tuple[int, str]
"""Exit code of a job, and the reason for a failure as one line."""
Map = Callable[[Callable[[int], Outcome], Iterable[int]], Iterable[Outcome]]
"""Function such as ``map`` that applies a function to the indices of jobs."""


def check_jobs(jobs: Sequence[Job]) -> None:
    """Check composed jobs as ``run`` does before it creates a folder. Nothing is compiled.

    Raises:
        ConfigError: If a job is invalid, or two jobs share a folder.
        ResourceError: If a job needs more memory than the devices have.
    """
    from jmarl.runs.run import check_runs

    configs = [job.config for job in jobs]
    _check_distinct([config.run_dir for config in configs])
    check_runs(configs)


def _check_distinct(folders: Sequence[str]) -> None:
    found: set[pathlib.Path] = set()
    for folder in filter(None, folders):
        path = pathlib.Path(folder).expanduser().resolve()
        rule = "each job needs its own folder; leave it out or use a key: out/${seed}"
        check(path not in found, "run_dir", folder, rule)
        found.add(path)


def until_preempted(
    function: Callable[[int], Outcome], indices: Iterable[int]
) -> Iterator[Outcome]:
    """Run jobs in sequence. A preempted job is the last."""
    for index in indices:
        outcome = function(index)
        yield outcome
        if outcome[0] == ExitCode.PREEMPTED:
            return


def run_jobs(jobs: Sequence[Job], run: RunJob, each: Map = until_preempted) -> int:
    """Run jobs, print those that failed, and return the exit code.

    A failure does not affect the other jobs.

    Args:
        jobs: Jobs that ``check_jobs`` accepts.
        run: Function that trains a job.
        each: Function that applies another one to all jobs, in sequence or at once.

    Returns:
        ``PREEMPTED`` if a job is preempted, or the first exit code that is not 0.
    """

    def run_one(index: int) -> Outcome:
        job = jobs[index]
        title = f"job {index + 1} of {len(jobs)}: {job.changes}"
        print(f"\n{title}\n{job.sizes}", end="", flush=True)
        return _run_job(job, run)

    failed: dict[int, str] = {}
    codes = []
    for number, (code, reason) in enumerate(each(run_one, range(len(jobs))), 1):
        codes.append(code)
        if code and code != ExitCode.PREEMPTED:
            failed[number] = f"exit code {code}: {reason}"
    _print_failures(jobs, failed)
    if ExitCode.PREEMPTED in codes:
        return ExitCode.PREEMPTED
    return next(filter(None, codes), ExitCode.FINISHED)


def _run_job(job: Job, run: RunJob) -> Outcome:
    from jmarl.runs.folder import open_folder
    from jmarl.runs.status import read_status

    try:
        folder = open_folder(job.config)
    except (ConfigError, ResourceError) as error:
        return _known_failure(error)
    config = dataclasses.replace(job.config, run_dir=str(folder))
    with _removed_if_empty(folder):
        try:
            code = run(job._replace(config=config))
            reason = read_status(folder).get("message", "no message")
            return code, f"{reason}; run folder: {folder}"
        except (ConfigError, ResourceError) as error:
            return _known_failure(error)
        except Exception as error:
            return ExitCode.CRASHED, _report_crash(error, folder)


def _known_failure(error: Exception) -> tuple[int, str]:
    print(f"error: {error}", file=sys.stderr)
    is_user_error = isinstance(error, ConfigError)
    code = ExitCode.USER_ERROR if is_user_error else ExitCode.RESOURCE
    return code, str(error)


def _report_crash(error: Exception, folder: pathlib.Path) -> str:
    """Write the traceback of an exception to the run folder, and return one line."""
    text = "".join(traceback.format_exception(error))
    gc.collect()  # frames of the traceback may hold arrays of the failed run
    first_line = str(error).partition("\n")[0]
    line = f"{type(error).__name__}: {first_line}"
    try:
        (folder / TRACEBACK).write_text(text, encoding="utf-8")
    except OSError:
        print(text, end="", file=sys.stderr)
        return line
    line += f"; traceback: {folder / TRACEBACK}"
    print(f"error: {line}", file=sys.stderr)
    return line


@contextlib.contextmanager
def _removed_if_empty(folder: pathlib.Path) -> Iterator[None]:
    """Remove a folder in which a job has left no file."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _print_failures(jobs: Sequence[Job], failed: dict[int, str]) -> None:
    if not failed:
        return
    print(f"\n{len(failed)} of {len(jobs)} jobs failed:", file=sys.stderr)
    for number, reason in failed.items():
        changes = jobs[number - 1].changes
        print(f"  job {number} ({changes}): {reason}", file=sys.stderr)
