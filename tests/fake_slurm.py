"""A cluster of one machine: the commands of Slurm that submitit calls.

The commands are links to this file. A folder holds the state of each job. A job runs at once, in a
process group of its own, and gets the environment variables of a job with one task.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path


COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")
STATE = "FAKE_SLURM"
"""Environment variable with the folder of the states."""
KILL_WAIT_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""


_numbers = itertools.count(100, 100)


class Slurm:
    """A cluster, which numbers its jobs from ``first``. submitit remembers jobs by number.

    Args:
        folder: New folder for the commands and the states of jobs.
        monkeypatch: Fixture that puts the commands into the path of this process.
    """

    def __init__(self, folder, monkeypatch):
        self.first, self.states = next(_numbers), folder / "states"
        commands = folder / "bin"
        commands.mkdir(parents=True)
        self.states.mkdir()
        (self.states / "next").write_text(str(self.first))
        for name in COMMANDS:
            script = f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n'
            (commands / name).write_text(script)
            (commands / name).chmod(0o755)
        path = f"{commands}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        monkeypatch.setenv(STATE, str(self.states))

    def read(self, name):
        """Return the ``script``, the ``state`` or the number of ``starts`` of the first job."""
        return _path(self.first, name).read_text()

    def send(self, number):
        """Send a signal to the task of the first job, but not to the task's children."""
        os.kill(int(self.read("task")), number)


def _path(job, name):
    return Path(os.environ[STATE]) / f"{job}.{name}"


def _write(job, **values):
    for name, value in values.items():
        scratch = _path(job, f"{name}.new")
        scratch.write_text(str(value))
        scratch.replace(_path(job, name))


def sbatch(script):
    if "--partition=nosuch" in Path(script).read_text():
        print("sbatch: error: invalid partition specified: nosuch", file=sys.stderr)
        return 1
    counter = Path(os.environ[STATE], "next")
    job = counter.read_text()
    counter.write_text(str(int(job) + 1))
    _write(job, script=Path(script).read_text(), state="PENDING", starts=0)
    _start(job)
    print(f"Submitted batch job {job}")
    return 0


def _start(job):
    """Run the script of a job in the background, as often as it is queued again."""
    words = [sys.executable, __file__, "_batch", job]
    null = subprocess.DEVNULL
    subprocess.Popen(words, stdin=null, stdout=null, stderr=null, process_group=0)


def _batch(job):
    environment = {**os.environ, "SLURM_JOB_ID": job, "SLURM_NTASKS": "1"}
    while True:
        starts = int(_path(job, "starts").read_text()) + 1
        _write(job, state="RUNNING", starts=starts)
        words = ["bash", str(_path(job, "script"))]
        code = subprocess.run(words, env=environment, check=False).returncode
        state = _path(job, "state").read_text()
        if state == "REQUEUED":
            continue
        if state == "RUNNING":
            _write(job, state="FAILED" if code else "COMPLETED")
        return 0


def srun(*words):
    log = words[words.index("--output") + 1]
    job = os.environ["SLURM_JOB_ID"]
    command = words[words.index("--output") + 2 :]
    _write(job, task=os.getpid())
    with open(log.replace("%j", job).replace("%t", "0"), "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.execvp(command[0], command)


def sacct(*words):
    print("JobID|State|NodeList")
    for job in [words[i + 1] for i, word in enumerate(words) if word == "-j"]:
        if _path(job, "state").exists():
            print(f"{job}|{_path(job, 'state').read_text()}|here")
    return 0


def scancel(job):
    _write(job, state="CANCELLED by 1000")
    task = _path(job, "task").read_text()
    os.kill(int(task), signal.SIGTERM)
    kill = f"sleep {KILL_WAIT_S}; kill -9 {task}"
    null = subprocess.DEVNULL
    subprocess.Popen(["sh", "-c", kill], stdout=null, stderr=null, process_group=0)
    return 0


def scontrol(action, job):
    assert action == "requeue"
    _write(job, state="REQUEUED")
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
