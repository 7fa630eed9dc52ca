"""What the benchmarks of growth share: costs against a number, of agents or of entities, and how they grow.

An exponent is the slope of the log of a cost against the log of the number, from ``FIT_FROM`` on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import compiled, markdown_table, temp_bytes, timed
from jmarl.training.programs import compiler_options


FIT_FROM = 32
QUANTITIES = {
    "step_ms": "evaluation step, ms",
    "update_ms": "update, ms",
    "step_mib": "evaluation step, temporary MiB",
    "update_mib": "update, temporary MiB",
}

Costs = Mapping[int, Mapping[str, float]]
"""The number -> who -> a time, or a memory."""

Study = dict[str, Costs]
"""The costs of one study, by ``QUANTITIES``."""


class Program(NamedTuple):
    """An executable, and what it is called with."""

    executable: Any
    args: tuple[Any, ...]

    def __call__(self) -> Any:
        """Run it."""
        return self.executable(*self.args)

    def cost(self, kind: str, repeats: int) -> dict[str, float]:
        """Milliseconds and temporary MiB."""
        milliseconds = 1e3 * timed(self, repeats).best
        return {
            f"{kind}_ms": milliseconds,
            f"{kind}_mib": temp_bytes(self.executable) / 2**20,
        }


def program(function: Callable, *args: Any, effort: int = 1) -> Program:
    """Compile as training does."""
    return Program(
        compiled(function, *args, options=compiler_options(effort=effort)), args
    )


def by_quantity(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> Study:
    """What each cost at each number, one quantity after the other."""
    return {
        quantity: {n: pick(row, quantity) for n, row in found.items()}
        for quantity in QUANTITIES
    }


def pick(costs: Mapping[str, Mapping[str, float]], quantity: str) -> dict[str, float]:
    """One quantity of those that have it."""
    return {name: cost[quantity] for name, cost in costs.items() if quantity in cost}


def exponents(rows: Costs) -> dict[str, float]:
    """The exponent of each that has two costs to fit."""
    fits = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        points = np.log(
            [
                (n, row[name])
                for n, row in rows.items()
                if n >= FIT_FROM and row.get(name)
            ]
        )
        if len(points) > 1:
            fits[name] = float(np.polyfit(points[:, 0], points[:, 1], 1)[0])
    return fits


def growth_table(rows: Costs, names: Sequence[str], number: str = "agents") -> str:
    """Costs by number, and below them the exponents, as markdown."""
    fits = exponents(rows)
    table = [[n, *(row.get(name, "-") for name in names)] for n, row in rows.items()]
    table.append(
        [f"exponent, n >= {FIT_FROM}", *(fits.get(name, "-") for name in names)]
    )
    return markdown_table([number, *names], table)


def picture(studies: dict[str, Study], path: Path, number: str) -> None:
    """Every quantity against the ``number`` of something, both logarithmic; a row of panels for each study."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(4 * len(QUANTITIES), 3.4 * len(studies)), layout="constrained"
    )
    panels = figure.subplots(len(studies), len(QUANTITIES), squeeze=False)
    for row, (study, found) in zip(panels, studies.items(), strict=True):
        for axes, (quantity, costs) in zip(row, found.items(), strict=True):
            for name in dict.fromkeys(name for cost in costs.values() for name in cost):
                line = [(n, cost[name]) for n, cost in costs.items() if name in cost]
                axes.plot(
                    *zip(*line, strict=True), marker="o", markersize=3, label=name
                )
            axes.set(
                xscale="log",
                yscale="log",
                xlabel=number,
                title=f"{study}: {QUANTITIES[quantity]}",
            )
            axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=140)


def record(found: Study) -> dict[str, Any]:
    """What is kept of one study."""
    fits = {quantity: exponents(rows) for quantity, rows in found.items()}
    return {**found, "exponents": fits}


def brief(cost: Mapping[str, float]) -> str:
    """The quantities of one, for a line as they go."""
    return " / ".join(
        f"{cost[quantity]:.3g}" for quantity in QUANTITIES if quantity in cost
    )
