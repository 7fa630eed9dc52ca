"""Tables of timings of two sides: environment, selective scan and training throughput."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from docs.generate.markdown import code, join, percent, table
from docs.generate.tables.records import Record


SIDES = ("jmarl", "jaxmarl")
MIB = 2**20
SIZES = {
    "units": "units a side",
    "envs": "environments",
    "steps": "time steps of a rollout",
    "gradient_steps": "gradient steps per update",
}
"""Entry of a record of throughput -> its title."""
SMAC_TABLES = {
    "bounds": "Values with a limit",
    "costs": "Time of an environment step and compilation",
    "twins": "The same map under the rules of SMAC and of SMAX",
    "peer": "Steps per CPU second, compared with SMAClite",
    "replay": "Size of a step in a replay buffer",
    "parts": "Profile of a step",
}
"""Table of a record of ``benchmarks.smac`` -> its title."""
SMAC_SHARES = (
    "noise",
    "smaclite_noise",
    "ticks",
    "observation",
    "opponents",
    "starts",
    "rest",
    "actions",
)
SMAC_HEADERS = {
    "envs": "environments",
    "us": "µs",
    "smac_us": "SMAC, µs",
    "smax_us": "SMAX, µs",
    "compile_s": "compilation, CPU s",
    "steps_per_cpu_s": "jmarl",
    "smaclite_steps_per_cpu_s": "SMAClite",
    "smaclite_noise": "SMAClite's noise",
    "smaclite_steps": "SMAClite's steps",
    "uncompressed_bytes": "bytes without the codec",
}


def environment(records: Sequence[Record]) -> str:
    """Return cost and compilation of an environment step, and the equality check."""
    data = records[0].data
    header = ("environments", "resets", "jmarl, µs", "JaxMARL, µs", "speedup", "noise")
    names = ("envs", "side", "us", "jaxmarl_us", "speedup", "noise")
    compile_header = ("environments", "resets", "jmarl, s", "JaxMARL, s")
    compile_names = ("envs", "side", "compile_s", "jaxmarl_compile_s")
    return join(
        "## Time of an environment step",
        table(header, columns(data["rows"], names)),
        "## Compilation",
        table(compile_header, columns(data["rows"], compile_names)),
        "## Differences between the transitions",
        "Largest difference of each quantity, and counts of the compared episodes.",
        table(("quantity", "value"), data["differences"].items()),
    )


def columns(
    rows: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[list[Any]]:
    """Yield the entries ``names`` of each row; shares called ``noise`` become percentages."""
    for row in rows:
        yield [percent(row[n]) if n == "noise" else row.get(n) for n in names]


def smac(records: Sequence[Record]) -> str:
    """Return the tables of battles under the rules of SMAC; a table without rows is left out."""
    data = records[0].data
    found = {title: data[key] for key, title in SMAC_TABLES.items() if data[key]}
    return join(*(f"## {title}\n\n{smac_table(rows)}" for title, rows in found.items()))


def smac_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with equal keys as a table; shares become percentages."""
    header = [SMAC_HEADERS.get(name, name) for name in rows[0]]
    cells = [
        [percent(x) if name in SMAC_SHARES else x for name, x in row.items()]
        for row in rows
    ]
    return table(header, cells)


def scan(records: Sequence[Record]) -> str:
    """Return time, memory and error of the selective scan against other forms."""
    cells = records[0].data["cells"]
    header = (
        "L",
        "compared with",
        "`xla`, CPU ms",
        "other, CPU ms",
        "ratio",
        "by wall time",
        "noise",
    )
    memory = ("L", "compared with", "`xla`, MiB", "other, MiB", "share")
    errors = ("L", "form", "largest error of y", "of the gradients")
    return join(
        "## Time, forward and backward",
        table(header, map(scan_time, cells)),
        "## Temporary memory",
        table(memory, map(scan_memory, cells)),
        "## Error against float64",
        table(errors, scan_errors(cells)),
    )


def scan_time(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one row of times."""
    ours, other = cell["xla_s"], cell["baseline_s"]
    wall = other["wall_min"] / ours["wall_min"]
    times = (1e3 * ours["cpu_min"], 1e3 * other["cpu_min"])
    return (
        cell["L"],
        code(cell["baseline"]),
        *times,
        cell["ratio"],
        wall,
        percent(cell["noise"]),
    )


def scan_memory(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one row of temporary memory."""
    ours, other = cell["xla_temp_bytes"], cell["baseline_temp_bytes"]
    return (
        cell["L"],
        code(cell["baseline"]),
        ours / MIB,
        other / MIB,
        f"1/{other / ours:.1f}",
    )


def scan_errors(cells: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the errors of every form at every length, each once."""
    found = {(c["L"], form): pair for c in cells for form, pair in c["errors"].items()}
    return [(length, code(form), *pair) for (length, form), pair in found.items()]


def throughput(records: Sequence[Record]) -> str:
    """Return environment steps a second of jmarl and JaxMARL, a section for each record."""
    return join(*map(throughput_section, records))


def throughput_section(record: Record) -> str:
    """Return the section of one pair of programs."""
    data = record.data
    return join(
        f"## `{data.get('system', 'mappo')}`",
        table(("quantity", "jmarl", "JaxMARL"), sides(data)),
        table(("figure", "value"), throughput_figures(data)),
    )


def throughput_figures(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return ratios, parts of jmarl's time, and sizes of one pair of programs."""
    shares = [
        (f"{name}, share of jmarl's time", x) for name, x in data["shares"].items()
    ]
    return [
        ("ratio by wall time", data.get("ratio")),
        ("ratio by CPU time", data.get("ratio_by_cpu_time")),
        ("noise", percent(data["noise"])),
        *((name, percent(share)) for name, share in shares),
        *((title, data.get(key)) for key, title in SIZES.items()),
    ]


def sides(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (quantity, jmarl, JaxMARL) of every pair of values in a record."""
    for key, value in data.items():
        name = f"{path}, {key}" if path else key.replace("_", " ")
        if not isinstance(value, dict):
            continue
        if set(value) != set(SIDES):
            yield from sides(value, name)
        elif isinstance(value["jmarl"], dict):
            for part in value["jmarl"]:
                yield f"{name}, {part}", *(value[side].get(part) for side in SIDES)
        else:
            yield name, *(value[side] for side in SIDES)
