"""Faults 2, 17 and 18: killed processes, two writers, and folders that cannot be used."""

import json
import os
import pathlib
import platform
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest
import toy
from records import outcome, status, steps

from jmarl.cli.process import exit_code
from jmarl.config import ConfigError
from jmarl.runs import folder as run_folder
from jmarl.runs import loop
from jmarl.runs import status as status_module
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
from jmarl.runs.status import heartbeat, read_status, write_status


WRITER = """
import fcntl, pathlib, sys
from jmarl.runs.status import write_status
folder = pathlib.Path(sys.argv[1])
file = open(folder / ".lock", "a")
fcntl.flock(file, fcntl.LOCK_EX)
write_status(folder, "running")
print("running", flush=True)
input()
"""
"""A process that holds a run folder until it is killed."""


@pytest.fixture
def writer(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"running\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_run_is_running_until_its_process_dies(number, writer, tmp_path):
    assert read_status(tmp_path)["state"] == "running"
    assert read_status(tmp_path)["pid"] == writer.pid
    writer.send_signal(number)
    writer.wait()
    assert status(tmp_path)["state"] == "running"
    assert read_status(tmp_path)["state"] == "killed"


def test_a_copy_of_a_running_run_is_not_running(writer, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (".lock", "status.json"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    assert read_status(copy)["state"] == "killed"


def test_a_run_that_is_resumed_is_running_before_it_writes_its_status(tmp_path):
    write_status(tmp_path, "interrupted")
    with run_folder.locked(tmp_path):
        assert read_status(tmp_path)["state"] == "running"
    assert read_status(tmp_path)["state"] == "interrupted"


def rewrite(folder, **changes):
    (folder / "status.json").write_text(json.dumps({**status(folder), **changes}))


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "running"),
        ({"process_start": 1}, "killed"),
        ({"pid": 2**30}, "killed"),
        ({"host": "elsewhere"}, "running"),
        ({"host": "elsewhere", "time": "2020-01-01T00:00:00+00:00"}, "killed"),
        ({"host": "elsewhere", "time": "yesterday"}, "killed"),
        ({"state": "finished"}, "finished"),
    ],
)
def test_without_a_lock_the_process_and_its_heartbeat_decide(tmp_path, changes, state):
    """A reused pid has another start. The processes of other hosts have a heartbeat."""
    write_status(tmp_path, "running")
    rewrite(tmp_path, **changes)
    assert read_status(tmp_path)["state"] == state


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"pid": 1}'])
def test_a_damaged_status_is_unknown(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path)["state"] == "unknown"


def test_a_status_names_its_process(tmp_path):
    write_status(tmp_path, "failed", exit_code=1)
    recorded = status(tmp_path)
    assert (recorded["host"], recorded["pid"]) == (platform.node(), os.getpid())
    assert (recorded["state"], recorded["exit_code"]) == ("failed", 1)


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_a_heartbeat_renews_the_time_of_a_running_run_only(tmp_path, monkeypatch):
    write_status(tmp_path, "running", update=3)
    monkeypatch.setattr(status_module, "_now", lambda: "later")
    with heartbeat(tmp_path, every_s=0.01):
        wait_until(lambda: status(tmp_path)["time"] == "later")
        assert status(tmp_path)["update"] == 3
        monkeypatch.setattr(status_module, "_now", lambda: "end")
        write_status(tmp_path, "finished")
        monkeypatch.setattr(status_module, "_now", lambda: "after the end")
        time.sleep(0.1)
        assert status(tmp_path)["time"] == "end"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_run_that_ends_with_any_exception_has_failed(
    error, tmp_path, monkeypatch, shared_programs
):
    def train_chunk(*_):
        raise error("the reason")

    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    with pytest.raises(error):
        run(toy.config(run_dir=str(tmp_path / "run")))
    recorded = status(tmp_path / "run")
    assert (recorded["state"], recorded["exit_code"]) == ("failed", 1)
    assert recorded["message"] == f"{error.__name__}: the reason"


TRAIN = """
import sys, toy
from jmarl.runs.run import run
toy.install()
sys.exit(run(toy.config(run_dir=sys.argv[1])))
"""
INCOMPLETE = "*.orbax-checkpoint-tmp*"


def train_until_it_saves(folder, saves):
    """Start a run in another process; return it once a checkpoint is being written."""
    tests = pathlib.Path(toy.__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", TRAIN, str(folder)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    seen = set()
    while len(seen) < saves and process.poll() is None:
        seen |= {
            p.name.split(".")[0] for p in (folder / "checkpoints").glob(INCOMPLETE)
        }
    return process


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("saves", "seed"),
    [
        (2, 0),
        *(pytest.param(1 + i % 3, i, marks=pytest.mark.slow) for i in range(1, 6)),
    ],
)
def test_a_run_killed_while_it_saves_is_resumed_exactly(
    saves, seed, tmp_path, shared_programs, uninterrupted
):
    folder = tmp_path / "run"
    process = train_until_it_saves(folder, saves)
    time.sleep(random.Random(seed).uniform(0, 0.03))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert read_status(folder)["state"] == "killed"
    assert run(resume_config(str(folder))) == 0
    assert outcome(folder) == uninterrupted
    assert steps(folder)[-1] == 8


@pytest.mark.fault(17)
def test_a_second_writer_is_rejected_and_changes_nothing(writer, tmp_path, capsys):
    run_folder.write_config(tmp_path, toy.config())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert exit_code(lambda: run(resume_config(str(tmp_path)))) == 2
    line = f"error: {tmp_path}: another process is writing this run\n"
    assert capsys.readouterr().err == line
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.fault(17)
def test_a_reader_of_the_status_does_not_keep_a_writer_out(tmp_path, monkeypatch):
    """A reader holds the lock for a moment. Here it releases it at the second attempt."""
    (tmp_path / ".lock").touch()
    attempts = []

    def flock(*_):
        attempts.append(1)
        if len(attempts) == 1:
            raise BlockingIOError

    monkeypatch.setattr("fcntl.flock", flock)
    with run_folder.locked(tmp_path):
        assert len(attempts) == 2


@pytest.mark.fault(18)
def test_a_read_only_disk_is_rejected_in_one_line(small_disk, capsys):
    disk = small_disk("64k", "ro")
    assert exit_code(lambda: run(toy.config(run_dir=str(disk / "run")))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: run_dir={disk / 'run'}: ")
    assert error.count("\n") == 1


@pytest.mark.fault(18)
def test_a_path_that_checkpoints_cannot_have_is_rejected(tmp_path):
    folder = tmp_path / os.fsdecode(b"run \xff")
    with pytest.raises(ConfigError, match="not a usable path"):
        run(toy.config(run_dir=str(folder)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(18)
@pytest.mark.parametrize("name", ["two words", "año", "it's", "$HOME", "a=b,c"])
def test_a_run_works_in_a_folder_of_any_name(
    name, tmp_path, capsys, shared_programs, uninterrupted, monkeypatch
):
    folder = tmp_path / name

    def train_chunk(ctx, state, progress, real=loop.train_chunk):
        if progress.update == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(ctx, state, progress)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_chunk", train_chunk)
        assert run(toy.config(run_dir=str(folder))) == 75
    line = capsys.readouterr().out.splitlines()[-1]
    *_, argument = shlex.split(line.removeprefix("resume with: "))
    assert argument == f"resume={folder}"
    assert run(resume_config(argument.removeprefix("resume="))) == 0
    assert outcome(folder) == uninterrupted


def test_cpu_seconds_are_added_over_processes(tmp_path, monkeypatch):
    clock = iter([100.0, 130.0, 2.0, 7.0])
    monkeypatch.setattr(status_module.time, "process_time", lambda: next(clock))
    write_status(tmp_path, "running")
    write_status(tmp_path, "interrupted")
    assert status(tmp_path)["cpu_seconds"] == 30
    rewrite(tmp_path, pid=2**30)  # another process
    write_status(tmp_path, "running")
    write_status(tmp_path, "finished")
    assert status(tmp_path)["cpu_seconds"] == 35
