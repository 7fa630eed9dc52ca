"""Fault 13: a run that needs more memory than the devices have."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from jmarl.cli.commands import dispatch
from jmarl.cli.process import exit_code
from jmarl.runs import loop
from jmarl.runs.run import run


pytestmark = pytest.mark.fault(13)
toy.install()

ABSURD = [
    "num_envs=16_000_000",
    "num_envs=10_000_000 num_seeds=3",
    "rollout_length=30_000_000",
    "eval.episodes=1_000_000_000",
]


@pytest.mark.parametrize("overrides", ABSURD)
def test_an_absurd_size_is_rejected_in_one_line_before_compilation(
    overrides, tmp_path, capsys
):
    folder = tmp_path / "run"
    arguments = [*overrides.split(), "env=smax_3m", f"run_dir={folder}"]
    assert exit_code(lambda: dispatch(["train", "ippo", *arguments])) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: num_envs=")
    assert captured.err.count("\n") == 1
    for part in (
        "needs at least ",
        " but the devices have ",
        "arch.check_memory=false",
    ):
        assert part in captured.err
    assert "compiled" not in captured.out
    assert not folder.exists()


def allocate_on_device():
    return jnp.zeros(350_000_000_000, jnp.float32).block_until_ready()


def allocate_on_host():
    return np.empty(2**50)


@pytest.mark.parametrize("allocate", [allocate_on_device, allocate_on_host])
def test_memory_that_runs_out_ends_a_run_in_one_line(
    allocate, tmp_path, monkeypatch, capfd
):
    """XLA and NumPy really fail to allocate. Nothing else appears on standard error."""

    def train_chunk(ctx, state, progress, real=loop.train_chunk):
        if progress.update == 2:
            allocate()
        return real(ctx, state, progress)

    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder), num_envs=16)) == 3
    line = capfd.readouterr().err
    assert line.startswith("warning: num_envs=16: out of memory (")
    assert line.endswith("; a new run needs less with num_envs=8\n")
    assert line.count("\n") == 1
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    assert status["message"] in line
