"""Results of a grid while it is evaluated, on disk: an interrupted evaluation continues."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from jmarl.results.files import read_json, write_json


class GridProgress:
    """Records of finished evaluations, by run and environment.

    Args:
        path: File of the records.
        about: What the records depend on, a tree for a JSON file. Records in a file with another
            one are ignored, and overwritten.
    """

    def __init__(self, path: pathlib.Path, about: dict[str, Any]) -> None:
        self._path = path
        found = read_json(path)
        about = json.loads(json.dumps(about))
        is_same = found.get("about") == about
        self._tree = found if is_same else {"about": about, "results": {}}

    def __len__(self) -> int:
        return sum(map(len, self._tree["results"].values()))

    def find(self, run: str, env: str) -> dict[str, Any] | None:
        """Return the record of an evaluation, or None if it is not finished."""
        return self._tree["results"].get(run, {}).get(env)

    def add(self, run: str, env: str, record: dict[str, Any]) -> None:
        """Add a record and write the file.

        Raises:
            OSError: If the file cannot be written.
        """
        self._tree["results"].setdefault(run, {})[env] = record
        write_json(self._path, self._tree)

    def remove(self) -> None:
        """Remove the file, after the results were written elsewhere."""
        self._path.unlink(missing_ok=True)
