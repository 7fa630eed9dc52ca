"""The state of a run, ``status.json``."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

from jmarl.runs.folder import write_json


def write_status(folder: pathlib.Path, state: str, **details: Any) -> None:
    """Write ``status.json`` with the state and the current time.

    Args:
        folder: The run folder.
        state: ``running``, ``interrupted``, ``failed`` or ``finished``.
        **details: Further entries.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(folder / "status.json", {"state": state, "time": now, **details})
