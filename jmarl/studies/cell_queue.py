"""The queue of a study: cells that several threads and processes work off, each cell once."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Generic, NamedTuple, Protocol, TypeVar

from jmarl.launchers.processes import Execute, never
from jmarl.runs.exit_codes import STOP_SIGNALS, ExitCode
from jmarl.runs.progress import duration_text, open_reporter


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


class Named(Protocol):
    """A cell of a study, or a trial of a tuning."""

    @property
    def name(self) -> str:
        """Name, unique in the queue and in the file system."""
        ...


CellT = TypeVar("CellT", bound=Named)


def unchanged(code: int) -> int:
    """Return an exit code as it is."""
    return code


class Job(NamedTuple):
    """A command of a study."""

    work: str
    """``train``, ``resume`` or ``measure``."""
    command: list[str]
    stop_when: Callable[[], bool] = never
    """Function that returns True once the process of the command has to stop."""
    conclude: Callable[[int], int] = unchanged
    """Function of the exit code that returns the one to report. The cell is still locked."""


class Claimed(NamedTuple, Generic[CellT]):
    """A cell that no other thread or process works on."""

    planned: CellT
    job: Job
    lock: IO[str]
    """File whose lock ends when it is closed here and in the process of the job."""


class Queue(Generic[CellT]):
    """Cells with something to do.

    A cell is locked while somebody works on it. The process of its job inherits the lock. Thus, if
    the process of the study is killed, its run keeps the cell until the run ends.

    Args:
        folder: Folder of the study.
        cells: Cells that may have something to do.
        find_job: Function that returns what is to be done for a cell now; None if nothing is. It
            is called while the cell is locked.
        run: Function that runs the command of a job.
    """

    def __init__(
        self,
        folder: Path,
        cells: Sequence[CellT],
        find_job: Callable[[CellT], Job | None],
        run: Execute,
    ) -> None:
        self._locks = folder / LOCKS
        self._waiting = list(cells)
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
            job, lock = claimed.job, claimed.lock
            with lock:
                code = self._run(job.command, (lock.fileno(),), job.stop_when)
                code = job.conclude(code)
            self._end(claimed, code)

    def _claim_next(self) -> Claimed[CellT] | None:
        """Take the first cell that nobody works on, and drop those that are done."""
        with self._mutex:
            for planned in list(self._waiting):
                try:
                    lock = self._lock(planned.name)
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
                self._total -= 1
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

    def _announce(self, planned: CellT, job: Job) -> None:
        done = len(self._codes)
        begun = self._total - len(self._waiting)
        seconds = time.monotonic() - self._start
        left = seconds / done * (self._total - done) if done else float("nan")
        text = f"[{begun}/{self._total}] {job.work} {planned.name}"
        open_reporter().info(f"{text}, ETA {duration_text(left)}")

    def _drop(self, planned: CellT, reason: str) -> None:
        self._waiting.remove(planned)
        self._codes.append(ExitCode.RESOURCE)
        open_reporter().warn(f"{planned.name}: {reason}")

    def _end(self, claimed: Claimed[CellT], code: int) -> None:
        name = claimed.planned.name
        with self._mutex:
            self._codes.append(code)
            if code in STOPPED:
                self._stopped = True
                open_reporter().warn(f"{name}: stopped; the same command continues")
            elif code:
                text = f"{name}: exit code {code} of {claimed.job.work}"
                open_reporter().warn(text)
