"""Tables of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jmarl.results.statistics.aggregates import AGGREGATES
from jmarl.results.tables import markdown
from jmarl.saved.comparison.analysis import GAP, Record


BUDGETS = {"env_steps": ("env steps", 1.0), "wall_time_s": ("minutes", 60.0)}
"""Name and divisor of each budget."""
NOTES = (
    "[low, high]: 95 % intervals over seeds, Student's t with bootstrap standard errors.",
    "Intervals are not corrected for the number of comparisons.",
)


class Table(NamedTuple):
    """A table of texts."""

    heading: str
    header: list[str]
    rows: list[list[str]]


def comparison_text(record: Record) -> str:
    """Format a comparison: heading, tables and notes."""
    parts = []
    for table in comparison_tables(record):
        parts += [table.heading, markdown(table.header, table.rows)]
    parts.append("\n".join((*NOTES, *(f"note: {note}" for note in record["notes"]))))
    return "\n\n".join(parts)


def comparison_tables(record: Record) -> list[Table]:
    """Return the tables of a comparison: scores, budgets to the threshold, differences."""
    tables = [Table(heading(record), *_scores(record))]
    if any(group["waits"] for group in record["groups"].values()):
        tables.append(Table(_budget_heading(record), *_budgets(record)))
    if record["differences"]:
        tables.append(Table(_difference_heading(record), *_differences(record)))
    return tables


def heading(record: Record) -> str:
    """Describe the metric, the environments and the kind of the scores."""
    mode, _, name = record["metric"].partition("/")
    label = "win rate" if name == "won" else name
    texts = {
        "absolute": "absolute metric (best parameters, fresh episodes)",
        "last": "last evaluation",
    }
    return f"{mode} {label} on {', '.join(record['envs'])}: {texts[record['score']]}"


def _scores(record: Record) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the scores.

    The optimality gap is left out, because it is 1 minus the mean of scores up to 1.
    """
    groups = record["groups"]
    names = [name for name in AGGREGATES if name != GAP]
    header = ["group", "seeds", *names, "area under curve"]
    rows = [
        [
            group,
            seeds_text(found),
            *(interval_text(found["aggregates"][name]) for name in names),
            interval_text(found["area"]),
        ]
        for group, found in groups.items()
    ]
    return header, rows


def seeds_text(group: Record, unit: str = "") -> str:
    """Return the number of seeds, or the smallest and largest number over environments.

    Args:
        group: Record of a group.
        unit: Word after the number.
    """
    numbers = sorted(set(group["seeds"].values()))
    text = "-".join(map(str, dict.fromkeys((numbers[0], numbers[-1])))) + unit
    tasks = len(group["seeds"])
    return f"{text} x {tasks} envs" if tasks > 1 else text


def interval_text(x: dict[str, Any], sign: str = "") -> str:
    """Format a value with its interval."""
    value, low, high = (
        format(x[key], f"{sign}.3f") for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _budget_heading(record: Record) -> str:
    return (
        f"Budget to {record['threshold']:g}, at the first evaluation there. Seeds that never "
        "reach it are censored:\nmedians are of Kaplan and Meier, and restricted means count "
        "the whole common budget for them."
    )


def _budgets(record: Record) -> tuple[list[str], list[list[str]]]:
    first = next(iter(record["groups"].values()))["waits"]
    header = ["group", "reached"]
    for key, (name, divisor) in BUDGETS.items():
        limit = first[key]["limit"] / divisor
        header += [f"median {name}", f"mean {name} to {number(limit)}"]
    rows = [
        [group, _reached(found["waits"]), *_budget_cells(found["waits"])]
        for group, found in record["groups"].items()
    ]
    return header, rows


def _reached(waits: Record) -> str:
    reached = waits["env_steps"]["reached"]
    return f"{sum(reached)} of {len(reached)}"


def _budget_cells(waits: Record) -> Iterator[str]:
    for key, (_, divisor) in BUDGETS.items():
        found = waits[key]
        middle = found["median"]
        most = max(found["budget"]) / divisor
        above = f"> {number(most)}"
        yield above if middle is None else number(middle / divisor)
        if not any(found["reached"]):
            yield "not reached"
            continue
        mean = found["restricted_mean"]
        value, low, high = (
            number(mean[key] / divisor) for key in ("value", "low", "high")
        )
        yield f"{value} [{low}, {high}]"


def number(value: float) -> str:
    """Format a budget: without decimals from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _difference_heading(record: Record) -> str:
    base = record["differences"][0]["from"]
    text = (
        f"Differences from {base}; probability that a seed of the group scores higher:"
    )
    if record["margin"] is not None:
        text += f"\nmargin of non-inferiority {record['margin']:g}"
    return text


def _differences(record: Record) -> tuple[list[str], list[list[str]]]:
    chances = {(x["group"], x["over"]): x for x in record["improvement"]}
    tested = record["margin"] is not None
    header = ["group", "difference", "paired seeds", "probability", "verdict"]
    rows = []
    for found in record["differences"]:
        pairs = found["pairs"]
        row = [
            found["group"],
            interval_text(found, "+"),
            "no" if pairs is None else ", ".join(map(str, pairs)),
            interval_text(chances[found["group"], found["from"]]),
            found.get("verdict", "not tested, no pairs"),
        ]
        rows.append(row if tested else row[:-1])
    return header if tested else header[:-1], rows
