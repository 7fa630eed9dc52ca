"""Pages of the studies show each recorded study, and its report is that of its runs."""

import json
import re

import pytest

from docs.generate import studies
from docs.generate.benchmarks import RESULTS
from jmarl.results.zero_shot import estimate
from jmarl.studies.reports import study_record
from jmarl.studies.study_file import read_study


OPEN = ("missing", "unmeasured", "unreadable")
"""Entries of a report with the names of cells without result."""
REPORTS = studies.report_files()


@pytest.fixture(scope="module")
def pages():
    return dict(studies.pages())


@pytest.mark.parametrize("name", REPORTS)
def test_every_study_has_a_page_with_its_records(pages, name):
    text, index = pages[f"studies/{name}.md"], pages["studies/index.md"]
    record = json.loads(REPORTS[name].read_text())
    assert f"]({name}.md)" in index
    assert record["question"] in text and record["question"] in index
    cells = [[cell.strip() for cell in row.split("|")] for row in text.splitlines()]
    for claim in record.get("claims", []):
        [row] = [row for row in cells if claim["text"] in row]
        assert row[2].startswith(claim["verdict"])
    data = "../benchmarks/data/studies"
    for file in REPORTS[name].parent.glob("*.json"):
        assert f"]({data}/{name}/{file.name})" in text
    for link in re.findall(rf"\]\({data}/([^)]*)\)", text):
        assert (RESULTS / "studies" / link).exists(), link


def test_every_folder_of_studies_has_a_report():
    folders = (path for path in (RESULTS / "studies").iterdir() if path.is_dir())
    assert sorted(path.name for path in folders) == list(REPORTS)


RECORDED = [
    name for name, file in REPORTS.items() if len([*file.parent.glob("*.json")]) > 1
]


@pytest.mark.parametrize("name", RECORDED)
def test_the_report_of_a_study_is_that_of_its_runs(name):
    """Verdicts and tables are computed anew from the records of the runs."""
    file = REPORTS[name]
    record = json.loads(file.read_text())
    computed = study_record(read_study(name), file.parent)
    computed = json.loads(json.dumps(computed))
    for key in ("claims", "cells", "tests", "arms", "effects", "curves", "missing"):
        assert _rounded(computed.get(key)) == _rounded(record.get(key)), key


def _rounded(tree):
    """Leave out paths, and round numbers, whose last digits depend on the machine."""
    if isinstance(tree, dict):
        return {key: _rounded(tree[key]) for key in tree if key != "runs"}
    if isinstance(tree, list):
        return [_rounded(value) for value in tree]
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree


def test_a_study_has_the_tables_of_its_report(tmp_path):
    cell = {"labels": {"arm": "x"}, "name": "x", "metrics": {"return": estimate([2.0])}}
    data = {"report": "compare", "title": "T", "question": "Q?", "commits": ["abc"]}
    data |= {"metrics": ["return"], "details": [], "cells": [cell], "study": "arms"}
    data |= {"trends": [], "tests": [], "curves": [{"env": "a b", "error": "none"}]}
    file = RESULTS / "studies" / "arms" / "report.json"
    text = studies.study_page(data, file)
    assert text.startswith("# T\n\nQ?\n\n") and "2.000 (one seed)" in text
    assert "Run it with `jmarl study run arms`.\n\nThe runs are of `abc`." in text
    index = studies.index_page({"arms": data})
    assert "| [T](arms.md) | Q? | no claims | not recorded | not recorded |" in index


@pytest.mark.parametrize("state", OPEN)
def test_a_study_with_a_cell_without_result_is_shown_as_unfinished(state):
    records = {name: json.loads(file.read_text()) for name, file in REPORTS.items()}
    name = next(name for name in records if not any(records[name][x] for x in OPEN))
    record, file = records[name], REPORTS[name]
    assert "nfinished" not in studies.study_page(record, file)
    assert "(unfinished)" not in studies.index_page({name: record})
    record[state] = ["some-cell"]
    text = studies.study_page(record, file)
    assert "**Unfinished.**" in text and f"1 cells are {state}: some-cell" in text
    assert f"({name}.md) (unfinished) |" in studies.index_page({name: record})


def test_a_study_shows_the_curves_of_each_environment():
    text = studies.curve_figures({"env": "battle a=1"}, "data/studies/arms")
    place = "data/studies/arms/figures/battle_a_1"
    assert f"({place}/sample_efficiency.png)" in text
