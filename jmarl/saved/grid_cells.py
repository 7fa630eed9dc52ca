"""Environments of a grid for a run, checked before the first one is evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import yaml

from jmarl.config import ConfigError, RunConfig
from jmarl.saved.grid_file import Cell, Grid
from jmarl.training.build import BuiltRun, build_env, build_run
from jmarl.training.compatibility import check_acting, entity_widths
from jmarl.types import Spec


NO_PAD = (0, 0)
"""Value of the option ``pad`` without padding."""


def build_cells(own: BuiltRun, grid: Grid) -> dict[str, BuiltRun]:
    """Build a run in each environment of a grid, and check that its parameters fit there.

    Each environment has the options of the run's own environment and those of the grid.
    Teams that are larger than ``env.pad`` are not padded.

    Args:
        own: The run in its own environment.
        grid: The grid.

    Returns:
        The run in each environment, by label.

    Raises:
        ConfigError: If an environment cannot be built, or acting there needs parameters of
            other shapes. The error names the options to train with, including the padding.
    """
    built = {}
    for cell in grid.environments():
        with _errors_name(grid, cell.label):
            built[cell.label] = _build_cell(_cell_config(own.config, cell))
    for label, target in built.items():
        with _errors_name(grid, label):
            _check_cell(own, grid, target)
    return built


@contextlib.contextmanager
def _errors_name(grid: Grid, label: str) -> Iterator[None]:
    """Name the grid and the environment in errors of the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"grid={grid.name}: {label}: {error}") from None


def is_same_env(first: RunConfig, second: RunConfig) -> bool:
    """Return whether two configurations have environments of equal name and options.

    Scenario files are compared by their content, without comments.
    """
    return _comparable(first.env) == _comparable(second.env)


def _comparable(env: dict[str, Any]) -> str:
    content = {
        key: yaml.safe_load(value) if "\n" in str(value) else value
        for key, value in env.items()
    }
    return json.dumps(content, sort_keys=True)


def _build_cell(config: RunConfig) -> BuiltRun:
    """Build a run in an environment, without padding if its teams are larger."""
    pad = config.env.get("pad", NO_PAD)
    if any(pad):
        unpadded = _with_pad(config, NO_PAD)
        sizes = team_sizes(build_env(unpadded).spec)
        if any(0 < most < size for most, size in zip(pad, sizes, strict=True)):
            return build_run(unpadded)
    return build_run(config)


def _check_cell(own: BuiltRun, grid: Grid, target: BuiltRun) -> None:
    pad = own.config.env.get("pad", NO_PAD)
    try:
        check_acting("env", target.config.env["name"], target, own)
    except ConfigError as error:
        fix = _fix(own, grid, target)
        if any(pad) and not any(target.config.env["pad"]):
            allies, enemies = team_sizes(target.env.spec)
            excess = f"{allies} allies against {enemies} enemies exceed env.pad"
            raise ConfigError(f"{excess}={list(pad)}; {fix}") from None
        raise ConfigError(f"{error}, or {fix}" if fix else str(error)) from None


def _cell_config(config: RunConfig, cell: Cell) -> RunConfig:
    options = {**config.env, **cell.options, "name": cell.env}
    env = {key: value for key, value in options.items() if value is not None}
    return dataclasses.replace(config.with_env(cell.env), env=env)


def _with_pad(config: RunConfig, pad: tuple[int, int]) -> RunConfig:
    return dataclasses.replace(config, env={**config.env, "pad": pad})


def team_sizes(spec: Spec) -> tuple[int, int]:
    """Return the numbers of allies and of enemies; 0 if there is no group of enemies."""
    enemies = (group.size for group in spec.groups if group.name == "enemies")
    return spec.n_agents, next(enemies, 0)


def _fix(own: BuiltRun, grid: Grid, target: BuiltRun) -> str:
    """Return a fix: the options with which a trained run would fit the whole grid."""
    given = own.config.env
    options = {
        key: value
        for key, value in grid.options.items()
        if value not in (None, given.get(key)) and not isinstance(value, str)
    }
    # Padding does not change the widths of features.
    if entity_widths(own.env.spec) == entity_widths(target.env.spec):
        required = _required_pad(own.config, grid)
        if required and required != list(given.get("pad", NO_PAD)):
            options["pad"] = required
    words = [f"env.{key}={json.dumps(value)}" for key, value in options.items()]
    return f"train the run with {' '.join(words)}" if words else ""


def _required_pad(config: RunConfig, grid: Grid) -> list[int]:
    """Return the sizes of the largest teams; empty for environments without padding."""
    cells = [_cell_config(config, cell) for cell in grid.environments()]
    try:
        specs = [build_env(_with_pad(each, NO_PAD)).spec for each in (config, *cells)]
    except ConfigError:
        return []
    return [max(sizes) for sizes in zip(*map(team_sizes, specs), strict=True)]
