"""Tables of the costs of systems for heterogeneous teams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docs.generate.markdown import code, join, number, percent, table
from docs.generate.tables.records import Record


COSTS = ("parameters", "MFLOP", "temporary, MiB", "update, ms", "ratio", "noise")


def heterogeneous(records: Sequence[Record]) -> str:
    """Return the tables of all parts that are recorded."""
    found = [
        part(record.data)
        for name, part in PARTS.items()
        for record in records
        if name in record.data
    ]
    return join(*found)


def updates(data: Mapping[str, Any]) -> str:
    """Return the cost of an update of each system beside its base system."""
    rows = [
        (code(name), code(row["base"]), *costs(row))
        for name, row in data["update"].items()
    ]
    env = data["arguments"]["env"]
    return join(
        f"## Cost of an update on `{env}`",
        "The ratio is the time over that of the base system.",
        table(("system", "base", *COSTS), rows),
    )


def arms(data: Mapping[str, Any]) -> str:
    """Return the cost of an update by the number of action groups."""
    return join(
        "## Cost of an update by the number of action groups",
        "U-MAPPO with a GRU. Each group has a block of actions of its own. The ratio is the time "
        "over that of unified actions.",
        table(("groups", "arm", *COSTS), arm_rows(data["arms"])),
    )


def arm_rows(record: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the row of each number of groups and arm."""
    for n_groups, rows in record.items():
        for arm, row in rows.items():
            yield n_groups, arm, *costs(row)


def costs(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the cells of ``COSTS``."""
    return (
        row["parameters"],
        number(row["flops"] / 1e6),
        number(row["temp_bytes"] / 2**20),
        number(row["update_ms"]),
        f"{row['ratio']:.2f}",
        percent(row["noise"]),
    )


def growth(data: Mapping[str, Any]) -> str:
    """Return update time and compile time of HAPPO by the number of agents."""
    record = data["growth"]
    fit, compiled = record["fit"], record["compile_s"]
    line = f"{number(fit['intercept'])} + {number(fit['slope'])} N ms"
    sizes = list(next(iter(compiled.values())))
    header = ("widths", *(f"{n} agents, s" for n in sizes), "ratio")
    ratios = record["compile_ratio"]
    rows = [(code(w), *s.values(), f"{ratios[w]:.2f}") for w, s in compiled.items()]
    return join(
        "## HAPPO by the number of agents",
        table(("agents", "update, ms"), record["update_ms"].items()),
        f"A line through the times: {line} (R² {fit['r2']:.4f}).",
        "Compilation, with constant widths and with those of SMAX:",
        table(header, rows),
    )


PARTS = {"update": updates, "arms": arms, "growth": growth}
"""Part of ``benchmarks.heterogeneous`` -> its tables."""
