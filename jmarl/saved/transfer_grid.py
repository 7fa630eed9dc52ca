"""``jmarl transfer``: zero-shot evaluation in named environments, or over a grid of teams."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jmarl.config import ConfigError, RunConfig, check
from jmarl.results import tables
from jmarl.results.files import check_writable, write_json
from jmarl.results.grid_table import NAMES, grid_table, notes
from jmarl.results.heat_map import draw_grid
from jmarl.results.machine import environment_record, versions
from jmarl.results.zero_shot import compare, retention, score
from jmarl.runs.progress import duration_text, open_reporter, stopwatch
from jmarl.runs.warm_start import restore_params
from jmarl.saved.evaluate_saved import open_run, play, transfer_run
from jmarl.saved.grid_cells import build_cells, is_same_env
from jmarl.saved.grid_file import Grid, read_grid
from jmarl.saved.grid_progress import GridProgress
from jmarl.training.build import BuiltRun, build_run
from jmarl.types import Params


MODE = "greedy"
"""Evaluation mode of tables and heat maps. The JSON file has both."""
PARTIAL = ".partial.json"
"""Ending of the file with the results of a grid that is not finished."""
TRAINING = ""
"""Key of the training environment, if it is not in the grid."""


class Protocol(NamedTuple):
    """Arguments of all evaluations of a grid."""

    episodes: int
    parameters: str
    seed: int


class TestedRun(NamedTuple):
    """A run and the environments in which it is evaluated."""

    config: RunConfig
    cells: dict[str, BuiltRun]
    """Environments of the grid by label, and the training environment."""
    training: str
    """Key of the training environment in ``cells``."""
    params: Params
    updates: Any


def transfer(
    run: str,
    envs: str = "",
    *,
    grid: str = "",
    episodes: int = 640,
    parameters: str = "best",
    seed: int = 0,
    json: str = "",
) -> int:
    """Evaluate saved parameters in other environments, unchanged (zero-shot).

    With ``grid``, print the win rate and retention over seeds in each environment, and write
    them as JSON and as a heat map. Several runs are compared with the first.

    Args:
        run: Run folder; with ``grid`` also several, separated by commas.
        envs: Names of environments, separated by commas.
        grid: Name of a grid, or path of its YAML file; in place of ``envs``.
        episodes: Episodes of each mode in each environment.
        parameters: ``best`` (each seed's best evaluation) or ``latest``.
        seed: Seed of the episodes.
        json: File to write the results to. The heat map of a grid is next to it, as PNG.
            Default with ``grid``: ``grid_<name>.json`` in the folder of the first run.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: As ``transfer_run``, and if the grid is unknown or one of its environments
            does not fit. All are checked before the first episode.
    """
    check(not (envs and grid), "grid", grid, "cannot be combined with envs; give one")
    if grid:
        return _transfer_grid(run, grid, Protocol(episodes, parameters, seed), json)
    check(bool(envs), "envs", envs, "names no environment; give envs or grid")
    kept = {"episodes": episodes, "parameters": parameters, "seed": seed, "json": json}
    return transfer_run(run, envs, **kept)


def _transfer_grid(run: str, name: str, protocol: Protocol, json: str) -> int:
    grid = read_grid(name)
    folders = list(filter(None, map(str.strip, run.split(","))))
    check(bool(folders), "run", run, "must name a run folder, or several with commas")
    check(len(set(folders)) == len(folders), "run", run, "names a folder twice")
    path = _json_path(grid, folders[0], json)
    runs = _open_runs(folders, grid, protocol, path)
    kept = GridProgress(path.with_suffix(PARTIAL), _about(grid, runs, protocol))
    try:
        record = _evaluate(grid, runs, protocol, kept)
    except KeyboardInterrupt:
        open_reporter().warn("interrupted; the same command continues")
        raise
    write_json(path, record)
    kept.remove()
    print(grid_table(record), flush=True)
    draw_grid(record, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}", flush=True)
    return 0


def _about(
    grid: Grid, runs: dict[str, TestedRun], protocol: Protocol
) -> dict[str, Any]:
    """Return what the results of a grid depend on."""
    return {
        "cells": [cell._asdict() for cell in grid.environments()],
        "protocol": protocol,
        "commit": versions()["commit"],
        "runs": {
            label: (dataclasses.asdict(run.config), np.asarray(run.updates).tolist())
            for label, run in runs.items()
        },
    }


def _json_path(grid: Grid, folder: str, json: str) -> pathlib.Path:
    rule = "must end in .json, because the heat map ends in .png"
    check(json == "" or json.endswith(".json"), "json", json, rule)
    return pathlib.Path(json or pathlib.Path(folder, f"grid_{grid.name}.json"))


def _open_runs(
    folders: list[str], grid: Grid, protocol: Protocol, path: pathlib.Path
) -> dict[str, TestedRun]:
    """Open all runs and check all environments, before any parameters are read."""
    episodes, parameters, seed = protocol
    opened = [open_run(f, episodes, parameters, seed, "") for f in folders]
    for file in (path, path.with_suffix(".png")):
        check_writable(str(file))
    names = folders if len(folders) > 1 else [""]
    cells = [
        _cells(config, grid, name)
        for (_, config), name in zip(opened, names, strict=True)
    ]
    labels = run_labels(folders)
    return {
        label: TestedRun(config, *built, *restore_params(config, folder, parameters))
        for label, (folder, config), built in zip(labels, opened, cells, strict=True)
    }


def run_labels(folders: list[str]) -> list[str]:
    """Return short labels of runs: the names of their folders, or whole paths if names repeat."""
    names = [pathlib.Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else folders


def _cells(config: RunConfig, grid: Grid, run: str) -> tuple[dict[str, BuiltRun], str]:
    """Return the environments of a run and the key of its training environment.

    Errors name ``run``, if it is not empty.
    """
    own = build_run(config)
    try:
        cells = build_cells(own, grid)
    except ConfigError as error:
        raise ConfigError(f"run={run}: {error}" if run else str(error)) from None
    same = (label for label, cell in cells.items() if is_same_env(config, cell.config))
    training = next(same, TRAINING)
    return cells if training else {TRAINING: own, **cells}, training


def _evaluate(
    grid: Grid,
    runs: dict[str, TestedRun],
    protocol: Protocol,
    kept: GridProgress,
) -> dict[str, Any]:
    """Evaluate all runs in all environments, and return the record of the grid."""
    found: dict[str, dict[str, Any]] = {label: {} for label in runs}
    for run, cell, record in _play_all(runs, protocol, kept):
        found[run][cell] = record
    records = {label: _run_record(run, found[label]) for label, run in runs.items()}
    results = {
        label: {env: cell["score"] for env, cell in record["envs"].items()}
        for label, record in records.items()
    }
    record = {
        "environment": environment_record(versions()),
        "grid": grid.name,
        "title": grid.title,
        "metric": _metric(runs),
        "mode": MODE,
        **protocol._asdict(),
        "cells": {
            cell.label: {
                "allies": cell.allies,
                "enemies": cell.enemies,
                "env": cell.env,
            }
            for cell in grid.environments()
        },
        "runs": records,
        "comparisons": compare(results),
    }
    return record | {"notes": notes(record)}


def _play_all(
    runs: dict[str, TestedRun], protocol: Protocol, kept: GridProgress
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield run, environment and record of each evaluation, and report the progress."""
    jobs = [(label, run, cell) for label, run in runs.items() for cell in run.cells]
    metric = _metric(runs)
    report = open_reporter().info
    if first := len(kept):
        report(f"{first} of {len(jobs)} evaluations are those of an interrupted call")
    with stopwatch() as elapsed:
        for label, run, cell in jobs:
            if record := kept.find(label, cell):
                yield label, cell, record
                continue
            results = play(
                run.cells[cell], run.params, protocol.episodes, protocol.seed
            )
            record = tables.evaluation_record(
                run.config.seeds, protocol.episodes, run.updates, results
            )
            record["score"] = score(record, MODE, metric)
            kept.add(label, cell, record)
            done = len(kept)
            left = duration_text(elapsed() / (done - first) * (len(jobs) - done))
            place = cell or run.config.env["name"]
            value = f"{NAMES[metric]} {record['score']['mean']:.3f}"
            report(f"[{done}/{len(jobs)}] {label}, {place}: {value}, ETA {left}")
            yield label, cell, record


def _metric(runs: dict[str, TestedRun]) -> str:
    """Return the metric of the grid: ``won``, or ``return`` if some environment has no winner."""
    specs = (cell.env.spec for run in runs.values() for cell in run.cells.values())
    return "won" if all("won" in spec.outcomes for spec in specs) else "return"


def _run_record(run: TestedRun, records: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a run from the records of its evaluations."""
    training = records[run.training]
    base = training["score"]
    envs = {
        label: {
            **record,
            "retention": retention(record["score"], base),
        }
        for label, record in records.items()
        if label != TRAINING
    }
    return {
        "system": run.config.system_name,
        "trained_on": list(run.config.stage_envs),
        "training": {
            "env": run.config.env["name"],
            "cell": run.training,
            **training,
        },
        "envs": envs,
    }
