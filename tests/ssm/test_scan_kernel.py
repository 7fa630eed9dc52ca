"""The kernels of the selective scan, where they are used, and their partitions."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scan_values import (
    NAMES,
    error,
    exact,
    inputs,
    resets,
    run_scan,
    value_and_gradients,
    weights,
)

from jmarl.platforms import ENV_AXIS, on_each_device, tracing_for
from jmarl.ssm import scan_kernel
from jmarl.ssm.scan_kernel import has_kernel
from jmarl.training.anakin import device_mesh


pytestmark = pytest.mark.usefixtures("interpreted_kernels")


@pytest.mark.parametrize(
    "batch, length, sizes, with_reset, with_state",
    [
        (3, 3, (8, 16), True, True),
        (5, 17, (4, 8), True, False),
        (3, 40, (4, 8), False, True),
        (2, 6, (16, 128), False, False),
        (2, 2, (1, 32), True, True),
        (2, 2, (32, 2), True, True),
    ],
)
def test_kernels_equal_the_float64_reference(
    batch, length, sizes, with_reset, with_state
):
    values = inputs((batch,), length, sizes=sizes)
    weight = weights(values)
    if not with_state:
        values["h0"] = None
    reset = resets((batch,), length) if with_reset else None
    found, gradients = value_and_gradients(values, weight, reset, "kernel")
    expected, gradients64 = exact(values, weight, reset)
    assert np.max([*map(error, found, expected)]) < 2e-6
    names = NAMES if with_state else NAMES[:-1]
    errors = {name: error(gradients[name], gradients64[name]) for name in names}
    assert np.max([*errors.values()]) < 5e-6, errors


def test_programs_add_up_the_gradients_of_their_rows(monkeypatch):
    values, reset = inputs((11,), 4), resets((11,), 4)
    expected = value_and_gradients(values, weights(values), reset, "ref")
    monkeypatch.setattr(scan_kernel, "PROGRAMS", 4)
    found = value_and_gradients(values, weights(values), reset, "kernel")
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_may_be_unused(used):
    """The gradient of an unused result is not read."""

    def gradients(impl):
        return jax.grad(lambda x: (run_scan(x, impl=impl)[used] ** 2).sum())(inputs())

    found, expected = gradients("kernel"), gradients("ref")
    for name in NAMES:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_each_device_runs_its_rows():
    values = inputs((6,), 3)
    expected, _ = run_scan(values, impl="ref")
    rows = PartitionSpec(ENV_AXIS)
    specs = {name: PartitionSpec() if name in "AD" else rows for name in NAMES}
    with tracing_for("gpu"), jax.set_mesh(device_mesh(jax.devices()[:2])):
        local = on_each_device(lambda x: run_scan(x)[0], (specs,), rows)
        assert kernels(local, values) == 1
        found = jax.jit(local)(values)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_where_kernels_are_used():
    assert not has_kernel(8, 128)
    with tracing_for("tpu"):
        assert not has_kernel(8, 128)
    with tracing_for("gpu", 7.5):
        assert not has_kernel(8, 128)
    with tracing_for("gpu"):
        assert has_kernel(8, 128)
        assert has_kernel(16, 256)
        assert not has_kernel(16, 512)
        assert not has_kernel(6, 128)
        assert not has_kernel(8, 96)


@pytest.mark.parametrize(
    "target, sizes, expected",
    [("gpu", (4, 8), 2), ("gpu", (3, 8), 0), ("gpu", (4, 12), 0), ("tpu", (4, 8), 0)],
)
def test_other_shapes_and_platforms_have_no_kernels(target, sizes, expected):
    def loss(values):
        return run_scan(values, reset=resets())[0].sum()

    with tracing_for(target):
        assert kernels(jax.grad(loss), inputs(sizes=sizes)) == expected


def test_the_partitioner_gets_no_kernels():
    """It would gather the rows."""
    with tracing_for("gpu"), jax.set_mesh(device_mesh(jax.devices()[:2])):
        assert kernels(run_scan, inputs()) == 0


def kernels(function, values):
    """Return the number of kernels of a function."""
    return str(jax.make_jaxpr(function)(values)).count("pallas_call[")
