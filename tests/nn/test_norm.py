"""LayerNorm and RMSNorm equal Flax's in values, gradients and parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.nn.norm import LayerNorm, RMSNorm, row_mean, standardize, unit_rms


PAIRS = [(LayerNorm, nn.LayerNorm(use_fast_variance=False)), (RMSNorm, nn.RMSNorm())]


@pytest.mark.parametrize(("ours", "flax"), PAIRS)
@pytest.mark.parametrize("shape", [(7,), (3, 5, 32)])
def test_values_and_gradients_equal_flax(ours, flax, shape):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3.0 + 2.0 * jax.random.normal(keys[0], shape)
    params = flax.init(keys[1], x)
    assert jax.tree.structure(params) == jax.tree.structure(ours().init(keys[1], x))
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(keys[2], p.shape), params
    )
    weight = jax.random.normal(keys[3], shape)

    def value_and_gradients(module):
        def loss(params, x):
            return jnp.sum(weight * module.apply(params, x) ** 2)

        return jax.value_and_grad(loss, argnums=(0, 1))(params, x)

    actual = jax.tree.leaves(value_and_gradients(ours()))
    expected = jax.tree.leaves(value_and_gradients(flax))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("fn", [standardize, unit_rms])
def test_invariant_to_scale_and_finite_on_constant_rows(fn):
    x = jax.random.normal(jax.random.key(0), (4, 64))
    np.testing.assert_allclose(fn(50.0 * x), fn(x), atol=1e-4)
    grad = jax.grad(lambda x: fn(x).sum())(jnp.zeros((2, 8)))
    assert jnp.isfinite(grad).all() and jnp.isfinite(fn(jnp.zeros((2, 8)))).all()


def test_row_mean_equals_mean():
    x = jax.random.normal(jax.random.key(1), (6, 33)) + 100.0
    np.testing.assert_allclose(
        row_mean(x)[:, 0], np.asarray(x, np.float64).mean(-1), rtol=1e-6
    )
