"""Fault 6: a logger of metrics cannot start, or fails in the middle of a run."""

import functools
import sys
import types

import pytest
import toy
from records import outcome

from jmarl.config import LoggerConfig
from jmarl.runs import loggers
from jmarl.runs.run import run


pytestmark = pytest.mark.fault(6)
ONLINE = LoggerConfig(False, True, "jmarl", "online")
ROWS = 8 + 5 + 1
"""Training rows, evaluations and the absolute metric of ``toy.config()``."""


def test_a_server_that_cannot_be_reached_does_not_affect_training(
    tmp_path, monkeypatch, shared_programs, uninterrupted, capfd
):
    """The client is the real one. Nothing listens on port 9."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    impatient = functools.partial(loggers.wandb_logger, connect_s=2)
    monkeypatch.setattr(loggers, "wandb_logger", impatient)
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder), logger=ONLINE)) == 0
    assert outcome(folder) == uninterrupted
    error = capfd.readouterr().err.splitlines()
    (line,) = [line for line in error if not line.startswith("wandb: ")]
    assert line.startswith("warning: wandb: ")
    assert line.endswith("; writing offline, upload later with `wandb sync`")
    (offline,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert offline.stat().st_size > 0


class CommError(Exception):
    """Stand in for the error of the client when its connection is lost."""


def fake_client(fails_at):
    """Return a client whose calls of ``log`` fail from one of them on, and its calls."""
    calls = []

    def log(row):
        calls.append(row)
        if len(calls) >= fails_at:
            raise CommError("connection lost")

    client = types.SimpleNamespace(log=log, finish=lambda: None)
    module = types.SimpleNamespace(Settings=dict, init=lambda **_: client)
    return module, calls


@pytest.mark.parametrize("call", [1, 5, ROWS])
def test_a_logger_that_fails_at_a_call_is_disabled(
    call, tmp_path, monkeypatch, shared_programs, uninterrupted, capsys
):
    module, calls = fake_client(call)
    monkeypatch.setitem(sys.modules, "wandb", module)
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder), logger=ONLINE)) == 0
    assert outcome(folder) == uninterrupted
    assert len(uninterrupted["rows"]) == ROWS
    assert len(calls) == call
    line = "warning: wandb: CommError: connection lost; logger disabled, training continues"
    assert capsys.readouterr().err == f"{line}\n"
