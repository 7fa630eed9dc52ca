"""Fault 5: the disk is full."""

import dataclasses
import errno
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toy
from records import outcome, status, steps

from jmarl.cli.process import exit_code
from jmarl.results.metrics_file import read_rows
from jmarl.runs.checkpoint import Checkpoints
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
from jmarl.runs.status import read_status, write_status


pytestmark = pytest.mark.fault(5)
FULL = os.strerror(errno.ENOSPC)


def fail_to_replace(monkeypatch, *names):
    """Leave no room for new files of these names."""

    def replace(source, target, real=os.replace):
        if pathlib.Path(target).name in names:
            raise OSError(errno.ENOSPC, FULL)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def fail_to_overwrite(monkeypatch):
    """Leave no room for files that are overwritten in place."""

    def fail(path, mode="r", *args, real=pathlib.Path.open, **options):
        if mode == "r+":
            raise OSError(errno.ENOSPC, FULL)
        return real(path, mode, *args, **options)

    monkeypatch.setattr(pathlib.Path, "open", fail)


def fail_to_save(monkeypatch, *full):
    """Leave no room for the checkpoints of these updates."""
    from orbax.checkpoint import CheckpointManager

    def save(manager, step, *args, real=CheckpointManager.save, **options):
        if step in full:
            raise OSError(errno.ENOSPC, FULL)
        return real(manager, step, *args, **options)

    monkeypatch.setattr(CheckpointManager, "save", save)


@pytest.mark.parametrize("name", ["config.yaml", "versions.json"])
def test_a_run_that_cannot_be_described_ends_in_one_line(
    name, tmp_path, monkeypatch, capsys
):
    fail_to_replace(monkeypatch, name)
    folder = tmp_path / "run"
    assert exit_code(lambda: run(toy.config(run_dir=str(folder)))) == 3
    fix = "free space or choose another run_dir"
    assert capsys.readouterr().err == f"error: run_dir={folder}: {FULL}; {fix}\n"
    assert not folder.exists()


def test_a_folder_that_cannot_be_created_ends_in_one_line(
    tmp_path, monkeypatch, capsys
):
    def mkdir(*args, **options):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    config = toy.config(run_dir=str(tmp_path / "run"))
    assert exit_code(lambda: run(config)) == 3
    assert FULL in capsys.readouterr().err


def test_a_status_is_overwritten_in_place_if_a_new_file_has_no_room(
    tmp_path, monkeypatch
):
    write_status(tmp_path, "running", filler="x" * 500)
    fail_to_replace(monkeypatch, "status.json")
    write_status(tmp_path, "failed")
    assert status(tmp_path)["state"] == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_status_that_cannot_be_written_is_removed(tmp_path, monkeypatch):
    write_status(tmp_path, "running")
    fail_to_replace(monkeypatch, "status.json")
    fail_to_overwrite(monkeypatch)
    write_status(tmp_path, "failed")
    assert list(tmp_path.iterdir()) == []
    assert read_status(tmp_path)["state"] == "unknown"


def test_a_status_that_cannot_be_written_does_not_stop_a_run(
    tmp_path, monkeypatch, shared_programs, uninterrupted
):
    fail_to_replace(monkeypatch, "status.json")
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder))) == 0
    assert not (folder / "status.json").exists()
    assert outcome(folder) == uninterrupted


def test_lost_checkpoints_give_one_warning_and_one_line_when_they_work_again(
    tmp_path, monkeypatch, capsys, shared_programs, uninterrupted
):
    fail_to_save(monkeypatch, 2, 4)
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder))) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"warning: checkpoint 2 not written; training continues: {FULL}",
        "warning: checkpoint 6 written; checkpoints can be saved again",
    ]
    assert steps(folder) == [6, 8] and outcome(folder) == uninterrupted


def test_a_finished_run_that_is_not_saved_says_so_and_can_be_resumed(
    tmp_path, monkeypatch, capsys, shared_programs, uninterrupted
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_to_save(patch, 6, 8)
        assert run(toy.config(run_dir=str(folder))) == 3
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert "finished: 8 updates" in last
    assert f"not saved: the state after update 8 ({FULL})" in last
    assert "resume with: " in captured.out
    assert status(folder)["state"] == "failed" and status(folder)["exit_code"] == 3
    assert steps(folder) == [2, 4]
    assert run(resume_config(str(folder))) == 0
    assert outcome(folder) == uninterrupted


def test_a_required_checkpoint_that_is_lost_stops_the_run(
    tmp_path, monkeypatch, capsys, shared_programs
):
    fail_to_save(monkeypatch, 4)
    folder = tmp_path / "run"
    required = dataclasses.replace(toy.config().checkpoint, required=True)
    assert run(toy.config(run_dir=str(folder), checkpoint=required)) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"checkpoint 4 not written: {FULL}" in last
    assert "checkpoint.required=true" in last
    assert read_rows(folder / "metrics.jsonl")[-1]["update"] == 4
    assert steps(folder) == [2]


def test_a_lost_evaluation_is_repeated_when_the_run_is_resumed(
    tmp_path, monkeypatch, capsys, shared_programs, uninterrupted
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_to_replace(patch, "evaluation.json")
        assert run(toy.config(run_dir=str(folder))) == 3
    assert "not saved: evaluation.json" in capsys.readouterr().err
    assert run(resume_config(str(folder))) == 0
    assert outcome(folder) == uninterrupted


def test_an_old_step_makes_room_for_a_new_one(tmp_path, monkeypatch):
    notes = []
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=3, verify=True, warn=notes.append)
    usage = shutil.disk_usage(tmp_path)
    for step in (1, 2, 3, 4):
        if step == 3:
            full = usage._replace(free=1000)
            monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
        checkpoints.save(step, {"x": np.zeros(9)}, {})
        assert checkpoints.wait() == ""
    checkpoints.close()
    assert steps(tmp_path) == [3, 4]
    assert notes == ["checkpoint 1 removed, because the disk is nearly full"]


SAVE_THREE = """
import pathlib, resource, sys
import numpy as np
from jmarl.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), keep=2, verify=True, warn=print)
checkpoints.save(1, {"x": np.ones(3)}, {})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
rng = np.random.default_rng(0)
large = {f"x{i}": rng.normal(size=(100, 100)) for i in range(60)}
for step in (2, 3, 4):
    checkpoints.save(step, large, {})
checkpoints.close()
"""


def test_failures_of_background_threads_are_one_line_and_leave_no_files(tmp_path):
    """A limit on the file size simulates a full disk for the threads of TensorStore."""
    command = [sys.executable, "-c", SAVE_THREE, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reason = os.strerror(errno.EFBIG)
    line = f"checkpoint 2 not written; training continues: {reason}\n"
    assert (done.stdout, done.stderr) == (line, "")
    assert steps(tmp_path) == [1]


def test_a_disk_without_room_for_any_file_gets_none(small_disk, capsys):
    disk = small_disk("8k")
    assert exit_code(lambda: run(toy.config(run_dir=str(disk / "run")))) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert list(disk.iterdir()) == []


def test_a_disk_without_room_for_a_checkpoint_gets_everything_else(
    tmp_path, small_disk, capsys, shared_programs, uninterrupted
):
    folder = small_disk("64k") / "run"
    assert run(toy.config(run_dir=str(folder))) == 3
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].endswith(f"not written; training continues: {FULL}")
    assert "not saved: the state after update 8" in errors[-1] and len(errors) <= 3
    assert steps(folder) == [] and status(folder)["state"] == "failed"
    shutil.copytree(folder, tmp_path / "larger")
    assert run(resume_config(str(tmp_path / "larger"))) == 0
    assert outcome(tmp_path / "larger") == uninterrupted


SMALL = "env=smax_3m num_envs=16 rollout_length=16 total_timesteps=1536 eval.every=256"
TRAIN = [sys.executable, "-m", "jmarl.systems.ippo", *SMALL.split(), "network=mlp"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "saved"), [("8k", None), ("400k", []), ("1300k", [1])]
)
def test_a_run_of_the_command_line_survives_a_small_disk(size, saved, small_disk):
    folder = small_disk(size) / "run"
    command = [*TRAIN, "arch=cpu", f"run_dir={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = done.stderr.splitlines()
    assert done.returncode == 3
    if saved is None:
        assert len(errors) == 1 and not folder.exists()
        return
    assert len(errors) == 2 and all(FULL in line for line in errors)
    assert steps(folder) == saved
    assert status(folder)["state"] == "failed"
    assert len(read_rows(folder / "metrics.jsonl")) == 14
