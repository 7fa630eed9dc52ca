"""Confidence intervals: coverage, bounds and known values."""

import numpy as np

from jmarl.results.intervals import (
    Proportion,
    confidence_interval,
    seed_difference,
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


def test_the_interval_over_seeds_is_students():
    """The quantile of Student's t with two degrees of freedom is 4.3027."""
    half = 4.302653 / np.sqrt(3)
    expected = 2.0, 2.0 - half, 2.0 + half
    found = seed_interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert seed_interval(np.array([0.5])) == (0.5, -np.inf, np.inf)


def test_the_interval_of_a_difference_of_seeds_is_welchs():
    """With equal variances and sizes, Welch's test has 2 S - 2 degrees of freedom: t = 2.7764."""
    half = 2.776445 * np.sqrt(1 / 3 + 1 / 3)
    first, second = np.array([1.0, 2.0, 3.0]), np.array([0.5, -0.5, 1.5])
    found = seed_difference(first, second)
    np.testing.assert_allclose(found, (1.5, 1.5 - half, 1.5 + half), rtol=1e-5)
    exchanged = seed_difference(second, first)
    np.testing.assert_allclose(exchanged, (-1.5, -1.5 - half, -1.5 + half), rtol=1e-5)


def test_the_interval_of_a_difference_of_seeds_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        _, low, high = seed_difference(rng.normal(1, 1, 3), rng.normal(0, 2, 5))
        covered.append(low <= 1 <= high)
    assert 0.93 < np.mean(covered) < 0.97


def test_seeds_without_variation_or_a_single_seed_have_an_interval_as_well():
    ones, zeros = np.ones(2), np.zeros(3)
    assert seed_difference(ones, zeros) == (1.0, 1.0, 1.0)
    assert seed_difference(ones, zeros[:1]) == (1.0, -np.inf, np.inf)
