"""A study goes on from its records: only cells without one are trained, with equal results."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from jmarl.cli.commands import dispatch
from jmarl.config.compose import load_config
from jmarl.results.files import read_json, write_json
from jmarl.runs.status import write_status
from jmarl.studies.results import write_measures
from jmarl.studies.run_study import run_study
from jmarl.studies.study_file import read_study
from tests.studies.study_folders import read_record, write_run


STUDY = """\
title: two rates
question: Which rate?
system: ippo
common: [env=probe_bandit, num_seeds=2, total_timesteps=4096]
factors:
  start:
    1: [seed=1]
    2: [seed=5]
  rate:
    low: [system.lr=1e-4]
    high: [system.lr=1e-2]
claims:
  - text: A high rate is better from the first start.
    first: {start: 1, rate: high}
    second: {start: 1, rate: low}
    metric: return
    smallest_effect: 0.05
  - text: A high rate is better.
    first: {rate: high}
    second: {rate: low}
    metric: return/probe_bandit
    smallest_effect: 0.05
measure: {name: zero_shot, options: {envs: [probe_bandit]}}
report: {name: compare, options: {across: rate, metrics: [return], baseline: {rate: low}}}
"""
SCORES = {
    "1-low": [0.40, 0.42],
    "1-high": [0.80, 0.81],
    "2-low": [0.50, 0.51],
    "2-high": [0.70, 0.72],
}
FIRST = ["1-low", "1-high"]
"""Cells that the first half of a study trains."""


class Trainer:
    """Plant the results of the cells in place of training and measuring them.

    Training fails for cells outside of ``able``.
    """

    def __init__(self, able=tuple(SCORES), shift: float = 0.0) -> None:
        self.able, self.shift = able, shift
        self.asked: list[str] = []

    def run(self, command, keep=(), stop_when=None):
        words = dict(word.split("=", 1) for word in command[3:] if "=" in word)
        if command[2] == "jmarl":
            folder = Path(words["out"]) / words["cell"]
            found = {"return/probe_bandit": self.scores(folder.name)}
            write_measures(folder, read_study(FILE).measure, found)
            return 0
        folder = Path(words.get("run_dir") or words["resume"])
        self.asked.append(folder.name)
        if folder.name not in self.able:
            return 1
        config = load_config(command[2].rpartition(".")[2], command[3:])
        write_run(folder, config, self.scores(folder.name))
        return 0

    def scores(self, name):
        return [score + self.shift for score in SCORES[name]]


RUNS, RECORDS = Path("runs/studies/rates"), Path("results/studies/rates")
FILE = "rates.yaml"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Train and record half of the study, and remove its run folders."""
    folder = tmp_path_factory.mktemp("recorded")
    with contextlib.chdir(folder):
        Path(FILE).write_text(STUDY)
        assert run_study(FILE, overrides=["num_envs=8"], launcher=Trainer(FIRST)) == 1
        assert dispatch(["study", "record", FILE]) == 0
        shutil.rmtree("runs")
    return folder


@pytest.fixture
def half(recorded, tmp_path, monkeypatch):
    """Copy the records to a folder, which becomes the current one."""
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def run(trainer, out="", words=("num_envs=8",), records="results/studies"):
    return run_study(FILE, out, words, launcher=trainer, records=records)


def results_in(folder):
    """Return the report of a study, without times, commands and paths in a message."""
    return without(read_record(folder), ("environment", "error"))


def without(tree, keys):
    if isinstance(tree, dict):
        return {k: without(v, keys) for k, v in tree.items() if k not in keys}
    return [without(x, keys) for x in tree] if isinstance(tree, list) else tree


def status_of(capsys):
    capsys.readouterr()
    assert dispatch(["study", "status", FILE]) == 0
    return capsys.readouterr().out


def test_an_interrupted_study_goes_on_from_its_records(half, capsys):
    run(Trainer(), "whole", records="none")
    assert status_of(capsys).endswith("2 recorded, 2 missing\n")

    trainer = Trainer()
    assert run(trainer) == 0
    assert trainer.asked == ["2-low", "2-high"]
    assert results_in(RUNS) == results_in(Path("whole"))
    assert read_record(RUNS)["claims"][0]["verdict"] == "supported"
    assert status_of(capsys).endswith("2 recorded, 2 finished\n")

    before = (RECORDS / "1-low.json").read_bytes()
    assert dispatch(["study", "record", FILE]) == 0
    assert (RECORDS / "1-low.json").read_bytes() == before
    assert results_in(RECORDS) == results_in(Path("whole"))
    shutil.rmtree("runs")
    assert run(Trainer(())) == 0
    assert results_in(RUNS) == results_in(Path("whole"))


def test_the_records_of_half_a_study_are_visibly_unfinished(half, capsys):
    record = read_record(RECORDS)
    assert record["missing"] == ["2-low", "2-high"]
    assert [each["verdict"] for each in record["claims"]] == ["supported", "unfinished"]
    assert record["claims"][1]["difference"] == [None] * 3
    assert record["cost"]["runs"] == [2, 4]
    capsys.readouterr()
    assert dispatch(["study", "report", FILE]) == 0
    printed = capsys.readouterr().out
    assert "**Unfinished.**" in printed
    assert "2 cells are missing: 2-low, 2-high" in printed
    assert results_in(RUNS) == results_in(RECORDS)


def change_configuration(path):
    record = read_json(path)
    record["config"]["system"]["lr"] = 0.5
    write_json(path, record)


def change_version(path):
    record = read_json(path)
    record["versions"]["jax"] = "0.1"
    write_json(path, record)


def remove_measure(path):
    write_json(path, read_json(path) | {"measures": {}})


def damage(path):
    path.write_text("{")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_configuration, "another configuration: system.lr=0.0001, but"),
        (change_version, "jax 0.1 when it was saved"),
        (remove_measure, "has no results of the measure"),
        (damage, "is not the record of a run"),
    ],
)
def test_a_record_of_something_else_does_not_count(half, capsys, change, reason):
    change(RECORDS / "1-low.json")
    text = status_of(capsys)
    assert text.endswith("3 missing, 1 recorded\n")
    assert "its record does not count: " in text and reason in text


def test_a_cell_is_trained_anew_if_its_record_does_not_count(half, capsys):
    change_configuration(RECORDS / "1-low.json")
    trainer = Trainer(["2-low"])
    assert run(trainer) == 1
    assert trainer.asked == ["1-low", "2-low", "2-high"]
    assert "1 records do not count" in capsys.readouterr().err
    assert dispatch(["study", "record", FILE]) == 0
    assert "1-low: record removed; trained with another" in capsys.readouterr().err
    assert read_record(RECORDS)["missing"] == ["1-low", "2-high"]
    assert read_record(RECORDS)["stale"] == []
    assert (RECORDS / "1-high.json").exists()


def test_a_finished_run_comes_before_a_record_and_that_before_another_run(half):
    assert run(Trainer(shift=0.1), records="none") == 0
    for records in ("results/studies", "none"):
        dispatch(["study", "report", FILE, f"records={records}"])
        assert returns_of("1-low") == pytest.approx([0.5, 0.52])

    write_status(RUNS / "1-low", "interrupted")
    assert run(Trainer(())) == 0
    assert returns_of("1-low") == SCORES["1-low"]


def returns_of(name):
    cells = {cell["name"]: cell for cell in read_record(RUNS)["cells"]}
    return cells[name]["metrics"]["return"]["per_seed"]


def test_records_count_with_another_logger_but_not_with_other_seeds(half):
    trainer = Trainer(())
    run(trainer, words=["num_envs=8", "logger=none", "checkpoint.keep=3"])
    assert trainer.asked == ["2-low", "2-high"]
    trainer = Trainer(())
    run(trainer, "other", words=["num_envs=8", "num_seeds=3"])
    assert trainer.asked == list(SCORES)
