"""Exit codes of a run, and signals that request it to stop."""

from __future__ import annotations

import enum
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that stop a run."""


COMPILE_THREAD = "jmarl-compile"
"""Prefix of the names of threads that compile, which cannot be interrupted."""


class ExitCode(enum.IntEnum):
    """Exit codes of the command line."""

    FINISHED = 0  # all updates and evaluations are done
    CRASHED = 1  # unexpected exception
    USER_ERROR = 2  # any ConfigError; cli.process.exit_code converts it
    OUT_OF_MEMORY = 3  # a device has too little memory for the run
    NON_FINITE = 4  # a parameter is NaN or infinite
    PREEMPTED = 75  # stopped by a signal and resumable (EX_TEMPFAIL of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C outside of a run (128 + SIGINT)
    BROKEN_PIPE = 141  # the output was closed by its reader (128 + SIGPIPE)


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Turn SIGTERM, Ctrl-C and SIGUSR1 into a flag for polling.

    A second signal exits the process immediately. The previous handlers are restored
    at the end. Python allows handlers only in the main thread; in other threads no
    signal is reported.

    Yields:
        A function that returns the name of the first signal, or an empty string.
    """
    received: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number).name)
        note = f"\n{received[0]}: saving after this chunk; repeat to exit immediately\n"
        os.write(2, note.encode())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield lambda: received[0] if received else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
