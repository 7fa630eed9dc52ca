"""``jmarl tune``: its arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jmarl.cli.process import use_cores
from jmarl.config import ConfigError, build, read_value, split_argument
from jmarl.config.choices import check_system


TEXTS = ("out", "preset", "protocol", "space", "metric")
LIMITS = ("jobs", "max_hours")


def tune(arguments: Sequence[str]) -> int:
    """Tune a system, or print the state of a tuning.

    Raises:
        ConfigError: If an argument is invalid.
    """
    if not arguments or "=" in arguments[0]:
        raise ConfigError("tune: names no system (jmarl systems lists them)")
    system, *words = arguments
    if system == "status":
        return _status(words)
    check_system(system, system)
    return _tune(system, words)


def _status(words: Sequence[str]) -> int:
    from jmarl.studies.tuning.run_tune import status

    if len(words) != 1:
        raise ConfigError(
            "tune status: expected one folder, such as runs/tune/mappo/smax_3m"
        )
    return status(words[0])


def _tune(system: str, words: Sequence[str]) -> int:
    from jmarl.launchers.cluster import composed_for, open_launcher, take_cluster
    from jmarl.runs.progress import optional_output
    from jmarl.studies.run_study import Limits
    from jmarl.studies.tuning.run_tune import check_optuna
    from jmarl.studies.tuning.run_tune import tune as run_tuning
    from jmarl.studies.tuning.search_space import default_space
    from jmarl.studies.tuning.tune_plan import TuneOptions, make_plan, read_protocol

    check_optuna()
    cluster, words = take_cluster(words)
    options = [field.name for field in dataclasses.fields(TuneOptions)]
    given, overrides = _split(words, (*options, *TEXTS, *LIMITS))
    out = given.pop("out", "")
    preset = given.pop("preset", "")
    limits = {key: given.pop(key) for key in LIMITS if key in given}
    if name := given.pop("protocol", ""):
        protocol = read_protocol(name)
        given = {**protocol.options, **given}
        overrides = _merge(protocol.overrides, overrides)
    chosen = build(TuneOptions, given)
    space = chosen.space or default_space(system)
    plan = make_plan(system, chosen, overrides, space)
    use_cores()
    launcher = open_launcher(cluster)
    with optional_output(), composed_for(cluster):
        return run_tuning(plan, out, build(Limits, limits), preset, launcher)


def _split(
    words: Sequence[str], own: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a tuning's own keys, and the overrides of its runs."""
    given, overrides = {}, []
    for word in words:
        key, text = split_argument(word)
        if key in own:
            given[key] = text if key in TEXTS else read_value(key, text)
        else:
            overrides.append(f"{key}={text}")
    return given, overrides


def _merge(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return overrides of which the second take precedence."""
    merged = dict(map(split_argument, [*first, *second]))
    return [f"{key}={text}" for key, text in merged.items()]
