"""Table of the win rates of scripted players."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docs.generate.markdown import code, join, table
from docs.generate.tables.records import Record


TEXT = """\
Win rates of [scripted players](../how-to/play.md) with 95 % intervals (Wilson), as `jmarl play`
prints them. All players start from the same {episodes} initial states. Win rates of `smac_` and
`smacv2_` environments are [not comparable](../explanation/battle-rules.md) with those that were
published for SMAC and SMACv2."""


def players(records: Sequence[Record]) -> str:
    """Return one row for each environment and one column for each player."""
    data = records[0].data
    header = ("environment", *data["players"])
    minutes = f"Wall time of all environments: {data['seconds'] / 60:.1f} minutes."
    text = TEXT.format(episodes=data["episodes"])
    return join(text, table(header, rows(data)), minutes)


def rows(data: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the win rates of all players in each environment."""
    for name, played in data["envs"].items():
        results = played["results"]
        yield code(name), *(cell(results[p]["won"]) for p in data["players"])


def cell(won: Sequence[Mapping[str, float]]) -> str:
    """Return a win rate with its interval."""
    estimate = won[0]
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
