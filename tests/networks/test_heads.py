"""Action distributions: masks, safety, densities that integrate to one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.networks.heads import (
    ActionHead,
    TanhNormal,
    choose,
    log_tanh_slope,
    masked_categorical,
    value_head,
)


LOGITS = jnp.array([[0.3, -1.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
AVAIL = jnp.array(
    [
        [True, True, False, True],
        [True, False, False, False],
        [False, False, False, False],
    ]
)


def test_categorical_is_the_softmax_over_available_actions():
    dist = masked_categorical(LOGITS, AVAIL)
    p = np.exp([0.3, -1.0, 0.0]) / np.exp([0.3, -1.0, 0.0]).sum()
    samples = jnp.array([0, 0, 2])
    np.testing.assert_allclose(
        dist.log_prob(samples), [np.log(p[0]), 0.0, -np.log(4)], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        dist.entropy(), [-(p * np.log(p)).sum(), 0.0, np.log(4)], rtol=1e-5, atol=1e-6
    )
    assert dist.mode().tolist() == [0, 0, 0]


def test_unavailable_actions_are_never_sampled():
    dist = masked_categorical(jnp.tile(LOGITS[0] * 100, (2000, 1)), AVAIL[0])
    assert set(np.unique(dist.sample(jax.random.key(0)))) <= {0, 1, 3}


def test_samples_follow_the_probabilities():
    dist = masked_categorical(jnp.tile(LOGITS[0], (20000, 1)), AVAIL[0])
    shares = jnp.bincount(dist.sample(jax.random.key(1)), length=4) / 20000
    np.testing.assert_allclose(shares, jax.nn.softmax(dist.logits[0]), atol=0.02)


def test_gradients_are_finite_with_everything_masked():
    def loss(logits):
        dist = masked_categorical(logits, AVAIL)
        logp = dist.log_prob(jnp.array([0, 3, 1])) * jnp.array([1.0, 0.0, 1.0])
        return jnp.sum(logp + dist.entropy())

    grads = jax.grad(loss)(LOGITS)
    assert jnp.isfinite(grads).all()
    assert (jnp.where(AVAIL, 0.0, grads) == 0).all()


def test_logits_of_unavailable_actions_change_nothing():
    low = masked_categorical(LOGITS.at[0, 2].set(-50.0), AVAIL)
    high = masked_categorical(LOGITS.at[0, 2].set(50.0), AVAIL)
    assert (low.logits == high.logits).all()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.6), (1.5, 0.3), (-0.5, 1.5)])
def test_tanh_normal_integrates_to_one_and_has_the_exact_entropy(mean, std):
    x = jnp.linspace(mean - 9 * std, mean + 9 * std, 40001)[:, None]
    dist = TanhNormal(jnp.full_like(x, mean), jnp.full_like(x, std))
    logp = dist.log_prob(x)
    action_width = jnp.exp(log_tanh_slope(x[:, 0])) * (x[1, 0] - x[0, 0])
    mass = jnp.exp(logp) * action_width
    np.testing.assert_allclose(jnp.sum(mass), 1.0, rtol=1e-3)
    np.testing.assert_allclose(dist.entropy()[0], -jnp.sum(mass * logp), atol=0.02)


def test_densities_stay_finite_where_the_tanh_saturates():
    x = jnp.array([[-40.0], [0.0], [40.0]])
    dist = TanhNormal(jnp.zeros((3, 1)), jnp.full((3, 1), 10.0))
    assert jnp.isfinite(dist.log_prob(x)).all()
    slope = log_tanh_slope(jnp.array([-40.0]))
    np.testing.assert_allclose(slope, 2 * np.log(2) - 80.0, rtol=1e-6)
    grads = jax.grad(lambda m: TanhNormal(m, dist.std).log_prob(x).sum())(dist.mean)
    assert jnp.isfinite(grads).all()


@pytest.mark.parametrize("discrete", [True, False])
def test_choose_is_greedy_at_explore_zero_and_returns_its_samples_log_prob(discrete):
    head = ActionHead(discrete)
    params = head.init(jax.random.key(0), LOGITS, AVAIL)
    dist = head.apply(params, LOGITS, AVAIL)
    action, sample, logp = choose(dist, jax.random.key(1), jnp.zeros(()))
    assert (sample == dist.mode()).all()
    assert (action == dist.action(sample)).all()
    np.testing.assert_allclose(logp, dist.log_prob(sample), rtol=1e-6)
    action, sample, logp = choose(dist, jax.random.key(1), jnp.ones(()))
    assert (sample == dist.sample(jax.random.key(1))).all()
    np.testing.assert_allclose(logp, dist.log_prob(sample), rtol=1e-6)
    assert discrete or (jnp.abs(action) <= 1).all()


def test_a_value_is_one_number_per_row():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return value_head(x)

    x = jnp.ones((2, 3, 4))
    value, params = Net().init_with_output(jax.random.key(0), x)
    assert value.shape == (2, 3)
    assert params["params"]["value"]["kernel"].shape == (4, 1)
