"""``jmarl study status``: the state of each cell of a study. This module does not import JAX."""

from __future__ import annotations

import datetime
from pathlib import Path

from jmarl.config import ConfigError
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.folder import version_changes
from jmarl.saved.list_runs import RunLine, describe, format_lines
from jmarl.studies.cells import (
    PlannedCell,
    compose_cells,
    difference,
    is_trained,
    out_folder,
    read_overrides,
    state_of,
    trained_versions,
)
from jmarl.studies.study_file import Study, read_study


def status(name: str, out: str = "") -> int:
    """Print the state, the progress and the last evaluation of each cell.

    Args:
        name: Name of a study, or the path of its file.
        out: Folder of the study.

    Returns:
        The exit code, 0.
    """
    study = read_study(name)
    folder = out_folder(study, out)
    cells = compose_cells(study, folder, read_overrides(folder))
    lines = list(map(_line, cells))
    states = [line.state for line in lines]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    print(f"{study.question}\n{format_lines(lines)}\n{', '.join(counts)}")
    return ExitCode.FINISHED


def _line(planned: PlannedCell) -> RunLine:
    if state_of(planned.folder) == "missing":
        now = datetime.datetime.now().astimezone()
        return RunLine(planned.folder, now, "missing", "", "")
    line = describe(planned.folder)
    reason = stale_reason(planned)
    return line._replace(state="stale", advice=reason) if reason else line


def stale_reason(planned: PlannedCell) -> str:
    """Return why the run of a cell does not answer the study of today; empty if it does.

    Either the cell's configuration in the study has changed, or the version of jmarl or of a
    package that results depend on.
    """
    try:
        if text := difference(planned):
            return f"trained with another configuration: {text}"
    except ConfigError as error:
        return str(error)
    return ", ".join(version_changes(trained_versions(planned)))


def stale_cells(study: Study, folder: Path) -> list[str]:
    """Return a line for each cell with a stale run."""
    cells = compose_cells(study, folder, read_overrides(folder))
    trained = filter(is_trained, cells)
    reasons = [(each.cell.name, stale_reason(each)) for each in trained]
    return [f"{name} ({reason})" for name, reason in reasons if reason]
