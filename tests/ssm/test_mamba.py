"""Mamba blocks: steps equal the whole sequence, causality, resets and initial values."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.ssm import S6, BiMamba, CrossMamba, Mamba, MambaConfig, MambaState


D = 8
SMALL = MambaConfig(d_state=4, d_conv=3, delta_rank=2, impl="ref")
LOWER_TRIANGLE = np.tril(np.ones((6, 6), bool))


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def scaled(params, factor=1.5):
    """Scale weights, so that errors are not hidden by small initial values."""
    return jax.tree.map(lambda p: p * factor if p.ndim > 1 else p, params)


def apply(module, *args, **options):
    """Compile ``module.apply``; an eager call compiles each operation separately."""
    return jax.jit(lambda args, options: module.apply(*args, **options))(args, options)


def assert_close(tree, reference):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        tree,
        reference,
    )


def build(cls, config=SMALL, length=6, batch=(3,), **options):
    module = cls(D, config, **options)
    args = (normal(*batch, length, D),) + (
        (normal(*batch, length, D, seed=1),) if cls is CrossMamba else ()
    )
    return module, scaled(jax.jit(module.init)(jax.random.key(0), *args)), args


def random_state(module, batch=(3,)):
    zero = module.init_state(batch)
    return MambaState(normal(*zero.conv.shape, seed=3), normal(*zero.h.shape, seed=4))


def stepped(module, params, args, state, first=None):
    """Run position by position; the context of a cross block is computed before."""
    context = jax.jit(lambda x: module.apply(params, x, method="context"))
    xs = args[:1] + tuple(context(x) for x in args[1:])

    def one(state, inputs):
        x, first = inputs
        y, state = module.apply(params, state, *x, first=first, method="step")
        return state, y

    time_major = jax.tree.map(lambda x: x.swapaxes(0, 1), (xs, first))
    state, y = jax.jit(lambda s, i: jax.lax.scan(one, s, i))(state, time_major)
    return y.swapaxes(0, 1), state


@pytest.mark.parametrize(
    "taps, length, with_first", [(3, 6, True), (5, 3, True), (1, 4, False)]
)
@pytest.mark.parametrize("cls", [Mamba, CrossMamba])
def test_steps_equal_whole_sequence(cls, taps, length, with_first):
    config = replace(SMALL, d_conv=taps)
    module, params, args = build(cls, config, length)
    state = random_state(module)
    first = (
        jnp.asarray(np.random.default_rng(5).random((3, length)) < 0.4)
        if with_first
        else None
    )
    y, last = apply(module, params, *args, state=state, first=first)
    y_steps, last_steps = stepped(module, params, args, state, first)
    assert_close((y_steps, last_steps), (y, last))


def test_split_sequence_with_carried_state_equals_whole():
    module, params, (x,) = build(Mamba, length=7)
    first = jnp.zeros((3, 7), bool).at[:, 4].set(True)
    y, last = apply(module, params, x, first=first)
    y1, middle = apply(module, params, x[:, :5], first=first[:, :5])
    y2, end = apply(module, params, x[:, 5:], state=middle, first=first[:, 5:])
    assert_close((jnp.concatenate([y1, y2], 1), end), (y, last))


def dependence(function, x):
    """Return a matrix: True where an output position depends on an input position."""
    weight = normal(*x.shape, seed=9)
    jacobian = jax.jit(jax.jacrev(lambda x: (function(x) * weight).sum(-1)))(x)
    return np.abs(jacobian).max(-1) > 0


def test_causal():
    module, params, (x,) = build(Mamba, batch=())
    actual = dependence(lambda x: module.apply(params, x)[0], x)
    np.testing.assert_array_equal(actual, LOWER_TRIANGLE)


def test_cross_reads_second_sequence_at_own_position_only():
    module, params, (x, x2) = build(CrossMamba, batch=())
    on_first = dependence(lambda x: module.apply(params, x, x2)[0], x)
    np.testing.assert_array_equal(on_first, LOWER_TRIANGLE)
    on_second = dependence(lambda x2: module.apply(params, x, x2)[0], x2)
    np.testing.assert_array_equal(on_second, np.eye(6, dtype=bool))


@pytest.mark.parametrize("cls", [Mamba, CrossMamba])
def test_reset_blocks_dependence(cls):
    """A reset clears the state and the taps of the convolution."""
    module, params, (x, *rest) = build(cls, batch=())
    first = jnp.arange(6) == 3
    actual = dependence(lambda x: module.apply(params, x, *rest, first=first)[0], x)
    after_reset = np.arange(6) >= 3
    same_sequence = after_reset[:, None] == after_reset[None]
    np.testing.assert_array_equal(actual, LOWER_TRIANGLE & same_sequence)


def test_reset_at_start_ignores_given_state():
    module, params, (x,) = build(Mamba)
    first = jnp.zeros((3, 6), bool).at[:, 0].set(True)
    assert_close(
        apply(module, params, x, state=random_state(module), first=first),
        apply(module, params, x),
    )


@pytest.mark.parametrize("mode", ["sum", "mam"])
def test_bidirectional_depends_on_all_positions_with_weights_of_one_direction(mode):
    module, params, (x,) = build(BiMamba, batch=(), bi_mode=mode)
    assert dependence(lambda x: module.apply(params, x), x).all()
    one_direction = jax.eval_shape(Mamba(D, SMALL).init, jax.random.key(0), x)
    assert parameter_count(params) == parameter_count(one_direction)


@pytest.mark.parametrize("mode", ["sum", "mam"])
def test_bidirectional_forms(mode):
    """sum: S(u) + flip(S(flip(u))). mam: f * flip(S(flip(f))) with f = S(u)."""
    module, params, (x,) = build(BiMamba, bi_mode=mode)

    @jax.jit
    def expected(params, x):
        bound = module.bind(params)
        u = bound.norm_in(x)
        forward, _ = bound.block(u)
        second_input = u if mode == "sum" else forward
        backward, _ = bound.block(jnp.flip(second_input, 1))
        backward = jnp.flip(backward, 1)
        y = forward + backward if mode == "sum" else forward * backward
        return bound.norm_out(x + y)

    assert_close(apply(module, params, x), expected(params, x))


def test_unknown_bi_mode_raises():
    with pytest.raises(
        ValueError, match="bi_mode=vim: unknown form; expected sum or mam"
    ):
        build(BiMamba, bi_mode="vim")


def parameter_count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("cross", [False, True])
def test_parameter_count(cross):
    d, E, K, N, R = 24, 48, 4, 16, 2
    x = normal(2, d)
    C = normal(2, N) if cross else None
    params = jax.eval_shape(S6(d, cross=cross).init, jax.random.key(0), x, C)
    projection = E * (R + N) if cross else E * (R + 2 * N)
    expected = 2 * d * E + (K + 1) * E + projection + R * E + E + E * N + E + E * d
    assert parameter_count(params) == expected


def test_initial_values():
    params = jax.jit(S6(512).init)(jax.random.key(0), normal(1, 512))["params"]
    dt = jax.nn.softplus(params["delta_proj"]["bias"])
    assert 1e-3 * 0.999 <= dt.min() < 2e-3
    assert 0.05 < dt.max() <= 0.1 * 1.001
    assert abs(np.median(np.log(dt)) - np.log(1e-2)) < 0.2
    np.testing.assert_allclose(
        -jnp.exp(params["A_log"]),
        np.tile(-np.arange(1.0, 17)[:, None], (1, 1024)),
        rtol=1e-6,
    )
    assert (params["D"] == 1).all()
    rank = 32
    assert params["delta_proj"]["kernel"].shape == (rank, 1024)
    assert (
        0.99 * rank**-0.5 < jnp.abs(params["delta_proj"]["kernel"]).max() <= rank**-0.5
    )


def test_every_parameter_gets_a_gradient():
    module, params, args = build(CrossMamba)
    weight = normal(3, 6, D, seed=7)
    grads = jax.jit(jax.grad(lambda p: (module.apply(p, *args)[0] * weight).sum()))(
        params
    )
    assert all(
        np.isfinite(g).all() and np.abs(g).max() > 0 for g in jax.tree.leaves(grads)
    )
