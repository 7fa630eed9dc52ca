"""Folders of finished cells with planted results, for tests of reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from jmarl.config import RunConfig
from jmarl.results.machine import versions
from jmarl.results.metrics_file import to_json
from jmarl.runs.folder import write_config, write_versions
from jmarl.runs.status import write_status
from jmarl.studies.results import Results, read_results, write_measures
from jmarl.studies.study_file import Cell, Study


EPISODES, FACTOR = 100, 2
KINDS = ("eval", "absolute")
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


def write_run(folder: Path, config: RunConfig, scores: list[float]) -> None:
    """Write a finished run that took an hour.

    Args:
        folder: Its folder.
        config: Its configuration.
        scores: Final greedy return of each seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    write_versions(folder, versions())
    about = {"update": 1, "env_steps": [1000] * len(scores), "time": 60.0}
    rows = [{"kind": kind, **about, "greedy/return": scores} for kind in KINDS]
    (folder / "metrics.jsonl").write_text("\n".join(map(to_json, rows)) + "\n")
    write_status(folder, "finished", cpu_seconds=3600.0)


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


def read_folders(study: Study, folder: Path) -> Results:
    """Read the results of a study from the folders of its cells."""
    return read_results(study, {c.name: folder / c.name for c in study.cells()})


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a report."""
    return json.loads((folder / "report.json").read_text())
