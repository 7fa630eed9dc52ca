"""Pages of the studies, from the records of their runs in ``results/studies``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.generate.benchmarks import DATA, RESULTS, STUDIES, read, relative
from docs.generate.markdown import code, details, join, table
from docs.generate.tables.records import circumstances
from jmarl.studies.reports import cells_without_result, study_parts
from jmarl.studies.reports.cell_curves import FIGURES, figure_folder


REPORT = "report.json"
INDEX = """\
# Studies

A study is a question, the runs that answer it, and a report. Its claims and the rules of their
verdicts are in `configs/study/<study>.yaml`, which is committed before the runs. The report is made
from the records of the runs in `results/studies/<study>`, by [`jmarl study`](../how-to/study.md). A
claim is supported, not supported, or undecided. It is unfinished as long as cells that it compares
have no result."""


def pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of every page."""
    records = {name: read(file) for name, file in report_files().items()}
    yield f"{STUDIES}/index.md", index_page(records)
    for name, file in report_files().items():
        yield f"{STUDIES}/{name}.md", study_page(records[name], file)


def report_files() -> dict[str, Path]:
    """Return the file with the report of each study."""
    files = sorted((RESULTS / STUDIES).glob(f"*/{REPORT}"))
    return {file.parent.name: file for file in files}


def index_page(records: Mapping[str, dict[str, Any]]) -> str:
    """Return the overview: one row for each study."""
    header = ("study", "question", "verdicts", "CPU hours", "runs")
    rows = [
        (_link(record, name), record["question"], *_outcome(record))
        for name, record in records.items()
    ]
    return join(INDEX, table(header, rows))


def _link(record: dict[str, Any], name: str) -> str:
    """Return the link to a study's page, marked if cells have no result."""
    note = " (unfinished)" if cells_without_result(record) else ""
    return f"[{record['title']}]({name}.md){note}"


def _outcome(record: Mapping[str, Any]) -> tuple[str, Any, str]:
    verdicts = [claim["verdict"] for claim in record.get("claims", [])]
    counts = (f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts))
    cost = record.get("cost", {})
    done, total = cost.get("runs", (None, None))
    runs = f"{done} of {total}" if total else ""
    return ", ".join(counts) or "no claims", cost.get("cpu_hours"), runs


def study_page(record: dict[str, Any], file: Path) -> str:
    """Return the page of one study: question, verdicts, figures, tables, costs and commands.

    Args:
        record: Its report.
        file: The file of the report.
    """
    data = f"../{DATA}/{relative(file.parent)}"
    curves = record.get("curves", [])
    parts = study_parts(record)
    first, tables = parts[:2], parts[2 : len(parts) - len(curves)]
    texts = parts[len(parts) - len(curves) :]
    return join(
        *first,
        *tables[:1],
        _figure(file.with_suffix(".png").name, data),
        *tables[1:],
        *(_curves(each, text, data) for each, text in zip(curves, texts, strict=True)),
        "## Reproduce",
        f"Run it with {code('jmarl study run ' + record['study'])}.",
        f"The runs are of {', '.join(map(code, record['commits']))}.",
        details(relative(file), table(("field", "value"), circumstances(record))),
        _records(file, data),
    )


def _records(file: Path, data: str) -> str:
    """Return links to the report, and to the records of the runs that it is made from."""
    runs = sorted(each for each in file.parent.glob("*.json") if each != file)
    links = (f"[`{each.name}`]({data}/{each.name})" for each in (file, *runs))
    return f"Records: {', '.join(links)}."


def _curves(curves: dict[str, Any], text: str, folder: str) -> str:
    """Return the tables and figures of one environment, which open on a click."""
    body = join(text, curve_figures(curves, folder))
    return details(f"Learning curves on {curves['env']}", body)


def curve_figures(curves: dict[str, Any], folder: str) -> str:
    """Return the figures of one environment of a study."""
    if "error" in curves:
        return ""
    place = figure_folder(curves, Path(folder)).as_posix()
    return join(*(_figure(f"{name}.png", place) for name in FIGURES))


def _figure(name: str, folder: str) -> str:
    """Return a picture with a link to its full size."""
    link = f"{folder}/{name}"
    return f"[![{Path(name).stem}]({link})]({link})"
