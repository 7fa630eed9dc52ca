"""A run over teams of several sizes: what each stage begins with, and that it resumes exactly at any point of it."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
import toy
from test_resume import check_same, compile_once, final_leaves, logged

import jmarl
from jmarl.config import ConfigError, CurriculumConfig, StageConfig
from jmarl.runs import loop
from jmarl.runs import run as run_module
from jmarl.runs.evaluate_saved import evaluate_run
from jmarl.runs.folder import read_config, resume_config
from jmarl.runs.loggers import read_rows
from jmarl.runs.run import run
from jmarl.training.anakin import drop_env_state
from jmarl.training.compatibility import TEAM_SIZE_ADVICE


@pytest.fixture(scope="module", autouse=True)
def teams():
    toy.install()
    with toy.teams():
        yield


def curriculum(*stages, **options):
    return CurriculumConfig(tuple(StageConfig(*stage) for stage in stages), **options)


HALVES = curriculum(("bandit_2", 0.5), ("bandit_3", 0.5))


def config(**changes):
    """Eight updates in four intervals: two with two agents, two with three."""
    return toy.config(**{"env": {"name": "bandit_3"}, "curriculum": HALVES, **changes})


def signal_after(monkeypatch, function, update):
    """Send this process a SIGTERM as soon as ``loop.<function>`` has come to that update."""

    real = getattr(loop, function)

    def call(s, state, at):
        result = real(s, state, at)
        if result[1].update == update:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(loop, function, call)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder of an uninterrupted run, and what it printed."""
    folder, said = tmp_path_factory.mktemp("runs") / "whole", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(config(run_dir=str(folder))) == 0
    return folder, said.getvalue()


@pytest.fixture(scope="module")
def whole(told):
    return told[0]


@pytest.mark.parametrize(
    ("function", "update", "stage"),
    [("train_chunk", 3, 0), ("advance", 4, 0), ("evaluate", 4, 0), ("advance", 5, 1)],
)
def test_resumed_is_uninterrupted_in_every_stage_and_between(
    function, update, stage, whole, tmp_path, monkeypatch
):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        signal_after(patch, function, update)
        assert run(config(run_dir=str(parts))) == 75
    saved = final_leaves(parts)
    assert saved["step"] == update
    assert saved["runner/timestep/reward"]["shape"][-1] == 2 + stage
    assert run(resume_config(str(parts))) == 0
    check_same(parts, whole)


INEXACT = dataclasses.replace(toy.config().checkpoint, exact=False)


def test_a_checkpoint_without_environments_resumes_in_its_stage_and_the_optimizer_forgets_nothing(
    whole, tmp_path, monkeypatch, capsys
):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        signal_after(patch, "train_chunk", 5)
        assert run(config(run_dir=str(parts), checkpoint=INEXACT)) == 75
    assert evaluate_run(str(parts), episodes=4, parameters="latest") == 0
    assert "latest parameters (of update 5)" in capsys.readouterr().out
    assert run(resume_config(str(parts))) == 0
    assert (
        "\ninexact resume: environments are reset after update 5\n"
        in capsys.readouterr().out
    )
    steps = "runner/learner/opt_state/0/count"
    assert final_leaves(parts)[steps] == final_leaves(whole)[steps]
    updates = [
        [(row["update"], row["stage"]) for row in logged(folder)]
        for folder in (parts, whole)
    ]
    assert (
        updates[0][:-1] == updates[1][:-1]
    )  # the absolute metric's is that of the best parameters


def test_a_checkpoint_without_environments_lacks_nothing_at_the_end_of_a_stage(
    whole, tmp_path, monkeypatch, capsys
):
    """The next one reads no more. What is saved before it begins has none either, whatever the run is told then."""
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        signal_after(patch, "train_chunk", 4)
        assert run(config(run_dir=str(parts), checkpoint=INEXACT)) == 75
    with monkeypatch.context() as patch:
        signal_after(patch, "evaluate", 4)
        assert run(resume_config(str(parts), ["checkpoint.exact=true"])) == 75
    meta = json.loads(
        (parts / "checkpoints" / "4" / "record" / "metadata").read_text()
    )["meta"]
    assert meta["exact"] is False and read_config(parts).checkpoint.exact
    assert run(resume_config(str(parts))) == 0
    assert "inexact" not in capsys.readouterr().out
    check_same(parts, whole)


def test_rows_name_the_stage_and_count_its_agents(whole):
    rows = read_rows(whole / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    assert [row["stage"] for row in train] == [1] * 4 + [2] * 4
    assert [
        round(r["agent_steps_per_second"] / r["steps_per_second"]) for r in train
    ] == [2] * 4 + [3] * 4
    assert [row["env_steps"][0] for row in train] == [32 * i for i in range(1, 9)]
    assert [(r["update"], r["stage"]) for r in rows if r["kind"] == "eval"] == [
        (0, 1),
        (2, 1),
        (4, 1),
        (6, 2),
        (8, 2),
    ]


def test_the_plan_and_the_lines_of_progress_say_which_stage_is_on(told):
    _, said = told
    assert (
        "stages      bandit_2 to update 4, bandit_3 to update 8; evaluations use the last"
        in said
    )
    assert "| stage 1 of 2, bandit_2 | " in said
    assert "\nstage 2 of 2, bandit_3 begins after update 4\n" in said


def test_the_pure_function_trains_the_same(whole):
    runner, metrics = jax.jit(lambda key: jmarl.train(config(), key))(jax.random.key(0))
    rows = read_rows(whole / "metrics.jsonl")
    loss = [row["loss"][0] for row in rows if row["kind"] == "train"]
    np.testing.assert_allclose(metrics["train"]["loss"], loss, rtol=1e-5, atol=1e-6)
    sampled = [row["sampled/return"][0] for row in rows if row["kind"] == "eval"]
    np.testing.assert_allclose(
        metrics["eval"]["sampled"]["return"].mean(-1), sampled, rtol=1e-5
    )
    assert runner.timestep.reward.shape[-1] == 3


def test_one_stage_is_the_run_without(tmp_path):
    one, none = tmp_path / "one", tmp_path / "none"
    assert run(config(run_dir=str(one), curriculum=curriculum(("bandit_3", 1.0)))) == 0
    assert run(config(run_dir=str(none), curriculum=CurriculumConfig())) == 0
    check_same(one, none)


def test_a_run_from_before_stages_resumes(tmp_path, monkeypatch):
    """Its configuration lacks the keys, and its checkpoints the position's last field."""
    compile_once(monkeypatch)
    config = toy.config(run_dir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(
            loop.Progress,
            "_asdict",
            lambda at: dict(zip(at._fields[:-1], at, strict=False)),
        )
        signal_after(patch, "train_chunk", 3)
        assert run(config) == 75
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("init_from:")])
    assert read_config(tmp_path / "run") == dataclasses.replace(config, run_dir="")
    for given in ("init_from=x", "curriculum=5v5_20v20"):
        with pytest.raises(
            ConfigError, match=f"^{given}: cannot change when a run is resumed"
        ):
            resume_config(str(tmp_path / "run"), [given])
    assert run(resume_config(str(tmp_path / "run"))) == 0
    assert [
        row["update"]
        for row in read_rows(path.parent / "metrics.jsonl")
        if row["kind"] == "train"
    ] == [*range(1, 9)]


def test_a_longer_run_does_not_go_back_to_a_stage_that_it_has_left():
    longer, at = (
        config(total_timesteps=4 * config().total_timesteps),
        loop.Progress(8, 5, 8, [256], 1.0, stage=1),
    )
    assert (
        longer.stage_at(8),
        loop.due_stage(longer, at),
        loop.due_stage(longer, at._replace(stage=0)),
    ) == (0, 1, 0)


TINY = (
    *(
        "env=probe_cue",
        "num_envs=8",
        "rollout_length=4",
        "total_timesteps=128",
        "seed=3",
        "arch.updates_per_chunk=1",
    ),
    *("eval.every=64", "eval.episodes=8", "eval.absolute_factor=0"),
    *("network=mlp", "network.torso=[4]"),
    *(
        "system.batch_size=8",
        "system.replay_size=64",
        "system.gradient_steps=2",
        "system.target_every=3",
    ),
)


def replayed(**changes):
    """Q-learning from replay: two updates with two agents, two with three."""
    stages = curriculum(("cue_2", 0.5), ("cue_3", 0.5))
    return dataclasses.replace(
        jmarl.load_config("vdn", TINY),
        env={"name": "cue_3"},
        curriculum=stages,
        **changes,
    )


def test_replay_and_target_resume_exactly_and_what_was_learnt_arrives_bit_for_bit(
    tmp_path, monkeypatch
):
    compile_once(monkeypatch)
    seen = {}

    def enter(s, state, at, real=loop.start_stage):
        before = jax.device_get(drop_env_state(state.runner).learner)
        after, now = real(s, state, at)
        if now.stage != at.stage:
            seen.update(
                before=before,
                after=jax.device_get(after.runner.learner),
                left=state.runner,
            )
        return after, now

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "start_stage", enter)
        assert run(replayed(run_dir=str(whole))) == 0
    before, after, left = seen["before"], seen["after"], seen["left"]
    jax.tree.map(
        np.testing.assert_array_equal,
        (after.params, after.target),
        (before.params, before.target),
    )
    assert (
        not any(np.any(x) for x in jax.tree.leaves(after.replay)) and after.updates == 0
    )
    assert after.replay.rows.action.shape[-1] == 3
    assert all(
        x.is_deleted()
        for x in jax.tree.leaves((left.learner.replay, left.env_state, left.timestep))
    )
    for update in (1, 2, 3):
        with monkeypatch.context() as patch:
            signal_after(patch, "train_chunk", update)
            assert run(replayed(run_dir=str(parts))) == 75
        assert run(resume_config(str(parts))) == 0
        assert final_leaves(parts) == final_leaves(whole)
        assert logged(parts) == logged(whole)
        shutil.rmtree(parts)


def test_stages_that_need_other_parameters_are_refused_before_anything_compiles(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        run_module, "compile_run", lambda *_, **__: pytest.fail("compiled")
    )
    with pytest.raises(ConfigError) as error:
        run(
            replayed(
                run_dir=str(tmp_path / "run"),
                network=dataclasses.replace(replayed().network, agent_id=True),
            )
        )
    assert not (tmp_path / "run").exists()
    assert str(error.value) == (
        "curriculum.stages=cue_2: parameter params/agent/params/trunk/layers/torso/dense_0/kernel is "
        "float32[6,4] for cue_2 "
        f"and float32[7,4] for cue_3; its shape depends on the size of the team; {TEAM_SIZE_ADVICE}"
    )
