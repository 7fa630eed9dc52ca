"""Values that are not finite: causes in order, the reaction of a run, and advice.

``anakin.train_chunk`` reports for each quantity the first update at which it was not finite.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jmarl.config import RunConfig


MIN_REMINDER_UPDATES = 100
"""Least number of updates between two warnings of the same quantities."""


class Kind(enum.IntEnum):
    """Kind of a quantity. Within one update, a kind can explain those after it."""

    REWARD = 0
    METRIC = 1
    PARAMETER = 2


_KINDS = {"reward": Kind.REWARD, "train": Kind.METRIC, "params": Kind.PARAMETER}
_LABELS = {
    Kind.REWARD: "reward of",
    Kind.METRIC: "metric",
    Kind.PARAMETER: "parameter",
}


class Cause(NamedTuple):
    """A quantity of a seed, and the first update at which it was not finite."""

    update: int
    kind: Kind
    seed: int
    name: str
    """Name of the environment or metric, or path of the parameter."""


class NonFiniteError(ArithmeticError):
    """Error for values that are not finite, as one line.

    Args:
        causes: Causes in order, all of one seed.
        root: First cause in the last chunk, which decides the advice.
        note: Text to add.
    """

    def __init__(self, causes: Sequence[Cause], root: Cause, note: str = "") -> None:
        super().__init__(describe(causes) + note)
        self.causes = tuple(causes)
        self.root = root


def find_causes(
    report: Mapping[str, Any], first: int, seeds: Sequence[int], env: str
) -> list[Cause]:
    """Return the causes in the report of a chunk, in order.

    Args:
        report: Entry ``nonfinite`` of the metrics of ``train_chunk``, each ``int32[S]``.
        first: First update of the chunk, counted from 1.
        seeds: The S seeds.
        env: Name of the environment of the chunk.
    """
    causes = []
    for key, offsets in report.items():
        kind, _, name = key.partition("/")
        for i in np.flatnonzero(np.asarray(offsets) >= 0):
            update, seed = first + int(offsets[i]), seeds[int(i)]
            causes.append(Cause(update, _KINDS[kind], seed, name or env))
    return sorted(causes, key=_rank)


def _rank(cause: Cause) -> tuple[Any, ...]:
    """Order causes by update, then by kind and by seed. The loss is the first metric."""
    return *cause[:3], cause.name != "loss", cause.name


def describe(causes: Sequence[Cause]) -> str:
    """Describe causes of one seed in one line: the first of each kind, and how many follow."""
    by_kind: dict[Kind, list[Cause]] = {}
    for cause in causes:
        by_kind.setdefault(cause.kind, []).append(cause)
    texts = [_group_text(*group) for group in by_kind.values()]
    return f"not finite in seed {causes[0].seed}: {', '.join(texts)}"


def _group_text(first: Cause, *others: Cause) -> str:
    more = f" and {len(others)} more" if others else ""
    return f"{_LABELS[first.kind]} {first.name}{more} (update {first.update:,})"


class NonFiniteWatch:
    """Warn or raise an error if values of a run are not finite.

    With ``on_nonfinite=skip``, the first chunk in which a quantity is not finite causes a
    warning. Further chunks cause rare reminders. A parameter always raises an error.

    Args:
        config: Configuration of the run.
        warn: Receives one line for each warning.
    """

    def __init__(self, config: RunConfig, warn: Callable[[str], None]) -> None:
        self._skips = config.on_nonfinite == "skip"
        self._interval = max(MIN_REMINDER_UPDATES, config.num_updates // 10)
        self._warn = warn
        self._first: dict[tuple[Kind, int, str], Cause] = {}
        self._warned: set[tuple[Kind, str]] = set()
        self._reminder = 0
        self._chunks = 0

    def check(self, causes: Sequence[Cause]) -> None:
        """Check the causes of a chunk, in order.

        Raises:
            NonFiniteError: If a cause ends the run. The error has all causes of that seed.
        """
        for cause in causes:
            self._first.setdefault(cause[1:], cause)
        fatal = [c for c in causes if c.kind == Kind.PARAMETER or not self._skips]
        if fatal:
            chain = sorted(self._first.values(), key=_rank)
            seed = fatal[0].seed
            raise NonFiniteError(_of_seed(seed, chain), _of_seed(seed, causes)[0])
        if causes:
            self._report(causes)

    def _report(self, causes: Sequence[Cause]) -> None:
        """Warn of new quantities, or give a reminder if it is due."""
        self._chunks += 1
        new = [c for c in causes if (c.kind, c.name) not in self._warned]
        if not new and causes[0].update < self._reminder:
            return
        shown = new or causes
        again = "" if new else f", so far in {self._chunks:,} chunks"
        text = describe(_of_seed(shown[0].seed, shown)) + again
        self._warn(f"{text}; gradients that are not finite are skipped")
        self._warned |= {(c.kind, c.name) for c in new}
        self._reminder = causes[0].update + self._interval


def _of_seed(seed: int, causes: Sequence[Cause]) -> list[Cause]:
    return [cause for cause in causes if cause.seed == seed]


def advice(config: RunConfig, cause: Cause, resume: str) -> str:
    """Return the advice on a run that ended because of values that are not finite.

    A run that follows it uses other random numbers or another configuration.

    Args:
        config: Configuration of the run.
        cause: First cause.
        resume: Command that resumes the run from a checkpoint; empty if there is none.
    """
    start = "resume" if resume else "start again"
    command = f"{resume} " if resume else ""
    if cause.kind == Kind.REWARD:
        test = "test it with jmarl.envs.conformance.check_env"
        how = _reward_change(config, command)
        return (
            f"the environment {cause.name} returned the reward: {test}; {start} {how}"
        )
    seed = f"seed={_other_seed(config)}"
    lr = config.system.learning_rate
    if lr is None:
        return f"{start} with another seed: {command}{seed}"
    change = f"{command}system.lr={lr / 2:g}"
    return (
        f"{start} with another seed ({seed}) or with a smaller learning rate: {change}"
    )


def _reward_change(config: RunConfig, command: str) -> str:
    if config.on_nonfinite == "rollback":
        return f"with skipped gradients: {command}on_nonfinite=skip"
    enable = "" if config.checkpoint.enabled else " checkpoint.enabled=true"
    return f"with rollbacks: {command}on_nonfinite=rollback{enable}"


def _other_seed(config: RunConfig) -> int:
    """Return another seed, so that no seed of the new run is one of this run."""
    return (config.seed + config.num_seeds) % (2**32 - config.num_seeds)
