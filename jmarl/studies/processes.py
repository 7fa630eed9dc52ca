"""Child processes that end before their parent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from jmarl.runs.exit_codes import STOP_SIGNALS


PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
Execute = Callable[[Sequence[str]], int]
"""Function that runs a command to its end and returns its exit code."""


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


def execute(command: Sequence[str]) -> int:
    """Run a command in a process group of its own, and return its exit code.

    Signals that stop this process are sent on, once each, except those that are ignored, such as
    SIGHUP under ``nohup``. A run can therefore save its state:
    it takes a second signal as a request to exit immediately.

    Args:
        command: Words of the command.

    Returns:
        The exit code; 128 plus the signal if a signal ended the process.
    """
    child = subprocess.Popen(command, process_group=0)

    def send_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    caught = [n for n in STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, send_on) for number in caught}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
