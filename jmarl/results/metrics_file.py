"""Rows of ``metrics.jsonl``: one flat dictionary per chunk, per evaluation and at the end.

In Python, a metric of a row is a list with one value for each seed. In the file, the metrics of a
single seed are numbers. ``to_json`` and ``from_json`` convert between the two.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jmarl.results.files import replace_file


Row = dict[str, Any]
Filter = Callable[[Row], bool]
"""Function that returns False for a row to remove."""

SHARED_COLUMNS = (
    "kind",
    "update",
    "time",
    "stage",
    "steps_per_second",
    "agent_steps_per_second",
)
"""Columns with one value for all seeds. Every other column has one value for each seed."""
MAX_TRAIN_ROWS = 20_000
"""Largest number of training rows that a run keeps."""


def to_json(row: Row) -> str:
    """Return a row as one line of JSON.

    A list with the value of a single seed becomes that value. NaN and infinity become ``null``.
    """
    plain = {name: _without_list(value) for name, value in row.items()}
    return json.dumps(_finite_or_null(plain), allow_nan=False)


def from_json(line: str) -> Row:
    """Return the row of one line; metrics of a single seed become lists.

    Raises:
        json.JSONDecodeError: If the line is not complete.
    """
    return {name: _as_list(name, value) for name, value in json.loads(line).items()}


def _without_list(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _as_list(name: str, value: Any) -> Any:
    is_number = value is None or isinstance(value, int | float)
    return [value] if is_number and name not in SHARED_COLUMNS else value


def _finite_or_null(value: Any) -> Any:
    """Replace NaN and infinity by None, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {k: _finite_or_null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def iter_rows(path: pathlib.Path) -> Iterator[Row]:
    """Yield the rows of a ``metrics.jsonl`` one by one, without incomplete lines."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = from_json(line)
            except json.JSONDecodeError:
                continue
            yield row


def read_rows(path: pathlib.Path) -> list[Row]:
    """Return the rows of a ``metrics.jsonl``, without incomplete lines."""
    return list(iter_rows(path))


def truncate_rows(path: pathlib.Path, keep: Filter) -> None:
    """Remove the rows for which ``keep`` returns False; a resumed run repeats them.

    Raises:
        OSError: If the remaining rows cannot be written. The file keeps all its rows.
    """
    lines = [to_json(row) + "\n" for row in iter_rows(path) if keep(row)]
    replace_file(path, "".join(lines))


def row_interval(
    num_updates: int, updates_per_row: int, limit: int = MAX_TRAIN_ROWS
) -> int:
    """Return the number of updates from one training row to the next.

    The interval doubles as runs get longer. An extended run therefore keeps a subset of its
    earlier rows.

    Args:
        num_updates: Updates of the run.
        updates_per_row: Updates of one chunk.
        limit: Largest number of training rows.

    Returns:
        Interval in updates; 1 keeps every row.
    """
    if num_updates <= limit:
        return 1
    interval = updates_per_row
    while num_updates > limit * interval:
        interval *= 2
    return interval


def row_filter(interval: int) -> Filter:
    """Return a filter that keeps one training row per interval, and all other rows.

    It keeps the first row at or after each multiple of ``interval``. A resumed run keeps the rows
    of an uninterrupted one if the filter is first applied to the rows of the file.

    Args:
        interval: Result of ``row_interval``.
    """
    last = 0

    def keep(row: Row) -> bool:
        nonlocal last
        if row["kind"] != "train":
            return True
        number = row["update"] // interval
        is_first = number != last
        last = number
        return is_first

    return keep


def mean_steps(env_steps: list[int]) -> int:
    """Return the mean environment steps over the seeds, rounded."""
    return round(sum(env_steps) / len(env_steps))


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """Yield names and values of the finite metrics of a row.

    Each seed has its own name, e.g. ``train/loss/seed_1``, if there are several.
    """
    for name, values in row.items():
        if name in ("kind", "update", "env_steps"):
            continue
        per_seed = values if isinstance(values, list) else [values]
        for i, value in enumerate(per_seed):
            if value is not None and math.isfinite(value):
                suffix = f"/seed_{i}" if len(per_seed) > 1 else ""
                yield f"{row['kind']}/{name}{suffix}", value
