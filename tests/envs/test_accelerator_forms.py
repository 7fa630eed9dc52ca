"""On an accelerator, loops are unrolled and functions fused, which changes no transition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jmarl import envs
from jmarl.envs.battle.fused import fused
from jmarl.envs.conformance import random_action
from jmarl.envs.keys import derive_keys, random_bits
from jmarl.platforms import ENV_AXIS, tracing_for
from jmarl.training.anakin import device_mesh


pytestmark = pytest.mark.usefixtures("interpreted_kernels")


def play(name):
    """Return the observations and rewards of some steps of four environments."""
    env = envs.make(name)
    state, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 4)
    step, seen = jax.jit(env.step), []
    act = jax.jit(random_action, static_argnums=2)
    for i in range(25):
        key = jax.random.key(i)
        state, timestep = step(key, state, act(key, timestep, env.spec))
        seen.append((timestep.obs.own, timestep.obs.rows, timestep.reward))
    return seen


@pytest.mark.parametrize("target", ["gpu", "tpu"])
@pytest.mark.parametrize("name", ["smax_3v4", "smac_2m_vs_1z"])
def test_transitions_are_those_of_a_cpu(name, target):
    expected = play(name)
    with tracing_for(target):
        found = play(name)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert np.std([reward for *_, reward in expected]) > 0


def nearest(units, others):
    """Return the sum of the values of all others, and the index of the nearest one."""
    x, value = others
    apart = jnp.where(value[None] > 0, jnp.abs(units[:, None] - x[None]), jnp.inf)
    total = jnp.sum(jnp.where(value[None] > 0, value[None], 0.0), axis=1)
    return {"total": total + 0 * units, "nearest": jnp.argmin(apart, axis=1)}


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 6), (8, 16, 40)])
def test_a_fused_function_has_the_values_of_the_function(shape):
    """Numbers of units are padded to powers of two, and environments split into blocks."""
    few, many, batch = shape
    keys = jax.random.split(jax.random.key(1), 3)
    units = jax.random.normal(keys[0], (few, batch))
    others = (
        jax.random.normal(keys[1], (many, batch)),
        jax.random.uniform(keys[2], (many, batch), minval=0.1),
    )
    expected = nearest(units, others)
    with tracing_for("gpu"):
        found = fused(nearest, units, others)
    np.testing.assert_allclose(found["total"], expected["total"], rtol=1e-6)
    np.testing.assert_array_equal(found["nearest"], expected["nearest"])


def test_fused_functions_can_be_vmapped_over_seeds():
    units, x = jax.random.normal(jax.random.key(0), (2, 3, 5, 8))
    with tracing_for("gpu"):
        found = jax.vmap(functools.partial(fused, nearest))(units, (x, jnp.abs(x)))
    expected = jax.vmap(nearest)(units, (x, jnp.abs(x)))
    np.testing.assert_array_equal(found["nearest"], expected["nearest"])


def test_fused_functions_stay_on_their_devices():
    units, x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    mesh = device_mesh(jax.devices()[:2])
    split = NamedSharding(mesh, PartitionSpec(None, ENV_AXIS))
    arguments = jax.device_put((units, (x, jnp.abs(x))), split)
    with tracing_for("gpu"), jax.set_mesh(mesh):
        traced = jax.jit(functools.partial(fused, nearest)).lower(*arguments)
        program = traced.compile()
    found = program(*arguments)["nearest"]
    np.testing.assert_array_equal(found, nearest(units, (x, jnp.abs(x)))["nearest"])
    assert found.sharding.is_equivalent_to(split, 2)
    assert "all-gather" not in program.as_text()


def test_random_draws_are_those_of_jax():
    """The generator is written out on accelerators."""
    keys = jax.random.split(jax.random.key(3), 7)
    paths = [(1, 0), (2,), (0, 5, 1)]

    def draws():
        leaves = derive_keys(keys, paths)
        return jax.random.key_data(leaves), random_bits(leaves, 5)

    expected = draws()
    one = jax.random.fold_in(jax.random.fold_in(keys[4], 1), 0)
    np.testing.assert_array_equal(expected[1][0, 4], jax.random.bits(one, (5,)))
    with tracing_for("tpu"):
        found = draws()
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
