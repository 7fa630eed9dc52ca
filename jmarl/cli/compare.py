"""Arguments of ``jmarl compare`` and ``jmarl report``, which name runs in the same way."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jmarl.config import ConfigError, build, read_value, split_argument, suggest
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.comparison.compare_runs import compare_runs
from jmarl.saved.comparison.run_files import find_runs
from jmarl.saved.comparison.selection import Options
from jmarl.saved.run_report.write_report import write_report


KEYS = {field.name: str(field.type) for field in dataclasses.fields(Options)}
RUNS = "runs"
"""Key of runs without a group. It may be left out."""
EPISODES = "episodes_mb"
"""Own key of ``jmarl report``."""


def compare(arguments: Sequence[str]) -> int:
    """Compare runs named by globs, and by pairs ``<group>=<glob>``.

    Raises:
        ConfigError: If an argument is invalid.
    """
    patterns, given = _read("compare", arguments, KEYS)
    compare_runs(patterns, build(Options, given))
    return ExitCode.FINISHED


def report(arguments: Sequence[str]) -> int:
    """Write a page about runs that are named as for ``compare``.

    Raises:
        ConfigError: If an argument is invalid.
    """
    keys = {**KEYS, EPISODES: "float"}
    patterns, given = _read("report", arguments, keys)
    own = {key: given.pop(key) for key in (EPISODES,) if key in given}
    options = build(Options, {"out": "report.html", **given})
    command = shlex.join(["jmarl", "report", *arguments])
    write_report(patterns, options, command=command, **own)
    return ExitCode.FINISHED


def _read(
    command: str, arguments: Sequence[str], keys: Mapping[str, str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return the patterns of each group, and the values of the keys.

    Args:
        command: Name of the command, for error messages.
        arguments: Its arguments.
        keys: Types of its keys.
    """
    patterns: dict[str, list[str]] = {}
    given = {}
    for word in arguments:
        key, separator, text = word.partition("=")
        if separator and key in keys:
            given[key] = text if keys[key] == "str" else read_value(key, text)
        elif separator and key == RUNS:
            patterns.setdefault("", []).append(text)
        elif separator and not _exists(word):
            group = _group(command, word, keys)
            patterns.setdefault(group, []).append(text)
        else:
            patterns.setdefault("", []).append(word)
    if not patterns:
        raise ConfigError(f"{command}: names no runs, such as 'runs/**'")
    return patterns, given


def _exists(pattern: str) -> bool:
    """Return True for a glob of runs, whose path may contain ``=``."""
    return next(find_runs([pattern]), None) is not None


def _group(command: str, word: str, keys: Mapping[str, str]) -> str:
    """Return the name of a group; raise ``ConfigError`` if the word is no pair of name and glob."""
    name, text = split_argument(word)
    if not _exists(text):
        fix = suggest(name, keys, f"known keys: {', '.join(keys)}")
        raise ConfigError(
            f"{word}: {text} matches no runs, and {name} is no key of jmarl {command}; "
            f"{fix}"
        )
    return name
