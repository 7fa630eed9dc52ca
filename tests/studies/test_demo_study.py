"""The demo study from the command line: two processes share it, and kills change no result."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jmarl.results.files import read_json
from jmarl.results.metrics_file import read_rows


CLOCK = ("time", "steps_per_second", "agent_steps_per_second")
"""Metrics of the machine, not of learning."""


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "jmarl", "study", "run", "demo", f"out={out}"]
    return subprocess.Popen([*command, "logger=none"], start_new_session=True)


def kill(study: subprocess.Popen) -> None:
    """Kill the process of a study and those of its runs."""
    numbers = [
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()
    ]
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(number) == study.pid:
                os.kill(number, signal.SIGKILL)
    study.wait()


def raw_results(out: Path) -> dict[str, list[dict]]:
    """Return the rows of both runs, without the metrics of the machine."""
    rows = {
        name: read_rows(out / name / "metrics.jsonl") for name in ("ippo", "pqn_vdn")
    }
    return {
        name: [{k: v for k, v in row.items() if k not in CLOCK} for row in run]
        for name, run in rows.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the study with two processes at once."""
    out = tmp_path_factory.mktemp("demo")
    studies = [start(out) for _ in range(2)]
    assert [study.wait() for study in studies] == [0, 0]
    return out


def test_two_processes_share_the_demo_study(finished):
    for name in ("ippo", "pqn_vdn"):
        assert read_json(finished / name / "versions.json")["resumed"] == []
        kinds = [row["kind"] for row in read_rows(finished / name / "metrics.jsonl")]
        assert kinds.count("absolute") == 1
    record = read_json(finished / "report.json")
    assert record["missing"] == record["stale"] == record["unreadable"] == []
    returns = [cell["metrics"]["return"]["mean"] for cell in record["cells"]]
    assert min(returns) > 0.8
    (claim,) = record["claims"]
    assert claim["seeds"] == [2] and claim["verdict"] in ("supported", "undecided")


@pytest.mark.slow
def test_a_study_killed_three_times_gives_the_same_results(finished, tmp_path):
    draw = random.Random(0)
    for _ in range(3):
        study = start(tmp_path)
        time.sleep(draw.uniform(10, 40))
        kill(study)
    assert start(tmp_path).wait() == 0
    assert raw_results(tmp_path) == raw_results(finished)
