"""Choose the runs, the metric and the environments of a comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jmarl.config import ConfigError, check, check_positive, check_range, suggest
from jmarl.results.statistics.budgets import Curve
from jmarl.saved.comparison.run_files import RunFiles
from jmarl.saved.comparison.run_table import (
    NO_ROW,
    Table,
    mark_duplicates,
    problems,
    read_runs,
    table_of,
)


GROUP = "group"
BY = (GROUP, "system", "overrides", "config", "commit", "versions", "run")
"""Columns whose values name the compared groups."""
MODES = ("greedy", "sampled")
SHARES = ("won",)
"""Metrics in [0, 1], of which 1 is the best."""
METRICS = (*SHARES, "return")
"""Default metrics, of which the first one that a run has is compared."""
THRESHOLD = 0.8
"""Default threshold of these metrics."""


UNNAMED = "(none)"
"""Name of the group of runs with an empty value, such as those without overrides."""
Groups = dict[str, list[RunFiles]]
"""Runs by the name of the group that they were given with, empty for none."""


class NotComparableError(ConfigError):
    """Error for runs that are too few, or not far enough, for statistics over seeds."""


@dataclass(frozen=True)
class Options:
    """Arguments of ``jmarl compare``.

    Attributes:
        metric: Metric of an episode; higher is better. By default ``won``, or ``return`` if no
            run has a win rate.
        by: Column that names the compared groups; empty for ``group`` if groups were named, and
            else for ``system``.
        mode: ``greedy`` or ``sampled`` episodes.
        env: Environment to compare in; empty if all runs have the same one.
        across: ``env`` aggregates over environments.
        threshold: Value to reach, for budgets; 0.8 by default for win rates.
        against: Group that all others are compared with; the first one by default.
        margin: Largest loss that counts as equal, for tests of non-inferiority.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.
        out: Folder for the figures and ``compare.json``; empty for none.
    """

    metric: str = ""
    by: str = ""
    mode: str = "greedy"
    env: str = ""
    across: str = ""
    threshold: float | None = None
    against: str = ""
    margin: float | None = None
    resamples: int = 2000
    seed: int = 0
    out: str = ""

    def __post_init__(self) -> None:
        modes = f"must be one of {', '.join(MODES)}"
        check(self.mode in MODES, "mode", self.mode, modes)
        check(self.across in ("", "env"), "across", self.across, "must be env")
        fix = suggest(self.by, BY, f"expected one of {', '.join(BY)}")
        check(self.by in ("", *BY), "by", self.by, f"unknown column; {fix}")
        both = "cannot be given with across=env; leave one out"
        check(not (self.env and self.across), "env", self.env, both)
        check_range("resamples", self.resamples, 100, 1_000_000)
        check_range("seed", self.seed, 0, 2**32 - 1)
        if self.margin is not None:
            check_positive("margin", self.margin)


class Learner(NamedTuple):
    """One seed of one run."""

    run: str
    seed: int
    score: float
    episodes: int
    """Episodes behind the score."""
    by_steps: Curve
    """Evaluations over environment steps."""
    by_time: Curve
    """Evaluations over seconds."""


class Selection(NamedTuple):
    """Data of a comparison."""

    metric: str
    """Column of the table, such as ``greedy/won``."""
    is_share: bool
    """True if scores lie in [0, 1] and 1 is the best."""
    envs: list[str]
    groups: dict[str, list[list[Learner]]]
    """Seeds of each group, for each environment."""
    score: str
    """Kind of the scores: ``absolute`` or ``last``."""
    notes: list[str]
    """Runs that were left out, and limits of the comparison."""


def select(patterns: Mapping[str, Sequence[str]], options: Options) -> Selection:
    """Read runs and choose those to compare.

    Args:
        patterns: Glob patterns by the name of a group. Patterns without a name are under ``""``.
        options: Choices.

    Raises:
        ConfigError: If a pattern matches no run, the metric or environment is unknown, the
            environments differ without a choice, or a group has fewer than two seeds.
    """
    by = grouping(patterns, options)
    return select_runs(read_groups(patterns), by, options)


def grouping(names: Collection[str], options: Options) -> str:
    """Return the column that names the compared groups.

    Args:
        names: Names of the groups that were given, empty for runs without one.
        options: Choices, of which ``by`` matters.

    Raises:
        ConfigError: If some runs have no group, but are compared by it.
    """
    by = options.by or (GROUP if any(names) else "system")
    if by == GROUP and "" in names:
        raise ConfigError("by=group: needs named groups, such as small='runs/small/**'")
    return by


def read_groups(patterns: Mapping[str, Sequence[str]]) -> Groups:
    """Read the runs of each group.

    Args:
        patterns: As of ``select``.

    Raises:
        ConfigError: If a pattern matches no run.
    """
    return {name: read_runs(globs) for name, globs in patterns.items()}


def select_runs(runs: Groups, by: str, options: Options) -> Selection:
    """Choose the runs to compare.

    Args:
        runs: Runs that were read.
        by: Column that names the compared groups.
        options: Choices.

    Raises:
        ConfigError: As of ``select``.
    """
    table = groups_table(runs)
    column = metric_column(table, options)
    mark_duplicates(table, [by])
    notes = [f"left out: {line}" for line in problems(table)]
    table = _usable(table, column, notes)
    envs = _environments(table, options, by, notes)
    table = table[table["env"].isin(envs)]
    notes += _mixtures(table, by)
    score = _score_kind(table, notes)
    groups = {
        str(name) or UNNAMED: [
            _learners(rows[rows["env"] == env], column, score) for env in envs
        ]
        for name, rows in table.groupby(by, sort=False)
    }
    _check_seeds(groups, envs)
    name = column.rpartition("/")[2]
    found = Selection(column, name in SHARES, envs, groups, score, notes)
    return _normalized(found) if options.across and not found.is_share else found


def groups_table(runs: Groups) -> Table:
    """Return the table of all runs, with a column of their groups."""
    import pandas as pd  # slow to import

    parts = [table_of(own).assign(**{GROUP: name}) for name, own in runs.items()]
    return pd.concat(parts, ignore_index=True)


def metric_column(table: Table, options: Options) -> str:
    """Return the column of the metric; raise ``ConfigError`` with the nearest name."""
    columns = [str(each) for each in table.columns if str(each).startswith(MODES)]
    if not columns:
        raise NotComparableError("no run has an evaluation")
    defaults = [name for name in METRICS if f"{options.mode}/{name}" in columns]
    name = options.metric or next(iter(defaults), METRICS[0])
    column = name if name.startswith(MODES) else f"{options.mode}/{name}"
    known = dict.fromkeys(each.partition("/")[2] for each in columns)
    otherwise = f"known: {', '.join(known)}"
    word = name.rpartition("/")[2]
    near = suggest(word, known, otherwise)
    check(column in columns, "metric", name, f"unknown metric; {near}")
    return column


def _usable(
    table: Table,
    column: str,
    notes: list[str],
) -> Table:
    """Return the rows of finished runs that have the metric, without duplicates."""
    is_open = table["state"] != "finished"
    is_empty = table["kind"] == NO_ROW
    is_again = table["duplicate_of"] != ""
    table = table[~(is_open | is_empty | is_again)]
    lacks = table[column].isna()
    for run in table[lacks]["run"].unique():
        notes.append(f"left out: {run}: evaluations without {column}")
    table = table[~lacks]
    evaluations = table[table["kind"] == "eval"].groupby("run")["update"].nunique()
    for run in table["run"].unique():
        if evaluations.get(run, 0) < 2:
            notes.append(f"left out: {run}: fewer than two evaluations")
            table = table[table["run"] != run]
    if table.empty:
        reasons = "; ".join(notes)
        raise NotComparableError(f"no finished run to compare ({reasons})")
    return table


def _environments(
    table: Table, options: Options, by: str, notes: list[str]
) -> list[str]:
    """Return the environments of the comparison."""
    known = list(table["env"].unique())
    shown = ", ".join(known)
    if options.env:
        fix = suggest(options.env, known, f"known: {shown}")
        rule = f"no run has this environment; {fix}"
        check(options.env in known, "env", options.env, rule)
        return [options.env]
    if len(known) == 1:
        return known
    if not options.across:
        raise ConfigError(
            f"the runs have {len(known)} environments ({shown}); choose one with "
            f"env='{known[0]}', or aggregate over them with across=env"
        )
    by_group = [set(rows["env"]) for _, rows in table.groupby(by)]
    common = [env for env in known if all(env in envs for envs in by_group)]
    if not common:
        raise ConfigError(
            f"across=env: no environment has runs of every group ({shown}); "
            "choose other runs"
        )
    for env in known:
        if env not in common:
            notes.append(f"left out: {env}: not every group has runs there")
    return common


def _mixtures(table: Table, by: str) -> list[str]:
    """Return notes on groups that pool different configurations, and on unequal budgets."""
    notes = []
    pooled = table.groupby([by, "env"], sort=False)["config"].nunique()
    for (group, env), number in pooled.items():
        if number > 1:
            text = f"{group}: pools {number} different configurations on {env}"
            notes.append(f"{text}; by=overrides or by=config separates them")
    ends = table.groupby(["env", "run", "seed"])["env_steps"].max()
    for env, steps in ends.groupby("env"):
        if steps.max() > 1.1 * steps.min():
            text = f"runs on {env} have {steps.min():,.0f} to {steps.max():,.0f}"
            notes.append(f"{text} environment steps; their scores differ in budget")
    return notes


def _score_kind(table: Table, notes: list[str]) -> str:
    """Return ``absolute`` if every run has the absolute metric, else ``last``."""
    have = table.groupby("run")["kind"].agg(lambda kinds: "absolute" in set(kinds))
    if have.all():
        return "absolute"
    text = f"{(~have).sum()} of {len(have)} runs have no absolute metric"
    notes.append(f"{text}; scores are those of the last evaluations")
    return "last"


def _learners(rows: Table, column: str, score: str) -> list[Learner]:
    """Return the seeds of a group in one environment."""
    found = []
    for (run, seed), own in rows.groupby(["run", "seed"], sort=False):
        evaluations = own[own["kind"] == "eval"].sort_values("update")
        scored = own[own["kind"] == "absolute"] if score == "absolute" else evaluations
        last = scored.iloc[-1]
        values = evaluations[column].to_numpy(float)
        steps = evaluations["env_steps"].to_numpy(float)
        seconds = evaluations["wall_time_s"].to_numpy(float)
        found.append(
            Learner(
                run=str(run),
                seed=int(seed),
                score=float(last[column]),
                episodes=int(last["episodes"]),
                by_steps=Curve(steps, values),
                by_time=Curve(seconds, values),
            )
        )
    return found


def _check_seeds(groups: dict[str, list[list[Learner]]], envs: list[str]) -> None:
    for name, by_env in groups.items():
        for env, learners in zip(envs, by_env, strict=True):
            if len(learners) < 2:
                raise NotComparableError(
                    f"{name}: {len(learners)} seed on {env}; a comparison needs at "
                    "least 2 finished seeds in every group"
                )


def _normalized(found: Selection) -> Selection:
    """Map the values of each environment to [0, 1], from the smallest to the largest one."""
    groups: dict[str, list[list[Learner]]] = {name: [] for name in found.groups}
    for i in range(len(found.envs)):
        pooled = [x for by_env in found.groups.values() for x in by_env[i]]
        values = [np.append(x.by_steps.values, x.score) for x in pooled]
        low, high = np.min(np.concatenate(values)), np.max(np.concatenate(values))
        for name, by_env in found.groups.items():
            groups[name].append([_mapped(x, low, high - low or 1) for x in by_env[i]])
    note = (
        f"{found.metric} is mapped to [0, 1] in each environment, from the smallest to "
        "the largest value of the compared runs"
    )
    notes = [*found.notes, note]
    return found._replace(groups=groups, is_share=True, notes=notes)


def _mapped(x: Learner, low: float, width: float) -> Learner:
    def scaled(values: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        return (values - low) / width

    return x._replace(
        score=(x.score - low) / width,
        by_steps=x.by_steps._replace(values=scaled(x.by_steps.values)),
        by_time=x.by_time._replace(values=scaled(x.by_time.values)),
    )
