"""The figures of the README are those of the records that it links to."""

import json
import re

import pytest

from docs.generate.claims import FIGURES, LINK, ROOT, with_figures, wrong_figures


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_figures_of_its_records():
    assert wrong_figures(README) == []


def test_each_function_has_a_figure_in_the_readme():
    assert {path for _, path in LINK.findall(README)} == set(FIGURES)


def test_a_row_of_the_table_of_measurements_has_no_other_figure():
    table = README.partition("## Measured")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == len(FIGURES)
    assert all(LINK.search(row.split(" | ")[1]) for row in rows)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "results" / "throughput.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"ratio": 1.234}))
    return tmp_path


def test_a_wrong_claim_is_found_and_can_be_rewritten(folder):
    claim = "MAPPO has [1.50 times the steps per second](results/throughput.json)."
    (line,) = wrong_figures(claim, folder)
    assert "the text has '1.50 times" in line and "gives '1.23 times" in line
    assert wrong_figures(with_figures(claim, folder), folder) == []


def test_a_record_without_a_function_is_an_error(folder):
    with pytest.raises(
        KeyError, match=re.escape("results/other.json: add the function")
    ):
        wrong_figures("[2](results/other.json)", folder)
