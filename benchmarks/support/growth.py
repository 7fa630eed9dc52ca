"""Costs against the number of agents or of entities: programs, exponents, tables and pictures.

An exponent is the slope of the logarithm of a cost against the logarithm of the number, fitted from
``FIT_FROM`` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.support.common import (
    compile_for,
    markdown_table,
    temp_bytes,
    time_call,
)
from jmarl.runs.compilation import compiler_options


FIT_FROM = 32
"""Smallest number of agents or entities that an exponent is fitted to."""
QUANTITIES = {
    "step_ms": "evaluation step, ms",
    "update_ms": "update, ms",
    "step_mib": "evaluation step, temporary MiB",
    "update_mib": "update, temporary MiB",
}

Costs = Mapping[int, Mapping[str, float]]
"""One quantity, by number of agents or entities and by name of a policy or network."""

Study = Mapping[str, Costs]
"""Costs of one study, by key of ``QUANTITIES``."""


class Program(NamedTuple):
    """An executable and its arguments."""

    executable: Any
    args: tuple[Any, ...]

    def __call__(self) -> Any:
        """Run the executable with its arguments."""
        return self.executable(*self.args)

    def cost(self, kind: str, repeats: int) -> dict[str, float]:
        """Measure milliseconds and temporary MiB; return them by key of ``QUANTITIES``."""
        milliseconds = 1e3 * time_call(self, repeats).best
        mib = temp_bytes(self.executable) / 2**20
        return {f"{kind}_ms": milliseconds, f"{kind}_mib": mib}


def compile_program(function: Callable, *args: Any, effort: int = 1) -> Program:
    """Compile a function with the compiler options of training."""
    options = compiler_options(effort)
    return Program(compile_for(function, *args, options=options), args)


def by_quantity(costs: Mapping[int, Mapping[str, Mapping[str, float]]]) -> Study:
    """Turn ``{number: {name: {quantity: value}}}`` into a study."""
    return {
        quantity: {n: select_quantity(row, quantity) for n, row in costs.items()}
        for quantity in QUANTITIES
    }


def select_quantity(
    costs: Mapping[str, Mapping[str, float]], quantity: str
) -> dict[str, float]:
    """Return one quantity by name. Names without this quantity are left out."""
    return {name: cost[quantity] for name, cost in costs.items() if quantity in cost}


def exponents(rows: Costs) -> dict[str, float]:
    """Fit the exponent of every name that has at least two costs from ``FIT_FROM`` on."""
    fitted = {n: row for n, row in rows.items() if n >= FIT_FROM}
    fits = {}
    for name in names_of(rows.values()):
        points = [(n, row[name]) for n, row in fitted.items() if row.get(name)]
        if len(points) > 1:
            x, y = np.log(points).T
            slope, _ = np.polyfit(x, y, 1)
            fits[name] = float(slope)
    return fits


def names_of(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """Return the names of all rows, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def growth_table(rows: Costs, names: Sequence[str], number: str = "agents") -> str:
    """Return a Markdown table of costs by number, with the exponents as its last row."""
    fits = exponents(rows)
    table = [[n, *(row.get(name, "-") for name in names)] for n, row in rows.items()]
    last = [f"exponent, n >= {FIT_FROM}", *(fits.get(name, "-") for name in names)]
    return markdown_table([number, *names], [*table, last])


def plot(studies: Mapping[str, Study], path: Path, number: str) -> None:
    """Draw every quantity against a number, on logarithmic axes; one row per study."""
    from matplotlib.figure import Figure

    size = (4 * len(QUANTITIES), 3.4 * len(studies))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(studies), len(QUANTITIES), squeeze=False)
    for row, (title, study) in zip(panels, studies.items(), strict=True):
        for axes, (quantity, costs) in zip(row, study.items(), strict=True):
            _plot_costs(axes, costs)
            axes.set(xlabel=number, title=f"{title}: {QUANTITIES[quantity]}")
    panels[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=140)


def _plot_costs(axes: Any, costs: Costs) -> None:
    for name in names_of(costs.values()):
        points = [(n, row[name]) for n, row in costs.items() if name in row]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=3, label=name)
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)


def study_record(study: Study) -> dict[str, Any]:
    """Return the record of a study: its costs and their exponents."""
    fits = {quantity: exponents(rows) for quantity, rows in study.items()}
    return {**study, "exponents": fits}


def cost_text(cost: Mapping[str, float]) -> str:
    """Return the measured quantities of one policy or network, separated by slashes."""
    values = [cost[quantity] for quantity in QUANTITIES if quantity in cost]
    return " / ".join(f"{value:.3g}" for value in values)


def progress_line(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Return the costs of all policies or networks at one number, on one line."""
    return "; ".join(f"{name} {cost_text(cost)}" for name, cost in costs.items())
