"""Losses of latents: known values, and twins that loop over pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.learning.latent_losses import (
    cosine_spread,
    gaussian_entropy,
    mean_of_living,
)


def spread_twin(latent, alive):
    """Return the spread of one team, with a loop over ordered pairs."""
    living = np.flatnonzero(alive)
    distances = []
    for i, j in itertools.permutations(living, 2):
        a, b = latent[i], latent[j]
        cosine = (a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
        distances.append(1 - cosine)
    if len(distances) <= 2:
        return np.mean(distances) if distances else 0.0
    low, high = min(distances), max(distances)
    if high - low < 1e-6:
        return 0.0
    return np.mean([(x - low) / (high - low) for x in distances])


@pytest.mark.parametrize("n_agents", [1, 2, 3, 6])
def test_the_spread_equals_a_loop_over_pairs_of_living_agents(n_agents):
    rng = np.random.default_rng(n_agents)
    latent = rng.normal(size=(5, 8, n_agents, 3)).astype(np.float32)
    alive = rng.random((5, 8, n_agents)) < 0.6
    spread = cosine_spread(jnp.asarray(latent), jnp.asarray(alive))
    expected = [
        [spread_twin(x, m) for x, m in zip(xs, ms, strict=True)]
        for xs, ms in zip(latent, alive, strict=True)
    ]
    np.testing.assert_allclose(spread, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("living", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["random", "equal", "zero"])
def test_gradients_are_finite_and_only_those_of_living_pairs(living, kind):
    rng = np.random.default_rng(0)
    latents = {
        "random": rng.normal(size=(4, 3)),
        "equal": np.ones((4, 3)),
        "zero": np.zeros((4, 3)),
    }
    latent = jnp.asarray(latents[kind], jnp.float32)
    alive = jnp.arange(4) < living
    value, grad = jax.value_and_grad(cosine_spread)(latent, alive)
    assert jnp.isfinite(value) and jnp.isfinite(grad).all()
    assert (grad[living:] == 0).all()
    if kind == "random":
        assert (grad != 0).any() == (living > 1)


def test_minimum_and_maximum_have_no_gradient():
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    alive = jnp.ones(4, bool)

    def mean_distance(latent):
        unit = latent / jnp.linalg.norm(latent, axis=-1, keepdims=True)
        distance = 1 - unit @ unit.T
        return distance[~np.eye(4, dtype=bool)]

    distances = mean_distance(latent)
    extent = distances.max() - distances.min()
    expected = jax.grad(lambda x: mean_distance(x).mean())(latent) / extent
    actual = jax.grad(cosine_spread)(latent, alive)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_the_entropy_of_gaussians():
    """Known value: 1.4189 nats for a standard normal, log 2 more for twice its width."""
    log_sigma = jnp.log(jnp.asarray([[1.0, 1.0], [2.0, 1.0]]))
    expected = [2 * 1.418939, 2 * 1.418939 + np.log(2)]
    np.testing.assert_allclose(gaussian_entropy(log_sigma), expected, rtol=1e-5)


def test_a_mean_over_agents_ignores_the_dead():
    x = jnp.asarray([[1.0, jnp.nan, 3.0], [jnp.nan, jnp.nan, jnp.nan]])
    alive = jnp.asarray([[True, False, True], [False, False, False]])
    assert mean_of_living(x, alive).tolist() == [2.0, 0.0]
