"""Sweeps: several runs in sequence, checked before the first one starts."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jmarl.cli.process import use_compile_cache
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


def run_jobs(jobs: Sequence[Job], run: Callable[[RunConfig], int]) -> int:
    """Run jobs in sequence, print those that failed, and return the exit code.

    A failure does not affect the other jobs. A preempted job ends the sweep.

    Args:
        jobs: Jobs that ``check_jobs`` accepts.
        run: Function that trains a configuration and returns an exit code.

    Returns:
        ``PREEMPTED``, or the first exit code that is not 0.
    """
    failed: dict[int, str] = {}
    codes = []
    for number, job in enumerate(jobs, 1):
        print(
            f"\njob {number} of {len(jobs)}: {job.changes}\n{job.sizes}",
            end="",
            flush=True,
        )
        code, reason = _run_job(job, run)
        codes.append(code)
        if code == ExitCode.PREEMPTED:
            break
        if code:
            failed[number] = f"exit code {code}: {reason}"
    _print_failures(jobs, failed)
    return code if code == ExitCode.PREEMPTED else next(filter(None, codes), 0)


def _run_job(job: Job, run: Callable[[RunConfig], int]) -> tuple[int, str]:
    """Run a job. Return its exit code, and the reason for a failure as one line."""
    from jmarl.runs.folder import open_folder
    from jmarl.runs.status import read_status

    try:
        folder = open_folder(job.config)
    except (ConfigError, ResourceError) as error:
        return _known_failure(error)
    config = dataclasses.replace(job.config, run_dir=str(folder))
    use_compile_cache(config.arch)
    with _removed_if_empty(folder):
        try:
            code = run(config)
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
