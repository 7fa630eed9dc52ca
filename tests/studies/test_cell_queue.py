"""The queue of a study: each cell is worked on once, whoever starts, fails or is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest

from jmarl.config import ConfigError, build
from jmarl.launchers.processes import Processes
from jmarl.runs.exit_codes import ExitCode
from jmarl.studies.cell_queue import LOCKS, Job, Queue
from jmarl.studies.cells import PlannedCell
from jmarl.studies.run_study import Limits, time_limit
from jmarl.studies.study_file import Cell


NAMES = ("a", "b", "c", "d", "e")
CONFIG: Any = None


def planned(folder, names=NAMES):
    return [
        PlannedCell(Cell(name, {}, "", ()), folder / name, CONFIG, ()) for name in names
    ]


def job_of(each):
    """Return a job that names the cell, unless its result exists."""
    return None if each.folder.exists() else Job("train", [each.cell.name])


class Recorder:
    """Write the result of each job after a while; some jobs fail instead."""

    def __init__(self, folder, **codes):
        self.folder, self.codes = folder, codes
        self.done = []

    def __call__(self, command, keep=(), stop_when=None):
        (name,) = command
        assert len(keep) == 1
        self.done.append(name)
        time.sleep(0.02)
        if name not in self.codes:
            (self.folder / name).touch()
        return self.codes.get(name, 0)


def test_two_processes_share_the_cells(tmp_path):
    run = Recorder(tmp_path)
    queues = [Queue(tmp_path, planned(tmp_path), job_of, run) for _ in range(2)]
    codes = []
    threads = [
        threading.Thread(target=lambda q=queue: codes.append(q.work_off(jobs=2)))
        for queue in queues
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.done) == list(NAMES)
    assert codes == [0, 0]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_cell_that_fails_does_not_stop_the_others(tmp_path, jobs):
    run = Recorder(tmp_path, b=1, d=ExitCode.RESOURCE)
    code = Queue(tmp_path, planned(tmp_path), job_of, run).work_off(jobs)
    assert code in (1, ExitCode.RESOURCE)
    assert sorted(run.done) == list(NAMES)


def test_a_cell_that_cannot_be_locked_costs_that_cell_alone(tmp_path):
    (tmp_path / LOCKS / "c").mkdir(parents=True)
    run = Recorder(tmp_path)
    queue = Queue(tmp_path, planned(tmp_path), job_of, run)
    assert queue.work_off() == ExitCode.RESOURCE
    assert run.done == ["a", "b", "d", "e"]


def test_a_stopped_job_is_the_last(tmp_path):
    run = Recorder(tmp_path, b=128 + signal.SIGTERM)
    code = Queue(tmp_path, planned(tmp_path), job_of, run).work_off()
    assert code == 128 + signal.SIGTERM
    assert run.done == ["a", "b"]


def test_the_run_of_a_killed_study_keeps_its_cell(tmp_path):
    script = textwrap.dedent(f"""\
        import pathlib, sys
        from tests.studies.test_cell_queue import planned
        from jmarl.studies.cell_queue import Job, Queue
        from jmarl.launchers.processes import Processes
        folder = pathlib.Path({str(tmp_path)!r})
        work = "import pathlib, time; "
        work += f"pathlib.Path({str(tmp_path / "begun")!r}).touch(); time.sleep(2); "
        work += f"pathlib.Path({str(tmp_path / "a")!r}).touch()"
        job = Job("train", [sys.executable, "-c", work])
        Queue(folder, planned(folder, "a"), lambda _: job, Processes().run).work_off()
    """)
    study = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "begun").exists():
        assert study.poll() is None
        time.sleep(0.05)
    study.kill()
    study.wait()
    run = Recorder(tmp_path)
    assert not (tmp_path / "a").exists()
    assert Queue(tmp_path, planned(tmp_path, "ab"), job_of, run).work_off() == 0
    assert run.done == ["b"]
    assert (tmp_path / "a").exists()


def test_the_time_limit_stops_the_jobs():
    processes = Processes()
    with time_limit(Limits(max_hours=0.5 / 3600), processes):
        sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
        assert processes.run(sleeps) == 128 + signal.SIGTERM


@pytest.mark.parametrize("limits", [{"jobs": 0}, {"jobs": 1.5}, {"max_hours": 0}])
def test_limits_are_positive(limits):
    with pytest.raises(ConfigError, match=next(iter(limits))):
        build(Limits, limits)
