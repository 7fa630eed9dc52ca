"""``jmarl study``: its actions and their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jmarl.cli.help import table
from jmarl.cli.process import use_cores
from jmarl.config import ConfigError, build, split_argument, suggest
from jmarl.config.choices import yaml_names
from jmarl.config.parsing import read_value
from jmarl.runs.exit_codes import ExitCode


def study(arguments: Sequence[str]) -> int:
    """Run an action of ``jmarl study``; list the studies without one.

    Raises:
        ConfigError: If the action, the study or an argument is invalid.
    """
    action, *rest = arguments or ["list"]
    if action not in ACTIONS:
        fix = suggest(action, ACTIONS, f"expected one of {', '.join(ACTIONS)}")
        raise ConfigError(f"{action}: unknown action of jmarl study; {fix}")
    return ACTIONS[action](rest)


def _list(arguments: Sequence[str]) -> int:
    from jmarl.studies.study_file import read_study

    if arguments:
        raise ConfigError(f"{arguments[0]}: jmarl study list takes no arguments")
    print(table({name: read_study(name).question for name in yaml_names("study")}))
    return ExitCode.FINISHED


def _run(arguments: Sequence[str]) -> int:
    from jmarl.launchers.cluster import composed_for, open_launcher, take_cluster
    from jmarl.runs.progress import optional_output
    from jmarl.studies.cells import RECORDS
    from jmarl.studies.run_study import Limits, run_study

    name, words = _split(arguments)
    cluster, words = take_cluster(words)
    given, overrides = _take(words, ("out", "records", "jobs", "max_hours"))
    out, records = given.pop("out", ""), given.pop("records", RECORDS)
    values = {key: read_value(key, text) for key, text in given.items()}
    if cluster:
        values.setdefault("jobs", cluster.jobs)
    limits = build(Limits, values)
    use_cores()
    launcher = open_launcher(cluster)
    with optional_output(), composed_for(cluster):
        return run_study(name, out, overrides, limits, launcher, records=records)


def _status(arguments: Sequence[str]) -> int:
    from jmarl.studies.study_status import status

    name, words = _split(arguments)
    return status(name, **_only(words, ("out", "records")))


def _report(arguments: Sequence[str]) -> int:
    from jmarl.studies.run_study import report

    name, words = _split(arguments)
    return report(name, **_only(words, ("out", "records")))


def _measure(arguments: Sequence[str]) -> int:
    from jmarl.studies.run_study import measure

    name, words = _split(arguments)
    use_cores()
    return measure(name, **_only(words, ("out", "cell")))


def _record(arguments: Sequence[str]) -> int:
    from jmarl.studies.run_study import record

    name, words = _split(arguments)
    return record(name, **_only(words, ("out", "to")))


def _split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    if not arguments or "=" in arguments[0]:
        raise ConfigError("study: names no study (jmarl study lists them)")
    return arguments[0], arguments[1:]


def _take(
    words: Sequence[str], own: tuple[str, ...]
) -> tuple[dict[str, str], list[str]]:
    """Return the values of some keys, and all other arguments."""
    pairs = [(split_argument(word), word) for word in words]
    given = {key: value for (key, value), _ in pairs if key in own}
    return given, [word for (key, _), word in pairs if key not in own]


def _only(
    words: Sequence[str],
    own: tuple[str, ...],
) -> dict[str, Any]:
    given, others = _take(words, own)
    for word in others:
        key = split_argument(word)[0]
        fix = suggest(key, own, f"known keys: {', '.join(own)}")
        raise ConfigError(f"{word}: unknown key; {fix}")
    return given


ACTIONS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": _list,
    "run": _run,
    "status": _status,
    "report": _report,
    "measure": _measure,
    "record": _record,
}
