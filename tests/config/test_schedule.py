"""The schedule of a run: rows, evaluations, stages and chunks."""

import itertools
import math

import pytest

from jmarl.config.schedule import Schedule


ROWS = (64, 1_024, 2_048, 8_192)
EVERY = (1_000, 10_000, 123_457)
CHUNKS = (1, 5, 16)
STAGES = ((1.0,), (0.5, 0.5), (0.2, 0.3, 0.5))
each_length = pytest.mark.parametrize("total", [1_000, 3_000, 30_000, 200_000])


def schedules(total):
    """Yield schedules of one length, with all sizes that leave an update to each stage."""
    for rows, every, chunk, shares in itertools.product(ROWS, EVERY, CHUNKS, STAGES):
        schedule = Schedule(total, rows, max(every, rows), chunk, shares)
        if schedule.num_updates * min(shares) >= 1:
            yield schedule


def follow(schedule):
    """Return the updates of all evaluations, and of the ends of all chunks."""
    evaluated, ends, update = [0], [], 0
    while update < schedule.num_updates:
        update = schedule.chunk_end(update)
        ends.append(update)
        if schedule.is_evaluation(update):
            evaluated.append(update)
    return evaluated, ends


@each_length
def test_a_run_is_shorter_than_one_update_more_than_asked(total):
    for schedule in schedules(total):
        rows = schedule.num_updates * schedule.rows_per_update
        assert 0 <= rows - schedule.total_rows < schedule.rows_per_update


@each_length
def test_every_evaluation_follows_the_update_nearest_to_its_row(total):
    for schedule in schedules(total):
        evaluated, _ = follow(schedule)
        *before_end, last = evaluated
        assert last == schedule.num_updates
        for number, update in enumerate(before_end):
            rows = update * schedule.rows_per_update
            distance = abs(rows - number * schedule.rows_per_evaluation)
            assert 2 * distance <= schedule.rows_per_update
        following = len(before_end) * schedule.rows_per_evaluation
        nearest = math.floor(following / schedule.rows_per_update + 0.5)
        assert following >= schedule.total_rows or nearest >= last


@each_length
def test_counts_and_numbers_of_evaluations_agree_with_the_run(total):
    for schedule in schedules(total):
        evaluated, _ = follow(schedule)
        assert len(evaluated) == schedule.num_evaluations + 1
        assert [schedule.evaluation(i) for i in range(len(evaluated))] == evaluated
        for update in range(schedule.num_updates):
            until = schedule.evaluations_until(update)
            assert until == sum(0 < e <= update for e in evaluated)
            assert schedule.next_evaluation(update) == evaluated[until + 1]


@each_length
def test_chunks_are_bounded_and_end_with_every_stage(total):
    for schedule in schedules(total):
        _, ends = follow(schedule)
        lengths = [b - a for a, b in itertools.pairwise([0, *ends])]
        assert 1 <= min(lengths) and max(lengths) <= schedule.updates_per_chunk
        assert set(schedule.stage_ends) <= set(ends)
        assert schedule.chunks(0, schedule.num_updates) == lengths
        stages = [schedule.stage_at(end - 1) for end in ends]
        assert stages == sorted(stages) and set(stages) == set(
            range(len(schedule.stage_shares))
        )


def test_known_schedules():
    schedule = Schedule(200_000, 4_096, 10_000, 16)
    assert schedule.num_updates == 49 and schedule.num_evaluations == 20
    assert [schedule.evaluation(i) for i in (1, 2, 3, 20)] == [2, 5, 7, 49]
    mam = Schedule(20_000_000, 8_192, 163_935, 1)  # 122 evaluations
    assert mam.num_evaluations == 122 and mam.evaluation(122) == mam.num_updates == 2442
    assert Schedule(3_000, 1_024, 1_024, 1).num_updates == 3
    assert Schedule(1_000, 2_048, 2_048, 1).num_updates == 1
