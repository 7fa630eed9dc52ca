"""``jmarl runs``: state, progress and score of every run, and how to resume it."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from jmarl.cli.commands import dispatch
from jmarl.cli.process import exit_code
from jmarl.results.metrics_file import to_json
from jmarl.runs.folder import write_config
from jmarl.runs.status import write_status
from jmarl.saved import list_runs as module
from jmarl.saved.list_runs import describe, last_rows, list_runs, run_folders


def row(kind, update, **metrics):
    return {"kind": kind, "update": update, "env_steps": [64 * update], **metrics}


def make_run(folder, state, *rows, config=None, **details):
    folder.mkdir(parents=True)
    write_config(folder, config or toy.config())
    write_status(folder, state, **details)
    lines = [to_json(row) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


EVALUATION = row("eval", 4, **{"greedy/won": [0.25, 0.75, 0.5]})


def test_a_finished_run_has_its_progress_and_its_last_score(tmp_path):
    folder = make_run(tmp_path / "a", "finished", EVALUATION, row("train", 8))
    line = describe(folder)
    assert (line.state, line.progress) == ("finished", "8 of 8 (100%)")
    assert (line.score, line.advice) == ("win rate 0.5", "")


def test_without_win_rates_the_score_is_the_return(tmp_path):
    returns = {"greedy/return": [1.5], "greedy/won": [None]}
    folder = make_run(tmp_path / "a", "finished", row("eval", 8, **returns))
    assert describe(folder).score == "return 1.5"


def test_a_run_that_was_killed_has_its_recorded_progress_and_a_command(tmp_path):
    """No process has the lock, so that the recorded state is not true."""
    folder = make_run(tmp_path / "it's a run", "running", EVALUATION, update=6)
    (folder / ".lock").touch()
    line = describe(folder)
    assert (line.state, line.progress) == ("killed", "6 of 8 (75%)")
    command = line.advice.removeprefix("resume with: ")
    expected = ["python", "-m", "jmarl.systems.toy", f"resume={folder}"]
    assert shlex.split(command) == expected


def test_a_failed_run_has_its_reason(tmp_path):
    folder = make_run(tmp_path / "a", "failed", exit_code=3, message="disk full")
    first, second = describe(folder).advice.splitlines()
    assert first == "disk full" and second.startswith("resume with: ")


def test_a_run_that_diverged_is_not_resumed_as_it_is(tmp_path):
    message = "not finite after update 5"
    folder = make_run(tmp_path / "a", "failed", exit_code=4, message=message)
    assert describe(folder).advice == message


def test_a_run_without_checkpoints_cannot_be_resumed(tmp_path):
    options = toy.config().checkpoint.__class__(False, 1, 2, True)
    config = toy.config(checkpoint=options)
    folder = make_run(tmp_path / "a", "interrupted", config=config)
    assert describe(folder).advice.startswith("cannot be resumed")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", ""),
        ("config.yaml", "seed: ["),
        ("config.yaml", "seed: 0"),
        ("config.yaml", "\0"),
        ("status.json", '{"state": "failed", "time": "yesterday"}'),
        ("status.json", '{"state": "failed", "time": 3, "update": "x"}'),
    ],
)
def test_a_damaged_folder_has_a_line(tmp_path, name, text, capsys):
    folder = make_run(tmp_path / "bad", "finished", EVALUATION)
    (folder / name).write_text(text)
    make_run(tmp_path / "good", "finished", EVALUATION)
    assert list_runs(str(tmp_path)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    states = {row[0]: row[1] for row in rows}
    assert states[str(tmp_path / "bad")] == "damaged"
    assert states[str(tmp_path / "good")] == "finished"


@pytest.mark.parametrize("text", ["", "3\n", "[1]\n", '{"kind": "ev', "\xff\n"])
def test_damaged_rows_are_skipped(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text(to_json(EVALUATION) + "\n" + text, encoding="latin1")
    assert last_rows(path) == (EVALUATION, EVALUATION)


def test_a_run_without_configuration_is_damaged(tmp_path):
    folder = make_run(tmp_path / "a", "running")
    (folder / "config.yaml").unlink()
    line = describe(folder)
    assert line.state == "damaged" and "config.yaml" in line.advice


def test_the_last_evaluation_is_found_however_far_it_is_from_the_end(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "TAIL", 100)
    rows = [EVALUATION, *(row("train", n) for n in range(5, 300))]
    path = make_run(tmp_path / "a", "running", *rows) / "metrics.jsonl"
    assert last_rows(path) == (row("train", 299), EVALUATION)


def test_runs_are_found_at_any_depth_and_sorted_by_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for hour, name in ((3, "x/y/z"), (1, "x/a"), (2, "b"), (0, ".hidden/c")):
        folder = make_run(Path("runs", name), "finished", EVALUATION)
        status = (folder / "status.json").read_text()
        start = status.index('"time": "') + len('"time": "')
        changed = f"{status[:start]}2030-01-01T{hour:02}{status[start + 13 :]}"
        (folder / "status.json").write_text(changed)
    assert dispatch(["runs"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["run", "runs/x/a", "runs/b", "runs/x/y/z"]


def test_a_run_folder_is_listed_alone_and_not_searched(tmp_path):
    folder = make_run(tmp_path / "a", "finished")
    make_run(folder / "checkpoints" / "b", "finished")
    assert list(run_folders(tmp_path)) == list(run_folders(folder)) == [folder]


def test_a_folder_without_runs_says_so_and_a_missing_one_is_an_error(tmp_path, capsys):
    assert dispatch(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs below {tmp_path}\n"
    missing = str(tmp_path / "missing")
    assert exit_code(lambda: dispatch(["runs", missing])) == 2
    assert f"error: {missing}: no such folder" in capsys.readouterr().err
    assert exit_code(lambda: dispatch(["runs", "a", "b"])) == 2


def test_hundreds_of_runs_are_listed_in_a_second_without_jax(tmp_path):
    rows = [row("train", n, loss=[0.123456789] * 20) for n in range(300)]
    first = make_run(tmp_path / "0", "interrupted", EVALUATION, *rows)
    for i in range(1, 300):
        folder = tmp_path / str(i)
        folder.mkdir()
        for path in first.iterdir():
            os.link(path, folder / path.name)
    start = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "jmarl", "runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 20  # a second on an idle machine
    assert done.stdout.count("resume with: ") == 300
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "yaml" in imported and not imported & {"jax", "numpy", "hydra"}
