"""SMAClite (Michalski et al. 2023, arXiv:2305.05566) in a process of its own.

It needs a checkout of ``uoe-agents/smaclite`` and a Python with ``gymnasium``, ``scikit-learn`` and
``Rtree``. That Python can be another one than jmarl's. SMAClite computes the masks of actions twice
in each step here: for the random actions, and to check them. Its central state, which jmarl's step
includes, is not computed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.support.common import require


DRIVER = Path(__file__).with_name("smaclite_driver.py")


class Episodes(NamedTuple):
    """Episodes that were played, and their cost."""

    steps: int
    episodes: int
    cpu_s: float


class SMAClite(NamedTuple):
    """A checkout and the Python that runs it."""

    checkout: str
    python: str

    def names(self) -> tuple[str, ...]:
        """Return the names of the maps."""
        return tuple(self._run("names")["names"])

    def play(
        self, name: str, limit: int, seconds: float, episodes: int = 1
    ) -> Episodes:
        """Play episodes for at least so long, and at least so many; see the driver."""
        words = (name, limit, seconds, episodes)
        return Episodes(**self._run("play", *map(str, words)))

    def _run(self, *words: str) -> dict[str, Any]:
        command = [self.python, str(DRIVER), self.checkout, *words]
        # A set of planes, which SMAClite iterates over, is ordered by hashes.
        environ = os.environ | {"PYTHONHASHSEED": "0"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environ)
        except OSError as error:
            raise SystemExit(f"peer_python={self.python}: {error.strerror}") from None
        last = done.stderr.strip().rpartition("\n")[2]
        require(
            done.returncode == 0,
            f"peer={self.checkout}: {last}; must be a checkout of SMAClite, and "
            "peer_python a Python with its modules",
        )
        return json.loads(done.stdout)
