"""Curricula: the initial state of each stage, and exact resume at any point of a run."""

import contextlib
import dataclasses
import io
import shutil
import threading
import time

import jax
import numpy as np
import pytest
import toy
from interruption import compile_once, interrupt_after
from test_inexact_resume import Q_LEARNING

import jmarl
from jmarl.config import ConfigError, CurriculumConfig, StageConfig
from jmarl.results.metrics_file import read_rows
from jmarl.runs import compilation, loop
from jmarl.runs import run as run_module
from jmarl.runs.compilation import compile_run
from jmarl.runs.folder import read_config, resume_config
from jmarl.runs.run import run
from jmarl.saved.evaluate_saved import evaluate_run
from jmarl.training.anakin import drop_env_state
from jmarl.training.compatibility import TEAM_SIZE_ADVICE
from jmarl.training.programs import stage_programs, state_shapes
from jmarl.training.stages import build_stages
from tools.compare_runs import (
    differences,
    final_leaves,
    logged_rows,
    read_record,
)


@pytest.fixture(scope="module", autouse=True)
def teams():
    toy.install()
    with toy.teams():
        yield


def curriculum(*stages):
    """Return a curriculum of pairs of an environment and its fraction of the run."""
    return CurriculumConfig(tuple(StageConfig(*stage) for stage in stages))


HALVES = curriculum(("bandit_2", 0.5), ("bandit_3", 0.5))


def config(**changes):
    """Return a run of eight updates in four intervals: two with two agents, two with three."""
    return toy.config(**{"env": {"name": "bandit_3"}, "curriculum": HALVES, **changes})


@pytest.fixture(scope="module")
def whole_and_output(tmp_path_factory):
    """Return the folder of an uninterrupted run, and its output."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run(config(run_dir=str(folder))) == 0
    return folder, output.getvalue()


@pytest.fixture(scope="module")
def whole(whole_and_output):
    return whole_and_output[0]


@pytest.mark.parametrize(
    ("function", "update", "stage"),
    [
        ("train_chunk", 3, 0),
        ("train_chunk", 4, 0),
        ("evaluate", 4, 0),
        ("train_chunk", 5, 1),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_in_and_between_stages(
    function, update, stage, whole, tmp_path, monkeypatch
):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, update, function)
        assert run(config(run_dir=str(parts))) == 75
    saved = final_leaves(parts)
    assert saved["step"] == update
    assert saved["runner/timestep/reward"]["shape"][-1] == 2 + stage
    assert run(resume_config(str(parts))) == 0
    assert differences(parts, whole) == []


INEXACT = dataclasses.replace(toy.config().checkpoint, exact=False)


def test_an_inexact_checkpoint_resumes_in_its_stage_with_the_full_optimizer_state(
    whole, tmp_path, monkeypatch, capsys
):
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert run(config(run_dir=str(parts), checkpoint=INEXACT)) == 75
    assert evaluate_run(str(parts), episodes=4, parameters="latest") == 0
    assert "latest parameters (of update 5)" in capsys.readouterr().out
    assert run(resume_config(str(parts))) == 0
    line = "inexact resume: environments are reset after update 5"
    assert f"\n{line}\n" in capsys.readouterr().out
    steps = "runner/learner/opt_state/inner_state/0/count"
    assert final_leaves(parts)[steps] == final_leaves(whole)[steps]

    def updates_and_stages(folder):
        return [(row["update"], row["stage"]) for row in logged_rows(folder)]

    # The last row is the absolute metric; it names the update of the best parameters.
    assert updates_and_stages(parts)[:-1] == updates_and_stages(whole)[:-1]


def test_an_inexact_checkpoint_at_the_end_of_a_stage_resumes_exactly(
    whole, tmp_path, monkeypatch, capsys
):
    """The next stage resets its environments anyway.

    A checkpoint saved before that stage starts is inexact too, even if
    ``checkpoint.exact=true`` is given in between.
    """
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert run(config(run_dir=str(parts), checkpoint=INEXACT)) == 75
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4, "evaluate")
        assert run(resume_config(str(parts), ["checkpoint.exact=true"])) == 75
    assert read_record(parts, 4)["meta"]["exact"] is False
    assert read_config(parts).checkpoint.exact
    assert run(resume_config(str(parts))) == 0
    assert "inexact resume" not in capsys.readouterr().out
    assert differences(parts, whole) == []


def test_rows_name_the_stage_and_count_its_agents(whole):
    rows = read_rows(whole / "metrics.jsonl")
    train = [row for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    rates = [row["agent_steps_per_second"] / row["steps_per_second"] for row in train]
    assert [round(rate) for rate in rates] == [2] * 4 + [3] * 4
    assert [row["stage"] for row in train] == [1] * 4 + [2] * 4
    assert [row["env_steps"][0] for row in train] == [32 * i for i in range(1, 9)]
    assert [row["update"] for row in evaluations] == [0, 2, 4, 6, 8]
    assert [row["stage"] for row in evaluations] == [1, 1, 1, 2, 2]


def test_the_plan_and_the_progress_lines_name_the_stage(whole_and_output):
    _, output = whole_and_output
    plan = "bandit_2 to update 4, bandit_3 to update 8; evaluations use the last"
    assert f"stages      {plan}" in output
    assert "| stage 1 of 2, bandit_2 | " in output
    assert "\nstage 2 of 2, bandit_3 starts after update 4; " in output


def test_the_pure_function_trains_the_same(whole):
    runner, metrics = jax.jit(lambda key: jmarl.train(config(), key))(jax.random.key(0))
    rows = read_rows(whole / "metrics.jsonl")
    loss = [row["loss"][0] for row in rows if row["kind"] == "train"]
    np.testing.assert_allclose(metrics["train"]["loss"], loss, rtol=1e-5, atol=1e-6)
    logged_returns = [row["sampled/return"][0] for row in rows if row["kind"] == "eval"]
    returns = metrics["eval"]["sampled"]["return"].mean(-1)
    np.testing.assert_allclose(returns, logged_returns, rtol=1e-5)
    assert runner.timestep.reward.shape[-1] == 3


def test_a_curriculum_of_one_stage_equals_a_run_without_curriculum(tmp_path):
    one, none = tmp_path / "one", tmp_path / "none"
    assert run(config(run_dir=str(one), curriculum=curriculum(("bandit_3", 1.0)))) == 0
    assert run(config(run_dir=str(none), curriculum=CurriculumConfig())) == 0
    assert differences(one, none) == []


def test_a_run_from_a_version_without_stages_resumes(tmp_path, monkeypatch):
    """Its configuration lacks the keys, and its checkpoints the stage of ``Progress``."""
    compile_once(monkeypatch)
    folder = tmp_path / "run"
    config = toy.config(run_dir=str(folder))

    def without_stage(progress):
        return dict(zip(progress._fields[:-1], progress, strict=False))

    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "_asdict", without_stage)
        interrupt_after(patch, 3)
        assert run(config) == 75
    path = folder / "config.yaml"
    text = path.read_text()
    path.write_text(text[: text.index("init_from:")])
    assert read_config(folder) == dataclasses.replace(config, run_dir="")
    for override in ("init_from=x", "curriculum=5v5_20v20", "precision=tf32"):
        message = f"^{override}: cannot change when a run is resumed"
        with pytest.raises(ConfigError, match=message):
            resume_config(str(folder), [override])
    assert run(resume_config(str(folder))) == 0
    rows = read_rows(folder / "metrics.jsonl")
    updates = [row["update"] for row in rows if row["kind"] == "train"]
    assert updates == [*range(1, 9)]


def test_an_extended_run_does_not_return_to_an_earlier_stage():
    extended = config(total_timesteps=4 * config().total_timesteps)
    in_second = loop.Progress(8, 5, 8, [256], 1.0, stage=1)
    in_first = in_second._replace(stage=0)
    assert extended.schedule.stage_at(8) == 0
    assert loop.due_stage(extended, in_second) == 1
    assert loop.due_stage(extended, in_first) == 0


def test_a_stage_is_compiled_in_the_background_once_the_previous_one_is_requested(
    monkeypatch,
):
    three = curriculum(("bandit_2", 0.25), ("bandit_3", 0.25), ("bandit_3", 0.5))
    cfg = config(curriculum=three)
    programs = [stage_programs(stage) for stage in build_stages(cfg)]
    shapes = [state_shapes(cfg, p) for p in programs]
    requested = []
    release = threading.Event()
    real = compilation._submit_stage

    def submit_stage(pool, programs, shapes, number, **options):
        requested.append(number)
        pending = real(pool, programs, shapes, number, **options)
        if number == 0:
            return pending

        def compiled_after_release():
            assert release.wait(60)
            return pending.chunk.result()

        return pending._replace(chunk=pool.submit(compiled_after_release))

    monkeypatch.setattr(compilation, "_submit_stage", submit_stage)
    compiled = compile_run(cfg, programs, shapes, fresh=False)
    assert requested == [0]
    # Stage 0 is returned although stage 1 cannot finish yet.
    assert compiled.stage(0).continue_runner is None
    assert requested == [0, 1] and not compiled.is_ready(1)
    release.set()
    assert compiled.stage(1).continue_runner is not None
    assert requested == [0, 1, 2] and compiled.is_ready(1)
    assert compiled.stage(2).continue_runner is not None
    compiled.close()


def test_a_stage_is_traced_with_the_jax_configuration_of_the_caller():
    cfg = config()
    stage = stage_programs(build_stages(cfg)[0])
    seen = {}

    def spy(name):
        def program(*arguments):
            seen[name] = jax.config.jax_default_matmul_precision
            return getattr(stage, name)(*arguments)

        return program

    spied = stage._replace(chunk=spy("chunk"), evaluate=spy("evaluate"))
    with jax.default_matmul_precision("highest"):
        compile_run(cfg, [spied], [state_shapes(cfg, stage)], fresh=False).close()
    assert seen == {"chunk": "highest", "evaluate": "highest"}


def test_waiting_for_the_compilation_of_a_stage_is_not_training_time(
    tmp_path, monkeypatch
):
    """The programs of the second stage are held back for ``COMPILE_S``."""
    real = compilation._submit_stage

    def submit_stage(pool, programs, shapes, number, **options):
        pending = real(pool, programs, shapes, number, **options)
        if number == 0:
            return pending

        def compiled_late():
            time.sleep(COMPILE_S)
            return pending.chunk.result()

        return pending._replace(chunk=pool.submit(compiled_late))

    monkeypatch.setattr(compilation, "_submit_stage", submit_stage)
    assert run(config(run_dir=str(tmp_path))) == 0
    times = [row["time"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert max(np.diff(times)) < COMPILE_S


COMPILE_S = 1.5
"""Time for which the programs of a stage are held back."""


def replay_config(**changes):
    """Return Q-learning from replay: two updates with two agents, two with three."""
    stages = curriculum(("cue_2", 0.5), ("cue_3", 0.5))
    base = jmarl.load_config("vdn", [*Q_LEARNING, "system.replay_size=64"])
    return dataclasses.replace(
        base, env={"name": "cue_3"}, curriculum=stages, **changes
    )


def test_a_stage_keeps_what_is_learned_and_replay_and_target_resume_exactly(
    tmp_path, monkeypatch
):
    compile_once(monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    seen = {}

    def start_stage(ctx, state, progress, real=loop.start_stage):
        before = jax.device_get(drop_env_state(state.runner).learner)
        after, started = real(ctx, state, progress)
        if started.stage != progress.stage:
            learner = jax.device_get(after.runner.learner)
            seen.update(before=before, after=learner, previous=state.runner)
        return after, started

    with monkeypatch.context() as patch:
        patch.setattr(loop, "start_stage", start_stage)
        assert run(replay_config(run_dir=str(whole))) == 0
    before, after, previous = seen["before"], seen["after"], seen["previous"]
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.target, before.target)
    assert not any(np.any(x) for x in jax.tree.leaves(after.replay))
    assert after.updates == 0
    assert after.replay.rows.action.shape[-1] == 3
    freed = (previous.learner.replay, previous.env_state, previous.timestep)
    assert all(x.is_deleted() for x in jax.tree.leaves(freed))
    for update in (1, 2, 3):
        with monkeypatch.context() as patch:
            interrupt_after(patch, update)
            assert run(replay_config(run_dir=str(parts))) == 75
        assert run(resume_config(str(parts))) == 0
        assert final_leaves(parts) == final_leaves(whole)
        assert logged_rows(parts) == logged_rows(whole)
        shutil.rmtree(parts)


def test_stages_with_other_parameter_shapes_are_rejected_before_compilation(
    tmp_path, monkeypatch
):
    def compile_run(*_, **__):
        pytest.fail("compiled")

    monkeypatch.setattr(run_module, "compile_run", compile_run)
    network = dataclasses.replace(replay_config().network, agent_id=True)
    folder = tmp_path / "run"
    with pytest.raises(ConfigError) as error:
        run(replay_config(run_dir=str(folder), network=network))
    assert not folder.exists()
    assert str(error.value) == (
        "curriculum.stages=cue_2: parameter "
        "params/agent/params/trunk/layers/torso/dense_0/kernel is "
        "float32[6,4] for cue_2 and float32[7,4] for cue_3; "
        f"its shape depends on the size of the team; {TEAM_SIZE_ADVICE}"
    )
