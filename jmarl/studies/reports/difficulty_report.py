"""Report on two components over a difficulty: logistic curves, shifts and interaction of D50."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jmarl.config import check, check_range
from jmarl.results.grid_table import estimate_text
from jmarl.results.logistic import Curve, WinRates, effects, fit_curve, interval
from jmarl.results.tables import markdown
from jmarl.studies.reports.compare_report import (
    check_factor,
    check_label,
    is_number,
    lines_of,
)
from jmarl.studies.results import CellResult, Results
from jmarl.studies.study_file import Study


NOTE = """\
D50: {dose} at a win rate of 50 %, from a logistic curve by maximum likelihood over counts of wins.
Intervals of 95 %: percentiles of {resamples} bootstrap samples over seeds at each {dose}.
The D50 of a sample is at most at the ends of the values of {dose}.
Shift of a component: D50 with it minus D50 without it, as a mean over the options of the other.
Interaction: shift by {first} with {second}, minus that without it."""


@dataclass(frozen=True)
class Options:
    """Factors of the study.

    Attributes:
        dose: Factor whose labels are difficulties.
        components: Two factors, each with its options without and with the component.
        resamples: Bootstrap samples.
        seed: Seed of the samples.
    """

    dose: str
    components: dict[str, tuple[str, str]]
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        rule = "must be two factors, each with its options [without, with]"
        fits = len(self.components) == 2 and all(
            isinstance(pair, list | tuple) and len(pair) == 2
            for pair in self.components.values()
        )
        check(fits, "report.options.components", self.components, rule)
        for without, including in self.components.values():
            texts = isinstance(without, str) and isinstance(including, str)
            check(
                texts, "report.options.components", self.components, "quote the labels"
            )
        check_range("report.options.resamples", self.resamples, 1)


def check_study(study: Study, options: Options) -> None:
    """Raise ``ConfigError`` unless the factors are the difficulty and the components."""
    check_factor(study, "dose", options.dose)
    for factor, pair in options.components.items():
        for label in pair:
            check_label(study, "components", factor, label)
    factors = study.options()
    extra = [f for f in factors if f not in (options.dose, *options.components)]
    rule = (
        "the study has more factors; this report has one difficulty and two components"
    )
    check(not extra, "factors", extra, rule)
    labels = list(factors[options.dose])
    rule = "must have labels that are numbers, at least two"
    fits = len(labels) > 1 and all(map(is_number, labels))
    check(fits, f"factors.{options.dose}", labels, rule)


def analyze(results: Results, options: Options) -> dict[str, Any]:
    """Return curves of all arms, the shifts of D50 by both components, and the interaction.

    Args:
        results: Results of the finished cells.
        options: Factors.

    Raises:
        ConfigError: If a cell has no win rate.
    """
    order = list(options.components)
    arms: dict[tuple[str, str], tuple[WinRates, Curve]] = {}
    for cells in lines_of(results.finished, options.dose).values():
        labels = cells[0].cell.labels
        arm = (labels[order[0]], labels[order[1]])
        if len(cells) > 1:
            found = _win_rates(cells, options.dose)
            seed = options.seed + len(arms)
            arms[arm] = found, fit_curve(found, options.resamples, seed)
    curves = {arm: curve for arm, (_, curve) in arms.items()}
    found = effects(curves, *options.components.values())
    names = {"first": order[0], "second": order[1], "interaction": "interaction"}
    return {
        "dose": options.dose,
        "components": options.components,
        "resamples": options.resamples,
        "arms": {"-".join(arm): _arm(*x) for arm, x in arms.items()},
        "effects": {names[name]: effect for name, effect in found.items()},
    }


def _win_rates(cells: list[CellResult], dose: str) -> WinRates:
    for result in cells:
        rule = "has no win rate, which this report needs; use another report"
        check("win_rate" in result.metrics, "cell", result.cell.name, rule)
    x = np.array([float(result.cell.labels[dose]) for result in cells])
    rates = tuple(np.array(result.metrics["win_rate"], float) for result in cells)
    return WinRates(x, rates, cells[0].episodes)


def _arm(found: WinRates, curve: Curve) -> dict[str, Any]:
    return {
        "x": found.x.tolist(),
        "win_rates": [rates.tolist() for rates in found.rates],
        "episodes": found.episodes,
        "slope": float(curve.slope),
        "d50": _d50(curve),
    }


def _d50(curve: Curve) -> dict[str, Any]:
    found = interval(curve.d50, curve.samples)
    if not np.isfinite(curve.d50):
        found["mean"] = None
    return {**found, "note": curve.note}


def tables(record: dict[str, Any]) -> str:
    """Return the tables of a record as Markdown."""
    doses = sorted({x for arm in record["arms"].values() for x in arm["x"]})
    rows = [
        [
            name,
            *(_rate_text(arm, x) for x in doses),
            estimate_text(arm["d50"]),
        ]
        for name, arm in record["arms"].items()
    ]
    header = ["arm", *(f"{record['dose']} {x:g}" for x in doses), "D50"]
    shifts = [
        (name, estimate_text(effect)) for name, effect in record["effects"].items()
    ]
    first, second = record["components"]
    about = {"first": first, "second": second}
    note = NOTE.format(
        dose=record["dose"],
        resamples=record["resamples"],
        **about,
    )
    return "\n\n".join(
        [markdown(header, rows), markdown(("component", "shift of D50"), shifts), note]
    )


def _rate_text(arm: dict[str, Any], x: float) -> str:
    found = [
        np.mean(r)
        for r, own in zip(arm["win_rates"], arm["x"], strict=True)
        if own == x
    ]
    return f"{found[0]:.3f}" if found else "-"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the win rate of each seed, and the fitted curves."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, arm in record["arms"].items():
        points = [
            (x, y) for x, ys in zip(arm["x"], arm["win_rates"], strict=True) for y in ys
        ]
        (dots,) = axes.plot(
            *zip(*points, strict=True),
            ".",
            alpha=0.5,
        )
        d50 = arm["d50"]["mean"]
        label = f"{name}: {arm['d50']['note'] or 'fit'}"
        if d50 is not None:
            x = np.linspace(
                min(arm["x"]),
                max(arm["x"]),
                200,
            )
            curve = 1 / (1 + np.exp(np.clip(arm["slope"] * (x - d50), -500, 500)))
            axes.plot(x, curve, color=dots.get_color(), label=f"{name}: {d50:.2f}")
        else:
            dots.set_label(label)
    axes.axhline(0.5, color="gray", linestyle="--", linewidth=0.8)
    axes.set(
        xlabel=record["dose"],
        ylabel="win rate",
        ylim=(-0.03, 1.03),
    )
    axes.set_title(record["title"], fontsize=10)
    axes.grid(alpha=0.3)
    if record["arms"]:
        axes.legend(title="arm: D50", fontsize=8)
    figure.savefig(path, dpi=120)
