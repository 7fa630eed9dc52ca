"""Plans of a tuning: its options, its protocol, and the checks before anything runs.

This module does not import Optuna.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jmarl.config import (
    ConfigError,
    RunConfig,
    build,
    check,
    check_range,
    split_argument,
    suggest,
)
from jmarl.config.choices import read_named
from jmarl.config.yaml_files import expand_presets
from jmarl.results.files import read_json, write_json
from jmarl.studies.tuning.search_space import Space, read_space


PLAN_FILE = "plan.json"
OWN_KEYS = {
    "num_seeds": "seeds=<number>",
    "resume": "out=<folder>",
    "run_dir": "out=<folder>",
    "sweep": "space=<name>",
}
"""Keys of a run that a tuning sets, with its own argument for each."""
MAX_TRIALS = 10_000


@dataclass(frozen=True)
class TuneOptions:
    """Options of a tuning.

    Attributes:
        trials: Trials, with those that are pruned or fail.
        seeds: Seeds of each trial, which are trained at once.
        seed: First seed of each trial, and seed of the sampler.
        space: Search space; empty for that of the system.
        pruner: Rule that stops trials at an evaluation.
        warmup: Evaluations after the first of untrained parameters at which no trial is pruned.
        metric: Result of an episode to maximize; empty for the win rate, or the return if the
            environment has none.
        mode: Actions of the episodes.
    """

    trials: int = 40
    seeds: int = 2
    seed: int = 0
    space: str = ""
    pruner: Literal["median", "hyperband", "none"] = "median"
    warmup: int = 1
    metric: str = ""
    mode: Literal["greedy", "sampled"] = "greedy"

    def __post_init__(self) -> None:
        check_range("trials", self.trials, 1, MAX_TRIALS)
        rule = "must be at least 2; one seed does not separate a setting from its luck"
        check(self.seeds >= 2, "seeds", self.seeds, rule)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("warmup", self.warmup, 0)


@dataclass(frozen=True)
class Protocol:
    """Options and overrides of a published tuning.

    Attributes:
        title: One-line title.
        options: Values of ``TuneOptions``.
        overrides: Overrides of every run.
        name: Name of the file, without its ending.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        build(TuneOptions, self.options, "options")


def read_protocol(name: str) -> Protocol:
    """Read a protocol: the name of a file in ``configs/protocol``, or the path of a YAML file."""
    return read_named(Protocol, "protocol", name)


@dataclass(frozen=True)
class Plan:
    """A tuning.

    Attributes:
        system: Name of the system.
        options: Its options.
        overrides: Overrides of every run, as ``key=value``.
        space: The search space.
    """

    system: str
    options: TuneOptions
    overrides: tuple[str, ...]
    space: Space

    def common(self) -> list[str]:
        """Return the overrides that all trials share, with their seeds."""
        options = self.options
        seeds = f"num_seeds={options.seeds}", f"seed={options.seed}"
        return [*self.overrides, *seeds]

    def record(self) -> dict[str, Any]:
        """Return the plan as a tree for a JSON file."""
        return {
            "system": self.system,
            "options": dataclasses.asdict(self.options),
            "overrides": list(self.overrides),
            "space": dataclasses.asdict(self.space),
        }


def make_plan(
    system: str,
    options: TuneOptions,
    overrides: Sequence[str],
    space: str,
) -> Plan:
    """Read the search space of a tuning, and expand presets among its overrides.

    Args:
        system: Name of a system.
        options: Options of the tuning.
        overrides: Overrides of every run, as ``key=value``.
        space: Name or path of the search space.

    Raises:
        ConfigError: If the space is unknown or wrong, or an override sets a key that the tuning or
            the space sets.
    """
    found, words = read_space(space), tuple(expand_presets(overrides))
    tuned = {parameter.key for parameter in found.entries()}
    for word in words:
        key, value = split_argument(word)
        fix = OWN_KEYS.get(key, "")
        check(not fix, key, value, f"is set by the tuning; use {fix}")
        rule = f"is tuned by space={found.name}; leave it out, or name another space"
        check(key not in tuned, key, value, rule)
    return Plan(system, dataclasses.replace(options, space=found.name), words, found)


def check_plan(plan: Plan) -> tuple[Plan, RunConfig]:
    """Check the configurations at all choices, and at both ends of each interval, one by one.

    Nothing is compiled.

    Args:
        plan: The plan of a tuning.

    Returns:
        The plan with the name of its metric, and the configuration without any tuned key.

    Raises:
        ConfigError: If a configuration, the metric or the number of evaluations is invalid.
        ResourceError: If the run needs more memory than the devices have.
    """
    from jmarl.config.compose import load_config
    from jmarl.runs.run import prepare
    from jmarl.training.programs import score_name

    config = load_config(plan.system, plan.common())
    for parameter in plan.space.entries():
        with _errors_name(plan.space):
            for word in parameter.words():
                load_config(plan.system, [*plan.common(), word])
    _check_pruning(plan.options, evaluations=config.schedule.num_evaluations)
    env = prepare(config).stages[-1].env
    known = ("return", "length", *env.spec.outcomes)
    _check_metric(plan.options.metric, known)
    metric = plan.options.metric or score_name(env)
    options = dataclasses.replace(plan.options, metric=metric)
    return dataclasses.replace(plan, options=options), config


@contextmanager
def _errors_name(space: Space) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"space={space.name}: {error}") from None


def _check_pruning(options: TuneOptions, evaluations: int) -> None:
    rule = (
        f"must be less than the {evaluations} evaluations of a trial; lower eval.every"
    )
    prunes = options.pruner != "none"
    check(not prunes or options.warmup < evaluations, "warmup", options.warmup, rule)


def _check_metric(metric: str, known: Sequence[str]) -> None:
    fix = suggest(metric, known, f"known: {', '.join(known)}")
    check(metric in ("", *known), "metric", metric, f"unknown metric; {fix}")


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan into the folder of a tuning.

    Only the number of trials may differ from a plan that is already there.

    Raises:
        ConfigError: If the folder holds another tuning.
    """
    new, old = plan.record(), read_json(folder / PLAN_FILE)
    if old:
        _check_same(folder, _without_trials(old), _without_trials(new))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN_FILE, new)


def _without_trials(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "options": {**record["options"], "trials": 0}}


def _check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    fix = "give the same arguments, or choose another out="
    for key, value in new.items():
        rule = f"the tuning in {folder} has {old.get(key)}; {fix}"
        check(old.get(key) == value, key, value, rule)


def read_plan(folder: Path) -> Plan:
    """Read the plan of a tuning.

    Raises:
        ConfigError: If the folder holds none.
    """
    tree = read_json(folder / PLAN_FILE)
    if not tree:
        raise ConfigError(f"{folder}: holds no tuning; start one with jmarl tune")
    return build(Plan, tree)
