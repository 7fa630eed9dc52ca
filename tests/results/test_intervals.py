"""Confidence intervals: coverage, bounds and known values."""

import numpy as np
import pytest

from jmarl.results.intervals import (
    Proportion,
    confidence_interval,
    difference_interval,
    seed_interval,
    wilson_interval,
)
from jmarl.results.tables import summarize


def test_a_confidence_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(0)

    def coverage(draw, mean):
        intervals = [confidence_interval(draw()) for _ in range(400)]
        return np.mean([low <= mean <= high for _, low, high in intervals])

    def wins():
        return (rng.random(100) < 0.9) * 1.0

    def returns():
        return rng.normal(2.0, 3.0, 100)

    assert 0.91 < coverage(wins, 0.9) < 0.98
    assert 0.91 < coverage(returns, 2.0) < 0.98


def test_a_confidence_interval_of_wins_only_is_not_a_point():
    mean, low, high = confidence_interval(np.ones(64))
    assert mean == 1.0 == high and 0.9 < low < 0.97


def test_an_interval_of_a_win_rate_contains_it_and_stays_in_the_unit_interval():
    for trials in (1, 2, 3, 7, 64, 1000):
        for wins in range(trials + 1):
            rate = wins / trials
            low, high = wilson_interval(Proportion(rate, trials))
            assert 0.0 <= low <= rate <= high <= 1.0
            assert low < high


def test_the_win_rate_of_every_seed_in_a_table_has_the_interval_of_a_proportion():
    won = np.array([[1.0] * 9 + [0.0], [0.0] * 10, [1.0] * 10])
    estimates = summarize({"greedy": {"won": won}})["greedy"]["won"]
    for seed, estimate in zip(won, estimates, strict=True):
        bounds = wilson_interval(Proportion(seed.mean(), 10))
        assert (estimate["low"], estimate["high"]) == bounds
    assert estimates[0]["high"] < 1.0 < 0.9 + 1.96 * np.std(won[0], ddof=1) / 10**0.5


NEWCOMBE = [
    ((56, 70), (48, 80), (0.0524, 0.3339)),
    ((9, 10), (3, 10), (0.1705, 0.8090)),
    ((6, 7), (2, 7), (0.0582, 0.8062)),
    ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ((0, 10), (0, 20), (-0.1611, 0.2775)),
    ((0, 10), (0, 10), (-0.2775, 0.2775)),
    ((10, 10), (0, 20), (0.6791, 1.0)),
    ((10, 10), (0, 10), (0.6075, 1.0)),
]
"""Two counts of successes and trials, and the interval (Newcombe 1998, table II, method 10)."""


@pytest.mark.parametrize(("first", "second", "bounds"), NEWCOMBE)
def test_the_interval_of_a_difference_is_newcombes(first, second, bounds):
    shares = [Proportion(wins / trials, trials) for wins, trials in (first, second)]
    difference, *interval = difference_interval(*shares)
    assert difference == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert interval == pytest.approx(bounds, abs=5e-5)


def test_the_interval_of_a_difference_changes_its_sign_if_the_sides_are_exchanged():
    first, second = Proportion(0.8, 70), Proportion(0.6, 80)
    difference, low, high = difference_interval(first, second)
    exchanged = difference_interval(second, first)
    assert exchanged == pytest.approx((-difference, -high, -low))


@pytest.mark.parametrize(("p", "q"), [(0.98, 0.9), (0.5, 0.5), (0.05, 0.01)])
def test_the_interval_of_a_difference_has_its_nominal_coverage_and_bounds(p, q):
    rng = np.random.default_rng(0)
    n, other = 96, 64
    mine = rng.binomial(n, p, 1000) / n
    theirs = rng.binomial(other, q, 1000) / other
    covered = []
    for rate, other_rate in zip(mine, theirs, strict=True):
        shares = Proportion(rate, n), Proportion(other_rate, other)
        difference, low, high = difference_interval(*shares)
        assert -1.0 <= low <= difference <= high <= 1.0
        covered.append(low <= p - q <= high)
    assert 0.93 < np.mean(covered) < 0.99


def test_the_interval_over_seeds_is_students():
    """The quantile of Student's t with two degrees of freedom is 4.3027."""
    half = 4.302653 / np.sqrt(3)
    expected = 2.0, 2.0 - half, 2.0 + half
    found = seed_interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert seed_interval(np.array([0.5])) == (0.5, -np.inf, np.inf)
