"""A request to stop, as a flag that the training loop polls."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PREEMPTED = 75
"""Exit code of a run that was stopped and can be resumed (``EX_TEMPFAIL``)."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
    """Turn SIGTERM, Ctrl-C and SIGUSR1 into a poll.

    Yields a function that returns the name of the first signal received, or an empty string. A
    second signal ends the process at once. The handlers found are put back at the end.
    Outside of the main thread Python allows no handlers, and nothing is ever requested.
    """
    received: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(signal.Signals(number).name)
        os.write(
            2,
            f"\n{received[0]}: saving as soon as this chunk is done; once more ends it at once\n".encode(),
        )

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before = {number: signal.signal(number, handle) for number in STOPPING}
    try:
        yield lambda: received[0] if received else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
