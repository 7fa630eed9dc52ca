"""Tuning of a toy: as good as Optuna alone, whoever works on it, fails or is killed."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest

from jmarl.config import ConfigError
from jmarl.runs.exit_codes import ExitCode
from jmarl.studies.tuning.run_tune import read_record, report, status
from jmarl.studies.tuning.trial_store import (
    JOURNAL,
    STUDY_NAME,
    TrialStore,
    sampler_seed,
)
from tests.studies.tuning.toy_trials import (
    EVALUATIONS,
    SPACE,
    Toy,
    curve,
    objective,
    params_of,
    toy_plan,
    work,
)


def suggest(trial):
    return {parameter.key: parameter.suggest(trial) for parameter in SPACE.entries()}


def optuna_alone(trials, seed, pruner=None, reseed=False):
    """Return the study of Optuna's own loop over the toy."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed)
    pruner = pruner or optuna.pruners.NopPruner()
    study = optuna.create_study(
        study_name=STUDY_NAME,  # on which the brackets of Hyperband depend
        sampler=sampler,
        pruner=pruner,
        direction="maximize",
    )

    def train(trial):
        values = curve(params_of([*SPACE.words(suggest(trial)), "run_dir=x"])[0])
        for step, value in enumerate(values, 1):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return values[-1]

    for number in range(trials):
        if reseed:
            seed_now = sampler_seed(seed, number)
            study.sampler = optuna.samplers.TPESampler(seed=seed_now)
        study.optimize(train, n_trials=1)
    return study


@pytest.mark.parametrize("name", ["none", "median", "hyperband"])
def test_trials_equal_those_of_optunas_own_loop(tmp_path, name):
    pruners = {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(5, n_warmup_steps=2),
        "hyperband": optuna.pruners.HyperbandPruner(2, EVALUATIONS),
    }
    work(toy_plan(25, pruner=name, seed=3), tmp_path, Toy())
    ours = read_record(tmp_path)["trials"]
    theirs = optuna_alone(25, 3, pruners[name], reseed=True).trials
    assert [t["overrides"] for t in ours] == [
        list(SPACE.words(t.params)) for t in theirs
    ]
    assert [t["state"] for t in ours] == [t.state.name.lower() for t in theirs]
    values = [trial.value for trial in theirs]
    assert [trial["value"] for trial in ours] == pytest.approx(values)
    assert ("pruned" in {trial["state"] for trial in ours}) == (name != "none")


def test_the_planted_optimum_is_found_as_fast_as_by_optuna_alone(tmp_path):
    """Over eight seeds, the best of 40 trials is as good as with one sampler for all trials."""
    ours, theirs = [], []
    for seed in range(8):
        folder = tmp_path / str(seed)
        work(toy_plan(40, seed=seed), folder, Toy())
        record = read_record(folder)
        ours.append(record["trials"][record["best"]]["value"])
        theirs.append(optuna_alone(40, seed).best_value)
    random = np.random.default_rng(0)
    standard_error = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(7)
    assert np.mean(ours) > np.mean(theirs) - 2 * standard_error
    assert np.median(ours) > -0.15
    draws = [best_of_random(random) for _ in range(8)]
    assert np.mean(ours) > np.mean(draws)


def best_of_random(random, trials=40):
    return max(
        objective(
            {
                "system.lr": 10 ** random.uniform(-5, 0),
                "system.gamma": random.uniform(),
                "system.epochs": random.integers(1, 9),
                "network": random.choice(["mlp", "gru"]),
            }
        )
        for _ in range(trials)
    )


def start(folder, trials, pause):
    words = map(str, (folder, trials, pause))
    command = [sys.executable, "-m", "tests.studies.tuning.toy_trials", *words]
    return subprocess.Popen(command, start_new_session=True)


def starts(folder):
    """Return how often each trial was started."""
    log = (folder / "trials" / "starts").read_text().split()
    return collections.Counter(log)


def wait_for(condition, process):
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise TimeoutError


def test_a_killed_tuning_keeps_its_trials_and_continues_as_if_it_never_stopped(
    tmp_path,
):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for ended in (2, 5):
        tuning = start(killed, 8, 0.05)
        wait_for(lambda n=ended: _ended(killed) >= n, tuning)
        before = _lines(killed)
        os.killpg(tuning.pid, signal.SIGKILL)
        tuning.wait()
    assert start(killed, 8, 0.0).wait() == 0
    done = [line for line in before if line.state == "complete"]
    after = _lines(killed)
    assert len(done) >= 5
    assert all(after[line.number].value == line.value for line in done)
    assert all(starts(killed)[f"trial_{line.number:04d}"] == 1 for line in done)

    work(toy_plan(8), whole, Toy())
    trials = [read_record(folder)["trials"] for folder in (killed, whole)]
    parts = [[(t["overrides"], t["value"]) for t in each] for each in trials]
    assert parts[0] == parts[1]


def test_the_run_of_a_killed_tuning_keeps_its_trial(tmp_path):
    tuning = start(tmp_path, 2, 0.3)
    wait_for((tmp_path / "trials" / "trial_0000" / "config.yaml").exists, tuning)
    tuning.send_signal(signal.SIGKILL)
    tuning.wait()
    run = Toy()
    assert work(toy_plan(2), tmp_path, run) == 0
    assert run.done == ["trial_0001"]
    assert starts(tmp_path) == {"trial_0000": 1, "trial_0001": 1}
    assert [line.state for line in _lines(tmp_path)] == ["complete"] * 2


def _lines(folder):
    return TrialStore(folder, SPACE).lines() if (folder / JOURNAL).exists() else []


def _ended(folder):
    return sum(line.state == "complete" for line in _lines(folder))


def test_two_processes_share_a_tuning_and_run_no_trial_twice(tmp_path):
    tunings = [start(tmp_path, 12, 0.1) for _ in range(2)]
    assert [tuning.wait() for tuning in tunings] == [0, 0]
    record = read_record(tmp_path)
    assert [trial["state"] for trial in record["trials"]] == ["complete"] * 12
    assert starts(tmp_path) == {f"trial_{n:04d}": 1 for n in range(12)}
    assert len({tuple(trial["overrides"]) for trial in record["trials"]}) == 12


def test_jobs_at_a_time_draw_different_trials(tmp_path):
    run = Toy()
    assert work(toy_plan(12), tmp_path, run, jobs=3) == 0
    assert sorted(run.done) == [f"trial_{n:04d}" for n in range(12)]
    trials = read_record(tmp_path)["trials"]
    assert len({tuple(trial["overrides"]) for trial in trials}) == 12


def test_a_pruned_trial_is_stopped_while_it_runs(tmp_path):
    stopped = []

    class Watched(Toy):
        def __call__(self, command, keep=(), stop_when=None):
            params, folder = params_of(command)
            for count in range(1, EVALUATIONS + 1):
                values = self.values(params)[:count]
                _train_until(folder, values, finished=count == EVALUATIONS)
                if stop_when():
                    stopped.append((folder.name, count))
                    return ExitCode.PREEMPTED
            return 0

    assert work(toy_plan(20, pruner="median"), tmp_path, Watched()) == 0
    trials = read_record(tmp_path)["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert len(pruned) > 2
    names = [f"trial_{trial['number']:04d}" for trial in pruned]
    assert [name for name, _ in stopped] == names
    assert [count for _, count in stopped] == [t["pruned_at"] for t in pruned]
    assert all(len(trial["evaluations"]) < EVALUATIONS for trial in pruned)


def _train_until(folder, values, finished):
    from tests.studies.tuning.toy_trials import train_toy

    train_toy(folder, values)
    if not finished:
        (folder / "status.json").write_text('{"state": "interrupted"}')


def test_a_stopped_trial_continues_and_a_failed_one_is_recorded(tmp_path):
    plan = toy_plan(4)
    stopped = Toy(trial_0001=ExitCode.PREEMPTED)
    assert work(plan, tmp_path, stopped) == ExitCode.PREEMPTED
    assert stopped.done == ["trial_0000", "trial_0001"]
    failed = Toy(trial_0002=ExitCode.NON_FINITE)
    assert work(plan, tmp_path, failed) == 0
    assert failed.done == ["trial_0001", "trial_0002", "trial_0003"]
    trials = read_record(tmp_path)["trials"]
    states = [trial["state"] for trial in trials]
    assert states == ["complete", "complete", "fail", "complete"]
    assert trials[2]["reason"] == "exit code 4"
    more = Toy()
    assert work(toy_plan(5), tmp_path, more) == 0
    assert more.done == ["trial_0004"]


def test_a_trial_without_resources_is_tried_again(tmp_path):
    assert work(toy_plan(2), tmp_path, Toy(trial_0000=ExitCode.RESOURCE)) == 3
    again = Toy()
    assert work(toy_plan(2), tmp_path, again) == 0
    assert again.done == ["trial_0000"]


def test_a_run_that_ended_without_its_tuning_is_counted(tmp_path):
    def killed(command, keep=(), stop_when=None):
        Toy()(command)
        raise SystemExit  # the tuning ends before it records the trial

    with pytest.raises(SystemExit):
        work(toy_plan(1), tmp_path, killed)
    assert read_record(tmp_path)["trials"][0]["state"] == "running"
    rest = Toy()
    assert work(toy_plan(2), tmp_path, rest) == 0
    assert rest.done == ["trial_0001"]
    assert [t["state"] for t in read_record(tmp_path)["trials"]] == ["complete"] * 2


def test_a_metric_that_is_not_finite_fails_the_trial(tmp_path):
    values = [0.0] * (EVALUATIONS - 1) + [float("nan")]
    assert work(toy_plan(1), tmp_path, Toy(values=lambda params: values)) == 0
    (trial,) = read_record(tmp_path)["trials"]
    assert trial["state"] == "fail" and "not finite" in trial["reason"]
    assert report(tmp_path) == ExitCode.CRASHED


@pytest.mark.parametrize("kept", [1, 5, 30])
def test_a_journal_with_an_incomplete_line_is_repaired(tmp_path, kept):
    work(toy_plan(2), tmp_path, Toy())
    before = _lines(tmp_path)
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"op_code":4,"worker_id":"a-b","study_id":0}'[:kept])
    assert work(toy_plan(3), tmp_path, Toy()) == 0
    after = _lines(tmp_path)
    assert after[:2] == before and after[2].state == "complete"


def test_a_kill_between_two_lines_of_the_journal_changes_no_trial(tmp_path):
    whole = TrialStore(tmp_path, SPACE, seed=1)
    words = [whole.open(number) for number in range(3)]
    lines = (tmp_path / JOURNAL).read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 3
    for count in range(len(lines)):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / JOURNAL).write_text("".join(lines[:count]))
        store = TrialStore(folder, SPACE, seed=1)
        assert [store.open(number) for number in range(3)] == words


def test_the_report_has_the_budget_every_trial_and_the_winner(tmp_path, capsys):
    work(toy_plan(6), tmp_path, Toy(trial_0002=1))
    capsys.readouterr()
    assert report(tmp_path, str(tmp_path / "copy.yaml")) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "tuning.json").read_text())
    values = {
        t["number"]: t["value"] for t in record["trials"] if t["value"] is not None
    }
    assert record["best"] == max(values, key=values.__getitem__)
    assert record["cost"]["trials"] == {"complete": 5, "fail": 1}
    assert record["cost"]["env_steps"] == 5 * 2 * 8 * EVALUATIONS
    assert record["options"]["seeds"] == 2
    assert "6 trials of 2 seeds (5 complete, 1 fail)" in printed
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if "|" in line]
    assert rows[2] == str(record["best"]) and len(rows) == 2 + 6
    assert (tmp_path / "copy.yaml").read_text() == (tmp_path / "best.yaml").read_text()
    assert (tmp_path / "history.png").stat().st_size > 5000
    status(str(tmp_path))
    assert capsys.readouterr().out in printed


def test_a_folder_of_another_tuning_is_an_error(tmp_path):
    work(toy_plan(1), tmp_path, Toy())
    with pytest.raises(ConfigError, match=r"options=.*the same arguments"):
        work(toy_plan(1, seed=1), tmp_path, Toy())
    with pytest.raises(ConfigError, match="holds no tuning; start one with jmarl tune"):
        status(str(tmp_path / "none"))
