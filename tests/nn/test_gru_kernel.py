"""The kernels of the GRU compute the scan and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.networks.gru import gpu, tpu
from jmarl.networks.memory import GRU
from jmarl.platforms import ENV_AXIS, on_each_device, tracing_for
from jmarl.training.anakin import device_mesh


pytestmark = pytest.mark.usefixtures("interpreted_kernels")


def value_and_gradients(steps, batch, width, seed=0):
    """Return the states and all gradients of a weighted sum of them, with resets."""
    keys = jax.random.split(jax.random.key(seed), 6)
    gru = GRU(width)
    x = jax.random.normal(keys[0], (steps, *batch, 5))
    first = jax.random.bernoulli(keys[1], 0.3, (steps, batch[0]))
    carry = jax.random.normal(keys[2], (*batch, width))
    weights = jax.random.normal(keys[3], (steps, *batch, width))
    params = gru.init(keys[4], carry, x, first)
    params = jax.tree.map(
        lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size) % 7).reshape(p.shape), params
    )

    def loss(params, carry, x):
        last, states = gru.apply(params, carry, x, first)
        return (states * weights).sum() + (last**2).sum(), (last, states)

    both = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    return jax.jit(both)(params, carry, x)


@pytest.fixture
def small_tpu(monkeypatch):
    """Let the kernels of a TPU run small states, of which a block has few rows."""
    monkeypatch.setattr(tpu, "WIDTHS", (16, 64))
    monkeypatch.setattr(tpu, "ROWS", 128)


@pytest.mark.parametrize("kernels", [gpu, tpu])
@pytest.mark.parametrize(
    ("steps", "batch", "width"),
    [(2, (3, 1), 16), (5, (3, 7), 16), (4, (8, 4), 64), (3, (50, 3), 16)],
)
def test_kernels_equal_the_scan(steps, batch, width, kernels, small_tpu):
    """The number of rows need not be a multiple of a program's, nor the width of a product's."""
    expected = value_and_gradients(steps, batch, width)
    with tracing_for(target_of(kernels)):
        assert kernels.has_kernel(steps, width)
        found = value_and_gradients(steps, batch, width)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a).max() > 0


def target_of(kernels):
    """Return the platform of a module with kernels."""
    return kernels.__name__.rpartition(".")[2]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_of_a_tpu_have_the_precision_of_the_context(precision, small_tpu):
    def inputs(x, kernel):
        with tracing_for("tpu"), jax.default_matmul_precision(precision):
            jaxpr = jax.make_jaxpr(tpu._product)(x, kernel)
        (eqn,) = [e for e in jaxpr.eqns if e.primitive is jax.lax.dot_general_p]
        return {str(var.aval.dtype) for var in eqn.invars}, eqn.params["precision"]

    kinds, given = inputs(jnp.ones((8, 16)), jnp.ones((16, 48)))
    assert kinds == {precision}
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert (given == highest) == (precision == "float32")


@pytest.mark.parametrize("target", ["gpu", "tpu"])
def test_kernels_can_be_vmapped_over_seeds(target, small_tpu):
    gru = GRU(16)
    x = jax.random.normal(jax.random.key(0), (3, 4, 2, 5, 16))
    first = jnp.zeros((4, 2), bool)
    carry = jnp.zeros((2, 5, 16))
    params = gru.init(jax.random.key(1), carry, x[0], first)

    def states(x):
        return gru.apply(params, carry, x, first)[1]

    expected = jnp.stack([states(each) for each in x])
    with tracing_for(target):
        found = jax.jit(jax.vmap(states))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_where_kernels_are_used():
    assert not gpu.has_kernel(8, 128) and not tpu.has_kernel(8, 128)
    with tracing_for("tpu"):
        assert not gpu.has_kernel(8, 128)
        assert tpu.has_kernel(8, 128)
        assert not tpu.has_kernel(1, 128)
        assert not tpu.has_kernel(8, 64)
    with tracing_for("gpu", 7.5):
        assert not gpu.has_kernel(8, 64)
    with tracing_for("gpu"):
        assert not tpu.has_kernel(8, 128)
        assert gpu.has_kernel(8, 64)
        assert not gpu.has_kernel(1, 64)
        assert not gpu.has_kernel(8, 60)


@pytest.mark.parametrize("kernels", [gpu, tpu])
def test_the_partitioner_gets_no_kernels(kernels):
    """It would gather the rows; on the rows of each device there are kernels."""
    seen = {}

    def look(name, x):
        seen[name] = kernels.has_kernel(8, 128)
        return x

    split = jax.sharding.PartitionSpec(ENV_AXIS)
    target = tracing_for(target_of(kernels))
    with target, jax.set_mesh(device_mesh(jax.devices()[:2])):
        jax.eval_shape(lambda x: look("all", x), jnp.zeros(2))
        local = on_each_device(lambda x: look("each", x), split, split)
        jax.eval_shape(local, jnp.zeros(2))
    assert seen == {"all": False, "each": True}
