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
from jmarl.ssm import scan_gpu, scan_tpu
from jmarl.ssm.scan_gpu import has_gpu_kernel
from jmarl.ssm.scan_tpu import has_tpu_kernel
from jmarl.training.anakin import device_mesh


pytestmark = pytest.mark.usefixtures("interpreted_kernels")
KERNELS = ("gpu_kernel", "tpu_kernel")


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize(
    "batch, length, sizes, with_reset, with_state",
    [
        (3, 3, (8, 16), True, True),
        (5, 17, (4, 8), True, False),
        (3, 40, (4, 8), False, True),
        (2, 6, (16, 128), False, False),
        (2, 2, (1, 32), True, True),
        (2, 2, (32, 8), True, True),
    ],
)
def test_kernels_equal_the_float64_reference(
    batch, length, sizes, with_reset, with_state, impl
):
    values = inputs((batch,), length, sizes=sizes)
    weight = weights(values)
    if not with_state:
        values["h0"] = None
    reset = resets((batch,), length) if with_reset else None
    found, gradients = value_and_gradients(values, weight, reset, impl)
    expected, gradients64 = exact(values, weight, reset)
    assert np.max([*map(error, found, expected)]) < 2e-6
    names = NAMES if with_state else NAMES[:-1]
    errors = {name: error(gradients[name], gradients64[name]) for name in names}
    assert np.max([*errors.values()]) < 5e-6, errors


def test_programs_add_up_the_gradients_of_their_rows(monkeypatch):
    values, reset = inputs((11,), 4), resets((11,), 4)
    expected = value_and_gradients(values, weights(values), reset, "ref")
    monkeypatch.setattr(scan_gpu, "PROGRAMS", 4)
    found = value_and_gradients(values, weights(values), reset, "gpu_kernel")
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_state", [True, False])
def test_groups_and_blocks_continue_each_other(monkeypatch, with_state):
    """More rows than a vector register has lanes, and blocks of which the last is not full."""
    monkeypatch.setattr(scan_tpu, "BLOCK_BYTES", 200_000)
    values, reset = inputs((130,), 17), resets((130,), 17)
    weight = weights(values)
    if not with_state:
        values["h0"] = None
    blocks = scan_tpu._make_blocks(130, 17, *values["A"].shape)
    assert (blocks.groups, blocks.size, blocks.count) == (2, 4, 5)
    found, gradients = value_and_gradients(values, weight, reset, "tpu_kernel")
    expected, gradients64 = exact(values, weight, reset)
    assert np.max([*map(error, found, expected)]) < 2e-6
    names = NAMES if with_state else NAMES[:-1]
    errors = {name: error(gradients[name], gradients64[name]) for name in names}
    assert np.max([*errors.values()]) < 5e-6, errors


@pytest.mark.parametrize("impl", KERNELS)
def test_kernels_can_be_vmapped_over_seeds(impl):
    values = jax.tree.map(lambda *x: np.stack(x), *(inputs(seed=s) for s in range(3)))

    def gradients(values, impl):
        return jax.grad(lambda x: (run_scan(x, impl=impl)[0] ** 2).sum())(values)

    found, expected = (
        jax.vmap(lambda x, impl=name: gradients(x, impl))(values)
        for name in (impl, "ref")
    )
    for name in NAMES:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("used", [0, 1])
def test_one_result_may_be_unused(used, impl):
    """The gradient of an unused result is not read."""

    def gradients(impl):
        return jax.grad(lambda x: (run_scan(x, impl=impl)[used] ** 2).sum())(inputs())

    found, expected = gradients(impl), gradients("ref")
    for name in NAMES:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("target", ["gpu", "tpu"])
def test_each_device_runs_its_rows(target):
    values = inputs((6,), 3)
    expected, _ = run_scan(values, impl="ref")
    rows = PartitionSpec(ENV_AXIS)
    specs = {name: PartitionSpec() if name in "AD" else rows for name in NAMES}
    with tracing_for(target), jax.set_mesh(device_mesh(jax.devices()[:2])):
        local = on_each_device(lambda x: run_scan(x)[0], (specs,), rows)
        assert kernels(local, values) == 1
        found = jax.jit(local)(values)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_where_kernels_are_used():
    assert not has_gpu_kernel(8, 128) and not has_tpu_kernel(8, 128)
    with tracing_for("tpu"):
        assert not has_gpu_kernel(8, 128)
        assert has_tpu_kernel(8, 128)
        assert has_tpu_kernel(3, 96)
        assert not has_tpu_kernel(8, 100)
        assert not has_tpu_kernel(32, 64)
        assert not has_tpu_kernel(16, 512)
    with tracing_for("gpu", 7.5):
        assert not has_gpu_kernel(8, 128)
    with tracing_for("gpu"):
        assert not has_tpu_kernel(8, 128)
        assert has_gpu_kernel(8, 128)
        assert has_gpu_kernel(16, 256)
        assert not has_gpu_kernel(16, 512)
        assert not has_gpu_kernel(6, 128)
        assert not has_gpu_kernel(8, 96)


@pytest.mark.parametrize(
    "target, sizes, expected",
    [
        ("gpu", (4, 8), 2),
        ("gpu", (3, 8), 0),
        ("gpu", (4, 12), 0),
        ("tpu", (3, 8), 2),
        ("tpu", (4, 12), 0),
    ],
)
def test_other_shapes_and_platforms_have_no_kernels(target, sizes, expected):
    def loss(values):
        return run_scan(values, reset=resets())[0].sum()

    with tracing_for(target):
        assert kernels(jax.grad(loss), inputs(sizes=sizes)) == expected


@pytest.mark.parametrize("target", ["gpu", "tpu"])
def test_the_partitioner_gets_no_kernels(target):
    """It would gather the rows."""
    with tracing_for(target), jax.set_mesh(device_mesh(jax.devices()[:2])):
        assert kernels(run_scan, inputs()) == 0


def kernels(function, values):
    """Return the number of kernels of a function."""
    return str(jax.make_jaxpr(function)(values)).count("pallas_call[")
