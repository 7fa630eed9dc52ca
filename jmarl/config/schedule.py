"""Schedule of a run: its updates, evaluations, stages and chunks.

Sizes are given in rows, and a run consists of whole updates. Every rounding from rows to
updates is in this module.
"""

from __future__ import annotations

import bisect
import itertools
import math
from typing import NamedTuple


class Schedule(NamedTuple):
    """Updates, evaluations, stages and chunks of a run."""

    total_rows: int
    """Requested length of the run, in rows."""
    rows_per_update: int
    rows_per_evaluation: int
    """Requested interval between evaluations, in rows; at least ``rows_per_update``."""
    updates_per_chunk: int
    """Largest number of updates in one compiled call, a chunk."""
    stage_shares: tuple[float, ...] = (1.0,)
    """Share of the run of each stage; the sum is 1."""

    @property
    def num_updates(self) -> int:
        """Smallest number of updates with at least ``total_rows`` rows."""
        return -(-self.total_rows // self.rows_per_update)

    @property
    def num_evaluations(self) -> int:
        """Evaluations during training, without the one of the untrained parameters."""
        by_length = (self.total_rows - 1) // self.rows_per_evaluation
        return min(by_length, self._nearest_until(self.num_updates - 1)) + 1

    def evaluation(self, number: int) -> int:
        """Return the update of an evaluation; number 0 is before the first update.

        Evaluation i follows the update nearest to ``i * rows_per_evaluation`` rows if they
        are fewer than ``total_rows``. The last one follows the last update.
        """
        if number >= self.num_evaluations:
            return self.num_updates
        rows = self.rows_per_update
        return (2 * number * self.rows_per_evaluation + rows) // (2 * rows)

    def next_evaluation(self, update: int) -> int:
        """Return the update of the next evaluation; ``num_updates`` if none is left.

        With ``update=-1``, it is the evaluation of the untrained parameters.
        """
        return self.evaluation(self.evaluations_until(update) + 1)

    def evaluations_until(self, update: int) -> int:
        """Return the number of the last evaluation up to an update, which is not the last."""
        return min(self._nearest_until(update), self.num_evaluations - 1)

    def _nearest_until(self, update: int) -> int:
        """Return the last evaluation whose rows are nearest to this or an earlier update."""
        rows = (2 * update + 1) * self.rows_per_update
        return (rows - 1) // (2 * self.rows_per_evaluation)

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Number of updates at the end of each stage, rounded to the nearest update."""
        shares = itertools.accumulate(self.stage_shares[:-1])
        ends = [math.floor(share * self.num_updates + 0.5) for share in shares]
        return (*ends, self.num_updates)

    def is_evaluation(self, update: int) -> bool:
        """Return True if an evaluation follows this update."""
        return self.next_evaluation(update - 1) == update

    def stage_at(self, update: int) -> int:
        """Return the index of the stage that trains after a number of updates."""
        last = len(self.stage_shares) - 1
        return min(bisect.bisect_right(self.stage_ends, update), last)

    def chunk_end(self, update: int) -> int:
        """Return the last update of the chunk that starts after ``update``.

        A chunk ends at the latest with the next evaluation or the end of a stage.
        """
        limits = [update + self.updates_per_chunk, self.next_evaluation(update)]
        limits += [end for end in self.stage_ends if end > update]
        return min(limits)

    def chunks(self, start: int, end: int) -> list[int]:
        """List the number of updates of each chunk from ``start`` to ``end``."""
        lengths = []
        while start < end:
            stop = min(self.chunk_end(start), end)
            lengths.append(stop - start)
            start = stop
        return lengths
