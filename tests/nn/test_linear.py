"""The matrix product of dense layers and its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.nn.linear import product


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 1, 5)])
def test_product_and_gradients_equal_matmul(shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*shape, 6))
    kernel = jax.random.normal(keys[1], (6, 4))
    weight = jax.random.normal(keys[2], (*shape, 4))

    def value_and_gradients(multiply):
        def loss(x, kernel):
            return (multiply(x, kernel) * weight).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(x, kernel)

    actual = value_and_gradients(product)
    expected = value_and_gradients(jnp.matmul)
    assert_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(assert_close, actual, expected)
