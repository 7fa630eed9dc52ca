"""The queue of a study: cells that several threads and processes work off, each cell once."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from jmarl.runs.exit_codes import STOP_SIGNALS, ExitCode
from jmarl.runs.progress import duration_text, open_reporter
from jmarl.studies.cells import PlannedCell
from jmarl.studies.processes import Execute


STOPPED = {
    ExitCode.PREEMPTED,
    ExitCode.INTERRUPTED,
    *(128 + number for number in STOP_SIGNALS),
}
"""Exit codes of a job after which no further job starts."""
LOCKS = ".locks"
"""Folder in a study's folder with a file for each cell, which the process at work keeps locked."""
POLL_S = 1.0
"""Seconds between two looks at cells that another process works on."""


class Job(NamedTuple):
    """A command of a study."""

    work: str
    """``train``, ``resume`` or ``measure``."""
    command: list[str]


FindJob = Callable[[PlannedCell], Job | None]
"""Function that returns what is to be done for a cell now; None if nothing is."""


class Claimed(NamedTuple):
    """A cell that no other thread or process works on."""

    planned: PlannedCell
    job: Job
    lock: IO[str]
    """File whose lock ends when it is closed here and in the process of the job."""


class Queue:
    """Cells with something to do.

    A cell is locked while somebody works on it. The process of its job inherits the lock. Thus, if
    the process of the study is killed, its run keeps the cell until the run ends.

    Args:
        folder: Folder of the study.
        cells: Its cells.
        find_job: What is to be done for a cell.
        run: Function that runs the command of a job.
    """

    def __init__(
        self,
        folder: Path,
        cells: Sequence[PlannedCell],
        find_job: FindJob,
        run: Execute,
    ) -> None:
        self._locks = folder / LOCKS
        self._waiting = [each for each in cells if find_job(each)]
        self._find_job, self._run = find_job, run
        self._total = len(self._waiting)
        self._codes: list[int] = []
        self._stopped = False
        self._mutex = threading.Lock()
        self._start = time.monotonic()

    def work_off(self, jobs: int = 1) -> int:
        """Work until every cell is done, here or in another process, or until a job is stopped.

        Args:
            jobs: Number of jobs at a time.

        Returns:
            The exit code of a job that was stopped by a signal, or the first that is not 0.
        """
        if not self._waiting:
            return ExitCode.FINISHED
        with ThreadPoolExecutor(jobs) as pool:
            workers = [pool.submit(self._work) for _ in range(jobs)]
            for worker in workers:
                worker.result()
        stopped = [code for code in self._codes if code in STOPPED]
        failed = list(filter(None, self._codes))
        return next(iter([*stopped, *failed]), ExitCode.FINISHED)

    def _work(self) -> None:
        while not self._stopped and self._waiting:
            claimed = self._claim_next()
            if claimed is None:
                time.sleep(POLL_S)
                continue
            with claimed.lock:
                code = self._run(claimed.job.command, (claimed.lock.fileno(),))
            self._end(claimed, code)

    def _claim_next(self) -> Claimed | None:
        """Take the first cell that nobody works on, and drop those that are done."""
        with self._mutex:
            for planned in list(self._waiting):
                try:
                    lock = self._lock(planned.cell.name)
                except OSError as error:
                    self._drop(planned, f"cannot be locked: {error.strerror}")
                    continue
                if lock is None:
                    continue
                job = self._find_job(planned)
                self._waiting.remove(planned)
                if job:
                    self._announce(planned, job)
                    return Claimed(planned, job, lock)
                lock.close()
        return None

    def _lock(self, name: str) -> IO[str] | None:
        """Lock a cell; return None if another thread or process works on it."""
        self._locks.mkdir(parents=True, exist_ok=True)
        file = (self._locks / name).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _announce(self, planned: PlannedCell, job: Job) -> None:
        done = len(self._codes)
        begun = self._total - len(self._waiting)
        seconds = time.monotonic() - self._start
        left = seconds / done * (self._total - done) if done else float("nan")
        text = f"[{begun}/{self._total}] {job.work} {planned.cell.name}"
        open_reporter().info(f"{text}, ETA {duration_text(left)}")

    def _drop(self, planned: PlannedCell, reason: str) -> None:
        self._waiting.remove(planned)
        self._codes.append(ExitCode.RESOURCE)
        open_reporter().warn(f"{planned.cell.name}: {reason}")

    def _end(self, claimed: Claimed, code: int) -> None:
        name = claimed.planned.cell.name
        with self._mutex:
            self._codes.append(code)
            if code in STOPPED:
                self._stopped = True
                open_reporter().warn(f"{name}: stopped; the same command continues")
            elif code:
                text = f"{name}: exit code {code} of {claimed.job.work}"
                open_reporter().warn(text)
