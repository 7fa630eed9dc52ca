"""``jmarl study``: train the cells of a study, measure them, and report."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jmarl.config import ConfigError, check
from jmarl.launchers.processes import (
    Launcher,
    Processes,
    memory_on_demand,
    received_signals,
)
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.progress import open_reporter
from jmarl.studies.cell_queue import STOPPED, Job, Queue
from jmarl.studies.cells import (
    PlannedCell,
    errors_name,
    out_folder,
    plan,
    read_overrides,
    state_of,
    write_overrides,
)
from jmarl.studies.reports import check_report, report_study
from jmarl.studies.results import (
    LARGEST_KB,
    is_measured,
    read_results,
    write_records,
)
from jmarl.studies.study_file import Study, find_cell, read_study


@dataclass(frozen=True)
class Limits:
    """Limits of one call of ``jmarl study run``.

    Attributes:
        jobs: Cells that are trained at a time.
        max_hours: Hours after which the runs save their states and the study stops.
    """

    jobs: int = 1
    max_hours: float = math.inf

    def __post_init__(self) -> None:
        check(self.jobs >= 1, "jobs", self.jobs, "must be at least 1")
        check(self.max_hours > 0, "max_hours", self.max_hours, "must be above 0")


def run_study(
    name: str,
    out: str = "",
    overrides: Sequence[str] = (),
    limits: Limits | None = None,
    launcher: Launcher | None = None,
) -> int:
    """Train the cells of a study that are not finished, measure them, and report.

    All cells are checked before the first one is trained. Each is trained and measured in a
    process of its own. A cell that fails does not affect the others. Several processes can run the
    same study: they share its cells.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study; by default ``runs/studies/<name>``.
        overrides: Overrides of every cell, as ``key=value``.
        limits: Number of jobs at a time, and hours.
        launcher: Place where jobs run; by default, processes on this machine.

    Returns:
        0, or the first exit code of a job that is not 0. Jobs that were stopped by a signal end
        the study.

    Raises:
        ConfigError: If the study, an override or a cell is invalid.
        ResourceError: If a cell needs more memory than the devices have.
    """
    study, limits = read_study(name), limits or Limits()
    folder = out_folder(study, out)
    with memory_on_demand():
        planned = check_study(study, folder, overrides)
    write_overrides(folder, overrides)
    usable = [each for each in planned if not each.damage]
    launcher = launcher or Processes()
    with time_limit(limits, launcher):
        waiting = [each for each in usable if _train_job(each)]
        code = Queue(folder, waiting, _train_job, launcher.run).work_off(limits.jobs)
        if code not in STOPPED:
            find = partial(_measure_job, name, study)
            waiting = [each for each in usable if find(each)]
            measured = Queue(folder, waiting, find, launcher.run).work_off(limits.jobs)
            code = measured if measured in STOPPED else code or measured
    if code in STOPPED or not any(map(_is_finished, usable)):
        return code
    damaged = ExitCode.FINISHED if usable == planned else ExitCode.USER_ERROR
    return report(name, out) or code or damaged


@contextmanager
def time_limit(limits: Limits, launcher: Launcher) -> Iterator[None]:
    """Stop the jobs of a study when the time is up, and send stop signals to the launcher."""

    def time_is_up() -> None:
        open_reporter().warn(f"max_hours={limits.max_hours:g}: the time is up")
        launcher.stop()

    seconds = min(3600 * limits.max_hours, threading.TIMEOUT_MAX)
    timer = threading.Timer(seconds, time_is_up)
    timer.daemon = True
    timer.start()
    try:
        with received_signals(launcher):
            yield
    finally:
        timer.cancel()


def check_study(
    study: Study, folder: Path, overrides: Sequence[str]
) -> list[PlannedCell]:
    """Check a study with all of its cells, and return these. Nothing is compiled.

    Raises:
        ConfigError: If the study, an override or a cell is invalid.
        ResourceError: If a cell needs more memory than the devices have.
    """
    from jmarl.runs.run import check_runs
    from jmarl.studies.measures import check_measure

    check_report(study)
    check_measure(study)
    open_reporter().info(f"checking {len(study.cells())} cells")
    planned = plan(study, folder, overrides)
    for each in planned:
        if each.damage:
            text = f"{each.cell.name}: left out, because its run cannot be read"
            open_reporter().warn(f"{text}: {each.damage}")
        elif not _is_finished(each):
            with errors_name(study, each.cell):
                check_runs([each.config])
    return planned


def _is_finished(planned: PlannedCell) -> bool:
    return state_of(planned.folder) == "finished"


def _train_job(planned: PlannedCell) -> Job | None:
    """Return the job that trains a cell; None if its run is finished."""
    cell, state = planned.cell, state_of(planned.folder)
    if state == "finished":
        return None
    command = [sys.executable, "-m", f"jmarl.systems.{cell.system}"]
    if state != "missing":
        return Job("resume", [*command, f"resume={planned.folder}"])
    words = *cell.overrides, *planned.overrides, f"run_dir={planned.folder}"
    return Job("train", [*command, *words])


def _measure_job(
    name: str,
    study: Study,
    planned: PlannedCell,
) -> Job | None:
    """Return the job that measures a cell; None if it is measured, or not yet finished."""
    folder = planned.folder
    if not _is_finished(planned) or is_measured(folder, study.measure):
        return None
    command = [sys.executable, "-m", "jmarl", "study", "measure", name]
    words = f"out={folder.parent}", f"cell={planned.cell.name}"
    return Job("measure", [*command, *words])


def measure(
    name: str,
    out: str = "",
    cell: str = "",
) -> int:
    """Measure the finished runs of a study again, or one of them, in this process.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.
        cell: Name of a cell; empty for all.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the study has no measure, or no finished run.
    """
    from jmarl.studies.measures import measure_run

    study = read_study(name)
    rule = "has no measure; its report reads the evaluations of the runs"
    check(study.measure is not None, "study", name, rule)
    folder = out_folder(study, out)
    cells = [find_cell(study, cell)] if cell else study.cells()
    done = [each for each in cells if state_of(folder / each.name) == "finished"]
    rule = "no finished run there; use jmarl study run"
    check(len(done) > 0, "out", str(folder), rule)
    for each in done:
        with errors_name(study, each):
            measure_run(study, folder / each.name)
    return ExitCode.FINISHED


def report(name: str, out: str = "") -> int:
    """Print the report of a study, and write ``report.json`` and ``report.png``.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the study has no finished run.
    """
    study = read_study(name)
    folder = out_folder(study, out)
    print(report_study(study, folder))
    print(f"\nwrote {folder / 'report.json'} and .png", flush=True)
    return ExitCode.FINISHED


def record(
    name: str,
    out: str = "",
    to: str = "results/studies",
) -> int:
    """Write the records of finished runs to ``<to>/<study>``, with the report made from them.

    The record of a run holds its configuration, all evaluations, versions and costs, without
    checkpoints. It can be published, and ``report`` and ``jmarl compare`` read it.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.
        to: Folder of the records of all studies.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the study has no finished run, or the folder cannot be written.
    """
    study = read_study(name)
    source, target = out_folder(study, out), Path(to).expanduser() / study.name
    rule = "is the folder of the runs; choose another one for the records"
    check(target.resolve() != source.resolve(), "to", to, rule)
    results = read_results(study, source)
    rule = "no finished run there; use jmarl study run"
    check(len(results.finished) > 0, "out", str(source), rule)
    from_runs = all(each.run.path.is_dir() for each in results.finished)
    check(from_runs, "out", str(source), "holds records already; name the run folders")
    for cell in results.unreadable:
        open_reporter().warn(f"{cell.name}: left out, because its run cannot be read")
    try:
        write_overrides(target, read_overrides(source))
        for each in write_records(results, target):
            text = f"{each}: its record is larger than {LARGEST_KB} kB"
            open_reporter().warn(f"{text}; evaluate less often")
        print(report_study(study, target))
    except OSError as error:
        raise ConfigError(f"to={to}: cannot be written ({error.strerror})") from None
    print(f"\nwrote {len(results.finished)} records to {target}", flush=True)
    return ExitCode.FINISHED
