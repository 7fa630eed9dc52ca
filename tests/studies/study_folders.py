"""Folders of finished cells with planted results, for tests of reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from jmarl.results.machine import versions
from jmarl.results.metrics_file import to_json
from jmarl.runs.folder import write_versions
from jmarl.runs.status import write_status
from jmarl.studies.results import write_measures
from jmarl.studies.study_file import Cell, Study


EPISODES, FACTOR = 100, 2
CONFIG = {
    "seed": 3,
    "system_name": "mappo",
    "env": {"name": "battle"},
    "total_timesteps": 10_000,
    "num_envs": 10,
    "rollout_length": 100,
    "arch": {"updates_per_chunk": 1},
}


def write_cell(
    folder: Path,
    won: list[float],
    curve: Sequence[list[float]] = (),
) -> None:
    """Write a finished run.

    Args:
        folder: Its folder.
        won: Final greedy win rate of each seed.
        curve: Win rates of all seeds at earlier evaluations.
    """
    folder.mkdir(parents=True)
    evaluation = {"episodes": EPISODES, "absolute_factor": FACTOR, "every": 1000}
    config = CONFIG | {"num_seeds": len(won), "eval": evaluation}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [("eval", rates) for rates in [*curve, won]] + [("absolute", won)]
    lines = [
        to_json(
            {
                "kind": kind,
                "update": number,
                "env_steps": [1000 * number] * len(x),
                "time": 60.0 * number,
                "greedy/won": list(x),
                "greedy/return": list(x),
            }
        )
        for number, (kind, x) in enumerate(rows)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_versions(folder, versions())
    write_status(folder, "finished")


def write_study(
    study: Study,
    folder: Path,
    won: Callable[[Cell], list[float]],
    measured: Callable[[Cell], dict[str, Any]] = lambda cell: {},
    curve: Callable[[Cell], Sequence[list[float]]] = lambda cell: (),
) -> None:
    """Write the folders of all cells of a study."""
    for cell in study.cells():
        write_cell(folder / cell.name, won(cell), curve(cell))
        if study.measure:
            write_measures(folder / cell.name, study.measure, measured(cell))


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a report."""
    return json.loads((folder / "report.json").read_text())
