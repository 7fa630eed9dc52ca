"""Write the report of runs: ``jmarl report``."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Mapping, Sequence

import jmarl
from jmarl.config import ConfigError, check, check_range
from jmarl.results.files import check_writable, replace_file
from jmarl.saved.comparison.analysis import Record, analyze
from jmarl.saved.comparison.run_files import RunFiles
from jmarl.saved.comparison.run_table import Table, mark_duplicates, problems
from jmarl.saved.comparison.selection import (
    UNNAMED,
    Groups,
    NotComparableError,
    Options,
    grouping,
    groups_table,
    metric_column,
    read_groups,
    select_runs,
)
from jmarl.saved.run_report.episode_players import share_room
from jmarl.saved.run_report.report_page import Report, report_page
from jmarl.saved.run_report.run_sections import ReportedRun


def write_report(
    patterns: Mapping[str, Sequence[str]],
    options: Options,
    *,
    episodes_mb: float = 20,
    command: str = "",
) -> pathlib.Path:
    """Write one HTML page about runs, which needs no other file and no network.

    Args:
        patterns: Glob patterns by the name of a group, as for ``compare_runs``.
        options: Choices of the comparison; ``out`` is the path of the page.
        episodes_mb: Largest size of all rendered episodes on the page, in MiB.
        command: Command to name on the page.

    Returns:
        The path of the page.

    Raises:
        ConfigError: If a pattern matches no run, a choice of the comparison is invalid, the
            environments differ without a choice, or the page cannot be written.
    """
    check_range("episodes_mb", episodes_mb, 0, 1000)
    path = _check_out(options.out)
    runs = read_groups(patterns)
    by = grouping(runs, options)
    record, reason = _compare(runs, by, options)
    table = groups_table(runs)
    mark_duplicates(table, [by])
    report = Report(
        runs=_reported(runs, table, by, (record, episodes_mb)),
        record=record,
        reason=reason,
        notes=record["notes"] if record else problems(table),
        metric=_metric(table, options),
        made=_made(command),
    )
    return _write(path, report)


def _check_out(out: str) -> pathlib.Path:
    path = pathlib.Path(out).expanduser()
    rule = "must be the path of a page, such as out=report.html"
    check(path.suffix in (".html", ".htm"), "out", out, rule)
    check_writable(str(path), "out")
    return path


def _compare(runs: Groups, by: str, options: Options) -> tuple[Record | None, str]:
    """Return the record of a comparison, or the reason why there is none."""
    try:
        return analyze(select_runs(runs, by, options), options), ""
    except NotComparableError as error:
        return None, str(error)


def _metric(table: Table, options: Options) -> str:
    try:
        return metric_column(table, options)
    except NotComparableError:
        return ""


def _reported(
    runs: Groups, table: Table, by: str, limits: tuple[Record | None, float]
) -> list[ReportedRun]:
    """Return all runs, each once, with their groups, rows and episodes."""
    record, megabytes = limits
    distinct = {str(run.path): run for own in runs.values() for run in own}
    compared = set()
    for group in record["groups"].values() if record else ():
        compared.update(group["runs"])
    folders = [run.path for run in distinct.values()]
    episodes = share_room(folders, megabytes)
    return [
        ReportedRun(
            number=i,
            files=run,
            group=_groups(table, by, run),
            is_compared=path in compared,
            rows=table[table["run"] == path].drop_duplicates(
                ["seed", "kind", "update"]
            ),
            episodes=episodes[i - 1],
        )
        for i, (path, run) in enumerate(distinct.items(), 1)
    ]


def _groups(table: Table, by: str, run: RunFiles) -> str:
    names = table[table["run"] == str(run.path)][by].unique()
    return ", ".join(str(name) or UNNAMED for name in names)


def _made(command: str) -> str:
    now = datetime.datetime.now(datetime.UTC)
    text = f"Written by jmarl {jmarl.__version__} on {now:%Y-%m-%d %H:%M} UTC"
    return f"{text} with: {command}" if command else text


def _write(path: pathlib.Path, report: Report) -> pathlib.Path:
    content = report_page(report).encode()
    try:
        replace_file(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"out={path}: cannot be written ({reason})") from None
    episodes = sum(len(run.episodes.shown) for run in report.runs)
    text = f"{len(content) / 1000:,.0f} kB, {len(report.runs)} runs"
    print(f"wrote {path}: {text}, {episodes} episodes", flush=True)
    for note in report.notes:
        print(f"note: {note}", flush=True)
    return path
