"""Faults 1, 14, 15 and 19: the same results in other processes, seeds and devices."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy
from records import outcome

import jmarl
from jmarl.results.metrics_file import read_rows
from jmarl.runs.run import run
from tools import kill_chain
from tools.compare_runs import differences, digest, saved_steps


TESTS = pathlib.Path(__file__).parents[1]
SCRIPT = """
import sys, toy
from jmarl.runs.folder import resume_config
from jmarl.runs.run import run
toy.install()
action, folder = sys.argv[1:]
config = resume_config(folder) if action == "resume" else toy.config(run_dir=folder)
sys.exit(run(config))
"""
"""Start or resume a run of ``toy.config()`` in another process."""


def other_process(action, folder, **env):
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, action, str(folder)],
        env={**os.environ, "PYTHONPATH": paths, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def finished(tmp_path, shared_programs):
    """Return the folder of a run with the checkpoints 6 and 8."""
    folder = tmp_path / "run"
    assert run(toy.config(run_dir=str(folder))) == 0
    return folder


@pytest.mark.fault(14)
def test_the_same_seed_gives_the_same_results_in_another_process(
    uninterrupted, tmp_path
):
    done = other_process("start", tmp_path / "run", PYTHONHASHSEED="7")
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "run") == uninterrupted


SMALL = (
    "env=smax_3m",
    "num_envs=16",
    "rollout_length=16",
    "total_timesteps=2_048",
    "eval.every=512",
    "eval.episodes=16",
)


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("system", "env"),
    [("mappo", "smax_3m"), ("rec_mam", "probe_cue"), ("qmix", "probe_cue")],
)
def test_a_system_gives_the_same_results_in_fresh_processes(system, env, tmp_path):
    """Both processes compile all programs."""
    folders = tmp_path / "one", tmp_path / "two"
    words = [*SMALL, f"env={env}"]
    for folder in folders:
        assert kill_chain.run_process(system, folder, words, None).code == 0
    assert differences(*folders) == []


@pytest.mark.slow
@pytest.mark.fault(1, 2)
def test_a_run_that_is_killed_at_random_moments_equals_an_uninterrupted_one(capsys):
    assert kill_chain.main(["systems=qmix", "kills=2", "seed=1", *SMALL]) == 0
    assert capsys.readouterr().out.count("SIGKILL after") == 2


@pytest.mark.fault(1)
def test_runs_that_differ_are_told_apart(finished, tmp_path, uninterrupted):
    """A comparison that finds no differences would prove nothing."""
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(finished, same)
    assert differences(finished, same) == []
    rows = (same / "metrics.jsonl").read_text().splitlines(keepends=True)
    (same / "metrics.jsonl").write_text("".join(rows[:-1]))
    assert differences(finished, same) == ["14 and 13 rows of metrics"]
    assert run(toy.config(run_dir=str(other), seed=1)) == 0
    found = differences(finished, other)
    assert "runner/learner/params/logits differs" in found
    assert "train row of update 8 differs" in found
    assert digest(finished) != digest(other)


SEEDS = {
    "ippo": ("system.minibatches=2", "network.torso=[8]"),
    "sable": ("system.minibatches=2", "network.embed_dim=8"),
    "vdn": ("system.batch_size=8", "system.gradient_steps=2", "network.memory_width=8"),
}


@pytest.mark.slow
@pytest.mark.fault(15)
@pytest.mark.parametrize("system", SEEDS)
def test_a_seed_of_a_system_gives_the_same_run_alone_and_among_others(system, tmp_path):
    """Vectorized programs round in another order, by which Adam changes small gradients."""
    sizes = ("env=probe_cue", "num_envs=8", "rollout_length=5", "total_timesteps=160")
    config = jmarl.load_config(system, [*sizes, "eval.every=40", *SEEDS[system]])
    rows = {}
    for name, changes in (
        ("alone", {"seed": 5}),
        ("among", {"seed": 3, "num_seeds": 3}),
    ):
        folder = tmp_path / name
        assert run(dataclasses.replace(config, run_dir=str(folder), **changes)) == 0
        rows[name] = read_rows(folder / "metrics.jsonl")
    for alone, among in zip(rows["alone"], rows["among"], strict=True):
        metrics = [name for name, value in alone.items() if isinstance(value, list)]
        assert len(metrics) > 3
        for name in metrics:
            close = dict(rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(alone[name][0], among[name][2], **close)


def assert_rows_close(folder, expected):
    for row, same in zip(read_rows(folder / "metrics.jsonl"), expected, strict=True):
        for name in same:
            if isinstance(same[name], list):
                np.testing.assert_allclose(row[name], same[name], rtol=1e-5, atol=1e-6)


@pytest.mark.fault(19)
def test_a_run_continues_on_fewer_devices_with_a_warning_and_close_results(
    finished, uninterrupted
):
    shutil.rmtree(finished / "checkpoints" / "8")
    versions = json.loads((finished / "versions.json").read_text())
    assert versions["device_count"] == 4
    flags = os.environ["XLA_FLAGS"].replace("count=4", "count=2")
    done = other_process("resume", finished, XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    assert "may diverge" in done.stderr
    assert "device_count 4 when it was saved, 2 now" in done.stderr
    assert "devices     2 x cpu" in done.stdout
    assert saved_steps(finished) == [6, 8]
    assert_rows_close(finished, uninterrupted["rows"])


SUSPENDED_S = 50
"""Longer than XLA's own limit for a device that waits for another."""


@pytest.mark.slow
@pytest.mark.fault(19)
def test_a_run_that_is_suspended_for_long_continues(tmp_path):
    whole, suspended = tmp_path / "whole", tmp_path / "suspended"
    assert kill_chain.run_process("ippo", whole, list(SMALL), None).code == 0
    command = [sys.executable, "-m", "jmarl", "train", "ippo", *SMALL]
    with subprocess.Popen(
        [*command, f"run_dir={suspended}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("evaluation at 0 "):
                process.send_signal(signal.SIGSTOP)
                assert process.poll() is None
                time.sleep(SUSPENDED_S)
                process.send_signal(signal.SIGCONT)
    assert process.returncode == 0
    assert differences(whole, suspended) == []
