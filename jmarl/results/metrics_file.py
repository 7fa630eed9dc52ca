"""Rows of ``metrics.jsonl``: one flat dictionary per chunk, per evaluation and for the end.

A metric of several seeds is a list without averaging.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any


Row = dict[str, Any]


def to_json(row: Row) -> str:
    """Return a row as one line of JSON; NaN and infinity become ``null``."""
    return json.dumps(_finite_or_null(row), allow_nan=False)


def _finite_or_null(value: Any) -> Any:
    """Replace NaN and infinity by None, because JSON cannot represent them."""
    if isinstance(value, dict):
        return {k: _finite_or_null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_rows(path: pathlib.Path) -> list[Row]:
    """Return the rows of a ``metrics.jsonl``, without an incomplete last line."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def truncate_rows(path: pathlib.Path, keep: Callable[[Row], bool]) -> None:
    """Remove the rows for which ``keep`` returns False; a resumed run repeats them."""
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if keep(row)]
    scratch = path.with_suffix(".tmp")
    scratch.write_text("".join(kept), encoding="utf-8")
    scratch.replace(path)


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
