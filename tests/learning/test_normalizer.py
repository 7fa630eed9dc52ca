"""Value statistics: known moments, masked targets, exact inverse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.learning.normalizer import (
    denormalize,
    init_stats,
    mean_std,
    normalize,
    update_stats,
)


def test_initial_statistics_are_the_identity():
    x = jnp.array([-3.0, 5.0])
    assert (normalize(init_stats(), x) == x).all()
    assert (denormalize(init_stats(), x) == x).all()


def test_the_first_update_gives_the_moments_of_its_targets():
    target = np.random.default_rng(0).normal(7.0, 3.0, (40, 5)).astype(np.float32)
    mean, std = mean_std(
        update_stats(
            init_stats(), jnp.asarray(target), jnp.ones((40, 1), bool), rate=0.01
        )
    )
    np.testing.assert_allclose([mean, std], [target.mean(), target.std()], rtol=1e-4)


def test_two_updates_are_weighted_by_the_rate():
    stats, mask = init_stats(), jnp.ones(2, bool)
    for target in ([1.0, 3.0], [5.0, 5.0]):
        stats = update_stats(stats, jnp.array(target), mask, rate=0.5)
    mean = (0.5 * 2.0 + 5.0) / 1.5
    square = (0.5 * 5.0 + 25.0) / 1.5
    np.testing.assert_allclose(
        mean_std(stats), [mean, np.sqrt(square - mean**2)], rtol=1e-5
    )


def test_masked_targets_have_no_weight():
    target = jnp.array([1.0, jnp.inf, 3.0, jnp.nan])
    mask = jnp.array([True, False, True, False])
    stats = update_stats(init_stats(), target, mask, rate=0.1)
    np.testing.assert_allclose(mean_std(stats), [2.0, 1.0], rtol=1e-5)
    unchanged = update_stats(stats, target, jnp.zeros(4, bool), rate=0.1)
    np.testing.assert_allclose(mean_std(unchanged), mean_std(stats))


def test_a_rate_of_zero_switches_normalization_off():
    stats = update_stats(
        init_stats(), jnp.array([4.0, 8.0]), jnp.ones(2, bool), rate=0.0
    )
    assert tuple(mean_std(stats)) == (0.0, 1.0)


@pytest.mark.parametrize("offset", [0.0, -250.0])
def test_denormalize_inverts_normalize(offset):
    x = jnp.linspace(-2.0, 2.0, 9) + offset
    stats = update_stats(init_stats(), x, jnp.ones(9, bool), rate=0.1)
    np.testing.assert_allclose(
        denormalize(stats, normalize(stats, x)), x, rtol=1e-5, atol=1e-5
    )
    assert abs(float(normalize(stats, x).mean())) < 0.05


def test_non_finite_targets_are_ignored():
    stats = update_stats(
        init_stats(),
        jnp.array([1.0, jnp.nan, 3.0, jnp.inf]),
        jnp.ones(4, bool),
        rate=1.0,
    )
    assert mean_std(stats)[0] == 2.0


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e4])
@pytest.mark.parametrize("batches", [1, 40])
def test_the_deviation_is_exact_far_from_zero(mean, batches):
    """The difference of mean square and squared mean gives 1.44 at 1e3 and 0 at 1e4."""
    rng, stats = np.random.default_rng(0), init_stats()
    update = jax.jit(update_stats, static_argnames="rate")
    for _ in range(batches):
        target = jnp.asarray(rng.normal(mean, 1.0, (128, 64, 3)), jnp.float32)
        target = (target - target.mean()) / target.std() + mean
        stats = update(stats, target, jnp.ones((128, 64, 1), bool), rate=0.01)
    got_mean, got_std = mean_std(stats)
    assert abs(got_mean - mean) < 1e-3 * max(1, abs(mean) / 1e3)
    assert abs(got_std - 1.0) < 1e-3


def test_a_merge_equals_the_moments_of_the_weighted_union():
    """The slow twin holds all targets, and weights those of each batch."""
    rng, stats = np.random.default_rng(1), init_stats()
    batches = [rng.normal(3.0 * i, 1.0 + i, 50) for i in range(4)]
    for batch in batches:
        mask = jnp.ones(50, bool)
        stats = update_stats(stats, jnp.asarray(batch), mask, rate=0.3)
    ages = np.arange(len(batches))[::-1]
    weights = np.repeat(0.7**ages, 50)
    values = np.concatenate(batches)
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    np.testing.assert_allclose(mean_std(stats), [mean, np.sqrt(variance)], rtol=1e-5)
