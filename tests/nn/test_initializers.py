"""Orthogonal kernels: orthonormality, distribution and batching over seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.nn.initializers import orthogonal


@pytest.mark.parametrize("shape", [(64, 64), (96, 16), (16, 96), (128, 1), (1, 8)])
def test_columns_or_rows_are_orthonormal(shape):
    kernel = orthogonal(2.0)(jax.random.key(0), shape) / 2.0
    gram = kernel.T @ kernel if shape[0] >= shape[1] else kernel @ kernel.T
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=2e-6)


def test_entries_have_haar_moments():
    """Check that every entry of a Haar matrix has mean 0 and variance 1/n."""
    kernels = jax.vmap(lambda k: orthogonal()(k, (4, 4)))(
        jax.random.split(jax.random.key(1), 4000)
    )
    np.testing.assert_allclose(kernels.mean(0), np.zeros((4, 4)), atol=0.04)
    np.testing.assert_allclose((kernels**2).mean(0), np.full((4, 4), 0.25), atol=0.03)


def test_vmap_over_seeds_calls_no_lapack():
    """Two batched LAPACK QR decompositions at once deadlock a CPU of two cores in jaxlib 0.10."""
    init = jax.vmap(lambda k: orthogonal()(k, (8, 8)))
    text = jax.jit(init).lower(jax.random.split(jax.random.key(0), 3)).as_text()
    assert "lapack" not in text
    assert jnp.isfinite(init(jax.random.split(jax.random.key(0), 3))).all()


def test_empty_shape_gives_empty_kernel():
    """An environment without global features has such a layer."""
    assert orthogonal()(jax.random.key(0), (0, 4)).shape == (0, 4)
