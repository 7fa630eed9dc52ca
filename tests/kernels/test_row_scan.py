"""A scan over agents as one kernel computes the same as ``lax.scan``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jmarl.config.compose import load_config
from jmarl.kernels import row_scan as module
from jmarl.kernels.row_scan import row_scan
from jmarl.platforms import ENV_AXIS, tracing_for
from jmarl.training.anakin import device_mesh
from jmarl.training.build import build_run


pytestmark = pytest.mark.usefixtures("interpreted_kernels")


@pytest.fixture
def kernels(monkeypatch):
    """Return the names of the kernels that are called."""
    names = []
    call = module._call

    def counted(*args):
        names.append("row_scan")
        return call(*args)

    monkeypatch.setattr(module, "_call", counted)
    return names


def both(function, *args):
    """Return the results on a CPU and those of the kernel."""
    expected = jax.jit(function)(*args)
    with tracing_for("gpu"):
        found = jax.jit(lambda *args: function(*args))(*args)
    return expected, found


def assert_close(expected, found):
    leaves = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    for a, b in leaves:
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


BLOCK = 0.5 * np.eye(24, dtype=np.float32) + 0.1


def count_start(inputs):
    (memory,) = inputs
    return memory, jnp.zeros((4 * len(memory), 3, 5)), jnp.zeros((), jnp.int32)


def count_step(carry, x):
    """Use every operation: views, products, reductions, a cache and a counter."""
    memory, cache, position = carry
    value, mask = x  # [B, 24], [B, 7]
    mixed = jnp.where(mask.any(1)[:, None], value @ BLOCK, value)
    left, right = jnp.split(mixed, [8], axis=-1)
    joined = jnp.concatenate([right, left], axis=-1)
    outer = jnp.einsum("bi,bj->bij", joined[:, ::8], left[:, :5])
    memory = jnp.tanh(memory + outer)
    row = left[:, :4].reshape(-1, 1, 1) * jnp.arange(5.0)
    cache = lax.dynamic_update_slice_in_dim(cache, row, position, axis=1)
    best = jnp.argmax(jnp.where(mask, cache.sum(1).reshape(-1, 20)[:, :7], -1e9), -1)
    score = jnp.einsum("bij,bj->bi", memory, mixed[:, 3:8])
    one_hot = jax.nn.one_hot(best, 7)
    y = jax.nn.log_softmax(score.T.T) * one_hot.max(-1, keepdims=True)
    return (memory, cache, position + 1), (best, y, mask & (one_hot > 0))


@pytest.mark.parametrize("batch", [1, 16, 21])
def test_a_kernel_equals_the_scan(kernels, batch):
    keys = jax.random.split(jax.random.key(batch), 3)
    inputs = (jax.random.normal(keys[0], (batch, 3, 5)),)
    value = jax.random.normal(keys[1], (batch, 3, 24))
    mask = jax.random.bernoulli(keys[2], 0.5, (batch, 3, 7))

    def run(inputs, xs):
        return row_scan(count_start, count_step, inputs, xs)

    expected, found = both(run, inputs, (value, mask))
    assert kernels == ["row_scan"]
    assert_close(expected, found)


def test_seeds_share_a_kernel(kernels):
    keys = jax.random.split(jax.random.key(0), 2)

    def run(key):
        value = jax.random.normal(key, (17, 3, 24))
        inputs = (value[:, :, :5],)
        return row_scan(count_start, count_step, inputs, (value, value[..., :7] > 0))

    expected, found = both(jax.vmap(run), keys)
    assert kernels == ["row_scan"]
    assert_close(expected, found)


def test_each_device_runs_its_environments(kernels):
    mesh = device_mesh(jax.devices()[:2])
    value = jax.random.normal(jax.random.key(1), (8, 3, 24))

    def run(value):
        inputs = (value[:, :, :5],)
        return row_scan(count_start, count_step, inputs, (value, value[..., :7] > 0))

    expected = run(value)
    split = jax.device_put(value, NamedSharding(mesh, PartitionSpec(ENV_AXIS)))
    with tracing_for("gpu"), jax.set_mesh(mesh):
        found = jax.jit(run)(split)
    assert kernels == ["row_scan"]
    assert_close(expected, found)
    assert found[1][0].sharding.spec == PartitionSpec(ENV_AXIS)


def test_a_result_that_reads_a_replaced_argument_late():
    """A state is overwritten only if nothing else reads its old elements."""

    def step(carry, x):
        a, b, old = carry
        return (a + x, a, old * 0.5 + b), (a * b, old)

    xs = jax.random.normal(jax.random.key(0), (3, 4, 6))
    inputs = (xs[:, 0],)

    def run(inputs, xs):
        return row_scan(lambda inputs: inputs * 3, step, inputs, xs)

    assert_close(*both(run, inputs, xs))


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (lambda carry, x: (lax.fori_loop(0, 2, lambda _, c: c + x, carry), x), "loop"),
        (lambda carry, x: (jnp.cumsum(carry, -1), x), "cumsum"),
    ],
)
def test_other_steps_stay_a_loop(kernels, step, name):
    xs = jax.random.normal(jax.random.key(0), (3, 4, 6))

    def run(xs):
        return row_scan(lambda inputs: inputs, step, xs[:, 0], xs)

    expected, found = both(run, xs)
    assert kernels == []
    assert_close(expected, found)


def joint_actions(system, env, overrides):
    """Act three times with a policy; return actions, memory and what is stored."""
    overrides = [f"env={env}", "num_envs=8", "logger=none", *overrides]
    run = build_run(load_config(system, overrides))
    _, timestep = jax.jit(run.env.reset, static_argnums=1)(jax.random.key(0), 8)
    params = run.system.init(jax.random.key(1)).params
    # matrices of the initial policy are almost zero
    params = jax.tree.map(
        lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params
    )
    carry, results = run.system.carry(8), []
    act = jax.jit(run.system.act)
    for i in range(3):
        action, carry, extras = act(params, carry, timestep, jax.random.key(i), 1.0)
        timestep = timestep.replace(first=jnp.arange(8) % 2 == i)
        results.append((action, carry, extras))
    return results


SMALL = ["network.embed_dim=16"]


@pytest.mark.parametrize(
    ("system", "env", "overrides"),
    [
        ("mat_ppo", "smax_3m", ["network.n_head=2", "network.n_block=2"]),
        ("mam_ppo", "smax_3m", ["network.d_state=4", "system.shuffle_agents=true"]),
        ("rec_sable", "smax_3m", ["network.n_head=2"]),
        pytest.param("mat_ppo", "mpe_spread", [], marks=pytest.mark.slow),
        pytest.param("sable", "smax_3m", [], marks=pytest.mark.slow),
        pytest.param("rec_mam", "smax_3m", [], marks=pytest.mark.slow),
        pytest.param("mam_ppo", "mpe_spread", [], marks=pytest.mark.slow),
    ],
)
def test_policies_act_with_one_kernel(kernels, system, env, overrides):
    """A team's actions, log-probabilities, values and memory are those of the loop."""
    expected = joint_actions(system, env, [*SMALL, *overrides])
    assert kernels == []
    with tracing_for("gpu"):
        found = joint_actions(system, env, [*SMALL, *overrides])
    assert kernels == ["row_scan"]
    assert_close(expected, found)
