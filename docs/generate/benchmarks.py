"""Pages of the benchmarks, from the records in ``results``: no figure is typed by hand."""

from __future__ import annotations

import ast
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.support.common import UNFINISHED
from docs.generate.docstrings import separate_lists
from docs.generate.markdown import code, details, join, table
from docs.generate.tables import analyses, football, growth, timing, training
from docs.generate.tables.heterogeneous import heterogeneous
from docs.generate.tables.players import players
from docs.generate.tables.records import (
    Body,
    Record,
    circumstances,
    date,
    device,
    row_tables,
    scalars,
)


ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "results"
FOLDER = "benchmarks"
STUDIES = "studies"
"""Folder of the records of studies below ``results``, and of their pages in the site."""
DATA = f"{FOLDER}/data"
"""Folder of the site with copies of the records and pictures."""


class Page(NamedTuple):
    """A page of the site and the records that it shows."""

    name: str
    title: str
    module: str
    """Module of ``benchmarks`` that writes the records."""
    patterns: tuple[str, ...]
    """Paths below ``results``, as globs."""
    body: Body


PAGES = (
    Page("environment", "Environment", "env", ("env.json",), timing.environment),
    Page("smac", "SMAC battles", "smac", ("smac.json",), timing.smac),
    Page(
        "football_calibration",
        "Calibration of football",
        "football_calibration",
        ("football_calibration.json",),
        football.calibration,
    ),
    Page("football", "Football", "football", ("football.json",), football.costs),
    Page(
        "grid_worlds", "Grid worlds", "grid_worlds", ("grid_worlds.json",), row_tables
    ),
    Page("players", "Scripted players", "", ("players*.json",), players),
    Page("scan", "Selective scan", "scan", ("scan.json",), timing.scan),
    Page(
        "throughput",
        "Training throughput",
        "throughput",
        ("throughput*.json",),
        timing.throughput,
    ),
    Page("decode", "Joint actions", "decode", ("decode.json",), growth.decode),
    Page(
        "scaling",
        "Cost against agents",
        "scaling",
        ("scaling.json",),
        growth.scaling,
    ),
    Page(
        "entities",
        "Cost against entities",
        "entities",
        ("entities.json",),
        growth.entities,
    ),
    Page(
        "parameters",
        "Parameters and replay",
        "parameters",
        ("parameters.json",),
        growth.parameters,
    ),
    Page(
        "heterogeneous",
        "Heterogeneous teams",
        "heterogeneous",
        ("heterogeneous*.json",),
        heterogeneous,
    ),
    Page("transfer", "Zero-shot transfer", "", ("transfer/*.json",), analyses.grids),
    Page("latents", "Latents of SHPPO", "", ("latents/*.json",), analyses.latents),
    Page(
        "learning",
        "Learning curves",
        "learning",
        ("learning/*.json", "learning/*/*.json"),
        training.learning,
    ),
    Page(
        "anchor",
        "Learning beside JaxMARL",
        "anchor",
        ("anchor*.json",),
        row_tables,
    ),
    Page(
        "ablation",
        "Ablation of the mixer",
        "ablation",
        ("ablation.json",),
        training.ablation,
    ),
    Page(
        "accelerators",
        "Programs for accelerators",
        "accelerators",
        ("accelerators.json",),
        row_tables,
    ),
    Page(
        "kernels",
        "Kernels of parts",
        "accelerators/kernels",
        ("kernels.json",),
        row_tables,
    ),
    Page(
        "chips",
        "Forecast for many devices",
        "accelerators/chips",
        ("chips.json",),
        row_tables,
    ),
    Page(
        "compilation",
        "Compilation of trials",
        "compilation",
        ("compilation.json",),
        row_tables,
    ),
    Page(
        "coverage", "Coverage of intervals", "coverage", ("coverage.json",), row_tables
    ),
    Page(
        "matrix-game",
        "Non-monotonic matrix game",
        "matrix_game",
        ("matrix_game.json",),
        row_tables,
    ),
)
OTHER = Page("other", "Other records", "", ("**/*.json",), scalars)
"""Takes every record that no page of ``PAGES`` names."""


def assignments() -> dict[Page, list[pathlib.Path]]:
    """Return the record files of each page; a file without a page goes to ``OTHER``.

    Studies have pages of their own, see ``docs.generate.studies``.
    """
    chosen: dict[Page, list[pathlib.Path]] = {}
    studied = set((RESULTS / STUDIES).rglob("*.json"))
    free = set(RESULTS.rglob("*.json")) - studied
    for page in (*PAGES, OTHER):
        found = [f for p in page.patterns for f in sorted(RESULTS.glob(p)) if f in free]
        free -= set(found)
        if found:
            chosen[page] = found
    return chosen


def pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of every page."""
    chosen = assignments()
    yield f"{FOLDER}/index.md", index_page(chosen)
    for page, files in chosen.items():
        yield f"{FOLDER}/{page.name}.md", render(page, files)


def assets() -> Iterator[tuple[str, pathlib.Path]]:
    """Yield the place in the site and the source of every record and picture."""
    for file in sorted([*RESULTS.rglob("*.json"), *RESULTS.rglob("*.png")]):
        yield f"{DATA}/{relative(file)}", file


def relative(file: pathlib.Path) -> str:
    """Return the path of a file below ``results``."""
    return file.relative_to(RESULTS).as_posix()


INDEX = """\
# Benchmarks

Every page is generated from the records in `results/` when the site is built. A record holds the
command, the commit, the device and the versions of one measurement. A field that a record lacks is
shown as *not recorded*. No figure has been measured on an accelerator unless its device says so."""


def index_page(chosen: dict[Page, list[pathlib.Path]]) -> str:
    """Return the overview: one row for each record."""
    rows = [row for page, files in chosen.items() for row in overview(page, files)]
    header = ("benchmark", "record", "device", "date")
    return join(
        INDEX, table(header, rows), "## Protocol", module_docstring("support/common")
    )


def overview(page: Page, files: Iterable[pathlib.Path]) -> Iterator[tuple[str, ...]]:
    """Yield the row of each record of a page."""
    link = f"[{page.title}]({page.name}.md)"
    for file in files:
        record = read(file)
        host = record.get("environment", {})
        note = " (unfinished)" if _left(record) else ""
        raw = f"[`{relative(file)}`](data/{relative(file)}){note}"
        yield link, raw, device(host), date(host)


def render(page: Page, files: list[pathlib.Path]) -> str:
    """Return the page of one benchmark."""
    records = {file: read(file) for file in files}
    finished = {f: record for f, record in records.items() if not _left(record)}
    figures = [picture(file) for file in pictures(finished)]
    shown = [Record(relative(file), record) for file, record in finished.items()]
    heads = [head(file, record, len(files) > 1) for file, record in records.items()]
    summary, _, method = module_docstring(page.module).partition("\n\n")
    return join(
        f"# {page.title}",
        summary,
        *figures,
        page.body(shown) if shown else "",
        unfinished(records),
        "## Method" if method else "",
        method,
        "## Records",
        *heads,
    )


def _left(record: Mapping[str, Any]) -> list[str]:
    """Return what a record still lacks; its figures are shown once that is nothing."""
    return record.get(UNFINISHED, [])


def unfinished(records: Mapping[pathlib.Path, dict[str, Any]]) -> str:
    """Return a table of the unfinished records; empty if there is none."""
    rows = [(code(relative(f)), "; ".join(_left(r))) for f, r in records.items()]
    rows = [row for row in rows if row[1]]
    return table(("unfinished record, not shown", "missing"), rows) if rows else ""


def head(file: pathlib.Path, record: dict[str, Any], folded: bool) -> str:
    """Return the circumstances of one record; one of several opens on a click."""
    rows = circumstances(record)
    raw = f"Raw record: [`{relative(file)}`](data/{relative(file)})"
    body = join(table(("field", "value"), rows), raw)
    return details(relative(file), body) if folded else body


def pictures(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Return the pictures of some records: of the same name, or of their folder's map."""
    found = dict.fromkeys(file.with_suffix(".png") for file in files)
    shared = dict.fromkeys(
        p for f in files if f.parent != RESULTS for p in f.parent.glob("*.png")
    )
    return [path for path in found | shared if path.exists()]


def picture(file: pathlib.Path) -> str:
    """Return the Markdown of one picture, with a link to its full size."""
    path = f"data/{relative(file)}"
    return f"[![{file.stem}]({path})]({path})"


def read(file: pathlib.Path) -> dict[str, Any]:
    """Return one record."""
    return json.loads(file.read_text(encoding="utf-8"))


def module_docstring(name: str) -> str:
    """Return the docstring of a program of ``benchmarks`` without importing it."""
    folder = ROOT / "benchmarks"
    files = (folder / f"{name}.py", folder / name / "__main__.py")
    file = next((file for file in files if name and file.exists()), None)
    if file is None:
        return ""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return separate_lists(text)
