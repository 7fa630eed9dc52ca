"""Rows of metrics: one or several seeds, reading, truncation, thinning and scalars."""

import json
import resource

import pytest

from jmarl.config.schedule import Schedule
from jmarl.results.metrics_file import (
    from_json,
    read_rows,
    row_filter,
    row_interval,
    scalars,
    to_json,
    truncate_rows,
)


def row(update=1, **metrics):
    return {
        "kind": "train",
        "update": update,
        "env_steps": [10 * update, 10 * update],
        "time": 0.5,
        **metrics,
    }


def write(path, rows):
    path.write_text("".join(to_json(row) + "\n" for row in rows))


ONE_SEED = {
    "kind": "train",
    "update": 3,
    "env_steps": [30],
    "time": 0.5,
    "stage": 1,
    "steps_per_second": 5.0,
    "agent_steps_per_second": 10.0,
    "won": [0.25],
    "return": [None],
}


def test_metrics_of_one_seed_are_numbers_in_the_file_and_lists_in_python():
    line = to_json(ONE_SEED)
    numbers = {"env_steps": 30, "won": 0.25, "return": None}
    assert json.loads(line) == ONE_SEED | numbers
    assert from_json(line) == ONE_SEED


def test_metrics_of_several_seeds_are_lists_in_the_file_and_in_python():
    seeds = row(loss=[0.5, None, 1.5])
    assert json.loads(to_json(seeds)) == seeds == from_json(to_json(seeds))


def test_a_file_of_an_earlier_version_is_read_and_rewritten(tmp_path):
    """Earlier versions wrote a list for a single seed too."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ONE_SEED) + "\n")
    assert read_rows(path) == [ONE_SEED]
    truncate_rows(path, lambda _: True)
    assert path.read_text() == to_json(ONE_SEED) + "\n"


def test_incomplete_lines_cost_only_their_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [to_json(row(i)) for i in (1, 2, 3, 4)]
    path.write_text(f"{lines[0]}\n{lines[1][:20]}\n{lines[2]}\n{lines[3][:20]}")
    assert [r["update"] for r in read_rows(path)] == [1, 3]


def test_truncation_keeps_the_selected_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(i) for i in range(5)])
    truncate_rows(path, lambda r: r["update"] < 3)
    assert read_rows(path) == [row(i) for i in range(3)]


@pytest.fixture
def limit_file_size():
    """Return a function that limits the size of every file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_truncation_on_a_full_disk_leaves_the_file_as_it_was(tmp_path, limit_file_size):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(i) for i in range(50)])
    before = path.read_bytes()
    limit_file_size(100)
    with pytest.raises(OSError, match=r"File too large: .*metrics\.jsonl"):
        truncate_rows(path, lambda r: r["update"] < 40)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def rows_of(schedule):
    """Return the rows of a run: one per compiled call, and one per evaluation."""
    update, rows = 0, [{"kind": "eval", "update": 0}]
    while update < schedule.num_updates:
        update = schedule.chunk_end(update)
        rows.append(row(update))
        if schedule.is_evaluation(update):
            rows.append({"kind": "eval", "update": update})
    return [*rows, {"kind": "absolute", "update": update}]


SCHEDULES = [
    Schedule(updates, 1, interval, call, shares)
    for updates in (7, 20, 21, 40, 41, 333, 1000)
    for interval in (1, 9, 25, 400)
    for call in (1, 4, 10)
    for shares in ((1.0,), (0.3, 0.7))
]
LIMIT = 20


def interval_of(schedule):
    return row_interval(schedule.num_updates, schedule.chunk_end(0), LIMIT)


@pytest.mark.parametrize("kind", ["train", "eval", "absolute"])
def test_only_training_rows_are_thinned_and_only_beyond_the_limit(kind):
    for schedule in SCHEDULES:
        rows = [row for row in rows_of(schedule) if row["kind"] == kind]
        kept = list(filter(row_filter(interval_of(schedule)), rows))
        if kind != "train" or schedule.num_updates <= LIMIT:
            assert kept == rows
        else:
            assert min(len(rows), LIMIT) / 4 <= len(kept) <= LIMIT


def test_chunks_of_one_length_are_thinned_evenly():
    schedule = Schedule(1000, 1, 500, 10)
    kept = filter(row_filter(interval_of(schedule)), rows_of(schedule))
    updates = [row["update"] for row in kept if row["kind"] == "train"]
    assert updates == [80, 160, 240, 320, 400, 480, 560, 640, 720, 800, 880, 960]


def test_an_extended_run_keeps_the_rows_of_a_run_that_was_long_from_the_start():
    for total in (21, 40, 41, 333):
        short = Schedule(total, 1, 10, 4)
        long = short._replace(total_rows=1000)
        shared = [row for row in rows_of(long) if row["update"] <= total // 10 * 10]
        kept = list(filter(row_filter(interval_of(short)), shared))
        again = list(filter(row_filter(interval_of(long)), kept))
        assert again == list(filter(row_filter(interval_of(long)), shared))


def test_seeds_are_separate_scalars():
    expected = {"train/loss/seed_0": 1.0, "train/loss/seed_1": 2.0, "train/time": 0.5}
    assert dict(scalars(row(loss=[1.0, 2.0]))) == expected
    assert dict(scalars({"kind": "eval", "won": [0.5]})) == {"eval/won": 0.5}
    assert dict(scalars({"kind": "eval", "won": [None]})) == {}
    assert dict(scalars({"kind": "train", "steps_per_second": 5.0})) == {
        "train/steps_per_second": 5.0
    }
