"""Compare groups of runs: ``jmarl compare``."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from jmarl.config import ConfigError
from jmarl.results.files import write_json
from jmarl.saved.comparison.analysis import Record, analyze
from jmarl.saved.comparison.comparison_figures import draw_figures
from jmarl.saved.comparison.comparison_text import comparison_text
from jmarl.saved.comparison.selection import Options, select


def compare_runs(patterns: Mapping[str, Sequence[str]], options: Options) -> Record:
    """Compare groups of runs, print the tables, and write figures if a folder is given.

    Args:
        patterns: Glob patterns by the name of a group. Patterns without a name are under ``""``,
            and ``options.by`` divides their runs into groups.
        options: Metric, groups, environment and statistics.

    Returns:
        All statistics, as in ``compare.json``.

    Raises:
        ConfigError: If a pattern matches no run, the metric, group or environment is unknown, the
            environments differ without a choice, a group has fewer than two seeds, or the folder
            cannot be written.
    """
    record = analyze(select(patterns, options), options)
    print(comparison_text(record), flush=True)
    if options.out:
        folder = pathlib.Path(options.out).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "compare.json", record)
            figures = draw_figures(record, folder)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"out={options.out}: cannot be written ({reason})"
            ) from None
        names = ", ".join(figures)
        print(f"\nwrote {folder / 'compare.json'}, and as .png and .svg: {names}")
    return record
