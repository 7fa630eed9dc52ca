"""Runs as a tidy table: one row per run, seed and evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jmarl.config import ConfigError
from jmarl.results.metrics_file import Row
from jmarl.saved.comparison.run_files import (
    RunFiles,
    config_id,
    env_name,
    find_runs,
    overrides,
)


if TYPE_CHECKING:
    import pandas as pd


Table = Any
"""A ``pandas.DataFrame``. Its type annotations do not cover selections of rows and columns."""
NO_ROW = "none"
"""Kind of the only row of a run without any evaluation."""
FIXED = (
    "run",
    "state",
    "duplicate_of",
    "note",
    "system",
    "env",
    "seed",
    "seeds",
    "overrides",
    "config",
    "commit",
    "versions",
    "kind",
    "update",
    "env_steps",
    "wall_time_s",
    "episodes",
)
"""Columns that every table has; metrics follow."""


def load(patterns: str | Iterable[str]) -> pd.DataFrame:
    """Read runs as a table with one row per run, seed and evaluation.

    Columns:

    * ``run``: path of the run folder or record. ``state``: ``finished``, ``running``,
      ``interrupted``, ``killed``, ``failed``, ``unknown`` or ``damaged``; ``note`` is the reason.
    * ``duplicate_of``: another run with the same configuration, commit and seed; else empty.
    * ``system``, ``env``, ``seed``; ``seeds``: number of seeds trained together; ``overrides``:
      arguments of the command; ``config``: digest of the configuration without seeds and paths;
      ``commit``; ``versions``.
    * ``kind``: ``eval``, ``absolute``, or ``none`` for a run without evaluation, which has one
      row for each seed.
    * ``update``, ``env_steps``; ``wall_time_s``: seconds of training and evaluation so far, of
      all seeds of the run together; ``episodes``: episodes of each evaluation mode.
    * One column for each metric, such as ``greedy/won`` or ``sampled/return``.

    Runs that are not finished and duplicates are in the table. A warning counts them, and
    ``problems`` lists them.

    Args:
        patterns: Glob pattern such as ``runs/**``, or several. A folder stands for all runs
            below it. Records of runs are named by their JSON files.

    Raises:
        ConfigError: If a pattern matches no run.
    """
    table: Table = read_table(patterns)
    found = problems(table)
    if found:
        total = table["run"].nunique()
        text = f"{len(found)} of {total} runs are unfinished, damaged or duplicates"
        warnings.warn(f"{text}: {'; '.join(found)}", stacklevel=2)
    return table


def read_table(patterns: str | Iterable[str]) -> Table:
    """Read runs as ``load`` does, without a warning."""
    return table_of(read_runs(patterns))


def read_runs(patterns: str | Iterable[str]) -> list[RunFiles]:
    """Read the files of runs.

    Args:
        patterns: As of ``load``.

    Raises:
        ConfigError: If a pattern matches no run.
    """
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    runs = list(find_runs(names))
    if not runs:
        raise ConfigError(
            f"{' '.join(names)}: matches no runs; name run folders, a folder above them, or "
            "a quoted glob such as 'runs/**'"
        )
    return runs


def table_of(runs: Iterable[RunFiles]) -> Table:
    """Return the table of ``load`` for runs whose files were read."""
    import pandas as pd  # slow to import

    rows = [row for run in runs for row in _rows(run)]
    metrics = dict.fromkeys(name for row in rows for name in row if name not in FIXED)
    table = pd.DataFrame(rows, columns=[*FIXED, *metrics])
    mark_duplicates(table)
    return table


def _rows(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run, by evaluation and seed."""
    config = run.config
    number = int(config.get("num_seeds", 1))
    first = config.get("seed")
    evaluation = config.get("eval", {})
    about = {
        "run": str(run.path),
        "state": run.state,
        "duplicate_of": "",
        "note": run.note,
        "system": str(config.get("system_name", "")),
        "env": env_name(run),
        "seeds": number,
        "overrides": overrides(run),
        "config": config_id(run),
        "commit": run.commit,
        "versions": ", ".join(f"{k} {v}" for k, v in run.versions.items()),
    }
    for row in run.rows or [{"kind": NO_ROW}]:
        is_absolute = row["kind"] == "absolute"
        factor = evaluation.get("absolute_factor", 1) if is_absolute else 1
        episodes = factor * evaluation.get("episodes", 0) if run.rows else 0
        for i in range(number):
            seed = None if first is None else first + i
            yield about | {"seed": seed, "episodes": episodes} | _values(row, i)


def _values(row: Row, seed: int) -> dict[str, Any]:
    """Return the numbers of one seed in a row of ``metrics.jsonl``."""
    metrics = {
        name: values[seed]
        for name, values in row.items()
        if isinstance(values, list) and name != "env_steps" and seed < len(values)
    }
    steps = row.get("env_steps", [])
    return {
        "kind": row["kind"],
        "update": row.get("update"),
        "env_steps": steps[seed] if seed < len(steps) else None,
        "wall_time_s": row.get("time"),
        **metrics,
    }


def mark_duplicates(table: Table, within: Sequence[str] = ()) -> None:
    """Fill the column ``duplicate_of`` in place.

    Runs of equal configuration, commit and seed are duplicates of the first finished one, or of
    the first one if none is finished.

    Args:
        table: Table of runs.
        within: Columns that must be equal too, such as a column of groups.
    """
    keys = list(dict.fromkeys(("config", "commit", "seed", *within)))
    names = dict.fromkeys(("run", "state", *keys))
    runs = table[list(names)].drop_duplicates()
    runs = runs[runs["config"] != ""]
    runs = runs.assign(open=runs["state"] != "finished")
    runs = runs.sort_values(["open", "run"], kind="stable")
    firsts = runs.groupby(keys, dropna=False)["run"].transform("first")
    others = runs[firsts != runs["run"]].assign(first=firsts)
    by_run = dict(
        zip(
            zip(others["run"], others["seed"], strict=True),
            others["first"],
            strict=True,
        )
    )
    pairs = zip(table["run"], table["seed"], strict=True)
    table["duplicate_of"] = [by_run.get(pair, "") for pair in pairs]


def problems(table: Table) -> list[str]:
    """Return one line for each run that is not finished, damaged, or a duplicate.

    Args:
        table: Table of runs.
    """
    lines = []
    for run, rows in table.groupby("run", sort=False):
        first = rows.iloc[0]
        reasons = []
        if first["state"] != "finished":
            note = f" ({first['note']})" if first["note"] else ""
            reasons.append(f"{first['state']}{note}")
        elif first["kind"] == NO_ROW:
            reasons.append("without evaluations")
        for other, same in rows[rows["duplicate_of"] != ""].groupby("duplicate_of"):
            seeds = ", ".join(str(int(s)) for s in sorted(same["seed"].unique()))
            reasons.append(f"seed {seeds}: duplicate of {other}")
        if reasons:
            lines.append(f"{run}: {'; '.join(reasons)}")
    return lines
