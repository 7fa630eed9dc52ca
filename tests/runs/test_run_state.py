"""The host's bookkeeping: when what is due, what a folder allows, how signals and figures behave."""

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
from jmarl.training import programs


def schedule(config, at=None):
    """Updates at which evaluations and checkpoints happen, by the loop's own rules."""
    at = at or loop.initial_progress(config)
    evaluated, saved = [], []
    while True:
        if loop.evaluation_is_due(config, at):
            evaluated.append(at.update)
            at = at._replace(evaluations=at.evaluations + 1, last_evaluation=at.update)
            if loop.checkpoint_is_due(config, at):
                saved.append(at.update)
        elif at.update >= config.num_updates:
            return evaluated, saved
        else:
            at = at._replace(update=at.update + config.updates_per_chunk)


def test_evaluations_come_at_the_start_at_every_interval_and_at_the_end():
    assert schedule(toy.config()) == ([0, 2, 4, 6, 8], [2, 4, 6, 8])


def test_checkpoints_come_every_so_many_evaluations_and_at_the_end():
    config = toy.config(
        checkpoint=dataclasses.replace(toy.config().checkpoint, every=3)
    )
    assert schedule(config)[1] == [6, 8]


def test_a_run_extended_to_another_rhythm_is_evaluated_at_every_new_interval_and_at_the_end():
    config = toy.config(
        total_timesteps=11 * 64,
        eval=dataclasses.replace(toy.config().eval, every=3 * 64),
    )
    at = loop.Progress(
        update=7, evaluations=4, last_evaluation=6, env_steps=[0], seconds=0.0
    )
    evaluated, saved = schedule(config, at)
    assert evaluated == [9, 12] and saved == [9, 12] and config.num_updates == 12


def test_rows_after_the_checkpoint_are_written_again():
    at = loop.Progress(
        update=6, evaluations=3, last_evaluation=4, env_steps=[0], seconds=0.0
    )
    rows = [{"kind": k, "update": u} for u in (4, 6, 8) for k in ("train", "eval")] + [
        {"kind": "absolute", "update": 4}
    ]
    kept = [(r["kind"], r["update"]) for r in rows if loop.belongs_before(r, at)]
    assert kept == [("train", 4), ("eval", 4), ("train", 6)]


def test_env_steps_survive_the_wrap_of_the_counter_on_the_device():
    before = [2**32 - 10, 2**33 + 5]
    after = np.array([6, 25], np.uint32)
    assert loop.count_steps(before, after) == [2**32 + 6, 2**33 + 25]


def test_a_folder_has_one_writer(tmp_path):
    lock = str(tmp_path / ".lock")
    code = f"import fcntl; f = open({lock!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"1\n"
    with (
        pytest.raises(ConfigError, match="another process is writing this run"),
        run_folder.locked(tmp_path),
    ):
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


def test_runs_begun_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {run_folder.open_folder(toy.config()) for _ in range(3)}
    assert len(folders) == 3
    assert all(
        f.parent.parts == ("runs", "toy", "probe_bandit") and f.is_dir()
        for f in folders
    )


def test_the_configuration_comes_back_from_its_folder(tmp_path):
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
def test_resuming_may_extend_a_run_and_repeat_what_it_was(tmp_path, override):
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
        "seed=1",
        "system.lr=0.2",
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
def test_resuming_as_another_run_is_refused_by_name(tmp_path, override):
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
def test_a_damaged_configuration_is_one_line(tmp_path, text, words):
    toy.install()
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        run_folder.resume_config(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_configuration_is_replaced_whole(tmp_path, monkeypatch):
    run_folder.write_config(tmp_path, toy.config())
    before = (tmp_path / "config.yaml").read_text()

    def die(*_):
        raise OSError("killed")

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(OSError, match="killed"):
        run_folder.write_config(tmp_path, toy.config(seed=5))
    assert (tmp_path / "config.yaml").read_text() == before


def test_what_decides_a_run_and_changed_is_named():
    now = run_folder.versions()
    assert run_folder.version_changes(now) == []
    assert run_folder.version_changes(
        {**now, "optax": "0.1", "backend": "abacus", "wandb": "0"}
    ) == [
        f"optax 0.1 when it was saved, {now['optax']} now",
        f"backend abacus when it was saved, {now['backend']} now",
    ]


def test_only_parameters_must_be_finite():
    """The optimizer skips a gradient that is not finite, and the loss of that chunk stays NaN."""
    metrics = {"train": {"loss": np.array([np.nan])}}
    loop._check_finite(
        toy.config(),
        programs.ChunkReport(metrics, np.zeros(1), {"w": np.array([True])}),
        1,
        2,
    )
    with pytest.raises(loop.NonFiniteError, match="w of seed 0"):
        loop._check_finite(
            toy.config(),
            programs.ChunkReport(metrics, np.zeros(1), {"w": np.array([False])}),
            1,
            2,
        )


def test_one_number_of_env_steps_is_the_mean_of_the_seeds():
    row = {"env_steps": [10, 20], "steps_per_second": 1.0, "episodes": [0, 0]}
    assert "| 15 env steps |" in report.progress_line(row, 0.5, 1.0)
    assert "at 15 env steps" in report.evaluation_line(row)


def test_a_reader_never_sees_half_a_status(tmp_path):
    stop = threading.Event()

    def write():
        while not stop.is_set():
            run_folder.write_status(tmp_path, "running", filler="x" * 10000)

    run_folder.write_status(tmp_path, "running")
    writer = threading.Thread(target=write)
    writer.start()
    states = {
        json.loads((tmp_path / "status.json").read_text())["state"] for _ in range(200)
    }
    stop.set()
    writer.join()
    assert states == {"running"}


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_a_request_and_the_handlers_found_are_put_back(number):
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert stop() == ""
        os.kill(os.getpid(), number)
        assert stop() == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_process_at_once():
    code = "import os,signal;from jmarl.runs.exit_codes import stop_requests\nwith stop_requests():\n"
    code += " [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]; os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM


def test_without_the_main_thread_there_are_no_signals_and_no_error():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [""]


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for draw, truth in (
        (lambda: rng.random(100) < 0.9, 0.9),
        (lambda: rng.normal(2.0, 3.0, 100), 2.0),
    ):
        covered = [
            low <= truth <= high
            for _, low, high in (
                report.confidence_interval(draw() * 1.0) for _ in range(400)
            )
        ]
        assert 0.91 < np.mean(covered) < 0.98


def test_an_interval_of_episodes_all_won_is_not_a_point():
    mean, low, high = report.confidence_interval(np.ones(64))
    assert mean == 1.0 == high and 0.9 < low < 0.97


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "0:05"), (65, "1:05"), (3723, "1:02:03"), (float("nan"), "?")],
)
def test_durations(seconds, text):
    assert report.duration_text(seconds) == text
