"""``jmarl compare``: its arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jmarl.config import ConfigError, build, read_value, split_argument, suggest
from jmarl.runs.exit_codes import ExitCode
from jmarl.saved.comparison.compare_runs import compare_runs
from jmarl.saved.comparison.run_files import find_runs
from jmarl.saved.comparison.selection import Options


KEYS = {field.name: str(field.type) for field in dataclasses.fields(Options)}


def compare(arguments: Sequence[str]) -> int:
    """Compare runs named by globs, and by pairs ``<group>=<glob>``.

    Raises:
        ConfigError: If an argument is invalid.
    """
    patterns: dict[str, list[str]] = {}
    given = {}
    for word in arguments:
        key, separator, text = word.partition("=")
        if separator and key in KEYS:
            given[key] = text if KEYS[key] == "str" else read_value(key, text)
        elif separator and not _exists(word):
            patterns.setdefault(_group(word), []).append(text)
        else:
            patterns.setdefault("", []).append(word)
    if not patterns:
        raise ConfigError("compare: names no runs, such as 'runs/**'")
    compare_runs(patterns, build(Options, given))
    return ExitCode.FINISHED


def _exists(pattern: str) -> bool:
    """Return True for a glob of runs, whose path may contain ``=``."""
    return next(find_runs([pattern]), None) is not None


def _group(word: str) -> str:
    """Return the name of a group; raise ``ConfigError`` if the word is no pair of name and glob."""
    name, text = split_argument(word)
    if not _exists(text):
        fix = suggest(name, KEYS, f"known keys: {', '.join(KEYS)}")
        raise ConfigError(
            f"{word}: {text} matches no runs, and {name} is no key of jmarl compare; {fix}"
        )
    return name
