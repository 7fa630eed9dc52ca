"""Report that compares metrics over cells: intervals, trends, and tests against a baseline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jmarl.config import check, suggest
from jmarl.results.grid_table import estimate_text
from jmarl.results.intervals import holm, seed_difference, seed_p_value
from jmarl.results.tables import markdown
from jmarl.results.zero_shot import estimate
from jmarl.studies.results import CellResult, PerSeed, Results
from jmarl.studies.study_file import Study


UNDEFINED = {
    **dict.fromkeys(("mean", "low", "high")),
    "per_seed": [],
    "note": "-",
}
METRICS = {
    "win_rate": (0.0, 1.0),
    "return": (),
    "stability": (0.0,),
    "gradient_cosine": (-1.0, 1.0),
    "cgi_error": (0.0,),
    "diversity": (0.0, 1.0),
    "mean_diversity": (0.0, 1.0),
    "retention": (0.0,),
    "recovery": (0.0,),
}
"""Known metrics, by the part of the name before a slash, with their least and largest values."""
NOTES = {
    "cells": "Means over seeds, with 95 % intervals (Student's t).",
    "trends": "Slope over {across}, by least squares for each seed, with 95 % intervals.",
    "tests": "Differences to {baseline}, by Welch's t-test over seeds; p by Holm's method.",
}


@dataclass(frozen=True)
class Options:
    """Columns and comparisons.

    Attributes:
        metrics: Metrics of the table. ``name/`` stands for all metrics that start with it.
        across: Factor on the horizontal axis. Labels that are numbers get a slope.
        baseline: Options by factor; other cells are compared with those that have these options.
        details: Metrics of a second table, as in ``metrics``.
    """

    metrics: tuple[str, ...]
    across: str
    baseline: dict[str, str] = field(default_factory=dict)
    details: tuple[str, ...] = ()


def check_study(study: Study, options: Options) -> None:
    """Raise ``ConfigError`` if a metric is unknown, or a factor or label not one of the study."""
    check_factor(study, "across", options.across)
    for factor, label in options.baseline.items():
        check_label(study, "baseline", factor, label)
    for name in (*options.metrics, *options.details):
        base = name.partition("/")[0]
        fix = suggest(base, METRICS, f"known: {', '.join(METRICS)}")
        check(base in METRICS, "report.options", name, f"unknown metric; {fix}")


def check_factor(study: Study, option: str, factor: str) -> None:
    """Raise ``ConfigError`` if a study does not have a factor that an option names."""
    known = list(study.options())
    fix = suggest(factor, known, f"known: {', '.join(known)}")
    key = f"report.options.{option}"
    check(factor in known, key, factor, f"no such factor; {fix}")


def check_label(
    study: Study,
    option: str,
    factor: str,
    label: Any,
) -> None:
    """Raise ``ConfigError`` if a factor does not have an option with this label."""
    check_factor(study, option, factor)
    known = list(study.options()[factor])
    fix = suggest(str(label), known, f"known: {', '.join(known)}")
    key = f"report.options.{option}.{factor}"
    check(str(label) in known, key, label, f"no such label; {fix}")


def analyze(results: Results, options: Options) -> dict[str, Any]:
    """Return estimates of all cells, slopes, and tests.

    Args:
        results: Results of the finished cells.
        options: Columns and comparisons.
    """
    names = _expand(results, options.metrics)
    return {
        "across": options.across,
        "baseline": options.baseline,
        "metrics": names,
        "details": _expand(results, options.details),
        "cells": [_cell(result) for result in results.finished],
        "trends": list(_trends(results, options, names)),
        "tests": _tests(results, options, names),
    }


def _expand(
    results: Results,
    wanted: tuple[str, ...],
) -> list[str]:
    """Return the metrics that exist, with those that a name ending in a slash stands for."""
    found = dict.fromkeys(
        itertools.chain.from_iterable(result.metrics for result in results.finished)
    )
    groups = [
        [name for name in found if name.startswith(each)]
        if each.endswith("/")
        else [each] * (each in found)
        for each in wanted
    ]
    return list(itertools.chain.from_iterable(groups))


def _cell(result: CellResult) -> dict[str, Any]:
    return {
        "name": result.cell.name,
        "labels": result.cell.labels,
        "seeds": result.seeds,
        "metrics": {
            name: estimate_seeds(x, name) for name, x in result.metrics.items()
        },
    }


def estimate_seeds(per_seed: PerSeed, name: str = "") -> dict[str, Any]:
    """Return the estimate of a metric over the seeds for which it is defined.

    Args:
        per_seed: Value of each seed.
        name: Name of the metric, for its bounds in ``METRICS``.
    """
    values = [x for x in per_seed if x is not None]
    if not values:
        return UNDEFINED
    found = estimate(
        values,
        *METRICS.get(name.partition("/")[0], ()),
    )
    left = (
        f"{len(values)} of {len(per_seed)} seeds" if len(values) < len(per_seed) else ""
    )
    notes = filter(None, (found["note"], left))
    return {**found, "note": ", ".join(notes)}


def _trends(
    results: Results, options: Options, names: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the slopes over numeric labels, for each combination of the other factors."""
    if not all(map(is_number, results.study.options()[options.across])):
        return
    for labels, line in lines_of(results.finished, options.across).items():
        x = np.array([float(cell.cell.labels[options.across]) for cell in line])
        for name in names:
            values = [cell.metrics.get(name, [None]) for cell in line]
            sizes = {len(each) for each in values}
            if len(line) < 2 or len(sizes) > 1 or None in itertools.chain(*values):
                continue
            slopes = np.polyfit(x, np.array(values, float), 1)[0]
            found = estimate_seeds(slopes.tolist())
            yield {"arm": "-".join(labels), "metric": name, "slope": found}


def is_number(label: str) -> bool:
    """Return True for the label of a number."""
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def lines_of(
    found: list[CellResult], across: str
) -> dict[tuple[str, ...], list[CellResult]]:
    """Return the cells that differ in one factor only, by the labels of the others."""
    lines: dict[tuple[str, ...], list[CellResult]] = {}
    for result in found:
        labels = result.cell.labels
        others = tuple(label for factor, label in labels.items() if factor != across)
        lines.setdefault(others, []).append(result)
    return lines


def _tests(
    results: Results, options: Options, names: list[str]
) -> list[dict[str, Any]]:
    """Return Welch's test of each metric against the baseline, with adjusted p-values."""
    by_labels = {tuple(r.cell.labels.items()): r for r in results.finished}
    tests = []
    for result in results.finished:
        labels = {**result.cell.labels, **options.baseline}
        other = by_labels.get(tuple(labels.items()))
        if other is None or other is result:
            continue
        pairs = ((name, _pair(result, other, name)) for name in names)
        about = {"cell": result.cell.name, "to": other.cell.name}
        tests += [{**about, "metric": name, **_test(*x)} for name, x in pairs if x]
    tested = [test for test in tests if test["p"] is not None]
    for test, p in zip(
        tested,
        holm([test["p"] for test in tested]),
        strict=True,
    ):
        test["p_holm"] = p
    return tests


def _pair(
    x: CellResult, y: CellResult, name: str
) -> tuple[np.ndarray, np.ndarray] | None:
    values = [[v for v in r.metrics.get(name, []) if v is not None] for r in (x, y)]
    return (np.array(values[0]), np.array(values[1])) if all(values) else None


def _test(
    x: np.ndarray,
    y: np.ndarray,
) -> dict[str, Any]:
    difference, low, high = seed_difference(x, y)
    p = seed_p_value(x, y)
    tested = not math.isnan(p)
    bounds = {"low": low, "high": high, "p": p} if tested else {}
    empty = dict.fromkeys(("low", "high", "p", "p_holm"))
    return {"difference": difference, **empty, **bounds}


def tables(record: dict[str, Any]) -> str:
    """Return the tables of a record as Markdown."""
    parts = [_cells_table(record, record["metrics"]), NOTES["cells"]]
    if record["details"]:
        parts.append(_details_table(record))
    if record["trends"]:
        rows = [
            (each["arm"], each["metric"], estimate_text(each["slope"]))
            for each in record["trends"]
        ]
        note = NOTES["trends"].format(across=record["across"])
        parts += [markdown(("arm", "metric", "slope"), rows), note]
    if record["tests"]:
        baseline = ", ".join(f"{k} {v}" for k, v in record["baseline"].items())
        parts += [_tests_table(record), NOTES["tests"].format(baseline=baseline)]
    return "\n\n".join(parts)


def _cells_table(
    record: dict[str, Any],
    names: list[str],
) -> str:
    factors = list(record["cells"][0]["labels"])
    rows = [
        [
            *cell["labels"].values(),
            *(text_of(cell, name) for name in names),
        ]
        for cell in record["cells"]
    ]
    return markdown([*factors, *names], rows)


def text_of(cell: dict[str, Any], name: str) -> str:
    """Return a metric of a cell's record as text."""
    return estimate_text(cell["metrics"].get(name, UNDEFINED))


def _details_table(record: dict[str, Any]) -> str:
    rows = [
        (cell["name"], name, text_of(cell, name))
        for cell in record["cells"]
        for name in record["details"]
        if name in cell["metrics"]
    ]
    return markdown(("cell", "metric", "value"), rows)


def _tests_table(record: dict[str, Any]) -> str:
    rows = []
    for test in record["tests"]:
        p = "one seed" if test["p"] is None else f"{test['p_holm']:.3f}"
        bounds = (
            "" if test["p"] is None else f" [{test['low']:+.3f}, {test['high']:+.3f}]"
        )
        rows.append(
            (test["cell"], test["metric"], f"{test['difference']:+.3f}{bounds}", p)
        )
    return markdown(("cell", "metric", "difference", "p"), rows)


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw each metric over the factor on the horizontal axis, with intervals."""
    from matplotlib.figure import Figure  # slow to import

    names = record["metrics"]
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in itertools.zip_longest(panels, names):
        if name is None:
            axes.set_visible(False)
        else:
            _draw_metric(axes, record, name)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    figure.suptitle(record["title"], fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_metric(
    axes: Any,
    record: dict[str, Any],
    name: str,
) -> None:
    across = record["across"]
    labels = list(dict.fromkeys(cell["labels"][across] for cell in record["cells"]))
    lines: dict[str, list[Any]] = {}
    for cell in record["cells"]:
        others = [v for k, v in cell["labels"].items() if k != across]
        lines.setdefault("-".join(others) or name, []).append(cell)
    for number, (line, cells) in enumerate(lines.items()):
        shift = 0.04 * (number - (len(lines) - 1) / 2)
        found = [cell["metrics"].get(name, UNDEFINED) for cell in cells]
        x = [labels.index(cell["labels"][across]) + shift for cell in cells]
        y = [np.nan if each["mean"] is None else each["mean"] for each in found]
        error = np.array([_half_widths(each) for each in found]).T
        axes.errorbar(
            x,
            y,
            error,
            marker="o",
            markersize=3,
            capsize=2,
            label=line,
        )
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set(xlabel=across, title=name)
    axes.grid(alpha=0.3)


def _half_widths(x: dict[str, Any]) -> tuple[float, float]:
    if x["low"] is None:
        return 0.0, 0.0
    return x["mean"] - x["low"], x["high"] - x["mean"]
