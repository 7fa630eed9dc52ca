"""Studies: every cell is checked first, finished cells are skipped, and others are resumed."""

from __future__ import annotations

import json
import re
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from jmarl.cli.commands import dispatch, train
from jmarl.cli.launch import launch
from jmarl.config import ConfigError
from jmarl.config.choices import yaml_names
from jmarl.launchers.processes import (
    PREALLOCATE,
    Processes,
    memory_on_demand,
    received_signals,
)
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.status import read_status, write_status
from jmarl.studies.cells import plan
from jmarl.studies.measures import check_measure
from jmarl.studies.reports import check_report
from jmarl.studies.run_study import run_study
from jmarl.studies.study_file import find_cell, read_study


STUDY = """\
title: two seeds
question: Do two seeds differ?
system: u_mappo
common:
  - env=probe_classes
  - num_envs=8
  - rollout_length=8
  - total_timesteps=128
  - eval.episodes=8
  - eval.every=64
  - eval.absolute_factor=1
  - logger=none
  - network.torso=[8]
  - network.memory_width=8
  - network.head=[]
  - system.cgi.width=8
factors:
  start:
    1: [seed=1]
    2: [seed=2]
measure: {name: cgi_gradients, options: {envs: 8, steps: 5}}
report: {name: compare, options: {across: start, metrics: [return, cgi_error]}}
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "seeds.yaml"
    path.write_text(STUDY)
    return str(path)


class InProcess:
    """Execute the commands of jobs in this process; some end with given exit codes instead."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.done: list[str] = []

    def run(self, command, keep=(), stop_when=None):
        assert command[:2] == [sys.executable, "-m"]
        module, *words = command[2:]
        place = next(w for w in words if w.startswith(("run_dir=", "resume=", "cell=")))
        cell = Path(place.partition("=")[2]).name
        work = "measure" if module == "jmarl" else place.partition("=")[0]
        self.done.append(f"{work} {cell}")
        if f"{work}_{cell}" in self.codes:
            return self.codes[f"{work}_{cell}"]
        if module == "jmarl":
            return dispatch(words)
        return launch(module.rpartition(".")[2], words, train)


class Never:
    """Launcher that must not be used."""

    def run(self, command, keep=(), stop_when=None):
        raise AssertionError(command)


def test_a_study_stops_with_a_run_and_continues_where_it_stopped(
    study, tmp_path, capsys
):
    out = tmp_path / "out"
    stopped = InProcess(run_dir_2=ExitCode.PREEMPTED)
    assert run_study(study, str(out), launcher=stopped) == ExitCode.PREEMPTED
    assert stopped.done == ["run_dir 1", "run_dir 2"]
    assert re.search(r"\[2/2\] train 2, ETA \d+:\d\d\n", capsys.readouterr().out)
    assert not (out / "report.json").exists()

    failed = InProcess(measure_1=1)
    assert run_study(study, str(out), launcher=failed) == 1
    assert failed.done == ["run_dir 2", "measure 1", "measure 2"]
    assert json.loads((out / "report.json").read_text())["unmeasured"] == ["1"]

    write_status(out / "2", "interrupted")
    resumed = InProcess()
    assert run_study(study, str(out), launcher=resumed) == 0
    assert resumed.done == ["resume 2", "measure 1"]
    assert read_status(out / "2")["state"] == "finished"

    capsys.readouterr()
    assert run_study(study, str(out), launcher=Never()) == 0
    printed = capsys.readouterr().out
    assert dispatch(["study", "report", study, f"out={out}"]) == 0
    assert f"checking 2 cells\n{capsys.readouterr().out}" == printed
    assert "| 1     | " in printed and "cgi_error" in printed
    record = json.loads((out / "report.json").read_text())
    assert record["missing"] == record["unmeasured"] == []
    assert {x["metric"] for x in record["trends"]} == {"return", "cgi_error"}

    message = "cell 1: total_timesteps=256, but .* has 128; give the same overrides"
    with pytest.raises(ConfigError, match=message):
        run_study(study, str(out), ["total_timesteps=256"], launcher=Never())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_env=4", r"study=seeds: cell 1: .*num_env=4: unknown key.* num_envs"),
        ("seed=3", "cells 1 and 2 are equal; leave out overrides of keys"),
        ("run_dir=x", "run_dir='x': is set by the study; choose its folder with out="),
        ("env=probe_bandi", "cell 1: env=probe_bandi: .*probe_bandit"),
        ("env.n_classes=0", "cell 1: env.n_classes=0"),
        ("num_envs", "num_envs: expected key=value"),
    ],
)
def test_an_invalid_override_is_an_error_before_anything_is_trained(
    study, tmp_path, override, message
):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        run_study(study, str(out), [override], launcher=Never())
    assert not out.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "question:",
            "questoin:",
            "study=.*questoin: unknown key; did you mean question",
        ),
        (
            "name: cgi_gradients",
            "name: cgi_gradient",
            "did you mean cgi_gradients",
        ),
        ("steps: 5", "step: 5", "measure.options.step=5: unknown key"),
        (
            "metrics: [return, ",
            "metrics: [retrun, ",
            "options=.retrun.: unknown metric; did you mean return",
        ),
        ("across: start", "across: strat", "no such factor; did you mean start"),
        ("system: u_mappo\n", "", "cell 1 has no system"),
        ("system: u_mappo\n", "system: u_mapo\n", "cell 1: .*u_mapo: unknown system"),
        ("    2: [seed=2]", "    off: [seed=2]", "quote the words on, off"),
        (
            "    2: [seed=2]",
            "    2: {overides: []}",
            "factors.start.2.overides.*overrides",
        ),
        ("[seed=2]", "3", "factors.start.2=3: expected a list of overrides"),
    ],
)
def test_a_wrong_study_is_an_error(study, tmp_path, old, new, message):
    Path(study).write_text(STUDY.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        run_study(study, str(tmp_path / "out"), launcher=Never())


def test_names_of_studies_actions_and_cells_get_the_nearest():
    for words, message in (
        (["run", "uas_cg"], "study=uas_cg: unknown study; did you mean uas_cgi"),
        (["runn", "uas_cgi"], "runn: unknown action of jmarl study; did you mean run"),
        (["report", "uas_cgi", "ot=x"], "ot=x: unknown key; did you mean out"),
        (["run"], "names no study"),
        (["measure", "uas_cgi"], "has no measure"),
        (["list", "x"], "x: jmarl study list takes no arguments"),
    ):
        with pytest.raises(ConfigError, match=message):
            dispatch(["study", *words])
    with pytest.raises(ConfigError, match="cell=x: unknown cell; expected one of"):
        find_cell(read_study("roles"), "x")


def test_the_list_has_the_question_of_every_study(capsys):
    assert dispatch(["study"]) == 0
    listed = capsys.readouterr().out
    assert dispatch(["study", "list"]) == 0
    assert capsys.readouterr().out == listed
    for name in yaml_names("study"):
        assert f"  {name} " in listed and read_study(name).question in listed


SIZES = {
    "cgi_groups": 20,
    "uas_cgi": 28,
    "uas_cgi_small": 12,
    "roles": 9,
    "team_changes": 12,
    "demo": 2,
    "mam_vs_mat": 8,
    "hpn_vs_qmix": 6,
    "size_transfer": 3,
    "precision": 2,
}


@pytest.mark.parametrize("name", yaml_names("study"))
def test_all_cells_of_a_study_compose(name, tmp_path):
    study = read_study(name)
    check_report(study)
    check_measure(study)
    planned = plan(study, tmp_path, ["num_seeds=1"])
    assert len(planned) == SIZES[name]
    assert {each.config.num_seeds for each in planned} == {1}
    assert [each.folder for each in planned] == [
        tmp_path / c.name for c in study.cells()
    ]


def test_a_stop_signal_is_sent_on_once():
    code = textwrap.dedent("""\
        import os, signal, sys, time
        count = []
        signal.signal(signal.SIGTERM, lambda *_: count.append(1))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(1)
        sys.exit(70 + len(count))
    """)
    before = signal.getsignal(signal.SIGTERM)
    processes = Processes()
    with received_signals(processes):
        assert processes.run([sys.executable, "-c", code]) == 71
        assert processes.run(["not started"]) == ExitCode.PREEMPTED
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_the_process_of_the_study_leaves_memory_to_others(monkeypatch):
    monkeypatch.delenv(PREALLOCATE, raising=False)
    code = f"import os, sys; sys.exit('{PREALLOCATE}' in os.environ)"
    with memory_on_demand():
        assert Processes().run([sys.executable, "-c", code]) == 1
    assert Processes().run([sys.executable, "-c", code]) == 0


TINY = [
    "num_seeds=2",
    "num_envs=4",
    "rollout_length=8",
    "total_timesteps=64",
    "eval.episodes=4",
    "eval.every=32",
    "eval.absolute_factor=1",
    "network.torso=[8]",
    "network.memory_width=8",
    "network.head=[]",
    "system.minibatches=1",
    "system.epochs=1",
    "logger=none",
    "env.reset_pool=0",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", yaml_names("study"))
def test_a_whole_study_completes(name, tmp_path):
    """Each cell is trained and measured in a process of its own."""
    assert run_study(name, str(tmp_path), TINY) == 0
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["missing"] == record["unmeasured"] == []
    assert (tmp_path / "report.png").stat().st_size > 0
