"""The laws of the selective scan: one function, however it is computed, cut, batched or placed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jmarl.ssm import scan, selective_scan, selective_step
from jmarl.ssm.recompute import make_plan


E, N = 8, 4
NAMES = ("u", "dt", "A", "B", "C", "D", "h0")


def inputs(batch=(5,), length=7, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.5), (*batch, length, E))).astype(
        dtype
    )
    A = -np.exp(normal(N, E))
    B, C = normal(*batch, length, N), normal(*batch, length, N)
    return {
        "u": normal(*batch, length, E), "dt": dt, "A": A, "B": B, "C": C, "D": normal(E), "h0": normal(*batch, N, E)
    }  # fmt: skip


def resets(batch=(5,), length=7, seed=1):
    return np.random.default_rng(seed).random((*batch, length)) < 0.3


def weights(values, seed=2):
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.standard_normal(shape).astype(values["u"].dtype)  # noqa: E731
    return draw(values["u"].shape), draw(values["h0"].shape)


def value_and_gradients(values, weight, reset=None, impl="ref"):
    """(y, h_last) and the gradients of a random projection of both, by name."""

    @jax.jit
    def call(values, weight):
        def run(v):
            return selective_scan(
                *(v[n] for n in NAMES[:6]), h0=v["h0"], reset=reset, impl=impl
            )

        out, vjp = jax.vjp(run, values)
        return out, vjp(weight)[0]

    return jax.tree.map(np.asarray, call(values, weight))


def exact(values, weight, reset=None, impl="ref"):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (values, weight))
        return value_and_gradients(*wide, reset=reset, impl=impl)


def error(x, reference):
    return np.abs(x - reference).max() / np.abs(reference).max()


def small_cuts(monkeypatch, tile=4, chunk=3):
    monkeypatch.setitem(
        scan.CHOICES, "cpu", scan.Choice("xla", tile_states=tile * E * N, chunk=chunk)
    )


@pytest.mark.parametrize(
    "batch, length, with_reset", [(5, 1, False), (11, 10, False), (11, 10, True)]
)
@pytest.mark.parametrize("impl", ["ref", "assoc", "xla"])
def test_every_implementation_equals_the_float64_reference(
    impl, batch, length, with_reset, monkeypatch
):
    small_cuts(monkeypatch)
    values = inputs((batch,), length)
    weight = weights(values)
    reset = resets((batch,), length) if with_reset else None
    (y, h), gradients = value_and_gradients(values, weight, reset, impl)
    (y64, h64), gradients64 = exact(values, weight, reset)
    assert y64.dtype == np.float64
    assert error(y, y64) < 2e-6
    assert error(h, h64) < 2e-6
    assert {
        name: error(gradients[name], gradients64[name]) < 5e-6 for name in NAMES
    } == dict.fromkeys(NAMES, True)


def test_the_hand_written_gradient_is_exact_in_float64(monkeypatch):
    small_cuts(monkeypatch)
    values = inputs((6,), 8)
    weight, reset = weights(values), resets((6,), 8)
    _, ours = exact(values, weight, reset, "xla")
    _, autodiff = exact(values, weight, reset, "ref")
    assert max(error(ours[name], autodiff[name]) for name in NAMES) < 1e-13


@pytest.mark.parametrize("tile, chunk", [(1, 1), (3, 4), (64, 2)])
def test_the_result_does_not_depend_on_the_cuts(tile, chunk, monkeypatch):
    values = inputs((9,), 11)
    weight, reset = weights(values), resets((9,), 11)
    whole = value_and_gradients(values, weight, reset, "xla")
    small_cuts(monkeypatch, tile, chunk)
    cut = value_and_gradients(values, weight, reset, "xla")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), whole, cut
    )


@pytest.mark.parametrize("impl", ["ref", "assoc", "xla"])
def test_a_sequence_may_be_split_and_its_state_handed_on(impl):
    values, reset = inputs(length=9), resets(length=9)

    def part(s):
        return {
            n: values[n][:, s] if n in ("u", "dt", "B", "C") else values[n]
            for n in NAMES[:6]
        }

    y, h = selective_scan(**part(slice(None)), h0=values["h0"], reset=reset, impl=impl)
    y1, h1 = selective_scan(
        **part(slice(0, 4)), h0=values["h0"], reset=reset[:, :4], impl=impl
    )
    y2, h2 = selective_scan(
        **part(slice(4, None)), h0=h1, reset=reset[:, 4:], impl=impl
    )
    np.testing.assert_allclose(jnp.concatenate([y1, y2], 1), y, atol=2e-6)
    np.testing.assert_allclose(h2, h, atol=2e-6)


def test_stepping_equals_the_scan():
    values, reset = inputs(), resets()
    y, last = selective_scan(
        *(values[n] for n in NAMES[:6]), h0=values["h0"], reset=reset, impl="ref"
    )
    h = values["h0"]
    for t in range(y.shape[1]):
        h = jnp.where(reset[:, t, None, None], 0.0, h)
        u, dt, B, C = (values[n][:, t] for n in ("u", "dt", "B", "C"))
        y_t, h = selective_step(h, u, dt, values["A"], B, C, values["D"])
        np.testing.assert_allclose(y_t, y[:, t], atol=1e-6)
    np.testing.assert_allclose(h, last, atol=1e-6)


@pytest.mark.parametrize("impl", ["ref", "assoc", "xla"])
def test_causal_and_sealed_at_a_reset(impl):
    values = {name: jnp.asarray(x) for name, x in inputs((1,), 6).items()}
    reset = jnp.zeros((1, 6), bool).at[0, 3].set(True)

    def outputs(u, h0):
        others = (values[n] for n in NAMES[1:6])
        return selective_scan(u, *others, h0=h0, reset=reset, impl=impl)[0][0].sum(-1)

    by_input, by_state = jax.jit(jax.jacrev(outputs, argnums=(0, 1)))(
        values["u"], values["h0"]
    )
    reaches = np.abs(by_input[:, 0]).max(-1) > 0
    same_sequence = (np.arange(6)[:, None] >= 3) == (np.arange(6)[None] >= 3)
    assert (reaches == (np.tril(np.ones((6, 6), bool)) & same_sequence)).all()
    assert ((np.abs(by_state[:, 0]).max((1, 2)) > 0) == (np.arange(6) < 3)).all()


def test_vmap_over_seeds_is_a_loop_over_seeds(monkeypatch):
    small_cuts(monkeypatch)
    seeds = [inputs((6,), 5, seed) for seed in range(3)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *seeds)

    @jax.jit
    def gradients(values):
        def loss(v):
            return (
                selective_scan(*(v[n] for n in NAMES[:6]), h0=v["h0"], impl="xla")[0]
                ** 2
            ).sum()

        return jax.grad(loss)(values)

    vmapped = jax.vmap(gradients)(together)
    for i, values in enumerate(seeds):
        single = gradients(values)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-5),
            vmapped,
            single,
        )


def test_leading_axes_are_one_batch():
    values, reset = inputs((2, 3), 4), resets((2, 3), 4)
    y, h = selective_scan(
        *(values[n] for n in NAMES[:6]), h0=values["h0"], reset=reset, impl="xla"
    )
    for i in range(2):
        row = {n: values[n] if n in ("A", "D") else values[n][i] for n in NAMES}
        y_i, h_i = selective_scan(
            *(row[n] for n in NAMES[:6]), h0=row["h0"], reset=reset[i], impl="ref"
        )
        np.testing.assert_allclose(y[i], y_i, atol=2e-6)
        np.testing.assert_allclose(h[i], h_i, atol=2e-6)


def test_bfloat16_inputs_keep_a_float32_state():
    values = inputs()
    low = {n: jnp.asarray(x, jnp.bfloat16) for n, x in values.items()}
    y, h = selective_scan(*(low[n] for n in NAMES[:6]))
    assert y.dtype == jnp.bfloat16
    assert h.dtype == jnp.float32


def test_extreme_steps_stay_finite():
    values = inputs()
    values["dt"][:, ::2] = 1e6
    values["dt"][:, 1::2] = 0.0
    out, gradients = value_and_gradients(values, weights(values), resets(), "xla")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((out, gradients)))


def sizes_outside_scans(jaxpr):
    """Element counts of all intermediate arrays, scan bodies apart."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.size for v in eqn.outvars)
        if eqn.primitive.name not in ("scan", "while"):
            for sub in jax.tree.leaves(
                eqn.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
            ):
                if hasattr(sub, "eqns") or hasattr(sub, "jaxpr"):
                    yield from sizes_outside_scans(getattr(sub, "jaxpr", sub))


@pytest.mark.parametrize("impl, expected", [("xla", False), ("assoc", True)])
def test_no_array_over_batch_length_channels_and_states(impl, expected, monkeypatch):
    small_cuts(monkeypatch, tile=4, chunk=4)
    values = inputs((8,), 12)
    jaxpr = jax.make_jaxpr(functools.partial(_loss_gradients, impl=impl))(values).jaxpr
    assert (max(sizes_outside_scans(jaxpr)) >= 8 * 12 * E * N) == expected


def _loss_gradients(values, impl):
    def loss(v):
        return (
            selective_scan(*(v[n] for n in NAMES[:6]), h0=v["h0"], impl=impl)[0] ** 2
        ).sum()

    return jax.grad(loss)(values)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(platform):
    call = jax.jit(functools.partial(_loss_gradients, impl="xla"))
    assert (
        "stablehlo.while"
        in call.trace(inputs()).lower(lowering_platforms=(platform,)).as_text()
    )


@pytest.mark.parametrize("shape, spec", [((64,), ("b",)), ((3, 32), (None, "b"))])
def test_a_sharded_batch_stays_on_its_devices(shape, spec, monkeypatch):
    """Nothing is exchanged but the gradients of A and D, and those once, not at each position."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    small_cuts(monkeypatch, tile=16)
    mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Auto,))

    def place(x, *axes):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    values = {
        n: place(x, *(() if n in ("A", "D") else spec))
        for n, x in inputs(shape, 5).items()
    }
    text = (
        jax.jit(functools.partial(_loss_gradients, impl="xla"))
        .lower(values)
        .compile()
        .as_text()
    )
    assert not any(
        f" {kind}(" in text
        for kind in ("all-gather", "all-to-all", "collective-permute")
    )
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


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="pallas"):
        selective_scan(*(inputs()[n] for n in NAMES[:6]), impl="pallas")
