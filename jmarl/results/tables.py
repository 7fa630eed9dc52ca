"""Summaries and tables of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jmarl.results.intervals import confidence_interval


MEANS = ("return", "length")
"""Results of an episode besides the outcomes of the environment."""
Estimate = dict[str, float]
"""``mean``, ``low`` and ``high`` of a 95 % confidence interval."""
Summary = dict[str, dict[str, list[Estimate]]]
"""One estimate for each seed, by evaluation mode and metric."""


def summarize(results: dict[str, dict[str, np.ndarray]]) -> Summary:
    """Estimate the mean of each metric for each seed.

    Args:
        results: Values per episode, ``[S, episodes]``, by evaluation mode and metric.
    """
    return {
        mode: {
            name: [_estimate(seed) for seed in np.asarray(values)]
            for name, values in by_name.items()
        }
        for mode, by_name in results.items()
    }


def _estimate(x: np.ndarray) -> Estimate:
    return dict(zip(("mean", "low", "high"), confidence_interval(x), strict=True))


def results_table(summary: Summary, seeds: list[int]) -> str:
    """Format means and intervals, one line for each seed and evaluation mode."""
    lines = []
    for i, seed in enumerate(seeds):
        for mode, by_name in summary.items():
            cells = [
                _format_estimate(name, estimates[i])
                for name, estimates in by_name.items()
            ]
            lines.append(f"  seed {seed:<4} {mode:<8} {'   '.join(cells)}")
    return "\n".join(lines)


def _format_estimate(name: str, estimate: Estimate) -> str:
    low = estimate["low"]
    high = estimate["high"]
    return f"{name} {estimate['mean']:.3f} [{low:.3f}, {high:.3f}]"


def transfer_table(summaries: dict[str, Summary], seeds: list[int]) -> str:
    """Format the results of several environments; each line starts with the label."""
    width = max(map(len, summaries))
    return "\n".join(
        f"  {label:<{width}}{line}"
        for label, summary in summaries.items()
        for line in results_table(summary, seeds).splitlines()
    )


def player_table(label: str, summary: Summary) -> str:
    """Format the results of scripted players, one line for each; lines start with the label.

    ``return`` and ``length`` are means, all other results have intervals.
    """
    width = max(map(len, summary))
    lines = []
    for player, by_name in summary.items():
        first = {name: seeds[0] for name, seeds in by_name.items()}
        means = [f"{name} {first.pop(name)['mean']:6.2f}" for name in MEANS]
        cells = [_format_estimate(name, estimate) for name, estimate in first.items()]
        lines.append(f"  {label}  {player:<{width}}  {'   '.join([*cells, *means])}")
    return "\n".join(lines)


def evaluation_record(
    seeds: list[int], episodes: int, updates: Any, results: Any
) -> dict[str, Any]:
    """Return the record of an evaluation, as it is written to JSON files.

    Args:
        seeds: Seeds of the run.
        episodes: Episodes of each mode.
        updates: Update of each seed's parameters, ``[S]``.
        results: Values per episode, ``[S, episodes]``, by evaluation mode and metric.
    """
    return {
        "episodes": episodes,
        "seeds": seeds,
        "update": np.asarray(updates).tolist(),
        "results": summarize(results),
    }


def record_table(parameters: str, record: dict[str, Any]) -> str:
    """Format a record with a heading."""
    table = results_table(record["results"], record["seeds"])
    return f"{heading(parameters, record)}:\n{table}"


def heading(parameters: str, record: dict[str, Any]) -> str:
    """Describe the parameters and episodes of a record."""
    updates = ", ".join(map(str, record["update"]))
    return (
        f"{parameters} parameters (of update {updates}), {record['episodes']} episodes, "
        "means and 95 % intervals"
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns."""
    table = [list(header), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    lines = []
    for row in table:
        cells = (f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
