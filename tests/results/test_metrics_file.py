"""Rows of metrics: reading, truncation and scalars."""

import json

from jmarl.results.metrics_file import read_rows, scalars, truncate_rows


def row(update=1, **metrics):
    return {
        "kind": "train",
        "update": update,
        "env_steps": [10 * update, 10 * update],
        "time": 0.5,
        **metrics,
    }


def test_an_incomplete_last_line_is_ignored(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:20])
    assert [r["update"] for r in read_rows(path)] == [1]


def test_truncation_keeps_the_selected_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(5)))
    truncate_rows(path, lambda r: r["update"] < 3)
    assert read_rows(path) == [row(i) for i in range(3)]


def test_seeds_are_separate_scalars():
    expected = {"train/loss/seed_0": 1.0, "train/loss/seed_1": 2.0, "train/time": 0.5}
    assert dict(scalars(row(loss=[1.0, 2.0]))) == expected
    assert dict(scalars({"kind": "eval", "won": [0.5]})) == {"eval/won": 0.5}
    assert dict(scalars({"kind": "eval", "won": [None]})) == {}
    assert dict(scalars({"kind": "train", "steps_per_second": 5.0})) == {
        "train/steps_per_second": 5.0
    }
