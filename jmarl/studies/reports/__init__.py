"""Reports of studies: functions of the results that return tables, a record and a picture.

This module does not import JAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jmarl.config import build, check, suggest
from jmarl.results.files import write_json
from jmarl.results.machine import environment_record
from jmarl.studies.cells import compose_cells, read_overrides, run_paths, stale_cells
from jmarl.studies.claims import check_claims, claims_table, judge_claims
from jmarl.studies.reports import compare_report, difficulty_report
from jmarl.studies.reports.cell_curves import compare_cells, curves_text, draw_curves
from jmarl.studies.results import Results, read_results
from jmarl.studies.study_file import Part, Study


class Report(NamedTuple):
    """A report of a study."""

    options: type
    """Dataclass of its options."""
    check: Callable[[Study, Any], None]
    """Function that raises ``ConfigError`` if a study does not fit its options."""
    analyze: Callable[[Results, Any], dict[str, Any]]
    """Function of results and options that returns the record, a tree for a JSON file."""
    tables: Callable[[dict[str, Any]], str]
    """Function of the record that returns Markdown."""
    draw: Callable[[dict[str, Any], Path], None]
    """Function of the record that writes a picture."""


REPORTS = {
    "compare": Report(
        compare_report.Options,
        compare_report.check_study,
        compare_report.analyze,
        compare_report.tables,
        compare_report.draw,
    ),
    "difficulty": Report(
        difficulty_report.Options,
        difficulty_report.check_study,
        difficulty_report.analyze,
        difficulty_report.tables,
        difficulty_report.draw,
    ),
}


def check_report(study: Study) -> None:
    """Raise ``ConfigError`` if a study names an unknown report, option, factor or label."""
    report, options = _find(study.report)
    report.check(study, options)
    check_claims(study)


def report_study(study: Study, folder: Path, records: Path | None = None) -> str:
    """Analyze the finished cells of a study; write ``report.json`` and figures.

    Args:
        study: The study.
        folder: Its folder, or one with records of its cells.
        records: Folder with records of cells that have no finished run in ``folder``.

    Returns:
        The report as Markdown.

    Raises:
        ConfigError: If the study has no finished cell there, or its report is wrong.
    """
    record = study_record(study, folder, records)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", record)
    REPORTS[study.report.name].draw(record, folder / "report.png")
    for curves in record["curves"]:
        draw_curves(curves, folder)
    return study_text(record)


def study_record(
    study: Study, folder: Path, records: Path | None = None
) -> dict[str, Any]:
    """Return the record of a study: its verdicts, tables and costs.

    Args:
        study: The study.
        folder: Its folder, or one with records of its cells.
        records: Folder with records of cells that have no finished run in ``folder``.

    Raises:
        ConfigError: If the study has no finished cell there, or its report is wrong.
    """
    report, options = _find(study.report)
    report.check(study, options)
    overrides = read_overrides(folder, records)
    cells = compose_cells(study, folder, overrides, records)
    results = read_results(study, run_paths(cells))
    rule = f"holds no finished cell of the study {study.name}; use jmarl study run"
    check(len(results.finished) > 0, "out", str(folder), rule)
    trained = [cell.run.about for cell in results.finished]
    return {
        "environment": environment_record(trained[0]),
        "commits": sorted({about["commit"] for about in trained}),
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "report": study.report.name,
        "missing": [cell.name for cell in results.missing],
        "unmeasured": [cell.name for cell in results.unmeasured],
        "unreadable": [cell.name for cell in results.unreadable],
        "stale": stale_cells(cells),
        "cost": _cost(results),
        "claims": judge_claims(results),
        **report.analyze(results, options),
        "curves": list(compare_cells(results)),
    }


def _cost(results: Results) -> dict[str, Any]:
    """Return the CPU hours of finished runs, their number, and the hours that were planned."""
    hours = sum(cell.cpu_seconds for cell in results.finished) / 3600
    known = None if math.isnan(hours) else round(hours, 2)
    runs = [len(results.finished), len(results.study.cells())]
    budget = results.study.budget_hours
    return {"cpu_hours": known, "budget_hours": budget, "runs": runs}


def study_text(record: dict[str, Any]) -> str:
    """Return the report of a study as Markdown."""
    return "\n\n".join(study_parts(record))


def study_parts(record: dict[str, Any]) -> list[str]:
    """Return the parts of a report: title, question, verdicts, cost and tables."""
    report = REPORTS[record["report"]]
    curves = map(curves_text, record.get("curves", []))
    return [*_heading(record), report.tables(record), *curves]


def cells_without_result(record: dict[str, Any]) -> list[str]:
    """Return the names of the cells that a study lacks; it is finished if there are none."""
    states = ("missing", "unmeasured", "unreadable")
    return [name for state in states for name in record.get(state, [])]


def _heading(record: dict[str, Any]) -> list[str]:
    lines = [f"# {record['title']}", record["question"]]
    if cells_without_result(record):
        lines.append("**Unfinished.** Claims about cells without a result are open.")
    for state in ("missing", "unmeasured", "unreadable", "stale"):
        if names := record.get(state):
            lines.append(f"{len(names)} cells are {state}: {', '.join(names)}")
    if record.get("claims"):
        lines.append(claims_table(record))
    cost = record.get("cost", {})
    if cost.get("cpu_hours") is not None:
        budget, (done, total) = cost["budget_hours"], cost["runs"]
        planned = f"; {budget:g} are planned for all" if budget else ""
        text = f"{cost['cpu_hours']:.2f} CPU hours for {done} of {total} runs"
        lines.append(f"Cost: {text}{planned}.")
    return lines


def _find(part: Part) -> tuple[Report, Any]:
    fix = suggest(part.name, REPORTS, f"known: {', '.join(REPORTS)}")
    check(part.name in REPORTS, "report.name", part.name, f"unknown report; {fix}")
    report = REPORTS[part.name]
    return report, build(report.options, part.options, "report.options")
