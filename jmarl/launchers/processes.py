"""Launchers, and the one that runs jobs in child processes, which end before their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from jmarl.runs.exit_codes import STOP_SIGNALS, ExitCode


PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
WATCH_S = 1.0
"""Seconds between two calls of ``stop_when``."""


def never() -> bool:
    """Return False: the process runs to its end."""
    return False


class Execute(Protocol):
    """Function that runs a command to its end and returns its exit code."""

    def __call__(
        self,
        command: Sequence[str],
        keep: Sequence[int] = (),
        stop_when: Callable[[], bool] = never,
    ) -> int:
        """Run a command; its process inherits the file descriptors ``keep``.

        It gets SIGTERM once ``stop_when`` returns True.
        """
        ...


class Launcher(Protocol):
    """Place where the commands of jobs run. The methods can be called from several threads."""

    @property
    def run(self) -> Execute:
        """Function that runs the command of a job to its end."""
        ...

    def stop(self) -> None:
        """Let all jobs save their states and end, and start no more."""
        ...

    def interrupt(self, number: int) -> None:
        """React to a stop signal of this process, and start no more jobs."""
        ...


@contextmanager
def received_signals(launcher: Launcher) -> Iterator[None]:
    """Interrupt a launcher with stop signals. Only the main thread can enter the context.

    Signals that are ignored, such as SIGHUP under ``nohup``, stay ignored.
    """

    def receive(number: int, frame: FrameType | None) -> None:
        launcher.interrupt(number)

    caught = [n for n in STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def memory_on_demand() -> Iterator[None]:
    """Let JAX allocate memory of an accelerator as needed if it starts within the context.

    By default it reserves three quarters, which the processes of the runs need.
    """
    known = PREALLOCATE in os.environ
    os.environ.setdefault(PREALLOCATE, "false")
    try:
        yield
    finally:
        if not known:
            del os.environ[PREALLOCATE]


class Processes:
    """Child processes that get the stop signals of this process.

    Each signal is sent on once. A run can therefore save its state: it takes a second signal as a
    request to exit immediately. The methods can be called from several threads.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._children: set[subprocess.Popen] = set()
        self._lock = threading.RLock()

    def run(
        self,
        command: Sequence[str],
        keep: Sequence[int] = (),
        stop_when: Callable[[], bool] = never,
    ) -> int:
        """Run a command in a process group of its own.

        Args:
            command: Words of the command.
            keep: File descriptors that its process inherits.
            stop_when: Function that is called every second. Once it returns True, the process gets
                SIGTERM.

        Returns:
            The exit code; 128 plus the signal if a signal ended the process; that of a stopped run
            if the processes were stopped before.
        """
        with self._lock:
            if self.stopped:
                return ExitCode.PREEMPTED
            child = subprocess.Popen(command, process_group=0, pass_fds=keep)
            self._children.add(child)
        try:
            code = _wait(child, stop_when)
        except BaseException:  # without this process, nothing would stop it
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
        finally:
            self._children.discard(child)
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Send SIGTERM to all processes, and start no more."""
        self.interrupt(signal.SIGTERM)

    def interrupt(self, number: int) -> None:
        """Send a signal to all processes, and start no more."""
        with self._lock:
            self.stopped = True
            for child in self._children:
                child.send_signal(number)


def _wait(child: subprocess.Popen, stop_when: Callable[[], bool]) -> int:
    """Wait for a process, and stop it once ``stop_when`` returns True."""
    if stop_when is not never:
        while child.poll() is None and not stop_when():
            with suppress(subprocess.TimeoutExpired):
                return child.wait(WATCH_S)
        child.send_signal(signal.SIGTERM)
    return child.wait()
