"""The host's part of a run: schedules, run folders, signals and reported numbers."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import toy

from jmarl.config import ConfigError
from jmarl.runs import folder as run_folder
from jmarl.runs import loop
from jmarl.runs import progress as report
from jmarl.runs.exit_codes import STOP_SIGNALS, stop_requests
from jmarl.runs.status import write_status


def schedule(config, progress):
    """Return the updates of all evaluations and checkpoints, by the rules of the loop."""
    evaluated, saved = [], []
    while True:
        if loop.evaluation_is_due(config, progress):
            evaluated.append(progress.update)
            progress = progress._replace(
                evaluations=progress.evaluations + 1, last_evaluation=progress.update
            )
            if loop.checkpoint_is_due(config, progress):
                saved.append(progress.update)
        elif progress.update >= config.num_updates:
            return evaluated, saved
        else:
            end = config.schedule.chunk_end(progress.update)
            progress = progress._replace(update=end)


def test_evaluations_are_at_the_start_after_every_interval_and_at_the_end():
    config = toy.config()
    evaluated, saved = schedule(config, loop.initial_progress(config))
    assert evaluated == [0, 2, 4, 6, 8] and saved == [2, 4, 6, 8]


def test_checkpoints_follow_every_third_evaluation_and_the_end():
    every_third = dataclasses.replace(toy.config().checkpoint, every=3)
    config = toy.config(checkpoint=every_third)
    _, saved = schedule(config, loop.initial_progress(config))
    assert saved == [6, 8]


def test_an_extended_run_is_evaluated_after_each_interval_and_at_the_end():
    every_third = dataclasses.replace(toy.config().eval, every=3 * 64)
    config = toy.config(total_timesteps=11 * 64, eval=every_third)
    progress = loop.Progress(
        update=7, evaluations=4, last_evaluation=6, env_steps=[0], seconds=0.0
    )
    evaluated, saved = schedule(config, progress)
    assert evaluated == [9, 11] and saved == [9, 11]


def test_a_shortened_run_ends_with_one_evaluation():
    config = toy.config()
    progress = loop.Progress(
        update=12, evaluations=6, last_evaluation=10, env_steps=[0], seconds=0.0
    )
    assert schedule(config, progress) == ([12], [12])


def test_only_rows_before_the_checkpoint_are_kept():
    progress = loop.Progress(
        update=6, evaluations=3, last_evaluation=4, env_steps=[0], seconds=0.0
    )
    rows = [(kind, update) for update in (4, 6, 8) for kind in ("train", "eval")]
    rows.append(("absolute", 4))

    def is_kept(kind, update):
        return loop.belongs_before({"kind": kind, "update": update}, progress)

    kept = [row for row in rows if is_kept(*row)]
    assert kept == [("train", 4), ("eval", 4), ("train", 6)]


def test_env_steps_are_right_after_the_counter_on_the_device_wraps():
    before = [2**32 - 10, 2**33 + 5]
    after = np.array([6, 25], np.uint32)
    assert loop.count_steps(before, after) == [2**32 + 6, 2**33 + 25]


LOCK_UNTIL_INPUT = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
input()
"""


@pytest.mark.fault(17)
def test_a_folder_has_one_writer(tmp_path):
    lock = str(tmp_path / ".lock")
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK_UNTIL_INPUT, lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == b"locked\n"
    message = "another process is writing this run"
    with pytest.raises(ConfigError, match=message), run_folder.locked(tmp_path):
        pytest.fail("two writers")
    other.communicate(b"\n")
    with run_folder.locked(tmp_path):
        pass


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    run_folder.write_config(tmp_path, toy.config())
    with pytest.raises(ConfigError, match="holds a run; continue it with resume="):
        run_folder.open_folder(toy.config(run_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match="no run folder"):
        run_folder.open_folder(toy.config(resume=str(tmp_path / "elsewhere")))


def test_runs_started_in_the_same_second_have_separate_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {run_folder.open_folder(toy.config()) for _ in range(3)}
    assert len(folders) == 3
    for folder in folders:
        assert folder.parent.parts == ("runs", "toy", "probe_bandit")
        assert folder.is_dir()


def test_a_configuration_is_read_back_from_its_folder(tmp_path):
    toy.install()
    config = toy.config(run_dir="somewhere", num_seeds=3)
    run_folder.write_config(tmp_path, config)
    assert run_folder.read_config(tmp_path) == dataclasses.replace(config, run_dir="")


@pytest.mark.parametrize(
    "override",
    [
        "total_timesteps=1024",
        "total_timesteps=1e6",
        "checkpoint.keep=5",
        "seed=0",
        "system.lr=0.1",
        "system.lr=1e-1",
        "env=probe_bandit",
        "system=toy",
        "arch=cpu",
        "logger=none",
    ],
)
def test_resuming_may_extend_a_run_and_repeat_its_values(tmp_path, override):
    toy.install()
    run_folder.write_config(tmp_path, toy.config())
    config = run_folder.resume_config(str(tmp_path), [override])
    assert config.resume == str(tmp_path)
    key, _, value = override.partition("=")
    changed = {
        "total_timesteps": config.total_timesteps,
        "checkpoint.keep": config.checkpoint.keep,
    }
    assert key not in changed or changed[key] == float(value)


@pytest.mark.parametrize(
    "override",
    [
        "num_seeds=2",
        "system.nan_at=3",
        "env=probe_xor",
        "num_envs=16",
        "network=gru",
        "eval.episodes=3",
        "sead=0",
        "seed.x=1",
        "total_timesteps=[",
        "logger=3",
        "checkpoint=3",
        "system=mappo",
    ],
)
def test_resuming_with_another_value_is_rejected_by_key(tmp_path, override):
    toy.install()
    run_folder.write_config(tmp_path, toy.config())
    with pytest.raises(ConfigError) as error:
        run_folder.resume_config(str(tmp_path), [override])
    assert str(error.value).startswith(override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: [", "config.yaml: cannot be read"),
        ("", "config.yaml: holds no configuration"),
        ("seed: 0", "system_name: missing"),
        ("{system_name: toy, system: {}, network: {}}", "missing; give it a value"),
        (
            "{system_name: none, system: {}, network: {}}",
            "system_name='none': unknown system",
        ),
    ],
)
def test_a_damaged_configuration_gives_an_error_of_one_line(tmp_path, text, words):
    toy.install()
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        run_folder.resume_config(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_configuration_is_replaced_atomically(tmp_path, monkeypatch):
    run_folder.write_config(tmp_path, toy.config())
    before = (tmp_path / "config.yaml").read_text()

    def fail(*_):
        raise OSError("killed")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="killed"):
        run_folder.write_config(tmp_path, toy.config(seed=5))
    assert (tmp_path / "config.yaml").read_text() == before


@pytest.mark.fault(12)
def test_changed_versions_that_affect_results_are_named():
    now = run_folder.versions()
    assert run_folder.version_changes(now) == []
    saved = {**now, "optax": "0.1", "backend": "abacus", "wandb": "0"}
    assert run_folder.version_changes(saved) == [
        f"optax 0.1 when it was saved, {now['optax']} now",
        f"backend abacus when it was saved, {now['backend']} now",
    ]


def test_reported_env_steps_are_the_mean_over_seeds():
    row = {"env_steps": [10, 20], "steps_per_second": 1.0, "episodes": [0, 0]}
    assert "| 15 env steps |" in report.progress_line(row, 0.5, 1.0)
    assert "at 15 env steps" in report.evaluation_line(row)


def test_skipped_gradient_steps_are_on_the_progress_line_if_there_are_any():
    row = {"env_steps": [10, 20], "steps_per_second": 1.0, "episodes": [0, 0]}
    assert "skipped" not in report.progress_line(row, 0.5, 1.0)
    row["skipped_steps"] = [0.0, 2.5]
    line = report.progress_line(row, 0.5, 1.0)
    assert line.endswith("| up to 2.5 gradient steps skipped per update")


def test_a_status_is_always_complete_for_a_reader(tmp_path):
    path = tmp_path / "status.json"
    stop = threading.Event()

    def write():
        while not stop.is_set():
            write_status(tmp_path, "running", filler="x" * 10000)

    write_status(tmp_path, "running")
    writer = threading.Thread(target=write)
    writer.start()
    states = {json.loads(path.read_text())["state"] for _ in range(200)}
    stop.set()
    writer.join()
    assert states == {"running"}


@pytest.mark.fault(7)
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_requests_a_stop_and_handlers_are_restored(number):
    before = signal.getsignal(number)
    wakeup = signal.set_wakeup_fd(-1)
    with stop_requests(print, print) as stop:
        assert stop() == ""
        os.kill(os.getpid(), number)
        assert stop() == signal.Signals(number).name
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(wakeup) == -1


def test_outside_the_main_thread_there_are_no_signals_and_no_error():
    seen = []

    def work():
        with stop_requests(print, print) as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "0:05"), (65, "1:05"), (3723, "1:02:03"), (float("nan"), "?")],
)
def test_durations(seconds, text):
    assert report.duration_text(seconds) == text
