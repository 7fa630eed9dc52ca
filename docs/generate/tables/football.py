"""Tables of the football simulator beside measurements of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from docs.generate.markdown import code, details, join, table
from docs.generate.tables.records import Record, rows_table


TEXT = """\
Each row is a figure that was measured in Google Research Football's engine, with the band in which
the simulator's figure must lie. The bands were fixed before the simulator was tuned to them."""


def calibration(records: Sequence[Record]) -> str:
    """Return the number of bands that hold, the laws of each part, and the other tables."""
    return join(TEXT, *(section(record.data) for record in records))


def section(data: Mapping[str, Any]) -> str:
    """Return the tables of one record."""
    laws = data["laws"]
    held = sum(row["held"] == "yes" for row in laws)
    parts = groupby(laws, key=lambda row: row["law"].partition(".")[0])
    others = (rows_table(rows) for rows in data["tables"].values() if rows)
    return join(
        f"{held} of {len(laws)} bands hold.",
        *(details(part, laws_table(list(rows))) for part, rows in parts),
        *others,
    )


COSTS = {
    "costs": "## Time",
    "memory": "## Memory",
    "parts": "## Parts of a step",
    "bounds": "## Bounds",
}
"""Tables of a record of ``benchmarks.football``, and their headings."""


def costs(records: Sequence[Record]) -> str:
    """Return the tables of the records: time, memory, parts of a step, and bounds."""
    return join(*(costs_section(record.data) for record in records))


def costs_section(data: Mapping[str, Any]) -> str:
    """Return the tables of one record; an empty one is left out."""
    found = {name: data[name] for name in COSTS if data[name]}
    return join(*(join(COSTS[name], rows_table(rows)) for name, rows in found.items()))


def laws_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each law."""
    header = ("law", "simulator", "engine", "band", "held")
    cells = [(code(row["law"]), *list(row.values())[1:]) for row in rows]
    return table(header, cells)
