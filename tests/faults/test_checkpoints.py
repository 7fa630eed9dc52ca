"""Faults 3, 4, 12 and 16: checkpoints that are damaged, of another run, or elsewhere."""

import os
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import pytest
import toy
from interruption import interrupt_after
from records import outcome

import jmarl
from jmarl.cli.process import exit_code
from jmarl.envs import probes
from jmarl.envs.scene import Disc, Scene
from jmarl.results import machine
from jmarl.runs import folder as run_folder
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
from jmarl.saved.evaluate_saved import evaluate_run
from jmarl.saved.render import render_run
from jmarl.types import Env


@pytest.fixture
def finished(tmp_path, shared_programs):
    """Return the folder of a run with the checkpoints 6 and 8."""
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder))) == 0
    return folder


def resume(folder):
    return exit_code(lambda: run(resume_config(str(folder))))


def state_files(step: pathlib.Path) -> list[pathlib.Path]:
    """Return all files of arrays. Which of them a restore reads varies from run to run."""
    return list((step / "state").rglob("d/*"))


def truncate_arrays(step):
    for file in state_files(step):
        os.truncate(file, file.stat().st_size // 2)


def truncate_record(step):
    os.truncate(step / "record" / "metadata", 10)


def flip_bits(step):
    for file in state_files(step):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


DAMAGES = [
    pytest.param(truncate_arrays, marks=pytest.mark.fault(3)),
    pytest.param(truncate_record, marks=pytest.mark.fault(3)),
    pytest.param(flip_bits, marks=pytest.mark.fault(4)),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_a_damaged_checkpoint_ends_like_one_without(
    damage, finished, uninterrupted, capsys
):
    damage(finished / "checkpoints" / "8")
    assert resume(finished) == 0
    captured = capsys.readouterr()
    assert "warning: checkpoint 8 is damaged (" in captured.err
    assert "resumes after update 6" in captured.out
    assert outcome(finished) == uninterrupted


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_error_without_a_valid_checkpoint_is_one_line(damage, finished, capsys):
    for step in (finished / "checkpoints").iterdir():
        damage(step)
    assert resume(finished) == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert [line[:21] for line in warnings] == [
        f"warning: checkpoint {i}" for i in (8, 6)
    ]
    assert error.startswith(
        f"error: {finished / 'checkpoints'}: none of the checkpoints"
    )


def other_configuration(folder, **changes):
    """Replace the configuration of a run, as if its checkpoints were those of another."""
    run_folder.write_config(folder, toy.config(**changes))


def learn_in_half_precision(monkeypatch):
    def make(spec, config, real=toy.make):
        system = real(spec, config)

        def init(key):
            learner = system.init(key)
            half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), learner.params)
            return learner.replace(params=half)

        return system._replace(init=init)

    monkeypatch.setattr(sys.modules["jmarl.systems.toy"], "make", make)


UNFIT = {
    "environment": (
        {"env": {"name": "cue_2"}},
        "obs/state/features is float32[1,8,6] but this configuration needs "
        "float32[1,8,8]",
    ),
    "actions": (
        {"env": {"name": "bandit_of_4"}},
        "runner/learner/params/logits is float32[1,3] but this configuration needs "
        "float32[1,4]",
    ),
    "agents": (
        {"env": {"name": "bandit_3"}},
        "float32[1,8,2] but this configuration needs float32[1,8,3]",
    ),
    "seeds": ({"num_seeds": 2}, "[1,3] but this configuration needs float32[2,3]"),
}


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", UNFIT)
def test_a_checkpoint_of_another_run_does_not_fit(kind, finished, capsys):
    changes, words = UNFIT[kind]
    other_configuration(finished, **changes)
    with toy.teams():
        assert resume(finished) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: checkpoint 8 in {finished / 'checkpoints'} does not"
    )
    assert words in line


@pytest.mark.fault(12)
def test_a_checkpoint_of_another_dtype_does_not_fit(finished, monkeypatch, capsys):
    learn_in_half_precision(monkeypatch)
    assert resume(finished) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "params/bias is float32[1,1] but this configuration needs bfloat16[1,1]" in line
    )


@pytest.mark.fault(12)
def test_other_versions_are_named_and_the_run_continues(
    finished, uninterrupted, monkeypatch, capsys
):
    """Packages of environments are among them."""
    shutil.rmtree(finished / "checkpoints" / "8")
    saved = run_folder.versions()
    others = {"jaxmarl": "0.1", "jumanji": "0.2", "jax": "0.3"}
    packages = machine.package_versions() | others
    monkeypatch.setattr(machine, "package_versions", lambda: packages)
    monkeypatch.setattr(jmarl, "__version__", "0.0.1")
    assert resume(finished) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: the resumed run may diverge from the original: "
        f"{name} {saved[name]} when it was saved, {now} now"
        for name, now in {"jmarl": "0.0.1", **others}.items()
    ]
    assert outcome(finished) == uninterrupted


def drawn_bandit(n_agents: int = 2, n_actions: int = 3) -> Env:
    """Return the environment of ``toy.config()`` with a picture."""
    scene = Scene(2, 2, (Disc(1.0, 1.0, 0.5, "blue", ""),), lines=(), caption="")
    return probes.bandit(n_agents, n_actions)._replace(scene=lambda state: scene)


@pytest.fixture
def moved(tmp_path, shared_programs, monkeypatch):
    """Return the folder of an interrupted run after a move; its old path is gone."""
    monkeypatch.setitem(probes.PROBES, "probe_bandit", drawn_bandit)
    folder, new = tmp_path / "first" / "run", tmp_path / "otro año" / "moved run"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert run(toy.config(run_dir=str(folder))) == 75
    new.parent.mkdir()
    shutil.move(folder, new)
    monkeypatch.chdir(new.parent)
    return new


@pytest.mark.fault(16)
def test_a_moved_run_is_resumed_evaluated_and_drawn(moved, uninterrupted):
    files = [path for path in moved.rglob("*") if path.is_file()]
    for path in files:
        # Orbax writes commit_success.txt and never reads it.
        if path.name != "commit_success.txt":
            assert str(moved.parents[1]).encode() not in path.read_bytes(), path
    assert run(resume_config("moved run")) == 0
    assert outcome(moved) == uninterrupted
    assert evaluate_run("moved run", episodes=16) == 0
    assert render_run("moved run") == 0
    assert (moved / "episode.gif").stat().st_size > 100
