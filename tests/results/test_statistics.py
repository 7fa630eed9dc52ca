"""Aggregates, profiles and bootstrap intervals: equality with rliable, coverage, invariances."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coverage.__main__ import coverage, normal, skewed
from jmarl.results.intervals import seed_interval
from jmarl.results.statistics.aggregates import (
    interquartile_mean,
    mean,
    median,
    optimality_gap,
)
from jmarl.results.statistics.bootstrap import (
    bootstrap,
    percentile_interval,
    student_interval,
)
from jmarl.results.statistics.profiles import (
    performance_profile,
    probability_of_improvement,
    task_profile,
)


RLIABLE = json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())
"""Values of rliable 1.2.0; the entry ``how`` says how they were computed."""
X, Y = ([np.array(task) for task in RLIABLE["scores"][name]] for name in "xy")
AGGREGATES = (interquartile_mean, mean, median, optimality_gap)
GRID = 1 / 32 / 8
"""Ends of two bootstraps may differ by the spacing of the possible values: scores are counts of
32 episodes, and at least 8 of them are averaged.
"""


@pytest.mark.parametrize("name", "xy")
@pytest.mark.parametrize("statistic", AGGREGATES, ids=lambda f: f.__name__)
def test_aggregates_and_their_percentiles_are_those_of_rliable(name, statistic):
    expected = RLIABLE["aggregates"][name][statistic.__name__]
    found = percentile_interval(statistic, {"x": X, "y": Y}[name], resamples=20_000)
    assert found.value == pytest.approx(expected["value"], abs=1e-9)
    ends = expected["low"], expected["high"]
    assert (found.low, found.high) == pytest.approx(ends, abs=GRID)


def test_the_probability_of_improvement_is_that_of_rliable():
    expected = RLIABLE["probability_of_improvement"]
    found = percentile_interval(probability_of_improvement, X, Y, resamples=10_000)
    assert found.value == pytest.approx(expected["value"], abs=1e-9)
    ends = expected["low"], expected["high"]
    assert (found.low, found.high) == pytest.approx(ends, abs=0.01)


@pytest.mark.parametrize("name", "xy")
def test_performance_profiles_are_those_of_rliable(name):
    scores, thresholds = {"x": X, "y": Y}[name], np.array(RLIABLE["thresholds"])
    profile = functools.partial(performance_profile, thresholds=thresholds)
    found = percentile_interval(profile, scores, resamples=10_000)
    for key, ends in found._asdict().items():
        # The spacing of a share of 30 or 24 runs.
        tolerance = 1e-9 if key == "value" else 1 / 24 + 1e-9
        assert ends == pytest.approx(RLIABLE["profile"][name][key], abs=tolerance)
    tasks = task_profile(scores, thresholds)
    assert tasks == pytest.approx(RLIABLE["task_profile"][name])


def _coverage(interval, statistic, draw, seeds, tasks, repeats=2000):
    return coverage(
        interval, statistic, lambda rng, n: draw(rng, n, tasks), seeds, studies=repeats
    )


@pytest.mark.parametrize("draw", [normal, skewed])
@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize(("seeds", "tasks"), [(10, 1), (5, 3), (10, 3)])
def test_student_intervals_have_their_nominal_coverage(draw, statistic, seeds, tasks):
    found = _coverage(student_interval, statistic, draw, seeds, tasks)
    assert 0.93 <= found <= 0.97


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_percentile_intervals_cover_with_many_seeds(statistic):
    found = _coverage(percentile_interval, statistic, normal, 50, 3, 1500)
    assert 0.93 <= found <= 0.97


def test_percentile_intervals_of_three_seeds_are_too_narrow():
    """This is the reason why tables have Student's intervals."""
    percentile = _coverage(percentile_interval, mean, normal, 3, 1)
    student = _coverage(student_interval, mean, normal, 3, 1)
    assert percentile < 0.8 and 0.93 <= student <= 0.97


def test_the_student_interval_of_a_mean_is_that_over_seeds():
    x = X[0]
    found = student_interval(mean, [x], resamples=200_000)
    assert found == pytest.approx(seed_interval(x), abs=2e-3)


def test_equal_scores_have_the_uncertainty_of_their_episodes():
    scores = [np.ones(5)]
    assert student_interval(mean, scores).low == 1.0
    found = student_interval(mean, scores, least_variance=0.01)
    assert found.low == pytest.approx(seed_interval(scores[0], 0.01)[1])


def test_a_task_with_one_seed_has_no_interval():
    found = student_interval(mean, [X[0], X[1][:1]])
    assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("statistic", AGGREGATES, ids=lambda f: f.__name__)
def test_aggregates_ignore_the_order_of_seeds_and_tasks(statistic):
    shuffled = [np.random.default_rng(0).permutation(x) for x in reversed(X)]
    assert statistic(shuffled) == pytest.approx(statistic(X))


@pytest.mark.parametrize("statistic", [mean, median, interquartile_mean])
def test_intervals_are_equivariant_under_affine_maps(statistic):
    mapped = [3 * x - 1 for x in X]
    before = student_interval(statistic, X)
    after = student_interval(statistic, mapped)
    assert after == pytest.approx([3 * x - 1 for x in before])


def test_tasks_may_have_different_numbers_of_seeds():
    ragged = [X[0], X[1][:4]]
    assert mean(ragged) == pytest.approx((X[0].mean() + X[1][:4].mean()) / 2)
    assert bootstrap(interquartile_mean, ragged, resamples=7).shape == (7,)


def test_bootstrap_samples_stay_within_their_task():
    constant = [np.zeros(4), np.ones(2)]
    assert (bootstrap(mean, constant) == 0.5).all()


def test_the_interquartile_mean_drops_a_quarter_at_either_end():
    scores = [np.array([100.0, 1.0, 2.0, 3.0]), np.array([4.0, -50.0, 2.5, 1.5])]
    assert interquartile_mean(scores) == pytest.approx(np.mean([1.5, 2.0, 2.5, 3.0]))
    assert interquartile_mean([np.array([0.0, 0.0, 3.0])]) == 1.0


def test_the_median_of_one_task_is_that_over_seeds():
    assert median([np.array([0.0, 0.1, 0.9])]) == 0.1


def test_probabilities_of_improvement_of_both_directions_sum_to_one():
    there, back = probability_of_improvement(X, Y), probability_of_improvement(Y, X)
    assert there + back == pytest.approx(1.0)
    assert probability_of_improvement(X, X) == 0.5
    monotone = probability_of_improvement([x**3 for x in X], [y**3 for y in Y])
    assert monotone == pytest.approx(there)


def test_a_profile_falls_and_its_area_is_the_mean():
    thresholds = np.linspace(0, 1, 32 * 50, endpoint=False)
    profile = performance_profile(X, thresholds)
    assert (np.diff(profile) <= 0).all() and profile[0] == 1.0
    assert profile.mean() == pytest.approx(mean(X), abs=1e-3)
