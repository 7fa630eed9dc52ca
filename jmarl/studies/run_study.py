"""``jmarl study``: train the cells of a study, measure them, and report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jmarl.config import check
from jmarl.runs.exit_codes import STOP_SIGNALS, ExitCode
from jmarl.runs.progress import duration_text, open_reporter, stopwatch
from jmarl.studies.cells import PlannedCell, errors_name, out_folder, plan, state_of
from jmarl.studies.processes import Execute, execute, memory_on_demand
from jmarl.studies.reports import check_report, report_study
from jmarl.studies.results import is_measured
from jmarl.studies.study_file import Cell, Study, find_cell, read_study


STOPPED = {
    ExitCode.PREEMPTED,
    ExitCode.INTERRUPTED,
    *(128 + number for number in STOP_SIGNALS),
}
"""Exit codes of a cell after which no further cell starts."""


class Job(NamedTuple):
    """A command of a study."""

    cell: Cell
    work: str
    """``train``, ``resume`` or ``measure``."""
    command: list[str]


def run_study(
    name: str, out: str = "", overrides: Sequence[str] = (), run: Execute = execute
) -> int:
    """Train the cells of a study that are not finished, measure them, and report.

    All cells are checked before the first one is trained. Each is trained and measured in a
    process of its own. A cell that fails does not affect the others.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study; by default ``runs/studies/<name>``.
        overrides: Overrides of every cell, as ``key=value``.
        run: Function that runs the command of a job.

    Returns:
        0, or the first exit code of a job that is not 0. Jobs that were stopped by a signal end
        the study.

    Raises:
        ConfigError: If the study, an override or a cell is invalid.
        ResourceError: If a cell needs more memory than the devices have.
    """
    study = read_study(name)
    folder = out_folder(study, out)
    with memory_on_demand():
        planned = check_study(study, folder, overrides)
    code = run_jobs(train_jobs(planned), run)
    if code not in STOPPED:
        measured = run_jobs(measure_jobs(name, study, planned), run)
        code = measured if measured in STOPPED else code or measured
    if code in STOPPED or not any(map(_is_finished, planned)):
        return code
    return report(name, out) or code


def check_study(
    study: Study, folder: Path, overrides: Sequence[str]
) -> list[PlannedCell]:
    """Check a study with all of its cells, and return these. Nothing is compiled.

    Raises:
        ConfigError: If the study, an override or a cell is invalid, or a cell is being trained.
        ResourceError: If a cell needs more memory than the devices have.
    """
    from jmarl.runs.run import check_runs
    from jmarl.studies.measures import check_measure

    check_report(study)
    check_measure(study)
    open_reporter().info(f"checking {len(study.cells())} cells")
    planned = plan(study, folder, overrides)
    for each in planned:
        rule = "another process trains it; wait for its end, or choose another out="
        check(state_of(each.folder) != "running", "cell", each.cell.name, rule)
    for each in planned:
        if not _is_finished(each):
            with errors_name(study, each.cell):
                check_runs([each.config])
    return planned


def _is_finished(planned: PlannedCell) -> bool:
    return state_of(planned.folder) == "finished"


def train_jobs(planned: Iterable[PlannedCell]) -> list[Job]:
    """Return the jobs that train the cells without a finished run."""
    return [_train_job(each) for each in planned if not _is_finished(each)]


def _train_job(planned: PlannedCell) -> Job:
    cell = planned.cell
    command = [sys.executable, "-m", f"jmarl.systems.{cell.system}"]
    if state_of(planned.folder) != "missing":
        return Job(cell, "resume", [*command, f"resume={planned.folder}"])
    words = *cell.overrides, *planned.overrides, f"run_dir={planned.folder}"
    return Job(cell, "train", [*command, *words])


def measure_jobs(
    name: str,
    study: Study,
    planned: Iterable[PlannedCell],
) -> list[Job]:
    """Return the jobs that measure the finished cells without results of the measure."""
    command = [sys.executable, "-m", "jmarl", "study", "measure", name]
    return [
        Job(
            each.cell,
            "measure",
            [*command, f"out={each.folder.parent}", f"cell={each.cell.name}"],
        )
        for each in planned
        if _is_finished(each) and not is_measured(each.folder, study.measure)
    ]


def run_jobs(jobs: Sequence[Job], run: Execute) -> int:
    """Run jobs in sequence, with their number and the remaining time.

    Args:
        jobs: The jobs.
        run: Function that runs the command of a job.

    Returns:
        The first exit code that is not 0, or that of a job that was stopped by a signal, which
        is the last one to run.
    """
    report, failed = open_reporter(), []
    with stopwatch() as elapsed:
        for done, job in enumerate(jobs):
            left = elapsed() / done * (len(jobs) - done) if done else float("nan")
            place = f"[{done + 1}/{len(jobs)}] {job.work} {job.cell.name}"
            report.info(f"{place}, ETA {duration_text(left)}")
            code = run(job.command)
            if code in STOPPED:
                report.warn(f"{job.cell.name}: stopped; the same command continues")
                return code
            if code:
                failed.append(code)
                report.warn(f"{job.cell.name}: exit code {code} of {job.work}")
    return failed[0] if failed else ExitCode.FINISHED


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
