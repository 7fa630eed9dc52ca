"""Inexact checkpoints hold no environments and no replay; all that is learned is restored."""

import contextlib
import dataclasses
import io
import pathlib

import jax
import numpy as np
import optax
import pytest
from interruption import interrupt_after

import jmarl
from jmarl.results.metrics_file import read_rows
from jmarl.runs import loop
from jmarl.runs.folder import read_config, resume_config
from jmarl.runs.run import run
from jmarl.runs.warm_start import load_warm_start, restore_params
from jmarl.training.anakin import has_env_state
from jmarl.training.build import build_run
from tools.compare_runs import final_leaves


Q_LEARNING = (
    "env=probe_cue",
    "num_envs=8",
    "rollout_length=4",
    "total_timesteps=128",
    "seed=3",
    "arch.updates_per_chunk=1",
    "eval.every=64",
    "eval.episodes=8",
    "eval.absolute_factor=0",
    "network=mlp",
    "network.torso=[4]",
    "system.batch_size=8",
    "system.gradient_steps=2",
    "system.target_every=3",
)
"""Four updates of Q-learning from replay."""
NOT_SAVED = (
    "runner/learner/replay",
    "runner/env_state",
    "runner/timestep",
    "runner/carry",
    "runner/episode",
)
"""Paths of the leaves that an inexact checkpoint leaves out."""


def run_captured(config):
    """Run a configuration; return its exit code and its output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = run(config)
    return code, output.getvalue()


def bytes_of(step: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in step.rglob("*") if file.is_file())


def is_schedule(node) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Interrupt a run at update 3 of 4, then resume with exact checkpoints.

    Returns the run folder and a dict of observations.
    """
    folder, seen = tmp_path_factory.mktemp("runs") / "resumed", {}
    options = ("system.replay_size=2048", "system.anneal_lr=true")
    inexact = "checkpoint.exact=false"
    config = jmarl.load_config("vdn", [*Q_LEARNING, *options, inexact])
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        code, _ = run_captured(dataclasses.replace(config, run_dir=str(folder)))
        assert code == 75
    saved = read_config(folder)
    seen["leaves"] = final_leaves(folder)
    seen["params"], seen["update"] = restore_params(saved, folder, "latest")
    warm_started = dataclasses.replace(saved, num_seeds=2, init_from=str(folder))
    seen["warm_start"] = load_warm_start(build_run(warm_started))

    def start_stage(ctx, state, progress, real=loop.start_stage):
        before = jax.device_get(state)
        after, progress = real(ctx, state, progress)
        explore = ctx.stages[0].system.explore
        after_on_host = jax.device_get(after)
        seen.update(
            before=before, after=after_on_host, progress=progress, explore=explore
        )
        return after, progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "start_stage", start_stage)
        exact = resume_config(str(folder), ["checkpoint.exact=true"])
        code, seen["output"] = run_captured(exact)
    assert code == 0
    return folder, seen


def test_an_inexact_checkpoint_has_no_replay_and_no_environments_and_is_smaller(
    resumed,
):
    folder, seen = resumed
    inexact, exact = seen["leaves"], final_leaves(folder)
    assert (inexact["step"], exact["step"]) == (3, 4)
    kept = {path for path in exact if not path.startswith(NOT_SAVED)}
    assert kept == inexact.keys() < exact.keys()
    inexact_bytes = bytes_of(folder / "checkpoints" / "3")
    exact_bytes = bytes_of(folder / "checkpoints" / "4")
    # The replay holds mostly zeros, and checkpoints are compressed.
    assert inexact_bytes < 0.8 * exact_bytes


def test_what_is_learned_is_restored_bit_for_bit_and_the_rest_is_reset(resumed):
    _, seen = resumed
    before, after = seen["before"].runner, seen["after"].runner
    assert has_env_state(after) and not has_env_state(before)
    for name in ("params", "target", "opt_state"):
        assert_trees_equal(getattr(before.learner, name), getattr(after.learner, name))
    assert_trees_equal(seen["before"].best, seen["after"].best)
    assert not any(np.any(x) for x in jax.tree.leaves(after.learner.replay))
    assert after.learner.updates == 0
    assert after.timestep.first.all()


def test_steps_exploration_and_learning_rate_continue(resumed):
    folder, seen = resumed
    before, after = seen["before"].runner, seen["after"].runner
    assert after.env_steps == before.env_steps == seen["progress"].env_steps[0] > 0
    explore = seen["explore"]
    assert explore(after.env_steps) == explore(before.env_steps) < explore(0.0)
    states = jax.tree.leaves(after.learner.opt_state, is_leaf=is_schedule)
    assert [int(state.count[0]) > 0 for state in states if is_schedule(state)] == [True]
    rows = read_rows(folder / "metrics.jsonl")
    rows = [row for row in rows if row["kind"] == "train"]
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert rows[3]["env_steps"][0] > rows[2]["env_steps"][0] == before.env_steps


def test_an_inexact_resume_is_reported(resumed):
    folder, seen = resumed
    line = "inexact resume: environments and replay are reset after update 3"
    assert f"\n{line}\n" in seen["output"]
    assert read_config(folder).checkpoint.exact


def test_parameters_of_an_inexact_checkpoint_can_be_loaded(resumed):
    _, seen = resumed
    assert seen["update"] == 3
    assert_trees_equal(seen["params"], seen["before"].runner.learner.params)
    assert_trees_equal(seen["warm_start"]["params"], seen["before"].best.params)


def test_a_run_without_the_option_is_exact(resumed):
    """Runs of earlier versions lack the key, in their configuration and their metadata."""
    folder, seen = resumed
    path = folder / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("  exact: true\n", ""))
    assert path.read_text() != text and read_config(folder).checkpoint.exact
    state = seen["after"]
    assert loop.saved_shapes(state, {}) is state
    inexact = loop.saved_shapes(state, {"exact": False})
    assert not has_env_state(inexact.runner)
