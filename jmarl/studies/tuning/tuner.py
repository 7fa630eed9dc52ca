"""Trials of a tuning as jobs of a queue: each is a run, observed at its evaluations."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmarl.results.metrics_file import Row, read_rows
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.progress import open_reporter
from jmarl.runs.status import read_status
from jmarl.saved.list_runs import last_rows
from jmarl.studies.cell_queue import STOPPED, Job
from jmarl.studies.cell_runs import state_of
from jmarl.studies.tuning.trial_store import TrialStore


METRICS_FILE = "metrics.jsonl"
TRIALS = "trials"
"""Folder of a tuning with the run folders of its trials."""


class Slot(NamedTuple):
    """A trial in the queue."""

    number: int
    name: str
    folder: Path
    """Its run folder."""


def slots(folder: Path, trials: int) -> list[Slot]:
    """Return the trials of a tuning, of which some are not drawn yet."""
    names = [f"trial_{number:04d}" for number in range(trials)]
    return [Slot(i, name, folder / TRIALS / name) for i, name in enumerate(names)]


class Objective(NamedTuple):
    """Number that a tuning maximizes: the mean of a metric over episodes and seeds."""

    metric: str
    """Result of an episode, such as ``won``."""
    mode: str
    """``greedy`` or ``sampled``."""

    def evaluations(self, rows: Sequence[Row]) -> list[float]:
        """Return the metric at each evaluation, without that of untrained parameters."""
        found = [row for row in rows if row["kind"] == "eval" and row["update"] > 0]
        return list(map(self._mean, found))

    def final(self, rows: Sequence[Row]) -> float:
        """Return the absolute metric, or that of the last evaluation if a run has none."""
        last = [row for row in rows if row["kind"] in ("eval", "absolute")][-1]
        return self._mean(last)

    def _mean(self, row: Row) -> float:
        """Return the mean over seeds; NaN if a seed has none."""
        values = row[f"{self.mode}/{self.metric}"]
        return float(np.mean(np.array(values, float)))


class Tuner:
    """Jobs of the trials of a tuning.

    Args:
        store: Trials.
        system: Name of the system.
        common: Overrides that all trials share.
        objective: Number to maximize.
    """

    def __init__(
        self,
        store: TrialStore,
        system: str,
        common: Sequence[str],
        objective: Objective,
    ) -> None:
        self._store, self._objective = store, objective
        self._command = [sys.executable, "-m", f"jmarl.systems.{system}"]
        self._common = list(common)
        self._last_update: dict[int, int] = {}

    def find_job(self, slot: Slot) -> Job | None:
        """Return the job of a trial; None if the trial has ended.

        A trial of a process that was killed continues from its last checkpoint. If its run has
        ended in the meantime, the trial ends here.
        """
        words = self._store.open(slot.number)
        if words is None:
            return None
        state = state_of(slot.folder)
        if state == "finished" or self._store.observe(slot.number, ()):
            self._end(slot, ExitCode.FINISHED)
            return None
        command = [*self._command, f"resume={slot.folder}"]
        if state == "missing":
            place = f"run_dir={slot.folder}"
            command = [*self._command, *self._common, *words, place]
        return Job(
            "train" if state == "missing" else "resume",
            command,
            stop_when=partial(self._observe_new, slot),
            conclude=partial(self._conclude, slot, time.monotonic()),
        )

    def _observe_new(self, slot: Slot) -> bool:
        """Report new evaluations of a run, and return True if its trial is pruned."""
        _, last = last_rows(slot.folder / METRICS_FILE)
        update = last.get("update", 0)
        if update == self._last_update.get(slot.number, 0):
            return False
        self._last_update[slot.number] = update
        return self._observe(slot)

    def _observe(self, slot: Slot) -> bool:
        rows = read_rows(slot.folder / METRICS_FILE)
        evaluations = self._objective.evaluations(rows)
        return self._store.observe(slot.number, evaluations)

    def _conclude(self, slot: Slot, start: float, code: int) -> int:
        """End the trial of a process, unless it must continue later."""
        self._store.add_seconds(slot.number, time.monotonic() - start)
        return self._end(slot, code)

    def _end(self, slot: Slot, code: int) -> int:
        """End a trial, and return the exit code for the queue."""
        if self._observe(slot):
            self._store.prune(slot.number)
        elif code in STOPPED or code == ExitCode.RESOURCE:
            return code
        elif code == ExitCode.FINISHED:
            self._finish(slot)
        else:
            message = str(read_status(slot.folder).get("message", ""))
            reason = message.partition("\n")[0]
            self._fail(slot, f"exit code {code}{reason and f': {reason}'}")
        open_reporter().info(self._text(slot))
        return ExitCode.FINISHED

    def _finish(self, slot: Slot) -> None:
        value = self._objective.final(read_rows(slot.folder / METRICS_FILE))
        if math.isnan(value):
            self._fail(slot, "the metric of a seed is not finite")
        else:
            self._store.complete(slot.number, value)

    def _fail(self, slot: Slot, reason: str) -> None:
        self._store.fail(slot.number, reason)
        open_reporter().warn(f"{slot.name}: {reason}")

    def _text(self, slot: Slot) -> str:
        """Describe the end of a trial, and the best one so far."""
        lines = self._store.lines()
        line = lines[slot.number]
        text = f"{slot.name} {line.state} {line.value:.4g}: {' '.join(line.words)}"
        done = [other for other in lines if other.state == "complete"]
        if not done:
            return text
        best = max(done, key=lambda other: other.value)
        return f"{text}; best {best.value:.4g} of trial {best.number}"
