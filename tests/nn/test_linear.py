"""The product that all layers are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.nn.linear import product


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 1, 5)])
def test_a_product_and_its_gradients_are_those_of_matmul(shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = (
        jax.random.normal(keys[0], (*shape, 6)),
        jax.random.normal(keys[1], (6, 4)),
    )
    out = jax.random.normal(keys[2], (*shape, 4))
    ours = jax.value_and_grad(
        lambda x, kernel: (product(x, kernel) * out).sum(), (0, 1)
    )(x, kernel)
    plain = jax.value_and_grad(
        lambda x, kernel: (jnp.matmul(x, kernel) * out).sum(), (0, 1)
    )(x, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, plain
    )
