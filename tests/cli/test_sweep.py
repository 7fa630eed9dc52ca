"""Sweeps: invalid jobs are found before the first starts, and failures do not cost the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

from jmarl.cli.launch import launch
from jmarl.cli.sweep import TRACEBACK, Job, check_jobs, run_jobs
from jmarl.config import ConfigError, RunConfig
from jmarl.runs import device_memory
from jmarl.runs.exit_codes import ExitCode, ResourceError
from jmarl.runs.folder import write_config
from jmarl.runs.run import run
from jmarl.runs.status import read_status, write_status


toy.install()


def jobs(*changes: dict[str, Any]) -> list[Job]:
    """Return a job for each change of ``toy.config()``."""
    return [Job(toy.config(**c), f"number={i}", "") for i, c in enumerate(changes, 1)]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Outcomes:
    """Substitute for training that returns or raises given outcomes in turn."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.outcomes = list(outcomes)
        self.folders: list[str] = []

    def __call__(self, job: Job) -> int:
        self.folders.append(job.config.run_dir)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        write_status(
            Path(job.config.run_dir), "failed", message=f"ended with {outcome}"
        )
        return outcome


FAILURES = [
    (4, "ended with 4"),
    (3, "ended with 3"),
    (ConfigError("seed=3: a rule"), "seed=3: a rule"),
    (ResourceError("num_envs=8: too much"), "num_envs=8: too much"),
    (ZeroDivisionError("a bug\nin two lines"), "ZeroDivisionError: a bug; traceback: "),
]
CODES = [4, 3, 2, 3, 1]


def test_a_failed_job_does_not_cost_the_rest_and_is_listed_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = [outcome for outcome, _ in FAILURES]
    sweep = jobs(*[{}] * (len(FAILURES) + 2))
    fake = Outcomes(0, *outcomes, 0)
    assert run_jobs(sweep, fake) == CODES[0]
    assert len(fake.folders) == len(sweep)
    summary = capsys.readouterr().err.partition("of 7 jobs failed:\n")[2]
    lines = summary.splitlines()
    assert len(lines) == len(FAILURES)
    expected = zip(lines, FAILURES, CODES, strict=True)
    for number, (line, (_, reason), code) in enumerate(expected, 2):
        start = f"  job {number} (number={number}): exit code {code}: {reason}"
        assert line.startswith(start)


@pytest.mark.parametrize("first", range(len(FAILURES)))
def test_the_exit_code_is_the_first_that_is_not_0(first: int) -> None:
    outcomes = [0, FAILURES[first][0], 4, 0]
    assert run_jobs(jobs({}, {}, {}, {}), Outcomes(*outcomes)) == CODES[first]


def test_a_traceback_is_kept_in_the_run_folder(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crash = ZeroDivisionError("a bug")
    run_jobs(jobs({"run_dir": "a"}, {"run_dir": "b"}), Outcomes(crash, 0))
    text = (in_tmp / "a" / TRACEBACK).read_text()
    assert "Traceback" in text and "ZeroDivisionError: a bug" in text
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.err.count(f"traceback: a/{TRACEBACK}") == 2


def test_a_traceback_that_cannot_be_written_is_printed(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "a" / TRACEBACK).mkdir(parents=True)
    run_jobs(jobs({"run_dir": "a"}, {}), Outcomes(ZeroDivisionError("a bug"), 0))
    assert "Traceback" in capsys.readouterr().err


def test_a_preempted_job_ends_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Outcomes(4, ExitCode.PREEMPTED, 0)
    assert run_jobs(jobs({}, {}, {}), fake) == ExitCode.PREEMPTED
    assert len(fake.folders) == 2
    assert "1 of 3 jobs failed:\n  job 1 " in capsys.readouterr().err


def test_a_sweep_without_failures_prints_none(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_jobs(jobs({}, {}), lambda job: 0) == 0
    assert not capsys.readouterr().err
    assert not list(in_tmp.rglob("*-s0*"))  # folders without files are removed


def test_a_folder_that_is_taken_meanwhile_fails_one_job_only() -> None:
    def train(job: Job) -> int:
        write_config(Path(job.config.run_dir), job.config)
        write_config(Path("b"), job.config)
        return 0

    Path("b").mkdir()
    assert run_jobs(jobs({"run_dir": "a"}, {"run_dir": "b"}, {}), train) == 2


def test_the_reason_of_a_failed_run_is_its_last_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    diverging = {"system": toy.Config(nan_at=2), "run_dir": "a"}
    code = run_jobs(
        jobs(diverging, {}),
        lambda job: run(job.config) if job.config.run_dir == "a" else 0,
    )
    assert code == ExitCode.NON_FINITE
    summary = capsys.readouterr().err.partition("1 of 2 jobs failed:\n")[2]
    reason = read_status(Path("a"))["message"]
    assert summary == f"  job 1 (number=1): exit code 4: {reason}; run folder: a\n"


def never(config: RunConfig) -> int:
    raise AssertionError("a job has started")


def taken(folder: str) -> str:
    Path(folder).mkdir()
    write_config(Path(folder), toy.config())
    return folder


def occupied(name: str) -> str:
    Path(name).touch()
    return f"{name}/run"


INVALID: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "env": (lambda: {"env": {"name": "nosuch"}}, "env=nosuch: unknown environment"),
    "option": (
        lambda: {"env": {"name": "probe_bandit", "foo": 1}},
        "env.foo=1: unknown option",
    ),
    "warm start": (
        lambda: {"init_from": taken("b")},
        "init_from=b: holds no checkpoint yet",
    ),
    "same folder": (lambda: {"run_dir": "./a/../a/"}, "run_dir='./a/../a/': each job"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_job_is_found_before_the_first_starts(
    case: str, in_tmp: Path
) -> None:
    change, message = INVALID[case]
    sweep = jobs({"run_dir": "a"}, change())
    before = sorted(in_tmp.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        check_jobs(sweep)
    assert str(caught.value).startswith(message)
    assert sorted(in_tmp.rglob("*")) == before


FOLDERS: dict[str, tuple[Callable[[], str], str]] = {
    "taken": (lambda: f"run_dir={taken('b')}", "run_dir=b: holds a run"),
    "file": (lambda: f"run_dir={occupied('b')}", "run_dir=b/run: b is not a folder"),
    "long name": (lambda: f"run_dir={'x' * 300}", "run_dir=xxx"),
    "warm start": (lambda: "init_from=nosuch", "init_from=nosuch: no run folder"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_be_used_is_found_before_the_first_job_starts(
    case: str, in_tmp: Path
) -> None:
    override, message = FOLDERS[case]
    arguments = ["env=probe_bandit", "-m", f"{override()},"]
    before = sorted(in_tmp.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        launch("ippo", arguments, never)
    assert str(caught.value).startswith(message)
    assert sorted(in_tmp.rglob("*")) == before


def test_a_job_without_enough_memory_is_found_before_the_first_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_memory, "device_bytes", lambda _: 10**6)
    large = {"num_envs": 2**16, "rollout_length": 8}
    large["eval"] = dataclasses.replace(toy.config().eval, every=2**20)
    check_jobs(jobs({}, {}))
    with pytest.raises(ResourceError, match="num_envs=65536: needs at least"):
        check_jobs(jobs({}, large))


def test_no_job_of_a_sweep_starts_if_one_is_invalid(in_tmp: Path) -> None:
    small = ["env=probe_two_phase", "num_envs=8", "rollout_length=4"]
    with pytest.raises(ConfigError, match=r"^env=smax_3x: unknown environment"):
        launch("ippo", [*small, "-m", "env=probe_two_phase,smax_3x"], never)
    with pytest.raises(ConfigError, match=r"^init_from=b: no run folder"):
        launch("ippo", [*small, "-m", "init_from=,b"], never)
    assert not list(in_tmp.iterdir())


def test_an_empty_sweep_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^-m: there is no job to run"):
        launch("ippo", ["-m", "seed=range(0,0)"], never)
