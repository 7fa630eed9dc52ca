"""Columns of ``metrics.jsonl`` as the reference documents them."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple


PAGE = pathlib.Path(__file__).parents[1] / "docs" / "reference" / "run-folder.md"


class Column(NamedTuple):
    """A row of the tables under "metrics.jsonl"."""

    systems: str
    """``all systems``, ``PPO``, ``SHPPO`` or ``Q-learning``."""
    rows: str
    each_seed: str
    unit: str
    meaning: str


def columns() -> dict[str, Column]:
    """Return the documented columns by name."""
    section = PAGE.read_text().split("## metrics.jsonl")[1].split("\n## ")[0]
    systems, found = "", {}
    for line in section.splitlines():
        if title := re.match(r"Columns of ([\w -]+)", line):
            systems = title[1].strip()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([\w/]+)`", cells[0]) if line.startswith("|") else ():
            found[name] = Column(systems, *cells[1:])
    return found
