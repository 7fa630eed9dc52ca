"""Launcher that sends jobs to Slurm, with submitit."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmarl.config import ConfigError
from jmarl.launchers.processes import never
from jmarl.launchers.slurm_task import SlurmTask, argument
from jmarl.results.files import replace_file
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.progress import open_reporter


if TYPE_CHECKING:
    from jmarl.launchers.cluster import Cluster

FOLDER = "slurm"
"""Folder in a run folder with the logs and the other files of its jobs."""
JOB_ID = "job"
"""File of that folder with the number of the last job."""
POLL_S = 1.0
"""Seconds between two looks for the result of a job."""


class SlurmJobs:
    """Jobs in Slurm's queue.

    A job that reaches its time limit, or is preempted, is queued again under the same number, and
    resumes its run. Jobs stay in the queue if this process ends. A later call with the same run
    folder then waits for the job in the queue, and submits no second one.

    Args:
        cluster: Resources of each job.

    Raises:
        ConfigError: If no jobs can be sent from this machine.
    """

    def __init__(self, cluster: Cluster) -> None:
        _check_here()
        self._cluster = cluster
        self._waiting: dict[str, Any] = {}
        self._stopped = self._interrupted = False
        self._mutex = threading.Lock()

    def run(
        self,
        command: Sequence[str],
        keep: Sequence[int] = (),
        stop_when: Callable[[], bool] = never,
    ) -> int:
        """Run a command in a job of its own.

        Args:
            command: Words of the command. They name a run folder.
            keep: Unused, because a node inherits no file descriptors.
            stop_when: Function that is called every second. Once it returns True, the job is
                canceled, and its run saves.

        Returns:
            The exit code; that of a stopped run if the job was canceled, or if this process was
            interrupted.
        """
        from submitit.core.utils import FailedJobError

        with self._mutex:  # submitit's watcher and sbatch serve one thread at a time
            if self._stopped or self._interrupted:
                return ExitCode.PREEMPTED
            try:
                job = self._find_or_submit(_job_folder(command), command)
            except FailedJobError as error:
                _warn(f"{shlex.join(command[2:])}: sbatch failed: {error}")
                return ExitCode.USER_ERROR
            self._waiting[job.job_id] = job
        if not self._wait(job, stop_when):
            return ExitCode.PREEMPTED
        with self._mutex:
            del self._waiting[job.job_id]
        return _exit_code(job)

    def stop(self) -> None:
        """Cancel all jobs; their runs save."""
        self._stopped = True

    def interrupt(self, number: int) -> None:
        """Leave all jobs in the queue, and wait for them no longer."""
        if not self._interrupted and self._waiting:
            jobs = " ".join(list(self._waiting))
            _warn(f"the jobs stay in Slurm's queue; cancel them with: scancel {jobs}")
        self._interrupted = True

    def _find_or_submit(self, folder: Path, command: Sequence[str]) -> Any:
        from submitit import SlurmJob

        path = folder / JOB_ID
        if path.exists():
            job = SlurmJob(folder, path.read_text().strip())
            if not job.done(force_check=True):
                open_reporter().info(f"Slurm job {job.job_id} is still in the queue")
                return job
        job = self._executor(folder).submit(SlurmTask(command))
        replace_file(path, f"{job.job_id}\n")
        open_reporter().info(f"Slurm job {job.job_id}, log: {job.paths.stdout}")
        return job

    def _executor(self, folder: Path) -> Any:
        """Return submitit's executor with the options of ``sbatch``."""
        from submitit import AutoExecutor

        cluster = self._cluster
        executor = AutoExecutor(
            folder, cluster="slurm", slurm_max_num_timeout=cluster.max_timeouts
        )
        executor.update_parameters(
            name=folder.parent.name,
            timeout_min=cluster.minutes,
            cpus_per_task=cluster.cpus,
            mem_gb=cluster.memory_gb,
            gpus_per_node=cluster.gpus or None,
            nodes=1,
            tasks_per_node=1,
            stderr_to_stdout=True,
            slurm_partition=cluster.partition,
            slurm_account=cluster.account,
            slurm_qos=cluster.qos,
            slurm_signal_delay_s=cluster.grace_s,
            slurm_setup=list(cluster.setup),
            slurm_additional_parameters={"requeue": True, **cluster.options},
        )
        return executor

    def _wait(self, job: Any, stop_when: Callable[[], bool]) -> bool:
        """Wait for a job. Return False if this process is interrupted before its end."""
        canceled = False
        while not self._is_done(job):
            if self._interrupted:
                return False
            if not canceled and (self._stopped or stop_when()):
                canceled = True
                job.cancel(check=False)
                job.watcher.register_job(job.job_id)  # asks for its state soon
            time.sleep(POLL_S)
        return True

    def _is_done(self, job: Any) -> bool:
        with self._mutex:
            return job.done()


def _check_here() -> None:
    """Check that jobs can be sent from this machine."""
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError("launcher=slurm: needs submitit; pip install 'jmarl[slurm]'")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        rule = "sbatch and srun are not on this machine"
        raise ConfigError(f"launcher=slurm: {rule}; start it on a login node of Slurm")


def _job_folder(command: Sequence[str]) -> Path:
    """Return the folder for the files of a command's jobs, in the run folder that it names."""
    run = argument(command, "run_dir") or argument(command, "resume")
    folder = run or Path(argument(command, "out"), argument(command, "cell"))
    return Path(folder).expanduser() / FOLDER


def _exit_code(job: Any) -> int:
    """Return the exit code of a command whose job has ended, and print its log if it failed."""
    from submitit.core.utils import UncompletedJobError

    state = job.watcher.get_state(job.job_id, mode="cache")
    has_result = job.paths.result_pickle.exists()
    if state.startswith("CANCELLED") and not has_result:
        return ExitCode.PREEMPTED
    try:
        code = job.result()
        outcome = f"exit code {code}"
    except UncompletedJobError:
        code, outcome = ExitCode.CRASHED, state
    if code not in (ExitCode.FINISHED, ExitCode.PREEMPTED):
        log = job.paths.stdout
        _warn(f"Slurm job {job.job_id}: {outcome}: {_last_line(log)}; log: {log}")
    return code


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not one of submitit's."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith("submitit ")]
    return own[-1] if own else "no output"


def _warn(text: str) -> None:
    open_reporter().warn(text)
