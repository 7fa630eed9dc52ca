"""The figures of the README and of the pages are those of the records that they link to."""

import json
import re

import pytest

from docs.generate.claims import (
    FIGURES,
    LINK,
    ROOT,
    texts,
    with_figures,
    wrong_figures,
)


README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_a_text_has_the_figures_of_its_records(path):
    assert wrong_figures(path.read_text(encoding="utf-8")) == []


def test_each_function_has_a_figure_in_a_text():
    found = (LINK.findall(path.read_text(encoding="utf-8")) for path in texts())
    assert {name for links in found for _, name in links} >= set(FIGURES)


def test_a_row_of_the_table_of_measurements_has_no_other_figure():
    table = README.partition("## Measured")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) > 9
    assert all(LINK.fullmatch(row.split(" | ")[1].removesuffix(" |")) for row in rows)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "results" / "throughput_mappo.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"ratio": 1.234}))
    return tmp_path


def test_a_wrong_claim_is_found_and_can_be_rewritten(folder):
    claim = (
        "MAPPO has [1.50 times the steps per second](results/throughput_mappo.json)."
    )
    (line,) = wrong_figures(claim, folder)
    assert "the text has '1.50 times" in line and "gives '1.23 times" in line
    assert wrong_figures(with_figures(claim, folder), folder) == []


def test_a_claim_of_a_study_has_its_verdict_and_its_difference(tmp_path):
    path = tmp_path / "results" / "studies" / "arms" / "report.json"
    path.parent.mkdir(parents=True)
    claim = {"verdict": "undecided", "difference": [0.01, -0.02, 0.04]}
    path.write_text(json.dumps({"claims": [claim]}))
    link = "(../benchmarks/data/studies/arms/report.json#{}-1)"
    text = (
        f"It is [supported]{link.format('verdict')}: [+1]{link.format('difference')}."
    )
    first, second = wrong_figures(text, tmp_path)
    assert "'supported', the record gives 'undecided'" in first
    assert "gives '+0.010 [-0.020, +0.040]'" in second
    written = with_figures(text, tmp_path)
    assert f"It is [undecided]{link.format('verdict')}: [+0.010 [" in written
    assert wrong_figures(written, tmp_path) == []
    path.write_text(
        json.dumps({"claims": [claim | {"difference": [0.02, None, None]}]})
    )
    (stale,) = wrong_figures(written, tmp_path)
    assert "'+0.010 [-0.020, +0.040]', the record gives '+0.020 [undefined" in stale


def test_a_record_without_a_function_is_an_error(folder):
    with pytest.raises(KeyError, match=re.escape("other.json: add the function")):
        wrong_figures("[2](results/other.json)", folder)


def test_an_unfinished_record_gives_no_figure(folder):
    record = {"ratio": 1.234, "unfinished": ["jmarl, seed 2"]}
    (folder / "results" / "throughput_mappo.json").write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=re.escape("throughput_mappo.json: unfinished")
    ):
        wrong_figures("[2](results/throughput_mappo.json)", folder)
