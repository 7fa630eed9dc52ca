"""Records of a run folder that tests compare."""

import json
import pathlib
from typing import Any

from tools.compare_runs import outcome as outcome


def steps(folder: pathlib.Path) -> list[int]:
    """Return the steps of the checkpoints, which are complete."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def status(folder: pathlib.Path) -> dict[str, Any]:
    """Return ``status.json`` as it was written."""
    return json.loads((folder / "status.json").read_text())
