"""Exact resume: an interrupted and resumed run equals, bit for bit, an uninterrupted one."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest
import toy
from interruption import compile_once, interrupt_after

import jmarl
from jmarl.config import RunConfig
from jmarl.runs import loop
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
from tools.compare_runs import differences, final_leaves


TINY = (
    "num_envs=8",
    "rollout_length=5",
    "total_timesteps=160",
    "seed=3",
    "eval.every=80",
    "eval.episodes=8",
    "eval.absolute_factor=1",
    "arch.updates_per_chunk=1",
)
PHASE = ("system.epochs=1", "system.minibatches=1")
REPLAY = (
    "system.batch_size=8",
    "system.replay_size=120",
    "system.gradient_steps=2",
    "system.replay_dtype=bfloat16",
)
GRU = ("network=gru", "network.torso=[8]", "network.head=[8]", "network.memory_width=8")
NETWORKS = {
    "feed_forward": ("ippo", "network=mlp", "network.torso=[8]", *PHASE),
    "recurrent": ("ippo", *GRU, *PHASE),
    "sequence": (
        "mam_ppo",
        "network.embed_dim=8",
        "network.d_state=4",
        "system.shuffle_agents=true",
        *PHASE,
    ),
    "latents": ("shppo", *GRU, *PHASE),
    "replay": ("vdn", *GRU, *REPLAY),
    "separate": ("happo", *GRU, *PHASE),
}
SLOW = ("feed_forward", "recurrent", "separate", "latents")
"""Kinds whose algorithm and memory the other kinds have too."""
KINDS = [
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in NETWORKS if kind in SLOW),
    *(kind for kind in NETWORKS if kind not in SLOW),
]


@pytest.mark.fault(1)
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_uninterrupted(kind, tmp_path, monkeypatch):
    system, *network = NETWORKS[kind]
    config = jmarl.load_config(system, ["env=probe_cue", *network, *TINY])
    compile_once(monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(dataclasses.replace(config, run_dir=str(whole))) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert run(dataclasses.replace(config, run_dir=str(parts))) == 75
    assert final_leaves(parts)["step"] == 3
    assert run(resume_config(str(parts))) == 0
    assert differences(parts, whole) == []


def long_config(folder: pathlib.Path) -> RunConfig:
    """Return a run of 300 updates, with an evaluation every 30."""
    evaluation = dataclasses.replace(toy.config().eval, every=64 * 30)
    return toy.config(total_timesteps=64 * 300, eval=evaluation, run_dir=str(folder))


SCRIPT = """
import pathlib, sys, toy
from jmarl.runs.run import run
from test_resume import long_config
toy.install()
sys.exit(run(long_config(pathlib.Path(sys.argv[1]))))
"""
"""Train ``long_config`` in another process; the argument is the run folder."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    toy.install()
    folder = tmp_path_factory.mktemp("toy") / "whole"
    assert run(long_config(folder)) == 0
    return folder


@pytest.mark.fault(1, 2, 7, 19)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGINT, 75, marks=pytest.mark.slow),
        (signal.SIGKILL, -9),
    ],
)
def test_a_process_that_is_stopped_or_killed_is_resumed_exactly(
    number, code, uninterrupted, tmp_path
):
    """The signal comes from outside, some time after the first checkpoint."""
    contract = pathlib.Path(__file__).parent
    tests = contract.parent
    paths = [str(contract), str(tests), str(tests.parent)]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("evaluation at 1,9"):
            process.send_signal(number)
    assert process.wait(60) == code
    assert run(resume_config(str(tmp_path / "run"))) == 0
    assert differences(tmp_path / "run", uninterrupted) == []


@pytest.mark.fault(1)
@pytest.mark.xfail(
    reason="defective twin: a checkpoint without the optimizer's state",
    strict=True,
    raises=AssertionError,
)
def test_resumed_without_the_optimizer(uninterrupted, tmp_path, monkeypatch):
    """Reset the optimizer; parameters, environments and keys are restored."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 150)
        assert run(long_config(tmp_path / "run")) == 75

    def train(ctx, state, progress, saved, real=loop.train):
        learner = state.runner.learner
        zeros = jax.tree.map(lambda x: (x * 0).astype(x.dtype), learner.opt_state)
        runner = state.runner.replace(learner=learner.replace(opt_state=zeros))
        return real(ctx, state.replace(runner=runner), progress, saved)

    monkeypatch.setattr(loop, "train", train)
    assert run(resume_config(str(tmp_path / "run"))) == 0
    assert differences(tmp_path / "run", uninterrupted) == []
