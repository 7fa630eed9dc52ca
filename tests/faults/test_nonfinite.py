"""Fault 8: rewards, losses and parameters that are not finite."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
import toy
from records import outcome, status, steps

import jmarl
from jmarl.config import ConfigError
from jmarl.learning.optimizers import MAX_SKIPS
from jmarl.results.metrics_file import read_rows
from jmarl.runs import loop
from jmarl.runs import run as run_module
from jmarl.runs.folder import read_config, resume_config
from jmarl.runs.run import run
from jmarl.training.build import build_run
from jmarl.training.nonfinite import (
    Cause,
    Kind,
    NonFiniteError,
    NonFiniteWatch,
    advice,
    describe,
    find_causes,
)
from jmarl.training.programs import seed_keys, stage_programs


pytestmark = pytest.mark.fault(8)

SOMETIMES = {"name": "nan_bandit", "first": 8, "steps": 10**6, "chance": 0.03}
"""An environment with rewards that are NaN on some paths."""
LASTING = {"name": "nan_bandit", "first": 80, "steps": 10**6}
"""An environment with rewards that are NaN from update 11 on, on every path."""
ROLLBACKS = {
    1: [],
    2: [(4, 1, 2), (3, 2, 2), (8, 1, 6)],
    11: [(2, 1, 0), (6, 1, 4)],
}
"""Rollbacks of a run in ``SOMETIMES`` by seed: update of the reward, number, destination."""
STOPPED = 9
"""Seed of a run in ``SOMETIMES`` with the first NaN at update 6."""
COMPILED = {}
"""Compiled programs, by the parts of a configuration that they depend on."""


@pytest.fixture(scope="module", autouse=True)
def nan_bandit():
    with toy.registered({"nan_bandit": toy.nan_bandit}):
        yield


def share_programs(patch):
    """Compile equal programs once for all tests of this file."""

    def compile_run(config, *args, real=run_module.compile_run, **options):
        parts = (config.env, config.system, config.num_seeds)
        key = repr((config.system_name, *parts, options["restart"]))
        if key not in COMPILED:
            COMPILED[key] = real(config, *args, **{**options, "fresh": True})
        return COMPILED[key]

    patch.setattr(run_module, "compile_run", compile_run)


@pytest.fixture(autouse=True)
def shared_programs(monkeypatch):
    share_programs(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def start(folder, **changes):
    return run(toy.config(run_dir=str(folder), **changes))


def resume(folder, *overrides):
    return run(resume_config(str(folder), overrides))


def rows(folder, kind):
    every = read_rows(folder / "metrics.jsonl")
    return [row for row in every if row["kind"] == kind]


def losses(folder):
    return {row["update"]: row["loss"][0] for row in rows(folder, "train")}


def warnings(capsys):
    """Return the warnings so far."""
    return [
        line.removeprefix("warning: ")
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("warning: ")
    ]


def check_finite_checkpoints(folder):
    """Check that every parameter of every checkpoint is finite."""
    config = read_config(folder)
    programs = stage_programs(build_run(config))
    shapes = jax.eval_shape(programs.init, seed_keys(config).init)
    checkpoints = run_module.Checkpoints(
        folder / "checkpoints", keep=9, verify=True, warn=pytest.fail, read_only=True
    )
    for step in steps(folder):
        params = checkpoints._load(step, shapes).state.runner.learner.params
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params)), step
    checkpoints.close()


# Found on the device


def first_offsets(run_chunk, runner, updates):
    """Slow twin of the report of a chunk: run its updates one by one."""
    first = None
    for i in range(updates):
        runner, report = run_chunk(runner, 1)
        found = {k: np.asarray(x) for k, x in report.metrics["nonfinite"].items()}
        if first is None:
            first = {name: np.full_like(x, -1) for name, x in found.items()}
        for name, x in found.items():
            first[name] = np.where((first[name] < 0) & (x == 0), i, first[name])
    return first


def test_the_first_update_is_exact_for_each_seed_and_quantity():
    env = {"name": "nan_bandit", "steps": 40, "chance": 0.05}
    system = toy.Config(nan_at=5, nan_loss_at=4)
    config = toy.config(num_seeds=4, env=env, system=system)
    programs = stage_programs(build_run(config))
    chunk = jax.jit(programs.chunk)
    runner = programs.init(seed_keys(config).init).runner
    found = jax.device_get(chunk(runner, 5)[1].metrics["nonfinite"])
    expected = first_offsets(chunk, runner, 5)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], name)
    np.testing.assert_array_equal(found["params/bias"], [4] * 4)
    np.testing.assert_array_equal(found["params/logits"], [-1] * 4)
    assert len(set(found["reward"].tolist())) > 1
    assert set(found["train/loss"].tolist()) <= {0, 1, 2, 3}


# Named


def report(**offsets):
    return {name.replace("__", "/"): np.array(x) for name, x in offsets.items()}


def test_the_earliest_update_is_named_first_and_at_one_update_the_reward():
    found = report(
        params__w=[-1, 1], train__entropy=[2, 1], train__loss=[2, 1], reward=[-1, 1]
    )
    causes = find_causes(found, 11, [5, 6], "smax_3m")
    assert [c[:3] for c in causes] == [
        (12, Kind.REWARD, 6),
        (12, Kind.METRIC, 6),
        (12, Kind.METRIC, 6),
        (12, Kind.PARAMETER, 6),
        (13, Kind.METRIC, 5),
        (13, Kind.METRIC, 5),
    ]
    assert describe(causes[:4]) == (
        "not finite in seed 6: reward of smax_3m (update 12), "
        "metric loss and 1 more (update 12), parameter w (update 12)"
    )


def test_a_parameter_that_breaks_before_the_reward_is_the_cause():
    found = report(params__actor__w=[0], reward=[1])
    causes = find_causes(found, 1, [0], "mpe_spread")
    assert describe(causes) == (
        "not finite in seed 0: parameter actor/w (update 1), "
        "reward of mpe_spread (update 2)"
    )


REWARD = Cause(5, Kind.REWARD, 0, "smax_3m")
LOSS = Cause(5, Kind.METRIC, 0, "loss")
PARAMETER = Cause(5, Kind.PARAMETER, 0, "w")
TESTED = (
    "the environment smax_3m returned the reward: "
    "test it with jmarl.envs.conformance.check_env; "
)
OTHER = "with another seed (seed=3) or with a smaller learning rate: "


@pytest.mark.parametrize(
    ("cause", "policy", "resumable", "expected"),
    [
        (
            REWARD,
            "skip",
            True,
            TESTED + "resume with rollbacks: RESUME on_nonfinite=rollback",
        ),
        (
            REWARD,
            "stop",
            False,
            TESTED + "start again with rollbacks: on_nonfinite=rollback",
        ),
        (
            REWARD,
            "rollback",
            True,
            TESTED + "resume with skipped gradients: RESUME on_nonfinite=skip",
        ),
        (
            REWARD,
            "rollback",
            False,
            TESTED + "start again with skipped gradients: on_nonfinite=skip",
        ),
        (LOSS, "stop", True, f"resume {OTHER}RESUME system.lr=0.05"),
        (LOSS, "rollback", False, f"start again {OTHER}system.lr=0.05"),
        (PARAMETER, "skip", True, f"resume {OTHER}RESUME system.lr=0.05"),
        (PARAMETER, "skip", False, f"start again {OTHER}system.lr=0.05"),
    ],
)
def test_advice_follows_from_the_cause_and_the_checkpoints(
    cause, policy, resumable, expected
):
    config = toy.config(on_nonfinite=policy, num_seeds=3)
    assert advice(config, cause, "RESUME" if resumable else "") == expected


def test_advice_names_only_keys_that_exist():
    @dataclasses.dataclass(frozen=True)
    class WithoutRate(jmarl.config.SystemConfig):
        width: int = 1

    config = toy.config(system=WithoutRate(), seed=2**32 - 1)
    assert advice(config, LOSS, "") == "start again with another seed: seed=1"
    off = dataclasses.replace(toy.config().checkpoint, enabled=False)
    text = advice(toy.config(checkpoint=off), REWARD, "")
    assert text.endswith(": on_nonfinite=rollback checkpoint.enabled=true")


# on_nonfinite=skip


BROKEN = toy.Config(nan_loss_at=5, nan_at=7)


def test_a_loss_gives_one_warning_and_a_parameter_stops_the_run(folder, capsys):
    assert start(folder, system=BROKEN) == 4
    first, last = warnings(capsys)
    assert first == (
        "not finite in seed 0: metric loss (update 5); "
        "gradients that are not finite are skipped"
    )
    causes = "not finite in seed 0: metric loss (update 5), parameter bias (update 7); "
    assert last == (
        f"{causes}resume with another seed (seed=1) or with a smaller learning rate: "
        f"python -m jmarl.systems.toy resume={folder} system.lr=0.05"
    )
    assert steps(folder) == [4, 6]
    assert [update for update, loss in losses(folder).items() if loss is None] == [5]
    assert (status(folder)["state"], status(folder)["exit_code"]) == ("failed", 4)
    assert status(folder)["message"].startswith(causes)
    assert str(folder) not in json.dumps(status(folder))
    check_finite_checkpoints(folder)


def test_rewards_that_stay_nan_end_the_run_with_the_reward_as_cause(folder, capsys):
    """The optimizer applies a gradient after it has skipped many."""
    rare = dataclasses.replace(toy.config().eval, every=15 * 64)
    assert start(folder, env=LASTING, total_timesteps=40 * 64, eval=rare) == 4
    first, last = warnings(capsys)
    assert first.startswith("not finite in seed 0: reward of nan_bandit (update 11)")
    broken = f"parameter logits (update {11 + MAX_SKIPS})"
    assert (
        f"reward of nan_bandit (update 11), metric loss (update 11), {broken}" in last
    )
    assert "the environment nan_bandit returned the reward" in last
    check_finite_checkpoints(folder)


def test_lasting_values_give_few_reminders():
    lines = []
    watch = NonFiniteWatch(toy.config(total_timesteps=10_000 * 64), lines.append)
    for update in range(1, 10_001):
        reward, loss = (Cause(update, kind, 0, "x") for kind in list(Kind)[:2])
        watch.check([reward, loss] if update > 10 else [reward])
    assert len(lines) == 2 + 9
    assert "metric x (update 11);" in lines[1]
    assert "(update 1011), so far in 1,011 chunks;" in lines[2].replace(
        "1,011)", "1011)"
    )
    short = NonFiniteWatch(toy.config(), lines.append)
    for update in range(1, 9):
        short.check([Cause(update, Kind.REWARD, 0, "x")])
    assert len(lines) == 12


def test_an_error_has_the_earlier_causes_of_its_seed():
    watch = NonFiniteWatch(toy.config(num_seeds=2), lambda line: None)
    watch.check([Cause(1, Kind.METRIC, 1, "loss"), Cause(2, Kind.REWARD, 0, "x")])
    with pytest.raises(NonFiniteError) as error:
        watch.check([Cause(9, Kind.REWARD, 0, "x"), Cause(9, Kind.PARAMETER, 0, "w")])
    assert error.value.causes == (
        Cause(2, Kind.REWARD, 0, "x"),
        Cause(9, Kind.PARAMETER, 0, "w"),
    )


def test_ppo_skips_the_gradients_of_a_reward_that_is_nan():
    """The NaN reaches every gradient step of the update, which are more than ``MAX_SKIPS``."""
    sizes = "num_envs=8 rollout_length=8 total_timesteps=256 eval.every=64 arch=cpu"
    network = "network=mlp network.torso=[8] system.epochs=8 system.minibatches=4"
    overrides = f"{sizes} {network} env=nan_bandit ++env.first=16".split()
    config = jmarl.load_config("ippo", overrides)
    programs = stage_programs(build_run(config))
    chunk = jax.jit(programs.chunk)
    runner = jax.jit(programs.init)(seed_keys(config).init).runner
    for skipped in (0, 0, 32, 0):
        before = jax.device_get(runner.learner.params)
        runner, found = chunk(runner, 1)
        assert found.metrics["train"]["skipped_steps"] == 2 * skipped, (
            "actor and critic"
        )
        after = jax.device_get(runner.learner.params)
        same = jax.tree.map(np.array_equal, before, after)
        assert all(jax.tree.leaves(same)) == (skipped > 0)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))


# on_nonfinite=stop


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        assert start(folder, env=SOMETIMES, on_nonfinite="stop", seed=STOPPED) == 4
    return folder


@pytest.fixture
def stopped(stopped_once, folder):
    """Return the folder of a run that a reward stopped at update 6."""
    shutil.copytree(stopped_once, folder)
    return folder


def test_a_reward_stops_the_run(stopped):
    assert status(stopped)["message"].startswith(
        f"not finite in seed {STOPPED}: reward of nan_bandit (update 6), metric loss "
    )
    assert steps(stopped) == [2, 4]
    assert [row["update"] for row in rows(stopped, "train")] == [1, 2, 3, 4, 5]


def test_the_advice_on_a_reward_leads_to_the_end(stopped):
    command, _, change = status(stopped)["message"].rpartition(" ")
    assert command.endswith("resume='<folder>'")
    assert resume(stopped, change) == 0
    assert None not in losses(stopped).values()


def test_a_loss_stops_the_run(folder, capsys):
    assert start(folder, on_nonfinite="stop", system=BROKEN) == 4
    (line,) = warnings(capsys)
    assert line.startswith("not finite in seed 0: metric loss (update 5); resume with ")
    assert steps(folder) == [2, 4]


# on_nonfinite=rollback


def start_with_rollbacks(folder, seed, **changes):
    return start(folder, env=SOMETIMES, on_nonfinite="rollback", seed=seed, **changes)


def rollbacks(capsys):
    """Return update, number and destination of each rollback so far."""
    pattern = r"\(update (\d+)\), .* rollback (\d) of 3 to update (\d+) with"
    found = [re.search(pattern, line) for line in warnings(capsys)]
    return [tuple(map(int, match.groups())) for match in found if match]


@pytest.mark.parametrize("seed", ROLLBACKS)
def test_a_rollback_takes_another_path_and_leaves_a_finite_run(folder, capsys, seed):
    assert start_with_rollbacks(folder, seed) == 0
    assert rollbacks(capsys) == ROLLBACKS[seed]
    assert [row["update"] for row in rows(folder, "train")] == [*range(1, 9)]
    assert None not in losses(folder).values()
    assert [row["update"] for row in rows(folder, "eval")] == [0, 2, 4, 6, 8]
    check_finite_checkpoints(folder)


class Killed(BaseException):
    """Stand-in for the end of the process."""


def kill_at(monkeypatch, update, rollback=0):
    """Kill the run when a chunk starts at an update, after a number of rollbacks."""

    def train_chunk(ctx, state, progress, real=loop.train_chunk):
        if len(done) >= rollback and progress.update == update:
            raise Killed
        return real(ctx, state, progress)

    def roll_back(*args, real=run_module._roll_back):
        done.append(1)
        return real(*args)

    done = []
    monkeypatch.setattr(loop, "train_chunk", train_chunk)
    monkeypatch.setattr(run_module, "_roll_back", roll_back)


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory):
    """Return the outcome of a run with two rollbacks to update 2."""
    folder = tmp_path_factory.mktemp("rolled_back") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        assert start_with_rollbacks(folder, 2) == 0
    return outcome(folder)


@pytest.mark.parametrize(("update", "rollback"), [(2, 1), (2, 2), (5, 2)])
def test_a_run_killed_after_a_rollback_repeats_it(
    folder, rolled_back, monkeypatch, update, rollback
):
    with monkeypatch.context() as patch:
        kill_at(patch, update, rollback)
        with pytest.raises(Killed):
            start_with_rollbacks(folder, 2)
    assert resume(folder) == 0
    assert outcome(folder) == rolled_back


def test_too_many_rollbacks_stop_the_run(folder, capsys):
    changes = {"total_timesteps": 40 * 64, "on_nonfinite": "rollback"}
    assert start(folder, env=LASTING, **changes) == 4
    *three, last = warnings(capsys)
    assert len(three) == run_module.MAX_ROLLBACKS == 3
    assert "(update 11) after 3 rollbacks to update 10; the environment" in last
    assert last.endswith(f"resume={folder} on_nonfinite=skip")
    assert steps(folder) == [8, 10]


def test_all_seeds_roll_back_and_a_new_checkpoint_allows_three_more(folder, capsys):
    assert start_with_rollbacks(folder, 12, num_seeds=2) == 0
    numbers = [(number, update) for _, number, update in rollbacks(capsys)]
    assert numbers == [(1, 2), (1, 4), (2, 4), (3, 4), (1, 6), (2, 6)]
    assert not any(None in row["loss"] for row in rows(folder, "train"))


def test_a_rollback_to_an_inexact_checkpoint_resets_the_environments(folder, capsys):
    checkpoint = dataclasses.replace(toy.config().checkpoint, exact=False)
    assert start_with_rollbacks(folder, 12, checkpoint=checkpoint) == 0
    captured = capsys.readouterr()
    assert "rollback 1 of 3 to update 2" in captured.err
    assert "environments are reset after update 2" in captured.out


def test_rollback_needs_checkpoints():
    off = dataclasses.replace(toy.config().checkpoint, enabled=False)
    with pytest.raises(
        ConfigError, match=r"^on_nonfinite='rollback': needs checkpoints"
    ):
        toy.config(on_nonfinite="rollback", checkpoint=off)


# Resume with another seed or learning rate


@pytest.fixture
def resumed(stopped, tmp_path, capsys):
    """Return a function that resumes a copy of the stopped run to its end.

    It returns the folder, and the warnings of changed keys.
    """

    def resume_copy(*overrides):
        copy = tmp_path / "-".join(["copy", *overrides])
        shutil.copytree(stopped, copy)
        capsys.readouterr()
        assert resume(copy, "on_nonfinite=skip", *overrides) == 0
        suffix = ": the run no longer follows the original"
        lines = [line for line in warnings(capsys) if line.endswith(suffix)]
        return copy, [line.removesuffix(suffix) for line in lines]

    return resume_copy


def test_a_changed_seed_or_rate_changes_what_follows(resumed):
    same, no_change = resumed()
    reseeded, new_seed = resumed("seed=7")
    slower, new_rate = resumed("system.lr=0.05")
    assert no_change == []
    assert new_seed == [f"seed changed from {STOPPED} to 7"]
    assert new_rate == ["system.lr changed from 0.1 to 0.05"]
    for folder in (reseeded, slower):
        assert rows(folder, "train")[:4] == rows(same, "train")[:4]
        assert outcome(folder)["leaves"] != outcome(same)["leaves"]
    assert read_config(reseeded).seed == 7
    assert outcome(reseeded)["evaluation"]["seeds"] == [7]
    assert read_config(slower).system.lr == 0.05


@pytest.mark.parametrize("update", [4, 5, 7])
def test_a_plain_resume_continues_with_the_changed_seed(
    stopped, resumed, monkeypatch, update
):
    """Killed before or after the first checkpoint with the new seed, the run ends the same."""
    whole, _ = resumed("seed=7")
    with monkeypatch.context() as patch:
        kill_at(patch, update)
        with pytest.raises(Killed):
            resume(stopped, "on_nonfinite=skip", "seed=7")
    assert resume(stopped) == 0
    assert outcome(stopped) == outcome(whole)


def test_a_seed_differs_from_the_rollback_of_the_same_number():
    """The advice of a run with three rollbacks must not lead to one of their paths."""
    config = toy.config()
    programs = stage_programs(build_run(config))
    state = programs.init(seed_keys(config).init)
    paths = [[seed] for seed in range(4)]
    paths += [[run_module.ROLLBACK, number] for number in range(1, 4)]
    keys = [run_module._diverge(state, *path).runner.key for path in paths]
    data = {jax.random.key_data(key).tobytes() for key in keys}
    assert len(data) == len(paths)


def test_a_checkpoint_without_a_seed_has_that_of_its_folder(
    folder, monkeypatch, capsys
):
    """Checkpoints of older versions have none."""

    def save(self, step, state, meta, real=run_module.Checkpoints.save):
        meta.pop("seed")
        return real(self, step, state, meta)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Checkpoints, "save", save)
        kill_at(patch, 3)
        with pytest.raises(Killed):
            start(folder, env=SOMETIMES, seed=1)
    assert resume(folder) == 0
    assert "no longer follows" not in capsys.readouterr().err
