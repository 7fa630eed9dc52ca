"""Tables of costs against a number: of agents, of entities, of units a side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from docs.generate.markdown import code, join, number, percent, table
from docs.generate.tables.records import Record


QUANTITIES = {
    "step_ms": "Evaluation step, ms",
    "update_ms": "Update, ms",
    "step_mib": "Evaluation step, temporary MiB",
    "update_mib": "Update, temporary MiB",
}


def decode(records: Sequence[Record]) -> str:
    """Return the time of one joint action by the number of agents."""
    data = records[0].data
    pair = data["recompute_over_mam"]
    other, mam = (number(1e3 * pair[side][0]) for side in ("baseline", "candidate"))
    text = (
        f"Timed in turn, MAT with recomputation takes {other} ms and MAM {mam} ms: "
        f"{number(pair['ratio'])} times as long (noise {percent(pair['noise'])})."
    )
    return join(
        "## Milliseconds by the number of agents",
        by_size(data["milliseconds"], "agents"),
        "## Exponents",
        by_name(data["exponents"], "exponent"),
        text,
    )


def scaling(records: Sequence[Record]) -> str:
    """Return time and memory by the number of agents, for each kind of environment."""
    studies = records[0].data["worlds"]
    return join(*(study(f"`{name}`", studies[name], "agents") for name in studies))


def entities(records: Sequence[Record]) -> str:
    """Return time and memory by the number of entities."""
    return study("Cost of one network", records[0].data, "entities")


def study(title: str, data: Mapping[str, Any], size: str) -> str:
    """Return the tables of one study of growth."""
    parts = [
        join(f"### {name}", by_size(data[key], size))
        for key, name in QUANTITIES.items()
        if key in data
    ]
    fits = [
        join(f"### {title}", by_quantity(data[key]))
        for key, title in (
            ("exponents", "Exponents"),
            ("exponents_added", "Exponents of the added cost"),
        )
        if key in data
    ]
    return join(f"## {title}", *parts, *fits)


def by_size(costs: Mapping[str, Mapping[str, float]], size: str) -> str:
    """Return costs as a table: one row for each size, one column for each name."""
    names = list(dict.fromkeys(name for row in costs.values() for name in row))
    rows = [(n, *(row.get(name, "-") for name in names)) for n, row in costs.items()]
    return table((size, *names), rows)


def by_name(values: Mapping[str, float], title: str) -> str:
    """Return one value for each name."""
    return table(("name", title), values.items())


def by_quantity(values: Mapping[str, Mapping[str, float]]) -> str:
    """Return values as a table: one row for each quantity."""
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    rows = [
        (QUANTITIES.get(key, key), *(row.get(name, "-") for name in names))
        for key, row in values.items()
    ]
    return table(("quantity", *names), rows)


def parameters(records: Sequence[Record]) -> str:
    """Return the number of parameters, and the memory of a replay buffer."""
    data = records[0].data
    header = (
        "system",
        "units a side",
        "steps",
        "MB",
        "bytes a step",
        "float32 observations, MB",
        "share",
    )
    return join(
        "## Parameters by units a side",
        *(
            join(
                f"### {kind.capitalize()}", by_size(transposed(values), "units a side")
            )
            for kind, values in data["parameters"].items()
        ),
        "## Memory of a replay buffer",
        table(header, map(replay_row, data["replays"])),
    )


def transposed(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a nested mapping with its two levels exchanged."""
    sizes = dict.fromkeys(size for row in values.values() for size in row)
    return {
        s: {name: row[s] for name, row in values.items() if s in row} for s in sizes
    }


def replay_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one row of the memory of a replay buffer."""
    sizes = (row["bytes"] / 1e6, row["bytes_a_step"], row["float32_bytes"] / 1e6)
    return (
        code(row["system"]),
        row["units"],
        row["steps"],
        *sizes,
        f"1/{row['ratio']:.1f}",
    )
