"""``jmarl study status``: the state of each cell of a study. This module does not import JAX."""

from __future__ import annotations

import datetime
from pathlib import Path

from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.comparison.run_files import read_run_record
from jmarl.saved.list_runs import RunLine, describe, format_lines, score_text
from jmarl.studies.cell_runs import stale_reason, state_of
from jmarl.studies.cells import (
    RECORDS,
    PlannedCell,
    compose_cells,
    out_folder,
    read_overrides,
    records_folder,
)
from jmarl.studies.study_file import read_study


def status(name: str, out: str = "", records: str = RECORDS) -> int:
    """Print the state, the progress and the last evaluation of each cell.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.
        records: Folder of the records of all studies, or ``none``.

    Returns:
        The exit code, 0.
    """
    study = read_study(name)
    folder, recorded = out_folder(study, out), records_folder(study, records)
    overrides = read_overrides(folder, recorded)
    cells = compose_cells(study, folder, overrides, recorded)
    lines = list(map(_line, cells))
    states = [line.state for line in lines]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    print(f"{study.question}\n{format_lines(lines)}\n{', '.join(counts)}")
    return ExitCode.FINISHED


def _line(planned: PlannedCell) -> RunLine:
    line = _describe(planned)
    if planned.rejection:
        advice = f"its record does not count: {planned.rejection}"
        return line._replace(advice="\n".join(filter(None, (line.advice, advice))))
    if line.state == "missing":
        return line
    reason = stale_reason(planned.config, planned.path)
    return line._replace(state="stale", advice=reason) if reason else line


def _describe(planned: PlannedCell) -> RunLine:
    if planned.record:
        return _describe_record(planned.record)
    if state_of(planned.folder) == "missing":
        now = datetime.datetime.now().astimezone()
        return RunLine(planned.folder, now, "missing", "", "")
    return describe(planned.folder)


def _describe_record(path: Path) -> RunLine:
    run = read_run_record(path)
    changed = datetime.datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    found = [row for row in run.rows if row["kind"] == "eval"] if run else [{}]
    return RunLine(path, changed, "recorded", "", score_text(found[-1]))
