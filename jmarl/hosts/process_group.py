"""The processes of a run: this one's number, and values that all of them share.

Every process calls the functions of this module at the same points of a run, because they wait
for each other. Process 0 writes all files of a run. This module imports JAX only when several
processes exchange a value.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

from jmarl.config.errors import ConfigError


class Process(NamedTuple):
    """A process of a run."""

    index: int
    count: int
    """Number of processes."""

    def __str__(self) -> str:
        place = f"{platform.node()}, pid {os.getpid()}"
        return f"process {self.index} of {self.count} ({place})"


class WriterError(RuntimeError):
    """Error of process 0, in the other processes, as one line."""


_started: list[Process] = []


def current() -> Process:
    """Return this process; number 0 of 1 unless ``hosts.start`` has connected several."""
    return _started[-1] if _started else Process(0, 1)


def register(process: Process) -> None:
    """Record the number of this process, once it is connected to the others."""
    _started.append(process)


def count() -> int:
    """Return the number of processes of a run."""
    return current().count


def is_writer() -> bool:
    """Return True in the process that writes files and prints progress."""
    return current().index == 0


def writer_only(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function that writes into one that does nothing in other processes than 0."""

    @functools.wraps(function)
    def written_once(*args: Any, **keywords: Any) -> None:
        if is_writer():
            function(*args, **keywords)

    return written_once


def largest(value: int) -> int:
    """Return the largest value of all processes, at least 0 and less than 2**31."""
    if count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.int32(value)).max())


def agreed(flag: bool) -> bool:
    """Return True if a condition holds in every process."""
    return largest(int(not flag)) == 0


def share(value: Any) -> Any:
    """Return a value of process 0, as JSON, in all processes."""
    if count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    sent = np.resize(data, size)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
    return json.loads(received.tobytes().decode())


def by_writer(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in process 0, and return its result, as JSON, in all processes.

    Raises:
        ConfigError: In all processes, if the function raises it.
        Exception: In process 0, if the function raises another error. The other processes raise
            ``WriterError``.
    """
    result, problem, error = None, ["", ""], None
    if is_writer():
        try:
            result = function(*args)
        except Exception as raised:
            error, problem = raised, [type(raised).__name__, str(raised)]
    result, (kind, text) = share([result, problem])
    if error is not None:
        raise error
    if kind == ConfigError.__name__:
        raise ConfigError(text)
    if kind:
        reason = " ".join(f"{kind}: {text}".split())
        raise WriterError(f"process 0 of {count()} failed: {reason}")
    return result


class AgreedStop:
    """Stop requests that reach all processes at the same call.

    Args:
        received: Function that returns the name of a signal that this process has received, or
            an empty string.
        names: Names of all signals.
    """

    def __init__(self, received: Callable[[], str], names: tuple[str, ...]) -> None:
        self._received = received
        self._names = ("", *names)
        self._stopped = ""

    def __call__(self) -> str:
        """Return the name of a signal that any process has received, or an empty string."""
        if not self._stopped:
            number = self._names.index(self._received())
            self._stopped = self._names[largest(number)]
        return self._stopped
