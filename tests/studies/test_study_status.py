"""The state of each cell of a study, and runs that no longer answer it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.results.files import read_json, write_json
from jmarl.studies.cells import plan, write_overrides
from jmarl.studies.run_study import check_study
from jmarl.studies.study_file import read_study
from tests.studies.study_folders import write_run


STUDY = """\
title: three rates
question: Which rate?
system: ippo
common: [env=probe_bandit, num_seeds=2]
factors:
  rate:
    low: [system.lr=1e-4]
    middle: [system.lr=1e-3]
    high: [system.lr=1e-2]
report: {name: compare, options: {across: rate, metrics: [return]}}
"""
OVERRIDES = ["total_timesteps=4096"]


@pytest.fixture
def study(tmp_path):
    """Write a study with two finished runs; return its file and the cells."""
    path = tmp_path / "rates.yaml"
    path.write_text(STUDY)
    out = tmp_path / "out"
    cells = plan(read_study(str(path)), out, OVERRIDES)
    write_overrides(out, OVERRIDES)
    for each in cells[:2]:
        write_run(each.folder, each.config, [0.5, 0.7])
    return path, cells


def lines_of(path: Path, capsys, action: str = "status") -> str:
    capsys.readouterr()
    assert dispatch(["study", action, str(path), f"out={path.parent / 'out'}"]) == 0
    return capsys.readouterr().out


def test_status_counts_finished_and_missing_cells(study, capsys):
    text = lines_of(study[0], capsys)
    assert text.startswith("Which rate?\n")
    assert text.endswith("2 finished, 1 missing\n")
    assert "return 0.6" in text


def test_a_changed_study_makes_its_runs_stale(study, capsys):
    path = study[0]
    path.write_text(STUDY.replace("1e-3", "2e-3"))
    text = lines_of(path, capsys)
    assert "system.lr=0.002, but" in text and "has 0.001" in text
    assert text.endswith("1 finished, 1 stale, 1 missing\n")
    report = lines_of(path, capsys, "report")
    assert "1 cells are stale: middle (trained with another configuration" in report


def test_another_version_makes_a_run_stale(study, capsys):
    path, cells = study
    file = cells[0].folder / "versions.json"
    write_json(file, read_json(file) | {"jax": "0.1"})
    assert "jax 0.1 when it was saved" in lines_of(path, capsys)


def test_an_unreadable_cell_costs_that_cell_alone(study, capsys):
    path, cells = study
    (cells[0].folder / "config.yaml").write_text("seed: [")
    (cells[0].folder / "metrics.jsonl").write_text("{")
    checked = check_study(read_study(str(path)), path.parent / "out", OVERRIDES)
    assert [bool(each.damage) for each in checked] == [True, False, False]
    assert "left out, because its run cannot be read" in capsys.readouterr().err
    assert "1 cells are unreadable: low" in lines_of(path, capsys, "report")


def test_status_of_an_unknown_study_or_key_is_an_error(study):
    with pytest.raises(ConfigError, match="demo"):
        dispatch(["study", "status", "dmo"])
    with pytest.raises(ConfigError, match="jobs"):
        dispatch(["study", "status", str(study[0]), "jobs=2"])
