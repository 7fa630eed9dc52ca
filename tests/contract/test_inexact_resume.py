"""A checkpoint without environments and replay: what was learnt goes on bit for bit, in its world entered again."""

import contextlib
import dataclasses
import io
import pathlib

import jax
import numpy as np
import optax
import pytest
from test_resume import final_leaves, interrupt_after

import jmarl
from jmarl.runs import loop
from jmarl.runs.folder import read_config, resume_config
from jmarl.runs.loggers import read_rows
from jmarl.runs.run import run
from jmarl.runs.warm_start import load_warm_start, restore_params
from jmarl.training.anakin import has_env_state
from jmarl.training.build import build_run


REPLAYED = (
    *(
        "env=probe_cue",
        "num_envs=8",
        "rollout_length=4",
        "total_timesteps=128",
        "seed=3",
        "arch.updates_per_chunk=1",
    ),
    *(
        "eval.every=64",
        "eval.episodes=8",
        "eval.absolute_factor=0",
        "network=mlp",
        "network.torso=[4]",
    ),
    *(
        "system.batch_size=8",
        "system.replay_size=2048",
        "system.gradient_steps=2",
        "system.target_every=3",
    ),
    *("system.anneal_lr=true", "checkpoint.exact=false"),
)


def quietly(config):
    """The exit code of a run, and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        return run(config), said.getvalue()


def bytes_of(step: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in step.rglob("*") if file.is_file())


def is_schedule(node) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """Q-learning from replay, stopped after three of four updates and resumed with checkpoints that are exact."""
    folder, seen = tmp_path_factory.mktemp("runs") / "replayed", {}
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 3)
        assert (
            quietly(
                dataclasses.replace(
                    jmarl.load_config("vdn", REPLAYED), run_dir=str(folder)
                )
            )[0]
            == 75
        )
    seen["leaves"] = final_leaves(folder)
    seen["params"], seen["update"] = restore_params(
        read_config(folder), folder, "latest"
    )
    began = dataclasses.replace(read_config(folder), num_seeds=2, init_from=str(folder))
    seen["elsewhere"] = load_warm_start(build_run(began))

    def enter(s, state, at, real=loop.start_stage):
        before = jax.device_get(state)
        after, now = real(s, state, at)
        seen.update(
            before=before,
            after=jax.device_get(after),
            at=now,
            explore=s.stages[0].system.explore,
        )
        return after, now

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "start_stage", enter)
        code, seen["said"] = quietly(
            resume_config(str(folder), ["checkpoint.exact=true"])
        )
    assert code == 0
    return folder, seen


def test_it_holds_no_replay_and_no_environment_and_is_smaller(replayed):
    folder, seen = replayed
    left_out = (
        "runner/learner/replay",
        "runner/env_state",
        "runner/timestep",
        "runner/carry",
        "runner/episode",
    )
    inexact, exact = seen["leaves"], final_leaves(folder)
    assert (inexact["step"], exact["step"]) == (3, 4)
    assert (
        {path for path in exact if not path.startswith(left_out)}
        == inexact.keys()
        < exact.keys()
    )
    inexact, exact = (bytes_of(folder / "checkpoints" / str(step)) for step in (3, 4))
    assert (
        inexact < 0.7 * exact
    )  # of a replay that holds mostly zeros, and what is written is compressed


def test_what_was_learnt_arrives_bit_for_bit_and_the_rest_begins_anew(replayed):
    _, seen = replayed
    before, after = seen["before"].runner, seen["after"].runner
    assert has_env_state(after) and not has_env_state(before)
    for name in ("params", "target", "opt_state"):
        jax.tree.map(
            np.testing.assert_array_equal,
            getattr(before.learner, name),
            getattr(after.learner, name),
        )
    jax.tree.map(np.testing.assert_array_equal, seen["before"].best, seen["after"].best)
    assert (
        not any(np.any(x) for x in jax.tree.leaves(after.learner.replay))
        and after.learner.updates == 0
    )
    assert after.timestep.first.all()


def test_steps_exploration_and_learning_rate_go_on(replayed):
    folder, seen = replayed
    before, after = seen["before"].runner, seen["after"].runner
    assert after.env_steps == before.env_steps == seen["at"].env_steps[0] > 0
    assert (
        seen["explore"](after.env_steps)
        == seen["explore"](before.env_steps)
        < seen["explore"](0.0)
    )
    states = jax.tree.leaves(after.learner.opt_state, is_leaf=is_schedule)
    assert [int(state.count[0]) > 0 for state in states if is_schedule(state)] == [True]
    rows = [
        row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"
    ]
    assert [row["update"] for row in rows] == [1, 2, 3, 4]
    assert rows[3]["env_steps"][0] > rows[2]["env_steps"][0] == before.env_steps


def test_it_says_so(replayed):
    folder, seen = replayed
    assert (
        "\ninexact resume: environments and replay are reset after update 3\n"
        in seen["said"]
    )
    assert read_config(folder).checkpoint.exact


def test_its_parameters_are_there_for_others(replayed):
    _, seen = replayed
    assert seen["update"] == 3
    jax.tree.map(
        np.testing.assert_array_equal,
        seen["params"],
        seen["before"].runner.learner.params,
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        seen["elsewhere"]["params"],
        seen["before"].best.params,
    )


def test_a_run_from_before_the_option_is_exact(replayed):
    """Its configuration lacks the key, and so does what stands beside its checkpoints."""
    path = replayed[0] / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("  exact: true\n", ""))
    assert path.read_text() != text and read_config(replayed[0]).checkpoint.exact
    whole = replayed[1]["after"]
    assert loop.saved_shapes(whole, {}) is whole and not has_env_state(
        loop.saved_shapes(whole, {"exact": False}).runner
    )
