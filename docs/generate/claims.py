"""Figures in the README, each computed from the record that it links to.

    python -m docs.generate.claims

writes the figures. A figure is the text of a link to a record: ``[1.7 times](results/x.json)``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning import absolute_cells


ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]*)\]\((results/[\w./-]+\.json)\)")
"""A figure and the record that it comes from."""
Figure = Callable[[Mapping[str, Any]], str]
"""Function of a record that returns a figure."""


def span(values: Iterable[float], digits: int = 1) -> str:
    """Return the least and the largest of some values as text."""
    low, *_, high = sorted(values)
    return f"{low:,.{digits}f} to {high:,.{digits}f}"


def _ratio(record: Mapping[str, Any]) -> str:
    return f"{record['ratio']:.2f} times the steps per second"


def _win_rate(record: Mapping[str, Any]) -> str:
    return absolute_cells(record)[0]


def _of_exact_resets(record: Mapping[str, Any]) -> str:
    rows = [row for row in record["rows"] if row["side"] == "exact"]
    return f"{span(row['speedup'] for row in rows)} times as fast"


def _scan(record: Mapping[str, Any]) -> str:
    cells = [cell for cell in record["cells"] if cell["baseline"] == "assoc"]
    return f"{span(cell['ratio'] for cell in cells)} times as fast"


def _peer(record: Mapping[str, Any]) -> str:
    return f"{span((row['ratio'] for row in record['peer']), 0)} times as many"


def _best_script(record: Mapping[str, Any]) -> str:
    players = record["envs"]["football_3_vs_1_with_keeper"]["results"].values()
    return f"{max(player['won'][0]['mean'] for player in players):.3f}"


def _engine(record: Mapping[str, Any]) -> str:
    rows = [row for row in record["costs"] if row["scenario"].startswith("3_vs_1")]
    return f"{span((row['ratio'] for row in rows), 0)} times as many"


def _decode(record: Mapping[str, Any]) -> str:
    return f"{record['recompute_over_mam']['ratio']:.1f} times the time"


FIGURES: dict[str, Figure] = {
    "results/env.json": _of_exact_resets,
    "results/smac.json": _peer,
    "results/scan.json": _scan,
    "results/throughput.json": _ratio,
    "results/throughput_pqn_vdn.json": _ratio,
    "results/football.json": _engine,
    "results/decode.json": _decode,
    "results/learning/smax_3m_mam_ppo.json": _win_rate,
    "results/learning/football/football_3_vs_1_with_keeper_pqn_vdn.json": _win_rate,
    "results/players_football.json": _best_script,
}
"""Function of each record that the README names."""


def wrong_figures(text: str, root: Path = ROOT) -> list[str]:
    """Return a line for each figure of a text that its record does not give.

    Args:
        text: Markdown.
        root: Folder that the links start at.
    """
    found = (
        (figure, path, _computed(path, root)) for figure, path in LINK.findall(text)
    )
    return [
        f"{path}: the text has {figure!r}, the record gives {value!r}"
        for figure, path, value in found
        if figure != value
    ]


def with_figures(text: str, root: Path = ROOT) -> str:
    """Return a text with the figures of its records."""

    def replaced(match: re.Match[str]) -> str:
        path = match[2]
        return f"[{_computed(path, root)}]({path})"

    return LINK.sub(replaced, text)


def _computed(path: str, root: Path) -> str:
    if path not in FIGURES:
        raise KeyError(f"{path}: add the function of this record to FIGURES")
    return FIGURES[path](json.loads((root / path).read_text(encoding="utf-8")))


def main() -> int:
    """Write the figures of the README."""
    readme = ROOT / "README.md"
    readme.write_text(
        with_figures(readme.read_text(encoding="utf-8")), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
