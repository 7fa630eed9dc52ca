"""Compare the results of two runs: final state, rows of metrics, and absolute metric.

Runs with the same results are equal bit for bit, except for their times.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

from jmarl.results.metrics_file import read_rows


TIMED = ("time", "steps_per_second", "agent_steps_per_second")
"""Columns that depend on the speed of the machine."""


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Return the steps of the complete checkpoints, sorted."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def read_record(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Return the record of one checkpoint: its leaves and its metadata."""
    path = folder / "checkpoints" / str(step) / "record" / "metadata"
    return json.loads(path.read_text())


def final_leaves(folder: pathlib.Path) -> dict[str, Any]:
    """Return the last step, and the digest, shape and dtype of each of its leaves."""
    step = saved_steps(folder)[-1]
    return {"step": step, **read_record(folder, step)["leaves"]}


def logged_rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl`` without the columns that depend on time."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def outcome(folder: pathlib.Path) -> dict[str, Any]:
    """Return everything that two equal runs have in common."""
    evaluation = folder / "evaluation.json"
    return {
        "leaves": final_leaves(folder),
        "rows": logged_rows(folder),
        "evaluation": evaluation.exists() and json.loads(evaluation.read_text()),
    }


def digest(folder: pathlib.Path) -> str:
    """Return the SHA-256 of the final state."""
    text = json.dumps(final_leaves(folder), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Return the differences between two runs, in words; none if they are equal."""
    a, b = outcome(one), outcome(other)
    found = [
        f"{path} differs"
        for path in sorted(a["leaves"].keys() | b["leaves"].keys())
        if a["leaves"].get(path) != b["leaves"].get(path)
    ]
    if len(a["rows"]) != len(b["rows"]):
        found.append(f"{len(a['rows'])} and {len(b['rows'])} rows of metrics")
    found += [
        f"{row['kind']} row of update {row['update']} differs"
        for row, same in zip(a["rows"], b["rows"], strict=False)
        if row != same
    ]
    if a["evaluation"] != b["evaluation"]:
        found.append("evaluation.json differs")
    return found
