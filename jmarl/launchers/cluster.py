"""Choice of the launcher: ``launcher=<name>``, and the files of ``configs/launcher``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jmarl.config import check, check_range, suggest
from jmarl.config.choices import read_named
from jmarl.config.parsing import build, read_value, split_argument
from jmarl.launchers.processes import Launcher, Processes


KEY, LOCAL = "launcher", "local"
"""Key of the launcher, and its value for processes on this machine."""
MAX_GRACE_S = 65535
"""Largest time of sbatch's option ``--signal``."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Configuration of jobs in Slurm's queue."""

    gpus: int
    """GPUs of a job; 0: train on its CPU cores."""
    cpus: int
    """CPU cores of a job."""
    memory_gb: float
    """Memory of a job in GB."""
    minutes: int
    """Time limit, at which a run saves, is queued again, and resumes."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    grace_s: int = 120
    """Seconds before the time limit at which a run starts to save."""
    max_timeouts: int = 100
    """Times that a job may reach its time limit."""
    jobs: int = 100
    """Jobs of a sweep or a study in the queue at a time."""
    setup: tuple[str, ...] = ()
    """Lines of the shell before the job."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further options of ``sbatch``."""
    name: str = ""

    def __post_init__(self) -> None:
        least = {"gpus": 0, "cpus": 1, "minutes": 1, "max_timeouts": 0, "jobs": 1}
        for key, low in least.items():
            check_range(f"{KEY}.{key}", getattr(self, key), low)
        check(self.memory_gb > 0, f"{KEY}.memory_gb", self.memory_gb, "must be above 0")
        rule = f"must be from 1 to {MAX_GRACE_S}, and less than the time limit"
        fits = 1 <= self.grace_s <= min(MAX_GRACE_S, 60 * self.minutes - 1)
        check(fits, f"{KEY}.grace_s", self.grace_s, rule)

    @property
    def platform(self) -> str:
        """Platform of a job: ``gpu`` or ``cpu``."""
        return "gpu" if self.gpus else "cpu"


def take_cluster(words: Sequence[str]) -> tuple[Cluster | None, list[str]]:
    """Return the cluster that arguments choose, None for this machine, and all other arguments.

    Raises:
        ConfigError: If the cluster or one of its keys is invalid.
    """
    name, changes, others = LOCAL, {}, []
    for word in words:
        if not word.lstrip("+").startswith((f"{KEY}=", f"{KEY}.")):
            others.append(word)
            continue
        key, text = split_argument(word)
        if key == KEY:
            name = text
        else:
            changes[key.removeprefix(f"{KEY}.")] = read_value(key, text)
    if name != LOCAL:
        return _read_cluster(name, changes), others
    for key, value in changes.items():
        check(False, f"{KEY}.{key}", value, f"has no effect without {KEY}=slurm")
    return None, others


def _read_cluster(name: str, changes: dict[str, Any]) -> Cluster:
    chosen = read_named(Cluster, KEY, name)
    known = [
        field.name for field in dataclasses.fields(Cluster) if field.name != "name"
    ]
    for key, value in changes.items():
        fix = suggest(key, known, f"known keys: {', '.join(known)}")
        check(key in known, f"{KEY}.{key}", value, f"unknown key; {fix}")
    return build(Cluster, {**vars(chosen), **changes}, KEY)


@contextmanager
def composed_for(cluster: Cluster | None) -> Iterator[None]:
    """Compose and check runs for the platform of a cluster's jobs; None for this machine.

    A login node often has no GPU. Sizes that are null depend on the platform.
    """
    if cluster is None:
        yield
        return
    from jmarl.platforms import tracing_for

    with tracing_for(cluster.platform):
        yield


def open_launcher(cluster: Cluster | None) -> Launcher:
    """Return the launcher of a cluster's jobs; that of processes on this machine for None.

    Raises:
        ConfigError: If no jobs can be sent from this machine.
    """
    if cluster is None:
        return Processes()
    from jmarl.launchers.slurm_jobs import SlurmJobs

    return SlurmJobs(cluster)
