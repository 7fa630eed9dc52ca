"""Areas under curves, censored times to a threshold, paired differences and margins."""

import math

import numpy as np
import pytest

from jmarl.results.intervals import seed_interval
from jmarl.results.statistics.budgets import (
    Curve,
    Waits,
    area_under_curve,
    common_budget,
    median_wait,
    restricted_mean_interval,
    restricted_mean_wait,
    survival,
    waits,
)
from jmarl.results.statistics.pairs import non_inferiority, paired, paired_difference


def curve(*points):
    budget, values = np.array(points, float).T
    return Curve(budget, values)


def test_the_area_under_a_straight_line_is_its_middle():
    line = curve((0, 0.0), (50, 0.5), (100, 1.0))
    assert area_under_curve(line, 100) == pytest.approx(0.5)
    assert area_under_curve(line, 80) == pytest.approx(0.4)


def test_more_evaluations_on_the_same_line_do_not_change_the_area():
    few = curve((0, 0.0), (60, 0.6), (100, 0.2))
    many = curve((0, 0.0), (20, 0.2), (60, 0.6), (80, 0.4), (100, 0.2))
    assert area_under_curve(few, 90) == pytest.approx(area_under_curve(many, 90))


@pytest.mark.parametrize("limit", [0, 101])
def test_an_area_beyond_the_evaluations_is_an_error(limit):
    with pytest.raises(ValueError, match="limit"):
        area_under_curve(curve((0, 0), (100, 1)), limit)


CURVES = [
    curve((0, 0.0), (10, 0.9), (20, 0.3)),
    curve((0, 0.0), (10, 0.2), (30, 0.95)),
    curve((0, 0.0), (10, 0.2), (25, 0.5)),
]


def test_a_run_that_does_not_reach_the_threshold_is_censored():
    found = waits(CURVES, 0.9)
    assert found.budget.tolist() == [10, 30, 25]
    assert found.reached.tolist() == [True, True, False]
    assert common_budget(CURVES) == 20


def test_small_differences_in_steps_do_not_remove_a_censored_run():
    """Two of three runs of equal length miss the threshold, so their median is unknown."""
    ends = ((1000, 0.2), (1001, 0.2), (1002, 0.9))
    found = waits([curve((0, 0.0), end) for end in ends], 0.9)
    assert found.budget.tolist() == [1002, 1002, 1002]
    assert median_wait(found) == math.inf


def test_survival_has_the_known_values_of_kaplan_and_meier():
    """The remission times of Freireich et al. (1963), as in many textbooks."""
    times = [
        6,
        6,
        6,
        6,
        7,
        9,
        10,
        10,
        11,
        13,
        16,
        17,
        19,
        20,
        22,
        23,
        25,
        32,
        32,
        34,
        35,
    ]
    events = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    found = Waits(np.array(times, float), np.array(events, bool))
    when, share = survival(found)
    assert when.tolist() == [6, 7, 10, 13, 16, 22, 23]
    known = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert share == pytest.approx(known, abs=6e-4)
    assert median_wait(found) == 23


def test_without_censoring_the_median_is_reached_by_half_of_the_runs():
    found = Waits(np.array([4.0, 1.0, 3.0, 2.0]), np.ones(4, bool))
    assert median_wait(found) == 2.0


def test_a_censored_run_is_not_averaged_as_if_it_had_reached_the_threshold():
    found = Waits(np.array([10.0, 100.0, 100.0]), np.array([True, False, False]))
    assert median_wait(found) == math.inf
    assert restricted_mean_wait(found, 100) == pytest.approx(70)
    assert restricted_mean_wait(found, 50) == pytest.approx((10 + 50 + 50) / 3)
    with pytest.raises(ValueError, match="censored at 100"):
        restricted_mean_wait(found, 101)


def test_the_restricted_mean_is_the_area_under_the_survival_curve():
    rng = np.random.default_rng(0)
    times = rng.exponential(60, 40)
    found = Waits(np.minimum(times, 100), times < 100)
    when, share = survival(found)
    steps = np.concatenate([[0], when, [100]])
    area = (np.diff(steps) * np.concatenate([[1], share])).sum()
    assert restricted_mean_wait(found, 100) == pytest.approx(area)
    low, high = restricted_mean_interval(found, 100)[1:]
    assert low < area < high <= 100


def test_pairs_are_the_common_seeds_in_order():
    x, y = paired({3: 0.3, 1: 0.1, 0: 0.0}, {1: 1.1, 2: 1.2, 3: 1.3})
    assert x.tolist() == [0.1, 0.3] and y.tolist() == [1.1, 1.3]


def test_a_paired_difference_removes_what_seeds_share():
    rng = np.random.default_rng(0)
    shared, noise = rng.normal(0, 1, 8), rng.normal(0, 0.01, 8)
    pair = shared + 0.1 + noise, shared
    found = paired_difference([pair])
    assert found == pytest.approx(seed_interval(pair[0] - pair[1]))
    assert found.high - found.low < 0.05
    double = paired_difference([pair, pair])
    assert double.value == pytest.approx(found.value)
    assert double.high - double.low < found.high - found.low


def test_one_seed_decides_nothing():
    pair = np.array([0.9]), np.array([0.1])
    found = non_inferiority([pair], 0.05)
    assert found.verdict == "undecided" and math.isnan(found.p)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (0.0, "non-inferior"),
        (-0.5, "inferior"),
        (-0.1, "undecided"),
        (0.3, "non-inferior"),
    ],
)
def test_non_inferiority_depends_on_the_margin(shift, verdict):
    base = np.array([0.5, 0.6, 0.7, 0.8])
    noise = np.array([0.01, -0.02, 0.02, -0.01])
    found = non_inferiority([(base + shift + noise, base)], 0.1)
    assert found.verdict == verdict
    assert (found.p < 0.025) == (verdict == "non-inferior")


def test_the_false_rate_of_non_inferiority_is_its_level():
    """At a loss of exactly the margin, 2.5 % of the studies are wrong."""
    rng = np.random.default_rng(0)
    y = np.zeros(5)
    found = [non_inferiority([(rng.normal(-0.1, 0.1, 5), y)], 0.1) for _ in range(3000)]
    wrong = np.mean([each.verdict == "non-inferior" for each in found])
    assert wrong == pytest.approx(0.025, abs=0.009)


def test_a_margin_must_be_positive():
    with pytest.raises(ValueError, match="margin"):
        non_inferiority([(np.zeros(2), np.zeros(2))], 0.0)
