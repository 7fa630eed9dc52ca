"""The part of a Slurm job that runs on the node. It is pickled by submitit.

Slurm sends SIGUSR2 before the time limit, and some clusters send it before a preemption. The run
then saves, and submitit queues the job again. SIGTERM means that the job is canceled or preempted:
the run saves, and Slurm decides what comes next.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from jmarl.runs.exit_codes import ExitCode


SLURM_ENDS_S = 600
"""Seconds in which Slurm ends a job after SIGTERM, or queues it again."""


def argument(command: Sequence[str], key: str) -> str:
    """Return the value of ``key=value`` in a command; an empty string if it has none."""
    start = f"{key}="
    return next((w.removeprefix(start) for w in command if w.startswith(start)), "")


def continued(command: Sequence[str]) -> list[str]:
    """Return the command that resumes a run if the command has started it, else the command.

    Args:
        command: Words ``<python> -m <module> key=value ...``.
    """
    folder = argument(command, "run_dir")
    if folder and (Path(folder).expanduser() / "config.yaml").exists():
        return [*command[:3], f"resume={folder}"]
    return list(command)


class SlurmTask:
    """Function that runs a command in a child process, and returns its exit code.

    Args:
        command: Words of the command.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child = 0
        self._has_term = False

    def __call__(self) -> int:
        """Run the command, or resume its run."""
        from submitit.core.utils import UncompletedJobError

        self._start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._terminate)
        with suppress(UncompletedJobError):  # the job is not queued again
            _exit_code(self._child)
        code = _exit_code(self._child)
        if self._has_term and code == ExitCode.PREEMPTED:
            # A job that ends by itself would not be queued again after a preemption
            time.sleep(SLURM_ENDS_S)
        return code

    def checkpoint(self) -> Any:
        """Stop the run, and return its continuation; None if there is nothing to continue.

        submitit calls it in its handler of SIGUSR2.
        """
        from submitit.helpers import DelayedSubmission

        if self._child:
            os.kill(self._child, signal.SIGTERM)
            if _exit_code(self._child) != ExitCode.PREEMPTED:
                return None
        return DelayedSubmission(SlurmTask(self._command))

    def _start(self) -> None:
        """Start the child, which must not end by the SIGUSR2 of this process."""
        command = continued(self._command)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        self._child = os.spawnv(os.P_NOWAIT, command[0], command)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if not self._has_term:  # a run ends immediately at a second signal
            self._has_term = True
            os.kill(self._child, signal.SIGTERM)


def _exit_code(child: int) -> int:
    """Wait for a process, and return its exit code; 128 plus the signal that ended it.

    The process is not reaped, so that a signal handler can wait for it too.
    """
    end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    if end is None or end.si_code == os.CLD_EXITED:
        return end.si_status if end else ExitCode.CRASHED
    return 128 + end.si_status
