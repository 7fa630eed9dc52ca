"""Fault 7: signals in every phase of a run, and terminals that go away."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
import toy
from records import outcome, status

from jmarl.cli.process import open_missing_streams
from jmarl.results.metrics_file import read_rows
from jmarl.runs import folder as run_folder
from jmarl.runs import loop
from jmarl.runs import run as run_module
from jmarl.runs.exit_codes import stop_requests
from jmarl.runs.folder import resume_config
from jmarl.runs.progress import optional_output
from jmarl.runs.run import run
from jmarl.runs.status import write_status


pytestmark = pytest.mark.fault(7)


def send(number):
    os.kill(os.getpid(), number)


def send_within(monkeypatch, name, number, update=4):
    """Send a signal when ``loop.<name>`` starts at an update."""
    real = getattr(loop, name)

    def interrupted(ctx, state, progress, *args):
        if progress.update == update:
            send(number)
        return real(ctx, state, progress, *args)

    monkeypatch.setattr(loop, name, interrupted)


def send_within_absolute_metric(monkeypatch, number):
    def absolute_metric(ctx, state, progress, real=run_module.absolute_metric):
        def evaluate(*args):
            send(number)
            return ctx.programs.evaluate(*args)

        programs = ctx.programs._replace(evaluate=evaluate)
        return real(ctx._replace(programs=programs), state, progress)

    monkeypatch.setattr(run_module, "absolute_metric", absolute_metric)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("train_chunk", signal.SIGHUP),
        ("evaluate", signal.SIGTERM),
        ("save", signal.SIGUSR1),
        ("absolute metric", signal.SIGINT),
    ],
)
def test_a_run_stopped_in_any_phase_is_saved_and_resumed_exactly(
    phase, number, tmp_path, monkeypatch, shared_programs, uninterrupted
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        if phase == "absolute metric":
            send_within_absolute_metric(patch, number)
        else:
            send_within(patch, phase, number)
        assert run(toy.config(run_dir=str(folder))) == 75
    assert status(folder)["state"] == "interrupted"
    assert f"stopped by {number.name}" in status(folder)["message"]
    assert run(resume_config(str(folder))) == 0
    assert outcome(folder) == uninterrupted


def wait_for_compilation(*args, **options):
    """Stand in for a compilation that takes long, and is interrupted."""
    threading.Timer(0.2, send, [signal.SIGTERM]).start()
    threading.Event().wait(60)


def test_a_signal_during_compilation_ends_a_run_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "compile_run", wait_for_compilation)
    folder = tmp_path / "run"
    start = time.monotonic()
    assert run(toy.config(run_dir=str(folder))) == 75
    assert time.monotonic() - start < 30
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "stopped by SIGTERM during compilation; nothing to save",
        f"resume with: python -m jmarl.systems.toy resume={folder}",
    ]
    assert status(folder)["state"] == "interrupted"


def test_a_signal_before_compilation_prevents_it(tmp_path, monkeypatch):
    def versions(real=run_folder.versions):
        send(signal.SIGTERM)
        return real()

    def compile_run(*args, **options):
        pytest.fail("compiled")

    monkeypatch.setattr(run_folder, "versions", versions)
    monkeypatch.setattr(run_module, "compile_run", compile_run)
    assert run(toy.config(run_dir=str(tmp_path / "run"))) == 75


TWO_SIGNALS = """
import hashlib, os, signal, threading, time
from jmarl.runs.exit_codes import stop_requests

def send():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
def show(text):
    print(text, flush=True)
with stop_requests(show, show):
    threading.Thread(target=send, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
"""Two signals within compiled code, which takes minutes and cannot be interrupted."""


def test_a_second_signal_exits_at_once_even_within_compiled_code():
    command = [sys.executable, "-c", TWO_SIGNALS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    note = "SIGTERM: saving after this chunk; repeat to exit immediately"
    assert done.stdout.splitlines() == [note, str(int(signal.SIGTERM))]


def test_a_second_signal_before_a_resumed_run_starts_keeps_its_status(tmp_path):
    before = {"state": "finished", "host": "other", "pid": 1}
    (tmp_path / "status.json").write_text(json.dumps(before))
    run_module._record_exit(tmp_path, signal.SIGINT)
    assert json.loads((tmp_path / "status.json").read_text()) == before


def test_the_exit_at_a_second_signal_is_recorded(tmp_path):
    write_status(tmp_path, "running", update=7)
    run_module._record_exit(tmp_path, signal.SIGINT)
    recorded = status(tmp_path)
    assert (recorded["state"], recorded["exit_code"]) == ("killed", 130)
    assert recorded["update"] == 7
    assert recorded["message"] == "SIGINT while stopping; exited without saving"


def test_a_hangup_that_is_ignored_stays_ignored():
    """The command ``nohup`` ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests(print, print) as stop:
            send(signal.SIGHUP)
            assert stop() == ""
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_goes_on_without_output(
    name, tmp_path, monkeypatch, shared_programs, uninterrupted
):
    def draw(folder):
        raise RuntimeError("a warning on standard error")

    monkeypatch.setattr(run_module, "draw", draw)
    folder = tmp_path / "run"
    with closed_pipe() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, name, stream)
        assert run(toy.config(run_dir=str(folder))) == 0
    assert outcome(folder) == uninterrupted
    assert status(folder)["state"] == "finished"


def test_a_run_goes_on_when_its_terminal_is_closed(
    tmp_path, monkeypatch, shared_programs, uninterrupted
):
    """The progress line is live on a terminal."""
    terminal, output = pty.openpty()

    def train_chunk(ctx, state, progress, real=loop.train_chunk):
        if progress.update == 3:
            os.close(terminal)
        return real(ctx, state, progress)

    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    folder = tmp_path / "run"
    with os.fdopen(output, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert run(toy.config(run_dir=str(folder))) == 0
    assert outcome(folder) == uninterrupted


def test_text_that_a_terminal_cannot_show_is_escaped(tmp_path, monkeypatch):
    with (tmp_path / "output").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with optional_output():
            print("año")
    assert (tmp_path / "output").read_text() == "a\\xf1o\n"


def test_a_process_without_output_streams_gets_null_devices(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    open_missing_streams()
    with sys.stdout as stream:
        assert stream.name == os.devnull


SMALL = "env=smax_3m num_envs=16 rollout_length=16 total_timesteps=1536 eval.every=256"


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_run_of_the_command_line_survives_a_closed_pipe(reader, tmp_path):
    command = f"{sys.executable} -m jmarl.systems.ippo {SMALL} network=mlp arch=cpu"
    pipe = f"{command} run_dir={tmp_path}/run | {reader}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert status(tmp_path / "run")["state"] == "finished"
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 14
