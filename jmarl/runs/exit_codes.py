"""Exit codes of a run, and signals that request it to stop."""

from __future__ import annotations

import enum
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jmarl.hosts.process_group import count


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals that stop a run."""
LAST_WORDS_S = 2.0
"""Seconds that a process has to record its end after a second signal."""


COMPILE_THREAD = "jmarl-compile"
"""Prefix of the names of threads that compile, which cannot be interrupted."""


class ResourceError(Exception):
    """Error for too little memory or disk space, as one line. The exit code is 3."""


class ExitCode(enum.IntEnum):
    """Exit codes of the command line."""

    FINISHED = 0  # all updates and evaluations are done
    CRASHED = 1  # unexpected exception
    USER_ERROR = 2  # an invalid key, value, folder or checkpoint (ConfigError)
    RESOURCE = 3  # too little memory or disk space, or results that could not be saved
    NON_FINITE = 4  # a reward, loss or parameter is NaN or infinite; see on_nonfinite
    PREEMPTED = 75  # stopped by a signal and resumable (EX_TEMPFAIL of sysexits.h)
    INTERRUPTED = 130  # Ctrl-C outside of a run, or twice in a run (128 + SIGINT)
    BROKEN_PIPE = 141  # the output was closed, except in training (128 + SIGPIPE)


def full_disk_reason(error: BaseException) -> str:
    """Return the system's text for a full disk if it caused the error, else an empty string."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reasons = [
        reason for number in numbers if (reason := os.strerror(number)) in str(error)
    ]
    return reasons[0] if reasons else ""


class StopRequested(BaseException):
    """A stop request while a run has nothing to save. Its text is the name of the signal."""


class StopRequests:
    """Stop requests of a run, for polling."""

    def __init__(self) -> None:
        self.raises = False
        self.has_raised = False
        self._received: list[str] = []

    def __call__(self) -> str:
        """Return the name of the first signal, or an empty string."""
        return self._received[0] if self._received else ""

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise ``StopRequested`` for each request before and within the context.

        With several processes, a request waits for the first chunk instead, at which all agree.
        """
        self.raises = count() == 1
        try:
            if self.raises:
                self._raise_if_received()
            yield
        finally:
            self.raises = False

    def add(self, number: int, frame: FrameType | None = None) -> None:
        """Add a request. This is the handler of the signals."""
        self._received.append(signal.Signals(number).name)
        if self.raises:
            self._raise_if_received()

    def _raise_if_received(self) -> None:
        if self._received:
            self.has_raised = True
            raise StopRequested(self())


@contextmanager
def stop_requests(
    note: Callable[[str], None], record_exit: Callable[[int], None]
) -> Iterator[StopRequests]:
    """Turn the signals of ``STOP_SIGNALS`` into requests for polling.

    A second signal ends the process immediately, even while compiled code runs. SIGHUP
    stays ignored if it is ignored, as under ``nohup``. Python allows handlers only in the main
    thread; in other threads no signal is reported. The previous handlers are restored at
    the end.

    Args:
        note: Receives one line at the first signal.
        record_exit: Receives the second signal, before the exit.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    with _watched(requests, note, record_exit):
        handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        if handlers[signal.SIGHUP] == signal.SIG_IGN:
            del handlers[signal.SIGHUP]
        for number in handlers:
            signal.signal(number, requests.add)
        try:
            yield requests
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _watched(
    requests: StopRequests,
    note: Callable[[str], None],
    record_exit: Callable[[int], None],
) -> Iterator[None]:
    """Watch for signals in a thread.

    Python calls a handler only after compiled code has returned, and once for several equal
    signals. The interpreter writes the number of each signal into a pipe at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    arguments = (reader, requests, note, record_exit)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writer)
        thread.join()
        os.close(reader)


def _watch(
    reader: int,
    requests: StopRequests,
    note: Callable[[str], None],
    record_exit: Callable[[int], None],
) -> None:
    """Print a note at the first stop signal, and exit at the second."""
    stopping = False
    while byte := os.read(reader, 1):
        number = byte[0]
        if number not in STOP_SIGNALS:
            continue
        if stopping:
            _call(record_exit, number).join(LAST_WORDS_S)
            os._exit(128 + number)
        if not (requests.raises or requests.has_raised):
            name = signal.Signals(number).name
            _call(note, f"{name}: saving after this chunk; repeat to exit immediately")
        stopping = True


def _call(function: Callable[[Any], None], argument: Any) -> threading.Thread:
    """Call a function in a thread, because writing to a pipe or a disk can block."""
    thread = threading.Thread(target=function, args=(argument,), daemon=True)
    thread.start()
    return thread
