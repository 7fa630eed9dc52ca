"""Page of a report: statistics, differences, and a section for each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jmarl.saved.comparison.analysis import Record
from jmarl.saved.comparison.comparison_figures import comparison_drawings
from jmarl.saved.comparison.comparison_text import NOTES, comparison_tables
from jmarl.saved.comparison.run_files import NO_EFFECT
from jmarl.saved.run_report.config_differences import differences, flatten, without
from jmarl.saved.run_report.markup import (
    Html,
    figure,
    items,
    page,
    section,
    shortened,
    table,
    tag,
)
from jmarl.saved.run_report.run_sections import (
    SPACE,
    ReportedRun,
    machine,
    run_section,
    seed_text,
    step_text,
    time_text,
)


MOST_NAMES = 4
"""Names in a title; more are counted."""
COMMIT = 12
"""Digits of a commit in a table; the section of a run has all."""
DEFINITIONS = "https://arxiv.org/abs/2108.13264"


class Report(NamedTuple):
    """Contents of a report."""

    runs: list[ReportedRun]
    record: Record | None
    """Record of the comparison; None if there is none."""
    reason: str
    """Reason why there is no comparison."""
    notes: list[str]
    """Runs that the statistics leave out, and limits of the comparison."""
    metric: str
    """Metric of the overview; empty if no run has an evaluation."""
    made: str
    """Version, time and command of the report."""


def report_page(report: Report) -> str:
    """Return the page of a report."""
    title = _title(report)
    parts = [
        ("Statistics", "statistics", _statistics(report)),
        ("Runs", "runs", [_overview(report)]),
        ("Configuration differences", "differences", _configurations(report)),
        ("Versions and devices", "versions", [_machines(report)]),
        ("Single runs", "single-runs", map(run_section, report.runs)),
    ]
    if len(report.runs) == 1:
        parts = [part for part in parts if part[1] != "differences"]
    return page(
        title,
        tag("h1", title),
        tag("p", report.made, class_="lead"),
        *_warnings(report),
        _contents([(name, anchor) for name, anchor, _ in parts], report.runs),
        *(section(name, anchor, *content) for name, anchor, content in parts),
    )


def _title(report: Report) -> str:
    configs = [run.files.config for run in report.runs]
    systems = [str(config.get("system_name", "")) for config in configs]
    envs = [str(config.get("env", {}).get("name", "")) for config in configs]
    return f"{_names(systems, 'systems')} on {_names(envs, 'environments')}"


def _names(names: Sequence[str], kind: str) -> str:
    """Join the distinct names; count them if they are many."""
    distinct = list(dict.fromkeys(filter(None, names)))
    if not distinct:
        return f"unknown {kind}"
    many = len(distinct) > MOST_NAMES
    return f"{len(distinct)} {kind}" if many else ", ".join(distinct)


def _warnings(report: Report) -> Iterator[Html]:
    if report.notes:
        heading = tag("strong", "Left out of the statistics, and other notes")
        yield tag("div", heading, items(report.notes), class_="warning", id="notes")


def _contents(parts: list[tuple[str, str]], runs: list[ReportedRun]) -> Html:
    links = [tag("li", _link(name, anchor)) for name, anchor in parts[:-1]]
    single = [tag("li", _link(f"{x.number}. {x.files.path}", x.anchor)) for x in runs]
    links.append(tag("li", _link(*parts[-1]), tag("ul", *single)))
    return tag("nav", tag("strong", "Contents"), tag("ul", *links))


def _link(text: str, anchor: str) -> Html:
    return tag("a", text, href=f"#{anchor}")


def _statistics(report: Report) -> Iterator[Html]:
    record = report.record
    if record is None:
        yield tag("p", f"No statistics over seeds: {report.reason}.")
        return
    for found in comparison_tables(record):
        yield table(found.header, found.rows, " ".join(found.heading.split()))
    definitions = tag("a", "Agarwal et al. 2021", href=DEFINITIONS)
    yield tag("p", " ".join(NOTES), " Definitions: ", definitions, ".", class_="muted")
    for name, drawing in comparison_drawings(record).items():
        yield figure(drawing, name.replace("_", "-"))


def _overview(report: Report) -> Html:
    rows = [_overview_row(run, report.metric) for run in report.runs]
    number = f"{len(rows)} run{'s' * (len(rows) > 1)}"
    note = f"{number}. Scores are means of {report.metric} over the seeds of a run: last, of the "
    note += "last evaluation; absolute, of the best parameters on fresh episodes."
    if report.record:
        note += f" The statistics are on {', '.join(report.record['envs'])}."
    return table(list(rows[0]), [list(row.values()) for row in rows], note)


def _overview_row(run: ReportedRun, metric: str) -> dict[str, str]:
    config = run.files.config
    row = {
        "run": _link(f"{run.number}.{SPACE}{run.files.path.name}", run.anchor),
        "group": run.group,
        "environment": str(config.get("env", {}).get("name", "")),
        "seeds": seed_text(run),
        "state": run.files.state,
        "in statistics": "yes" if run.is_compared else "no",
    }
    if metric:
        row["last"] = _score(run, metric, "eval")
        row["absolute"] = _score(run, metric, "absolute")
    least = step_text(run).partition(" to ")[0]
    return {**row, "wall time": time_text(run), "steps per seed": least}


def _score(run: ReportedRun, metric: str, kind: str) -> str:
    """Return the mean over seeds at the last row of a kind."""
    rows = run.rows[run.rows["kind"] == kind]
    if metric not in rows or rows[metric].isna().all():
        return ""
    last = rows.sort_values("update").groupby("seed").tail(1)
    return f"{last[metric].mean():.3f}"


def _configurations(report: Report) -> Iterator[Html]:
    trees = {
        run.number: without(flatten(run.files.config), NO_EFFECT)
        for run in report.runs
        if run.files.config
    }
    distinct = _distinct(trees)
    found = differences([tree for tree, _ in distinct])
    keys = {key for tree, _ in distinct for key in tree}
    equal = f"{len(keys) - len(found)} of {len(keys)} keys are equal in all runs"
    ignored = f"Not compared: {', '.join(NO_EFFECT)}."
    if not found:
        yield tag("p", f"All {len(keys)} keys are equal in all runs. {ignored}")
        return
    groups = {run.number: run.group for run in report.runs}
    header = ["key", *(_column(numbers, groups) for _, numbers in distinct)]
    rows = ([key, *map(shortened, values)] for key, values in found.items())
    yield table(header, rows, f"{equal}. {ignored}")


def _column(numbers: list[int], groups: Mapping[int, str]) -> str:
    """Return the heading of the runs that share a column."""
    names = dict.fromkeys(groups[number] for number in numbers)
    return f"{_numbers(numbers)}: {', '.join(names)}"


def _numbers(numbers: list[int]) -> str:
    """Return numbers of runs, with consecutive ones as a range."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = (f"{x[0]}" if len(x) == 1 else f"{x[0]}–{x[-1]}" for x in spans)
    return f"run{'s' * (len(numbers) > 1)} {', '.join(texts)}"


def _distinct(
    trees: Mapping[int, Mapping[str, str]],
) -> list[tuple[Mapping[str, str], list[int]]]:
    """Return the distinct trees, each with the numbers of its runs."""
    found: dict[frozenset[tuple[str, str]], list[int]] = {}
    for number, tree in trees.items():
        found.setdefault(frozenset(tree.items()), []).append(number)
    return [(trees[numbers[0]], numbers) for numbers in found.values()]


def _short_machine(run: ReportedRun) -> dict[str, str]:
    """Return commit, devices and versions, with a commit that fits into a column."""
    facts = machine(run.files)
    commit, dash, mark = facts.get("commit", "–").partition("-")
    return {**facts, "commit": commit[:COMMIT] + dash + mark}


def _machines(report: Report) -> Html:
    distinct = _distinct({run.number: _short_machine(run) for run in report.runs})
    keys = dict.fromkeys(key for tree, _ in distinct for key in tree)
    header = ["", *(_numbers(numbers) for _, numbers in distinct)]
    rows = ([key, *(tree.get(key, "–") for tree, _ in distinct)] for key in keys)
    return table(header, rows)
