"""Confidence intervals: coverage and known values."""

import numpy as np

from jmarl.results.intervals import confidence_interval


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
