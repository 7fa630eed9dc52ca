"""Run folders with planted evaluations, for tests of tables and comparisons."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import toy

from jmarl.config import EvalConfig
from jmarl.results.metrics_file import to_json
from jmarl.runs.folder import write_config
from jmarl.runs.status import write_status


STEPS = 100
"""Environment steps from one evaluation to the next."""
EPISODES = 512
"""Episodes of an evaluation; the absolute metric has twice as many."""


def plant(
    folder: Path,
    curves: Sequence[Sequence[float]],
    *,
    absolute: Sequence[float] | None = None,
    state: str = "finished",
    words: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """Write a run with one curve of win rates for each seed.

    Args:
        folder: Its folder.
        curves: Win rates of each seed at all evaluations. The return is ten times the win rate.
        absolute: Final win rate of each seed; by default that of the last evaluation.
        state: Recorded state.
        words: Arguments of its command.
        **changes: Changes to the configuration; ``lr`` sets that of the system.
    """
    folder.mkdir(parents=True)
    lr = changes.pop("lr", 0.1)
    system = toy.Config(lr=lr)
    evaluation = EvalConfig(EPISODES, 2 * 64, 2)
    config = toy.config(num_seeds=len(curves), system=system, eval=evaluation)
    write_config(folder, dataclasses.replace(config, **changes))
    write_status(folder, state)
    about = {"jmarl": "0.1.0", "jax": "0.10.2", "commit": "c0ffee", "command": [*words]}
    (folder / "versions.json").write_text(json.dumps({**about, "resumed": []}))
    rows = [
        _row("eval", i, values) for i, values in enumerate(zip(*curves, strict=True))
    ]
    last = [curve[-1] for curve in curves] if absolute is None else absolute
    if state == "finished":
        rows.append(_row("absolute", len(rows) - 1, last))
    (folder / "metrics.jsonl").write_text("".join(to_json(r) + "\n" for r in rows))
    return folder


def _row(kind: str, number: int, values: Sequence[float]) -> dict[str, Any]:
    won = list(values)
    return {
        "kind": kind,
        "update": number,
        "env_steps": [STEPS * number + i for i in range(len(won))],
        "time": 60.0 * number,
        "greedy/won": won,
        "greedy/return": [10 * x for x in won],
        "sampled/won": [x / 2 for x in won],
    }


def rising(*ends: float, points: int = 5) -> list[list[float]]:
    """Return straight curves from 0 to the win rate of each seed."""
    return [[end * i / (points - 1) for i in range(points)] for end in ends]
