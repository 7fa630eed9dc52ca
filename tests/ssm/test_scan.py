"""The selective scan: equal results for every implementation, tiling, batching and sharding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scan_values import (
    NAMES,
    E,
    N,
    error,
    exact,
    inputs,
    resets,
    run_scan,
    value_and_gradients,
    weights,
)

from jmarl.ssm import scan, selective_step
from jmarl.ssm.recompute import make_plan


PER_POSITION = ("u", "dt", "B", "C")


def small_tiles(monkeypatch, tile=4, chunk=3):
    tile_states = tile * E * N
    defaults = scan.PlatformDefaults("xla", tile_states=tile_states, chunk=chunk)
    monkeypatch.setitem(scan.PLATFORM_DEFAULTS, "cpu", defaults)


@pytest.mark.parametrize(
    "batch, length, with_reset", [(5, 1, False), (11, 10, False), (11, 10, True)]
)
@pytest.mark.parametrize("impl", ["ref", "assoc", "xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_implementations_equal_float64_reference(
    impl, batch, length, with_reset, monkeypatch
):
    small_tiles(monkeypatch)
    values = inputs((batch,), length)
    weight = weights(values)
    reset = resets((batch,), length) if with_reset else None
    (y, h), gradients = value_and_gradients(values, weight, reset, impl)
    (y64, h64), gradients64 = exact(values, weight, reset)
    assert y64.dtype == np.float64
    assert error(y, y64) < 2e-6
    assert error(h, h64) < 2e-6
    errors = {name: error(gradients[name], gradients64[name]) for name in NAMES}
    assert np.max([*errors.values()]) < 5e-6, errors


def test_custom_gradient_equals_autodiff_in_float64(monkeypatch):
    small_tiles(monkeypatch)
    values = inputs((6,), 8)
    weight, reset = weights(values), resets((6,), 8)
    _, custom = exact(values, weight, reset, "xla")
    _, autodiff = exact(values, weight, reset, "ref")
    assert max(error(custom[name], autodiff[name]) for name in NAMES) < 1e-13


@pytest.mark.parametrize("tile, chunk", [(1, 1), (3, 4), (64, 2)])
def test_result_does_not_depend_on_tiles_and_chunks(tile, chunk, monkeypatch):
    values = inputs((9,), 11)
    weight, reset = weights(values), resets((9,), 11)
    whole = value_and_gradients(values, weight, reset, "xla")
    small_tiles(monkeypatch, tile, chunk)
    cut = value_and_gradients(values, weight, reset, "xla")
    assert_close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    jax.tree.map(assert_close, whole, cut)


@pytest.mark.parametrize("impl", ["ref", "assoc", "xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_split_sequence_with_carried_state_equals_whole(impl):
    values, reset = inputs(length=9), resets(length=9)

    def part(positions):
        cut = {name: values[name][:, positions] for name in PER_POSITION}
        return {**values, **cut}

    y, h = run_scan(values, reset=reset, impl=impl)
    y1, h1 = run_scan(part(slice(0, 4)), reset=reset[:, :4], impl=impl)
    second = part(slice(4, None))
    y2, h2 = run_scan(second, h0=h1, reset=reset[:, 4:], impl=impl)
    np.testing.assert_allclose(jnp.concatenate([y1, y2], 1), y, atol=2e-6)
    np.testing.assert_allclose(h2, h, atol=2e-6)


def test_steps_equal_scan():
    values, reset = inputs(), resets()
    y, last = run_scan(values, reset=reset, impl="ref")
    h = values["h0"]
    for t in range(y.shape[1]):
        h = jnp.where(reset[:, t, None, None], 0.0, h)
        u, dt, B, C = (values[name][:, t] for name in PER_POSITION)
        y_t, h = selective_step(h, u, dt, values["A"], B, C, values["D"])
        np.testing.assert_allclose(y_t, y[:, t], atol=1e-6)
    np.testing.assert_allclose(h, last, atol=1e-6)


@pytest.mark.parametrize("impl", ["ref", "assoc", "xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_causal_and_blocked_at_reset(impl):
    values = {name: jnp.asarray(x) for name, x in inputs((1,), 6).items()}
    reset = jnp.zeros((1, 6), bool).at[0, 3].set(True)

    def outputs(u, h0):
        y, _ = run_scan(values, u=u, h0=h0, reset=reset, impl=impl)
        return y[0].sum(-1)

    jacobians = jax.jit(jax.jacrev(outputs, argnums=(0, 1)))
    by_input, by_state = jacobians(values["u"], values["h0"])
    on_input = np.abs(by_input[:, 0]).max(-1) > 0
    on_state = np.abs(by_state[:, 0]).max((1, 2)) > 0
    after_reset = np.arange(6) >= 3
    same_sequence = after_reset[:, None] == after_reset[None]
    lower_triangle = np.tril(np.ones((6, 6), bool))
    np.testing.assert_array_equal(on_input, lower_triangle & same_sequence)
    np.testing.assert_array_equal(on_state, ~after_reset)


def loss_gradients(values, impl):
    def loss(values):
        y, _ = run_scan(values, impl=impl)
        return (y**2).sum()

    return jax.grad(loss)(values)


@pytest.mark.parametrize("impl", ["xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_vmap_over_seeds_equals_loop(impl, monkeypatch):
    small_tiles(monkeypatch)
    seeds = [inputs((6,), 5, seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *seeds)

    gradients = jax.jit(functools.partial(loss_gradients, impl=impl))
    assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    vmapped = jax.vmap(gradients)(together)
    for i, values in enumerate(seeds):
        of_seed = jax.tree.map(lambda x: x[i], vmapped)
        jax.tree.map(assert_close, of_seed, gradients(values))


@pytest.mark.parametrize("impl", ["xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_leading_axes_are_one_batch(impl):
    values, reset = inputs((2, 3), 4), resets((2, 3), 4)
    y, h = run_scan(values, reset=reset, impl=impl)
    for i in range(2):
        row = {n: x if n in ("A", "D") else x[i] for n, x in values.items()}
        y_i, h_i = run_scan(row, reset=reset[i], impl="ref")
        np.testing.assert_allclose(y[i], y_i, atol=2e-6)
        np.testing.assert_allclose(h[i], h_i, atol=2e-6)


def test_bfloat16_inputs_keep_a_float32_state():
    values = inputs()
    low = {n: jnp.asarray(x, jnp.bfloat16) for n, x in values.items()}
    y, h = run_scan(low, h0=None)
    assert y.dtype == jnp.bfloat16
    assert h.dtype == jnp.float32


@pytest.mark.parametrize("impl", ["xla", "gpu_kernel", "tpu_kernel"])
@pytest.mark.usefixtures("interpreted_kernels")
def test_extreme_steps_stay_finite(impl):
    values = inputs()
    values["dt"][:, ::2] = 1e6
    values["dt"][:, 1::2] = 0.0
    out, gradients = value_and_gradients(values, weights(values), resets(), impl)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, gradients)))


def sizes_outside_scans(jaxpr):
    """Yield the element counts of all intermediate arrays outside of scan bodies."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.size for v in eqn.outvars)
        if eqn.primitive.name not in ("scan", "while"):
            leaves = jax.tree.leaves(eqn.params, is_leaf=is_jaxpr)
            for sub in filter(is_jaxpr, leaves):
                yield from sizes_outside_scans(getattr(sub, "jaxpr", sub))


def is_jaxpr(x):
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


@pytest.mark.parametrize(
    "impl, expected",
    [("xla", False), ("assoc", True), ("gpu_kernel", False), ("tpu_kernel", False)],
)
@pytest.mark.usefixtures("interpreted_kernels")
def test_no_array_over_batch_length_channels_and_states(impl, expected, monkeypatch):
    small_tiles(monkeypatch, tile=4, chunk=4)
    values = inputs((256,), 12)
    gradients = functools.partial(loss_gradients, impl=impl)
    jaxpr = jax.make_jaxpr(gradients)(values).jaxpr
    assert (max(sizes_outside_scans(jaxpr)) >= 256 * 12 * E * N) == expected


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(platform):
    traced = jax.jit(functools.partial(loss_gradients, impl="xla")).trace(inputs())
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" in text


@pytest.mark.parametrize("shape, spec", [((64,), ("b",)), ((3, 32), (None, "b"))])
def test_sharded_batch_stays_on_its_devices(shape, spec, monkeypatch):
    """Devices exchange only the gradients of A and D, once and not at each position."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    small_tiles(monkeypatch, tile=16)
    mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Auto,))

    def place(x, *axes):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    values = {
        n: place(x, *(() if n in ("A", "D") else spec))
        for n, x in inputs(shape, 5).items()
    }
    gradients = jax.jit(functools.partial(loss_gradients, impl="xla"))
    text = gradients.lower(values).compile().as_text()
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert f" {kind}(" not in text
    entry = text[text.index("\nENTRY ") :]
    assert text.count(" all-reduce(") == entry.count(" all-reduce(") == 1


@pytest.mark.parametrize(
    "batch, tile, expected",
    [(256, 16, 16), (24, 16, 8), (40, 16, 8), (7, 16, 7), (37, 16, 13)],
)
def test_tiles_cover_the_batch(batch, tile, expected):
    plan = make_plan(batch, 20, tile=tile, chunk=16)
    assert plan.tile == expected
    assert 0 <= plan.tile * plan.tiles - batch < plan.tiles
    assert (plan.chunk, plan.chunks) == (10, 2)


def test_unknown_implementation_raises():
    with pytest.raises(ValueError, match="impl=pallas: unknown scan implementation"):
        run_scan(inputs(), impl="pallas")
