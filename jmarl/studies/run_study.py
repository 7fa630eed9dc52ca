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
from jmarl.studies.cell_runs import record_file, state_of
from jmarl.studies.cells import (
    RECORDS,
    PlannedCell,
    compose_cells,
    errors_name,
    out_folder,
    plan,
    read_overrides,
    records_folder,
    run_paths,
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
    records: str = RECORDS,
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
        records: Folder of the records of all studies. A cell with a record there that is complete
            and not stale counts as finished. ``none`` for no records.

    Returns:
        0, or the first exit code of a job that is not 0. Jobs that were stopped by a signal end
        the study.

    Raises:
        ConfigError: If the study, an override or a cell is invalid.
        ResourceError: If a cell needs more memory than the devices have.
    """
    study, limits = read_study(name), limits or Limits()
    folder, recorded = out_folder(study, out), records_folder(study, records)
    with memory_on_demand():
        planned = check_study(study, folder, overrides, recorded)
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
    if code in STOPPED or not any(each.is_finished for each in usable):
        return code
    damaged = ExitCode.FINISHED if usable == planned else ExitCode.USER_ERROR
    return report(name, out, records) or code or damaged


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
    study: Study,
    folder: Path,
    overrides: Sequence[str],
    records: Path | None = None,
) -> list[PlannedCell]:
    """Check a study with all of its cells, and return these. Nothing is compiled.

    Args:
        study: The study.
        folder: Folder of the study.
        overrides: Overrides of every cell, as ``key=value``.
        records: Folder of the study's records; None for none.

    Raises:
        ConfigError: If the study, an override or a cell is invalid.
        ResourceError: If a cell needs more memory than the devices have.
    """
    from jmarl.runs.run import check_runs
    from jmarl.studies.measures import check_measure

    check_report(study)
    check_measure(study)
    open_reporter().info(f"checking {len(study.cells())} cells")
    planned = plan(study, folder, overrides, records)
    _announce_records(planned)
    for each in planned:
        if each.damage:
            text = f"{each.cell.name}: left out, because its run cannot be read"
            open_reporter().warn(f"{text}: {each.damage}")
        elif not each.is_finished:
            with errors_name(study, each.cell):
                check_runs([each.config])
    return planned


def _announce_records(planned: Sequence[PlannedCell]) -> None:
    counted = sum(each.record is not None for each in planned)
    if counted:
        open_reporter().info(f"{counted} cells are finished by their records")
    rejected = [each for each in planned if each.rejection]
    if rejected:
        text = f"{len(rejected)} records do not count (see jmarl study status)"
        open_reporter().warn(f"{text}; {rejected[0].name}: {rejected[0].rejection}")


def _train_job(planned: PlannedCell) -> Job | None:
    """Return the job that trains a cell; None if its run is finished."""
    if planned.is_finished:
        return None
    cell, state = planned.cell, state_of(planned.folder)
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
    is_trained = state_of(folder) == "finished"
    if not is_trained or is_measured(folder, study.measure):
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


def report(name: str, out: str = "", records: str = RECORDS) -> int:
    """Print the report of a study, and write ``report.json`` and ``report.png``.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.
        records: Folder of the records of all studies, or ``none``.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError: If the study has no finished cell.
    """
    study = read_study(name)
    folder = out_folder(study, out)
    print(report_study(study, folder, records_folder(study, records)))
    print(f"\nwrote {folder / 'report.json'} and .png", flush=True)
    return ExitCode.FINISHED


def record(
    name: str,
    out: str = "",
    to: str = RECORDS,
) -> int:
    """Write the records of finished runs to ``<to>/<study>``, with the report made from them.

    The record of a run holds its configuration, all evaluations, versions and costs, without
    checkpoints. It can be published, ``report`` and ``jmarl compare`` read it, and ``run`` counts
    its cell as finished. Records of cells without a finished run stay if they count, and are
    removed otherwise.

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
    holds_records = any(record_file(source, cell).exists() for cell in study.cells())
    rule = "holds records already; name the run folders"
    check(not holds_records, "out", str(source), rule)
    planned = compose_cells(study, source, read_overrides(source), target)
    results = read_results(study, run_paths(planned))
    trained = [each for each in results.finished if each.run.path.is_dir()]
    rule = "no finished run there; use jmarl study run"
    check(len(trained) > 0, "out", str(source), rule)
    for cell in results.unreadable:
        open_reporter().warn(f"{cell.name}: left out, because its run cannot be read")
    try:
        write_overrides(target, read_overrides(source))
        for each in write_records(trained, target):
            text = f"{each}: its record is larger than {LARGEST_KB} kB"
            open_reporter().warn(f"{text}; evaluate less often")
        _remove_rejected(planned, target)
        print(report_study(study, target))
    except OSError as error:
        raise ConfigError(f"to={to}: cannot be written ({error.strerror})") from None
    print(f"\nwrote {len(trained)} records to {target}", flush=True)
    return ExitCode.FINISHED


def _remove_rejected(planned: Sequence[PlannedCell], folder: Path) -> None:
    """Remove the records that do not count, because a report reads all in a folder."""
    for each in planned:
        if each.rejection:
            record_file(folder, each.cell).unlink()
            open_reporter().warn(f"{each.name}: record removed; {each.rejection}")
