"""Trials of a tuning, stored by Optuna in a journal that threads and processes share."""

from __future__ import annotations

import fcntl
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from jmarl.studies.tuning.search_space import Space


JOURNAL = "journal.jsonl"
ASK_LOCK = ".ask"
"""File of a tuning that is locked while a process draws the parameters of a trial."""
STUDY_NAME = "jmarl"
PRUNED_AT = "pruned_at"
"""Attribute of a trial: number of the evaluation at which it was pruned."""
CHECKED = "checked"
"""Attribute of a trial: number of the last evaluation after which it was not pruned."""
SECONDS = "seconds"
"""Attribute of a trial: seconds of its processes, as far as these were not killed."""
STARTUP_TRIALS = 5
"""Complete trials that the median rule needs before it prunes a trial."""


class TrialLine(NamedTuple):
    """A trial as it is now."""

    number: int
    state: str
    """``running``, ``complete``, ``pruned`` or ``fail``."""
    words: tuple[str, ...]
    """Its overrides."""
    value: float
    """Metric of a complete trial, or of the last evaluation of a pruned one; else NaN."""
    evaluations: dict[int, float]
    attributes: dict[str, Any]


class KernelLock:
    """Lock that ends with its process, however that ends.

    Optuna's locks are files. A process that is killed leaves them behind, and others wait for half
    a minute. This lock also removes an incomplete last line, which a full disk or a power failure
    can leave, because a line after it would make the journal unreadable.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = open(f"{self._journal}.lock", "ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _remove_incomplete_line(self._journal)
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._file:
            self._file.close()


def _remove_incomplete_line(journal: Path) -> None:
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):
            content = journal.read_bytes()
            file.truncate(content.rfind(b"\n") + 1)


def make_pruner(name: str, warmup: int, evaluations: int) -> BasePruner:
    """Return the rule that stops trials.

    Args:
        name: ``median``: best value so far below the median of complete trials at this step.
            ``hyperband``: not among the best third at one of some evaluations. ``none``: never.
        warmup: Evaluations at which no trial is pruned.
        evaluations: Evaluations of a trial.
    """
    if name == "median":
        return MedianPruner(STARTUP_TRIALS, n_warmup_steps=warmup + 1)
    if name == "hyperband":
        return HyperbandPruner(min_resource=warmup + 1, max_resource=evaluations)
    return NopPruner()


def sampler_seed(seed: int, number: int) -> int:
    """Return the seed with which the parameters of a trial are drawn."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class TrialStore:
    """Trials of a tuning, numbered from 0.

    A trial's parameters depend on its number, the seed and the trials that were known when they
    were drawn. An interruption therefore does not change them. The methods can be called from
    several threads and processes.

    Args:
        folder: Folder of the tuning.
        space: Its search space.
        seed: Seed of the sampler.
        pruner: Rule that stops trials.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        seed: int = 0,
        pruner: BasePruner | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder, self._space, self._seed = folder, space, seed
        self._mutex = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        lock: Any = KernelLock(path)  # the base class of locks is private in Optuna
        with self._locked():
            storage = JournalStorage(JournalFileBackend(str(path), lock))
            self._study = optuna.create_study(
                storage=storage,
                pruner=pruner or NopPruner(),
                study_name=STUDY_NAME,
                direction="maximize",
                load_if_exists=True,
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex, (self._folder / ASK_LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def open(self, number: int) -> tuple[str, ...] | None:
        """Return the overrides of a trial, drawn if it is new; None if the trial has ended."""
        with self._locked():
            for new in range(len(self._trials()), number + 1):
                self._study.add_trial(self._draw(new))
            found = self._trials()[number]
            if found.state.is_finished():
                return None
            return self._space.words(found.params)

    def _draw(self, number: int) -> FrozenTrial:
        """Return a new trial with its parameters.

        They are drawn in a copy in memory, so that the journal gets the whole trial in one line. A
        process that is killed therefore leaves no trial with some of its parameters.
        """
        copy = optuna.create_study(
            sampler=TPESampler(seed=sampler_seed(self._seed, number)),
            pruner=self._study.pruner,
            study_name=STUDY_NAME,
            direction="maximize",
        )
        copy.add_trials(self._trials())
        trial = copy.ask()
        for parameter in self._space.entries():
            parameter.suggest(trial)
        return copy.trials[number]

    def observe(self, number: int, evaluations: Sequence[float]) -> bool:
        """Report the evaluations of a trial so far; return True if it is pruned.

        Args:
            number: Number of the trial.
            evaluations: Metric at each evaluation after that of untrained parameters.
        """
        with self._mutex:
            found = self._trials()[number]
            if PRUNED_AT in found.user_attrs:
                return True
            trial, known = self._trial(found), set(found.intermediate_values)
            first = found.user_attrs.get(CHECKED, 0)
            for step, value in enumerate(evaluations[first:], first + 1):
                # A process that was killed may have reported it without the decision.
                if step not in known:
                    trial.report(value, step)
                if trial.should_prune():
                    trial.set_user_attr(PRUNED_AT, step)
                    return True
                trial.set_user_attr(CHECKED, step)
            return False

    def add_seconds(self, number: int, seconds: float) -> None:
        """Add the time of a process to that of a trial."""
        with self._mutex:
            found = self._trials()[number]
            total = found.user_attrs.get(SECONDS, 0.0) + seconds
            self._trial(found).set_user_attr(SECONDS, round(total, 3))

    def complete(self, number: int, value: float) -> None:
        """End a trial with its metric."""
        with self._mutex:
            self._study.tell(number, value)

    def prune(self, number: int) -> None:
        """End a trial that is pruned."""
        with self._mutex:
            self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """End a trial without a metric."""
        with self._mutex:
            self._trial(self._trials()[number]).set_user_attr("reason", reason)
            self._study.tell(number, state=TrialState.FAIL)

    def lines(self) -> list[TrialLine]:
        """Return all trials so far, by number."""
        with self._mutex:
            return [self._line(trial) for trial in self._trials()]

    def _line(self, trial: FrozenTrial) -> TrialLine:
        values: Mapping[int, float] = trial.intermediate_values
        return TrialLine(
            number=trial.number,
            state=trial.state.name.lower(),
            words=self._space.words(trial.params),
            value=math.nan if trial.value is None else trial.value,
            evaluations=dict(sorted(values.items())),
            attributes=dict(trial.user_attrs),
        )

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, found: FrozenTrial) -> optuna.Trial:
        """Return the trial of any process, which Optuna gives only to the one that asks."""
        return optuna.Trial(self._study, found._trial_id)
