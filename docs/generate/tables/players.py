"""Table of the win rates of scripted players."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docs.generate.markdown import code, join, table
from docs.generate.tables.records import Record


TEXT = """\
Win rates of [scripted players](../how-to/play.md) with 95 % intervals (Wilson), as `jmarl play`
prints them. All players start from the same initial states. Win rates of `smac_` and `smacv2_`
environments are [not comparable](../explanation/battle-rules.md) with those that were published for
SMAC and SMACv2."""


def players(records: Sequence[Record]) -> str:
    """Return a table for each record."""
    return join(TEXT, *(section(record.data) for record in records))


def section(data: Mapping[str, Any]) -> str:
    """Return one row for each environment and one column for each player."""
    options = [code(f"env.{key}={value}") for key, value in data["options"].items()]
    minutes = f"wall time {data['seconds'] / 60:.1f} minutes"
    facts = ", ".join(
        (f"{data['episodes']} episodes per environment", minutes, *options)
    )
    header = ("environment", *data["players"])
    return join(f"{facts}:", table(header, rows(data)))


def rows(data: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the win rates of all players in each environment."""
    for name, played in data["envs"].items():
        results = played["results"]
        yield code(name), *(cell(results[p]["won"]) for p in data["players"])


def cell(won: Sequence[Mapping[str, float]]) -> str:
    """Return a win rate with its interval."""
    estimate = won[0]
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
