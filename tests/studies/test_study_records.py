"""Records of a study's runs: they give the report of the runs, and show what has changed."""

from __future__ import annotations

import json

import pytest
from study_folders import read_folders, read_record, write_study

from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.results.files import read_json, write_json
from jmarl.runs.status import write_status
from jmarl.studies.reports import report_study, study_record
from jmarl.studies.results import write_records
from jmarl.studies.study_file import read_study


SAME = ("claims", "cells", "tests", "cost", "missing", "question")
"""Entries of a report that do not depend on the place of the results."""
TREE = """\
title: arms
question: Which arm?
factors:
  arm:
    mam: {system: mam_ppo}
    mat: {system: mat_ppo}
claims:
  - text: MAM is better than MAT.
    first: {arm: mam}
    second: {arm: mat}
    smallest_effect: 0.05
threshold: 0.85
budget_hours: 2
report:
  name: compare
  options: {across: arm, metrics: [win_rate], baseline: {arm: mat}}
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "arms.yaml").write_text(TREE)
    return read_study(str(tmp_path / "arms.yaml"))


@pytest.fixture
def runs(study, tmp_path):
    """Write the runs of the study, whose processes took an hour each."""
    rates = {"mam": [0.90, 0.92, 0.94], "mat": [0.80, 0.83, 0.82]}
    curves = {"mam": [[0.5, 0.5, 0.9]], "mat": [[0.5, 0.5, 0.5]]}
    folder = tmp_path / "runs"
    write_study(study, folder, lambda c: rates[c.name], curve=lambda c: curves[c.name])
    for cell in study.cells():
        write_status(folder / cell.name, "finished", cpu_seconds=3600)
    return folder


def test_records_give_the_report_of_the_runs(study, runs, tmp_path):
    target = tmp_path / "records"
    assert write_records(read_folders(study, runs).finished, target) == []
    report_study(study, runs)
    report_study(study, target)
    first, second = read_record(runs), read_record(target)
    assert {k: first[k] for k in SAME} == {k: second[k] for k in SAME}
    assert first["claims"][0]["verdict"] == "supported"
    assert second["cost"] == {"cpu_hours": 2.0, "budget_hours": 2, "runs": [2, 2]}
    assert first["curves"][0]["improvement"] == second["curves"][0]["improvement"]


def test_the_report_counts_the_steps_to_the_threshold(study, runs):
    (curves,) = study_record(study, runs)["curves"]
    reached = {
        name: x["waits"]["env_steps"]["reached"] for name, x in curves["groups"].items()
    }
    assert reached == {"mam": [True, True, True], "mat": [False, False, False]}


def test_a_changed_result_changes_the_verdict(study, runs, tmp_path):
    target = tmp_path / "records"
    write_records(read_folders(study, runs).finished, target)
    path = target / "mam.json"
    record = read_json(path)
    record["absolute"][0]["greedy/won"] = [0.1, 0.1, 0.1]
    write_json(path, record)
    (claim,) = study_record(study, target)["claims"]
    assert claim["verdict"] == "not supported"


def test_records_of_records_are_an_error(runs, tmp_path):
    name = str(tmp_path / "arms.yaml")
    dispatch(["study", "record", name, f"out={runs}", f"to={tmp_path / 'to'}"])
    words = [f"out={tmp_path / 'to' / 'arms'}", f"to={tmp_path / 'again'}"]
    with pytest.raises(ConfigError, match="holds records already"):
        dispatch(["study", "record", name, *words])


def test_a_damaged_record_is_unreadable(study, runs, tmp_path):
    target = tmp_path / "records"
    write_records(read_folders(study, runs).finished, target)
    (target / "mam.json").write_text("{")
    record = study_record(study, target)
    assert record["unreadable"] == ["mam"]
    assert record["claims"][0]["verdict"] == "unfinished"


def test_records_have_no_path_of_the_machine(study, runs, tmp_path):
    target = tmp_path / "records"
    write_records(read_folders(study, runs).finished, target)
    for cell in study.cells():
        text = (target / f"{cell.name}.json").read_text()
        assert str(tmp_path) not in text
        assert json.loads(text)["cpu_seconds"] == 3600


def test_the_command_writes_records_and_figures(runs, tmp_path, capsys):
    words = [str(tmp_path / "arms.yaml"), f"out={runs}"]
    assert dispatch(["study", "record", *words, f"to={tmp_path / 'to'}"]) == 0
    assert (
        "Cost: 2.00 CPU hours for 2 of 2 runs; 2 are planned for all."
        in capsys.readouterr().out
    )
    names = {path.name for path in (tmp_path / "to" / "arms").rglob("*.*")}
    assert {"mam.json", "mat.json", "report.json", "sample_efficiency.png"} <= names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out={empty}"], "no finished run"),
        (["out={runs}", "to={parent}"], "is the folder of the runs"),
    ],
)
def test_records_of_nothing_or_into_the_runs_are_errors(runs, tmp_path, words, message):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "arms").symlink_to(runs)
    places = {"empty": tmp_path / "none", "runs": runs, "parent": tmp_path / "up"}
    filled = [word.format(**places) for word in words]
    with pytest.raises(ConfigError, match=message):
        dispatch(["study", "record", str(tmp_path / "arms.yaml"), *filled])
