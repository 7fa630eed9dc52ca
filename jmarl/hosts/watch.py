"""End all processes of a run if one is lost, with its name in the error.

Each process has a connection to process 0. The operating system closes it when a process ends, also
by SIGKILL. If a host loses its power or its network, nothing is closed. Then JAX ends the other
processes after ``start.HEARTBEAT_TIMEOUT_S``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jmarl.hosts import process_group


CONNECT_S = 10.0
"""Seconds to connect to process 0."""
GRACE_S = 10.0
"""Seconds that a process has to end by itself after another has reported a failure.

Most failures occur in all processes at once, such as a loss that is not finite.
"""
WELCOME = b"jmarl\n"
"""Answer of process 0 to a process of the same run."""
LOST = 1
"""Exit code of a process that ends because another is lost."""


class _Watch:
    """Connections of this process."""

    def __init__(self) -> None:
        self.peers: dict[str, socket.socket] = {}
        """Open connections, by name of the process at the other end."""
        self.is_over = False
        self.record: Callable[[str], None] = lambda message: None
        self._ending = threading.Lock()

    def follow(self, name: str, connection: socket.socket) -> None:
        """Read the messages of another process until its end."""
        self.peers[name] = connection
        message = {"failed": ""}
        with contextlib.suppress(OSError, ValueError):
            for line in connection.makefile("r", encoding="utf-8"):
                message = json.loads(line)
        del self.peers[name]
        if self.is_over or "done" in message:
            return
        if reason := message["failed"]:
            time.sleep(GRACE_S)
            self.end(message.get("name", name), f"failed: {reason}")
        self.end(name, "has ended without a message")

    def end(self, name: str, reason: str) -> None:
        """End this process, because another is lost."""
        self._ending.acquire()  # never released: only one thread may end the process
        if self.is_over:
            return
        message = f"{name} {reason}; resume the run from its last checkpoint"
        text = f"error: {process_group.current()} stops: {message}\n"
        os.write(2, text.encode())
        with contextlib.suppress(Exception):
            self.record(message)
        self.tell(failed=reason.removeprefix("failed: "), name=name)
        self.wait(GRACE_S / 2)
        os._exit(LOST)

    def tell(self, **message: Any) -> None:
        """Send a message to all connected processes."""
        line = f"{json.dumps(message)}\n".encode()
        for connection in list(self.peers.values()):
            with contextlib.suppress(OSError):
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)

    def wait(self, seconds: float) -> None:
        """Wait in process 0 for the others to end, as they need it for their shutdown."""
        deadline = time.monotonic() + seconds
        while process_group.is_writer() and self.peers and time.monotonic() < deadline:
            time.sleep(0.05)


_watch = _Watch()


def start() -> None:
    """Connect all processes to process 0. Every process must call it."""
    if process_group.count() == 1:
        return
    if process_group.is_writer():
        server = socket.create_server(("", 0))
        token = secrets.token_hex(16)
        names = [os.environ.get("JAX_COORDINATOR_ADDRESS", "").rpartition(":")[0]]
        names += [socket.gethostname(), socket.getfqdn()]
        process_group.share([token, server.getsockname()[1], names])
        _thread(_accept, server, token)
        ready = True
    else:
        token, port, names = process_group.share(None)
        ready = _connect(token, port, [name for name in names if name])
    if not process_group.agreed(ready) and process_group.is_writer():
        text = "a lost process is noticed only by JAX, after its heartbeats end"
        print(f"warning: no connection between the processes; {text}", file=sys.stderr)


def _thread(function: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=function, args=args, name="watch", daemon=True).start()


def _accept(server: socket.socket, token: str) -> None:
    """Answer all connections, as long as this process runs."""
    while True:
        connection, _ = server.accept()
        _thread(_greet, connection, token)


def _greet(connection: socket.socket, token: str) -> None:
    """Follow the process at the other end if it has the token of this run."""
    connection.settimeout(CONNECT_S)
    with contextlib.suppress(OSError, ValueError, TypeError):
        given, name = json.loads(_read_line(connection))
        if secrets.compare_digest(given, token):
            connection.sendall(WELCOME)
            connection.settimeout(None)
            _watch.follow(name, connection)


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < 4096:
        line += connection.recv(1) or b"\n"
    return line


def _connect(token: str, port: int, names: list[str]) -> bool:
    """Connect to process 0 by the first of its names that works."""
    for name in names:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((name, port), CONNECT_S)
            hello = json.dumps([token, str(process_group.current())])
            connection.sendall(f"{hello}\n".encode())
            if _read_line(connection) != WELCOME:
                continue  # another machine of that name
            connection.settimeout(None)
            first = f"process 0 of {process_group.count()} ({name})"
            _thread(_watch.follow, first, connection)
            return True
    return False


@contextlib.contextmanager
def recorded_loss(record: Callable[[str], None]) -> Iterator[None]:
    """Call a function with a message before this process ends for the loss of another."""
    _watch.record = record
    try:
        yield
    finally:
        _watch.record = lambda message: None


def settle() -> None:
    """Wait after an error of a collective, whose cause may be the loss of a process.

    In that case the process ends here.
    """
    if process_group.count() > 1:
        time.sleep(GRACE_S / 2)


def fail(reason: str) -> None:
    """Tell the other processes that this one ends with an error. They end soon afterwards."""
    if process_group.count() > 1:
        _watch.is_over = True
        _watch.tell(
            failed=" ".join(reason.split())[:500], name=str(process_group.current())
        )
        _watch.wait(2 * GRACE_S)


def finish() -> None:
    """Wait for all processes before this one ends without an error."""
    if process_group.count() > 1:
        process_group.agreed(True)
        _watch.is_over = True
        _watch.tell(done=True)
