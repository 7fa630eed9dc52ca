"""Zero-shot results: intervals and tests against hand computations, and their tables."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest

from jmarl.results.grid_table import estimate_text, grid_table, notes
from jmarl.results.heat_map import draw_grid, grid_values, places
from jmarl.results.intervals import holm, seed_p_value
from jmarl.results.zero_shot import compare, estimate, retention, score


T2 = 4.302653
"""Quantile of Student's t with two degrees of freedom for 95 % intervals."""
TRAINING, WEAK, EQUAL = [0.5, 0.8, 0.4], [0.1, 0.1, 0.12], [0.5, 0.7, 0.6]
CELLS = {"a": ("2m", "1z"), "b": ("2m", "2z"), "c": ("4m", "1z")}


def test_the_retention_is_the_ratio_of_the_means_with_an_interval_of_the_residuals():
    """The ratio is 1.35 / 1.7, and the residuals by seed are test - ratio * training."""
    test, training = [0.25, 0.8, 0.3], np.array(TRAINING)
    found = retention(estimate(test), estimate(TRAINING))
    ratio = sum(test) / sum(TRAINING)
    deviation = np.std(test - ratio * training, ddof=1)
    half = T2 * deviation / np.sqrt(3) / np.mean(TRAINING)
    bounds = [found["mean"], found["low"], found["high"]]
    expected = [ratio, max(ratio - half, 0.0), ratio + half]
    np.testing.assert_allclose(bounds, expected, rtol=1e-6)
    np.testing.assert_allclose(found["per_seed"], [0.5, 1.0, 0.75])
    itself = retention(estimate(TRAINING), estimate(TRAINING))
    assert (itself["low"], itself["mean"], itself["high"]) == (1.0, 1.0, 1.0)


def test_one_seed_that_failed_in_training_does_not_dominate_the_retention():
    found = retention(estimate([0.05, 0.9, 0.9]), estimate([0.0, 0.9, 0.9]))
    assert found["mean"] == pytest.approx(1.85 / 1.8)
    assert found["low"] < 1.0 < found["high"] < 1.3
    assert found["per_seed"] == [None, 1.0, 1.0]


def test_the_interval_of_the_retention_covers_the_ratio():
    """Over 2,000 draws of ten seeds, 95 % intervals contain the true ratio 0.8."""
    rng = np.random.default_rng(0)
    training = np.clip(rng.normal(0.7, 0.15, (2_000, 10)), 0.05, 1)
    test = 0.8 * training + rng.normal(0, 0.05, training.shape)
    pairs = zip(test, training, strict=True)
    found = [retention(estimate(y), estimate(x)) for y, x in pairs]
    covered = np.mean([each["low"] <= 0.8 <= each["high"] for each in found])
    assert 0.93 < covered < 0.97


def test_a_retention_without_a_score_in_training_is_undefined():
    found = retention(estimate([0.25, 0.8, 0.3]), estimate([0.0, 0.0, 0.0]))
    numbers = found["mean"], found["low"], found["high"], found["per_seed"]
    assert numbers == (None,) * 4
    assert estimate_text(found) == "undefined: no score in training"


def test_one_seed_has_no_interval():
    for found in (estimate([0.5]), retention(estimate([0.25]), estimate([0.5]))):
        assert (found["mean"], found["low"], found["high"]) == (0.5, None, None)
        assert estimate_text(found) == "0.500 (one seed)"


def test_the_interval_of_a_win_rate_is_cut_at_its_bounds():
    seeds = [{"mean": 0.9}, {"mean": 1.0}, {"mean": 0.0}]
    record = {"episodes": 64, "results": {"greedy": {"won": seeds, "return": seeds}}}
    won, gain = (score(record, "greedy", metric) for metric in ("won", "return"))
    assert (won["low"], won["high"]) == (0.0, 1.0)
    assert gain["low"] < 0.0 and gain["high"] > 1.0
    weak = retention(estimate([0.9, 0.0, 0.0]), estimate([0.5, 0.5, 0.5]))
    assert weak["low"] == 0.0


def win_rates(*values, episodes=640):
    """Return the score of seeds with these win rates."""
    seeds = [{"mean": value} for value in values]
    record = {"episodes": episodes, "results": {"greedy": {"won": seeds}}}
    return score(record, "greedy", "won")


def test_seeds_that_agree_have_the_interval_of_their_episodes():
    """All 1,920 episodes were won: the variance is that of 1,922 wins of 1,924."""
    found, lost = win_rates(1, 1, 1), win_rates(*[639 / 640] * 3)
    rate = 1922 / 1924
    half = T2 * np.sqrt(rate * (1 - rate) / 640 / 3)
    np.testing.assert_allclose([found["low"], found["high"]], [1 - half, 1], rtol=1e-6)
    (test,) = compare({"x": {"a": found}, "y": {"a": lost}})
    assert test["verdict"] == "no difference" and test["p"] > 0.05
    (test,) = compare({"x": {"a": found}, "y": {"a": win_rates(0, 0, 0)}})
    assert test["verdict"] == "lower" and test["p"] < 1e-3


def test_the_p_value_is_welchs():
    """With equal variances and sizes t is 1.5 / sqrt(2 / 3), with 4 degrees of freedom.

    Student's distribution then has a closed form.
    """
    first, second = np.array([1.0, 2.0, 3.0]), np.array([0.5, -0.5, 1.5])
    t = 1.5 / np.sqrt(2 / 3)
    sine = t / np.sqrt(4 + t**2)
    expected = 1 - sine * (1 + (1 - sine**2) / 2)
    np.testing.assert_allclose(seed_p_value(first, second), expected, rtol=1e-6)


def test_the_p_value_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m in ((2, 5), (3, 3), (10, 4)):
        x, y = rng.normal(0, 1, n), rng.normal(1, 3, m)
        expected = stats.ttest_ind(x, y, equal_var=False).pvalue
        np.testing.assert_allclose(seed_p_value(x, y), expected, rtol=1e-9)


def test_the_p_value_of_seeds_without_variation_or_of_one_seed():
    ones, zeros = np.ones(2), np.zeros(3)
    assert seed_p_value(ones, ones) == 1.0
    assert seed_p_value(ones, zeros) == 0.0
    assert np.isnan(seed_p_value(ones[:1], zeros))


def test_holms_method_multiplies_the_smallest_p_value_by_the_number_of_tests():
    """The third value is 2 x 0.02, but at least as large as the second, 3 x 0.015."""
    np.testing.assert_allclose(
        holm([0.9, 0.01, 0.02, 0.015]), [0.9, 0.04, 0.045, 0.045]
    )
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def scores(**values):
    return {env: estimate(x, 0.0, 1.0) for env, x in values.items()}


def test_a_difference_is_claimed_only_if_intervals_are_disjoint_and_the_test_agrees():
    good, bad = [0.90, 0.91, 0.92], [0.1, 0.12, 0.11]
    first = scores(a=good, b=TRAINING, c=bad)
    second = scores(a=bad, b=EQUAL, c=good)
    found = {test["env"]: test for test in compare({"x": first, "y": second})}
    verdicts = [found[env]["verdict"] for env in "abc"]
    assert verdicts == ["lower", "no difference", "higher"]
    raw = [found[env]["p"] for env in "abc"]
    assert [found[env]["p_holm"] for env in "abc"] == holm(raw)
    assert raw[1] == seed_p_value(np.array(EQUAL), np.array(TRAINING))


def test_a_difference_is_not_claimed_if_the_correction_removes_it():
    close = scores(a=[0.82, 0.85, 0.88]), scores(a=[0.60, 0.64, 0.68])
    alone = compare(dict(zip("xy", close, strict=True)))[0]
    many = compare(
        {
            name: {f"{env}{i}": x for i in range(60) for env, x in run.items()}
            for name, run in zip("xy", close, strict=True)
        }
    )
    assert alone["verdict"] == "lower" and alone["p"] < 0.05
    assert {test["verdict"] for test in many} == {"no difference"}


def test_one_seed_is_not_tested():
    (test,) = compare({"x": scores(a=[0.5]), "y": scores(a=EQUAL)})
    assert test["p"] is None and test["verdict"] == "not tested, one seed"


def run_record(trained_in: str, training: list[float], envs: dict[str, list[float]]):
    """Return the record of a run, as a grid's JSON file has it."""
    about = {"update": [8, 8, 8], "seeds": [0, 1, 2]}
    cells = {
        env: {
            "score": estimate(values, 0.0, 1.0),
            "retention": retention(estimate(values), estimate(training)),
        }
        for env, values in envs.items()
    }
    own = {"env": "home", "cell": trained_in, "score": estimate(training, 0.0, 1.0)}
    return {
        "system": "mappo",
        "trained_on": ["home"],
        "training": about | own,
        "envs": cells,
    }


def grid_record():
    runs = {
        "x": run_record("a", TRAINING, {"a": TRAINING, "b": WEAK, "c": EQUAL}),
        "y": run_record("", EQUAL, {"a": EQUAL, "b": EQUAL, "c": [0.0] * 3}),
    }
    tested = {
        label: {env: cell["score"] for env, cell in run["envs"].items()}
        for label, run in runs.items()
    }
    cells = {
        label: {"allies": allies, "enemies": enemies, "env": f"battle_{label}"}
        for label, (allies, enemies) in CELLS.items()
    }
    return {
        "grid": "small",
        "title": "teams of marines",
        "metric": "won",
        "mode": "greedy",
        "episodes": 64,
        "parameters": "best",
        "seed": 0,
        "cells": cells,
        "runs": runs,
        "comparisons": compare(tested),
    }


def test_the_table_has_the_numbers_of_the_record():
    record = grid_record()
    table = grid_table(record)
    rows = {
        tuple(line.split()[:2]): line for line in table.replace("*", "").splitlines()
    }
    for label, run in record["runs"].items():
        for env, cell in run["envs"].items():
            for kind in ("score", "retention"):
                assert estimate_text(cell[kind]) in rows[env, label]
    assert estimate_text(record["runs"]["y"]["training"]["score"]) in rows["home", "y"]
    for test in record["comparisons"]:
        assert f"p {test['p_holm']:.3f}, {test['verdict']}" in rows[test["env"], "y"]
    marks = re.findall(r"^ +\* +(\w+) +(\w+)", table, re.MULTILINE)
    assert marks == [("home", "y"), ("a", "x")]
    explained = notes(record)
    assert table.splitlines()[-len(explained) :] == explained
    assert "Welch" in table and "Holm's method over all 3 tests" in table


def test_a_table_of_one_run_has_no_tests():
    record = grid_record()
    record["runs"].pop("y")
    record["comparisons"] = []
    table = grid_table(record)
    assert "difference" not in table and "Welch" not in table


def test_a_heat_map_has_the_numbers_of_the_record_and_blanks_outside_the_grid(tmp_path):
    record = grid_record()
    values = grid_values(record, record["runs"]["x"], "score")
    rows = [[np.mean(TRAINING), np.mean(WEAK)], [np.mean(EQUAL), np.nan]]
    np.testing.assert_allclose(values, rows)
    assert places(record) == {"a": (0, 0), "b": (0, 1), "c": (1, 0)}
    draw_grid(record, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_a_heat_map_without_any_retention_can_be_drawn(tmp_path):
    record = copy.deepcopy(grid_record())
    for run in record["runs"].values():
        for cell in run["envs"].values():
            cell["retention"] = retention(estimate([0.5]), estimate([0.0]))
    draw_grid(json.loads(json.dumps(record)), tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()
