"""Records of measurements: their circumstances, and the text of a field that is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from docs.generate.markdown import NOT_RECORDED, code, join, number, table


class Record(NamedTuple):
    """A record and its path below ``results``."""

    path: str
    data: dict[str, Any]


Body = Callable[[Sequence[Record]], str]
"""Renders the figures of some records."""


def circumstances(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return command, commit, device, versions and seeds as (field, value)."""
    host = record.get("environment", {})
    return [
        ("command", quoted(host.get("command"))),
        ("commit", commit(host)),
        ("date", date(host)),
        ("device", device(host)),
        ("CPU cores", recorded(host.get("cpu_count"))),
        ("load average", load(host)),
        ("Python", recorded(host.get("python"))),
        ("JAX", recorded(host.get("jax"))),
        ("XLA flags", quoted(host.get("xla_flags"), "none")),
        ("clock", recorded(host.get("clock"))),
        ("seeds", recorded(seeds(record))),
    ]


def quoted(value: Any, empty: str = NOT_RECORDED) -> str:
    """Return inline code, or a text for an empty and one for a missing value."""
    return NOT_RECORDED if value is None else code(value) if value else empty


def recorded(value: Any) -> str:
    """Return the text of a value; None is *not recorded*."""
    return NOT_RECORDED if value in (None, "") else str(value)


def commit(host: Mapping[str, Any]) -> str:
    """Return the commit, marked if files differed from it."""
    note = " with uncommitted changes" if host.get("dirty") else ""
    return quoted(host.get("commit") or None) + note


def date(host: Mapping[str, Any]) -> str:
    """Return the day of a measurement."""
    return recorded(host.get("time")).partition("T")[0]


def device(host: Mapping[str, Any]) -> str:
    """Return number, kind and platform of the devices."""
    if "device" not in host:
        return NOT_RECORDED
    return (
        f"{host.get('device_count', '?')} x {host['device']} ({host.get('platform')})"
    )


def load(host: Mapping[str, Any]) -> str:
    """Return the load averages of 1, 5 and 15 minutes."""
    values = host.get("load_average")
    return ", ".join(map(number, values)) if values else NOT_RECORDED


def seeds(record: Mapping[str, Any]) -> int | None:
    """Return the number of seeds, wherever a record has it."""
    places = (
        record.get("config", {}).get("num_seeds"),
        record.get("arguments", {}).get("seeds"),
    )
    return next((place for place in places if place is not None), None)


def row_tables(records: Sequence[Record]) -> str:
    """Return the field ``rows`` of records, a list of mappings with equal keys, as tables."""
    return join(*(rows_table(record.data["rows"]) for record in records))


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return mappings with equal keys as a table."""
    return table(tuple(rows[0]), [tuple(row.values()) for row in rows])


def scalars(records: Sequence[Record]) -> str:
    """Return all numbers and texts of records without a page of their own."""
    return join(
        *(
            join(f"## `{r.path}`", table(("field", "value"), flat(r.data)))
            for r in records
        )
    )


def flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of all plain values, without the circumstances."""
    for key, value in data.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict) and key != "environment":
            yield from flat(value, name)
        elif isinstance(value, int | float | str):
            yield code(name), value
