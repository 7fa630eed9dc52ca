"""Gradients on four devices: equal to those of one device, with a single reduction."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jmarl.learning import parallel
from jmarl.learning.parallel import (
    gradient,
    map_devices,
    mean_weights,
    split_envs,
    sum_rows,
    sum_shares,
)
from jmarl.networks.memory import make_memory
from jmarl.platforms import ENV_AXIS, env_devices
from jmarl.training.anakin import device_mesh


T, B, N, F = 6, 8, 3, 4
WHOLE, ENVS, STEPS = (
    PartitionSpec(*axes) for axes in ((), (ENV_AXIS,), (None, ENV_AXIS))
)


def case(kind):
    """Return the masked loss of a recurrent network, its arguments, and their shardings."""
    net = make_memory(kind, F)
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (T, B, N, F))
    first = jax.random.bernoulli(keys[1], 0.2, (T, B))
    mask = jax.random.bernoulli(keys[2], 0.7, (T, B, N))
    carry = net.initial(B, N)
    params = net.init(keys[3], carry, x, first)

    def loss(params, carry, x, first, weight):
        y = net.apply(params, carry, x, first)[1]
        return (weight[..., None] * y**2).sum(), {
            "worst": jnp.abs(y).max(),
            "share": weight.sum(),
        }

    args = params, carry, x, first, mean_weights(mask)
    return loss, args, (WHOLE, ENVS, STEPS, STEPS, STEPS)


def compiled(function, args, specs, mesh):
    def put(tree, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.device_put(tree, jax.tree.map(lambda _: sharding, tree))

    args = [put(tree, spec) for tree, spec in zip(args, specs, strict=True)]
    with jax.set_mesh(mesh):
        return jax.jit(function).lower(*args).compile(), args


@pytest.fixture(scope="module", params=["gru", "ssm"])
def on_four(request):
    loss, args, specs = case(request.param)
    program, sharded_args = compiled(gradient(loss), args, specs, device_mesh())
    return loss, args, program, sharded_args


def test_four_devices_have_the_gradient_of_one(on_four):
    loss, args, program, sharded_args = on_four
    (total, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(*args)
    got, shares, got_grads = program(*sharded_args)
    np.testing.assert_allclose(got, total, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        got_grads,
        grads,
    )
    np.testing.assert_allclose(shares["worst"].max(), aux["worst"], rtol=1e-5)
    assert shares["share"].shape == (4,)
    np.testing.assert_allclose(shares["share"].sum(), 1.0, rtol=1e-5)


def collectives(text):
    """Return the collective instructions of a program, and the names of those inside loops."""
    words = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    matches = re.findall(rf"= .*?\b({words})(?:-start)?\(.*?op_name=\"([^\"]*)\"", text)
    in_loops = [name for _, name in matches if "while" in name]
    return [word for word, _ in matches], in_loops


def partitioned(loss):
    """Leave the gradient to the partitioner (defective)."""
    return jax.value_and_grad(loss, has_aux=True)


TWIN = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: left to the partitioner"
)


@pytest.mark.parametrize("kind", ["gru", "ssm"])
@pytest.mark.parametrize("how", [gradient, pytest.param(partitioned, marks=TWIN)])
def test_gradients_are_reduced_once_and_not_in_every_time_step(how, kind):
    loss, args, specs = case(kind)
    program, _ = compiled(how(loss), args, specs, device_mesh())
    words, in_loops = collectives(program.as_text())
    assert not in_loops
    assert words == ["all-reduce"]


def test_a_function_of_rows_runs_on_each_device_without_communication():
    net = make_memory("gru", F)
    _, args, specs = case("gru")

    def forward(params, carry, x, first, weight):
        return net.apply(params, carry, x, first)[1] * weight[..., None]

    mesh = device_mesh()
    program, sharded_args = compiled(map_devices(forward), args, specs, mesh)
    assert collectives(program.as_text()) == ([], [])
    expected = jax.jit(map_devices(forward))(*args)
    np.testing.assert_allclose(program(*sharded_args), expected, atol=1e-6)


def test_without_a_mesh_it_is_the_plain_gradient():
    assert env_devices() == 1
    loss, args, _ = case("gru")
    total, aux, grads = jax.jit(gradient(loss))(*args)
    (expected, _), expected_grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        *args
    )
    np.testing.assert_allclose(total, expected)
    jax.tree.map(np.testing.assert_array_equal, grads, expected_grads)
    assert aux["worst"].shape == (1,)


def sums(params, x):
    """Return sums over the devices of rows, of shares, and of a gradient."""
    shares = gradient(lambda p, c, x: ((p * x).sum(), c.sum()))(params, x[0], x)
    return sum_rows(x**2), sum_shares(shares[1]), shares[2]


def test_sums_in_the_order_of_the_devices_have_the_same_bits(monkeypatch):
    """Gloo adds in another order, but several processes give the bits of one."""
    x = jax.random.normal(jax.random.key(0), (T, B, N))
    params = jax.random.normal(jax.random.key(1), (N,))
    specs = WHOLE, STEPS
    usual, args = compiled(sums, (params, x), specs, device_mesh())
    expected = usual(*args)
    monkeypatch.setattr(parallel, "adds_in_order", lambda: True)
    again = functools.partial(sums)  # another function for the cache of traces
    ordered, args = compiled(again, (params, x), specs, device_mesh())
    assert "all-gather" in ordered.as_text() and "all-gather" not in usual.as_text()
    jax.tree.map(np.testing.assert_array_equal, ordered(*args), expected)


@pytest.mark.parametrize(
    "mask",
    [jnp.array([True, False, True, True]), jnp.zeros(4, bool)],
    ids=["some", "none"],
)
def test_mean_weights_turn_sums_into_means(mask):
    weights = mean_weights(mask)
    np.testing.assert_allclose(weights.sum(), float(mask.any()))
    assert (weights[~mask] == 0).all()


def test_environments_are_split():
    mesh = device_mesh()
    with jax.set_mesh(mesh):
        split = jax.jit(split_envs)((jnp.ones((8, 2)), jnp.ones(4)))
    for x in split:
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, ENVS), x.ndim)
