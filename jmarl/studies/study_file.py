"""Study files: YAML files in ``configs/study`` or a user's own.

This module does not import JAX.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jmarl.config import ConfigError, build, check, check_positive
from jmarl.config.choices import read_named


_LABEL = re.compile(r"[\w.+]+")


@dataclass(frozen=True)
class Option:
    """An option of a factor.

    Attributes:
        system: System of the cells with this option; empty for that of the study.
        overrides: Their overrides, as on the command line.
    """

    system: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A measure or a report.

    Attributes:
        name: Name in ``measures.MEASURES`` or in ``reports.REPORTS``.
        options: Its options.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim that compares cells, stated before the runs.

    Attributes:
        text: The claim, one sentence.
        first: Label of the option of some factors. Its cells are compared with those that have the
            labels of ``second`` and are otherwise equal, by seed.
        second: The same for the other side.
        smallest_effect: Smallest difference of interest, in units of the metric.
        metric: Metric of finished cells; higher is better.
        rule: ``superior``: the first side is better. ``not_inferior``: it is not worse by the
            smallest effect.
    """

    text: str
    first: dict[str, Any]
    second: dict[str, Any]
    smallest_effect: float
    metric: str = "win_rate"
    rule: Literal["superior", "not_inferior"] = "superior"

    def __post_init__(self) -> None:
        check_positive("claims.smallest_effect", self.smallest_effect)


class Cell(NamedTuple):
    """A run of a study."""

    name: str
    """Name of its folder: the labels of its options."""
    labels: dict[str, str]
    """Label of the option of each factor."""
    system: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A question, the cells that answer it, and its report.

    Attributes:
        title: One-line title.
        question: One-line question.
        factors: Options of each factor by label: a list of overrides, or the keys of ``Option``.
            The cells are all combinations.
        report: The report.
        measure: Measure of finished runs, besides the metrics of their evaluations.
        system: System of cells without an option that names one.
        common: Overrides of all cells. Those of options take precedence.
        claims: Claims on which the report gives verdicts.
        threshold: Win rate, or return, to which the report counts steps and time; 0.8 by default
            for win rates.
        budget_hours: Hours of CPU time that the runs may take; the report compares it with the
            time that they took.
        name: Name of the file, without its ending.
    """

    title: str
    question: str
    factors: dict[str, Any]
    report: Part
    measure: Part | None = None
    system: str = ""
    common: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    threshold: float | None = None
    budget_hours: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.budget_hours is not None:
            check_positive("budget_hours", self.budget_hours)
        check(len(self.factors) > 0, "factors", {}, "must have at least one factor")
        cells = self.cells()
        names = {cell.name for cell in cells}
        rule = "two cells have the same name; change a label"
        check(
            len(names) == len(cells),
            "factors",
            list(self.factors),
            rule,
        )

    def options(self) -> dict[str, dict[str, Option]]:
        """Return the options of each factor by label."""
        return {
            str(factor): dict(_options(f"factors.{factor}", tree))
            for factor, tree in self.factors.items()
        }

    def cells(self) -> list[Cell]:
        """Return all cells, the last factor varying fastest."""
        factors = self.options()
        rows = itertools.product(*(options.items() for options in factors.values()))
        return [self._cell(dict(zip(factors, row, strict=True))) for row in rows]

    def _cell(
        self,
        chosen: dict[str, tuple[str, Option]],
    ) -> Cell:
        labels = {factor: label for factor, (label, _) in chosen.items()}
        options = [option for _, option in chosen.values()]
        name = "-".join(labels.values())
        systems = [self.system, *(option.system for option in options)]
        system = next(filter(None, reversed(systems)), "")
        rule = f"cell {name} has no system; give one here or in an option"
        check(bool(system), "system", self.system, rule)
        words = itertools.chain(self.common, *(option.overrides for option in options))
        return Cell(name, labels, system, tuple(words))


def _options(
    key: str,
    tree: Any,
) -> Iterator[tuple[str, Option]]:
    has_options = isinstance(tree, dict) and len(tree) > 0
    check(has_options, key, tree, "expected options by label")
    for label, option in tree.items():
        is_text = not isinstance(label, bool) and _LABEL.fullmatch(str(label))
        rule = (
            "must be of letters, digits, _, . and +; quote the words on, off, yes, no"
        )
        check(bool(is_text), key, label, rule)
        keys = {"overrides": option} if isinstance(option, list) else option
        rule = "expected a list of overrides, or the keys system and overrides"
        check(isinstance(keys, dict), f"{key}.{label}", option, rule)
        yield str(label), build(Option, keys, f"{key}.{label}")


def read_study(name: str) -> Study:
    """Read a study.

    Args:
        name: Name of a file in ``configs/study``, or the path of a YAML file.

    Raises:
        ConfigError: If the study is unknown or its file is wrong.
    """
    return read_named(Study, "study", name)


def find_cell(study: Study, name: str) -> Cell:
    """Return a cell by its name; raise ``ConfigError`` if there is none."""
    by_name = {cell.name: cell for cell in study.cells()}
    if name not in by_name:
        known = ", ".join(by_name)
        raise ConfigError(f"cell={name}: unknown cell; expected one of {known}")
    return by_name[name]
