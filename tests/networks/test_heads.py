"""Action distributions: masks, safety, densities that integrate to one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.networks.heads import (
    ActionHead,
    TanhNormal,
    choose,
    log_slope,
    masked_categorical,
)


LOGITS = jnp.array([[0.3, -1.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
AVAIL = jnp.array(
    [
        [True, True, False, True],
        [True, False, False, False],
        [False, False, False, False],
    ]
)


def test_a_categorical_is_the_softmax_over_what_is_available():
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


def test_an_unavailable_action_is_never_drawn():
    dist = masked_categorical(jnp.tile(LOGITS[0] * 100, (2000, 1)), AVAIL[0])
    assert set(np.unique(dist.sample(jax.random.key(0)))) <= {0, 1, 3}


def test_samples_follow_the_probabilities():
    dist = masked_categorical(jnp.tile(LOGITS[0], (20000, 1)), AVAIL[0])
    shares = jnp.bincount(dist.sample(jax.random.key(1)), length=4) / 20000
    np.testing.assert_allclose(
        shares, jnp.exp(dist.logits[0] - jax.nn.logsumexp(dist.logits[0])), atol=0.02
    )


def test_gradients_are_finite_with_everything_masked():
    def loss(logits):
        dist = masked_categorical(logits, AVAIL)
        return jnp.sum(
            dist.log_prob(jnp.array([0, 3, 1])) * jnp.array([1.0, 0.0, 1.0])
            + dist.entropy()
        )

    grads = jax.grad(loss)(LOGITS)
    assert jnp.isfinite(grads).all()
    assert (jnp.where(AVAIL, 0.0, grads) == 0).all()


def test_an_unavailable_actions_logit_changes_nothing():
    dist, other = (
        masked_categorical(LOGITS.at[0, 2].set(x), AVAIL) for x in (-50.0, 50.0)
    )
    assert (dist.logits == other.logits).all()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.6), (1.5, 0.3), (-0.5, 1.5)])
def test_a_tanh_normal_integrates_to_one_and_knows_its_entropy(mean, std):
    x = jnp.linspace(mean - 9 * std, mean + 9 * std, 40001)[:, None]
    dist = TanhNormal(jnp.full_like(x, mean), jnp.full_like(x, std))
    logp = dist.log_prob(x)
    action_width = jnp.exp(log_slope(x[:, 0])) * (x[1, 0] - x[0, 0])
    np.testing.assert_allclose(jnp.sum(jnp.exp(logp) * action_width), 1.0, rtol=1e-3)
    np.testing.assert_allclose(
        dist.entropy()[0], -jnp.sum(jnp.exp(logp) * logp * action_width), atol=0.02
    )


def test_densities_stay_finite_where_the_tanh_saturates():
    x = jnp.array([[-40.0], [0.0], [40.0]])
    dist = TanhNormal(jnp.zeros((3, 1)), jnp.full((3, 1), 10.0))
    assert jnp.isfinite(dist.log_prob(x)).all()
    np.testing.assert_allclose(
        log_slope(jnp.array([-40.0])), 2 * np.log(2) - 80.0, rtol=1e-6
    )
    grads = jax.grad(lambda m: TanhNormal(m, dist.std).log_prob(x).sum())(dist.mean)
    assert jnp.isfinite(grads).all()


@pytest.mark.parametrize("discrete", [True, False])
def test_choose_is_greedy_at_explore_zero_and_its_log_prob_is_that_of_its_sample(
    discrete,
):
    head = ActionHead(discrete)
    params = head.init(jax.random.key(0), LOGITS, AVAIL)
    dist = head.apply(params, LOGITS, AVAIL)
    action, sample, logp = choose(dist, jax.random.key(1), jnp.zeros(()))
    assert (sample == dist.mode()).all()
    assert (action == dist.action(sample)).all()
    noisy, drawn, logp = choose(dist, jax.random.key(1), jnp.ones(()))
    assert (drawn == dist.sample(jax.random.key(1))).all()
    np.testing.assert_allclose(logp, dist.log_prob(drawn), rtol=1e-6)
    assert discrete or (jnp.abs(noisy) <= 1).all()
