"""Grids of environments for zero-shot tests: YAML files in ``configs/grid`` or a user's own.

This module does not import JAX.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jmarl.config import check, suggest
from jmarl.config.choices import read_named


class Cell(NamedTuple):
    """An environment of a grid."""

    allies: str
    """Label of the allies, empty if the grid has no such axis."""
    enemies: str
    env: str
    """Name of the environment."""
    options: dict[str, Any]
    """Options of the environment; None removes an option of the run."""

    @property
    def label(self) -> str:
        """Return the label of the environment in tables."""
        return " vs ".join(filter(None, (self.allies, self.enemies)))


@dataclass(frozen=True)
class Grid:
    """Environments that differ in their teams.

    ``{allies}`` and ``{enemies}`` in ``env`` and in the texts of ``options`` are replaced by the
    teams of an environment.

    Attributes:
        title: One-line description.
        env: Name of the environments.
        options: Options of the environments, in addition to the run's; null removes an option.
        allies: Labels of the allies, the rows of the heat map.
        enemies: Labels of the enemies, its columns.
        cells: Pairs of labels, in place of all pairs of ``allies`` and ``enemies``.
        teams: Teams by label. Without any, the labels themselves are the teams.
        name: Name of the file, without its ending.
    """

    title: str
    env: str
    options: dict[str, Any] = field(default_factory=dict)
    allies: tuple[str | int, ...] = ()
    enemies: tuple[str | int, ...] = ()
    cells: tuple[tuple[str | int, str | int], ...] = ()
    teams: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        has_axes = bool(self.allies or self.enemies)
        rule = "give either cells, or the axes allies and enemies"
        check(has_axes != bool(self.cells), "cells", self.cells, rule)
        self._check_labels()
        built: dict[str, str] = {}
        for cell in self.environments():
            same = built.setdefault(json.dumps([cell.env, cell.options]), cell.label)
            rule = f"{same} and {cell.label} are equal; leave one out, or use "
            rule += "{allies} and {enemies} in env or options"
            check(same == cell.label, "env", self.env, rule)
        check(len(built) == self.size, "cells", self.cells, "a pair is given twice")

    def _check_labels(self) -> None:
        names = [name for pair in self._pairs() for name in pair]
        for name in filter(lambda each: self.teams and isinstance(each, str), names):
            fix = suggest(str(name), self.teams, f"known: {', '.join(self.teams)}")
            check(name in ("", *self.teams), "teams", name, f"has no such label; {fix}")

    @property
    def size(self) -> int:
        """Number of environments."""
        return len(list(self._pairs()))

    def environments(self) -> Iterator[Cell]:
        """Yield the environments, row by row."""
        for allies, enemies in self._pairs():
            teams = {"{allies}": allies, "{enemies}": enemies}
            options = {k: self._fill(v, teams) for k, v in self.options.items()}
            env = self._fill(self.env, teams)
            yield Cell(str(allies), str(enemies), env, options)

    def _pairs(self) -> Iterator[tuple[str | int, str | int]]:
        if self.cells:
            return iter(self.cells)
        return itertools.product(self.allies or ("",), self.enemies or ("",))

    def _fill(self, value: Any, teams: dict[str, str | int]) -> Any:
        """Replace the placeholders of a text. A team that is a mapping becomes one in YAML."""
        if not isinstance(value, str):
            return value
        for placeholder, label in teams.items():
            team = self.teams.get(str(label), label)
            text = json.dumps(team) if isinstance(team, dict) else str(team)
            value = value.replace(placeholder, text)
        return value


def read_grid(grid: str) -> Grid:
    """Read a grid.

    Args:
        grid: Name of a file in ``configs/grid``, or the path of a YAML file.

    Raises:
        ConfigError: If the grid is unknown or its file is wrong.
    """
    return read_named(Grid, "grid", grid)
