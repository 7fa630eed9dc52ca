"""Precision of matrix products: one for acting and learning, and nothing else is rounded."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jmarl
from jmarl.config import ConfigError
from jmarl.envs.probes import make as make_probe
from jmarl.networks.agents import make_agent
from jmarl.networks.mixers import make_mixer
from jmarl.platforms import tracing_for
from jmarl.results.metrics_file import read_rows
from jmarl.runs.run import run
from jmarl.systems.kits.q_learning import QNetwork
from jmarl.training.anakin import device_mesh, init_runner, rollout
from jmarl.training.build import build_run
from jmarl.training.precision import check_devices, env_in_float32, in_precision


BITS = {"tf32": 10, "bfloat16": 7}
lower = pytest.mark.parametrize("precision", BITS)


def rounded(x, precision):
    """Round to the nearest number with so many bits after the leading one; ties to even."""
    scale = 2.0 ** (BITS[precision] + 1)
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(mantissa * scale) / scale, exponent)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


KEY = jax.random.key(0)
X, W, G = normal(5, 16), normal(16, 3, seed=1), normal(5, 3, seed=2)


def product_of_rounded(a, b, precision):
    return rounded(a, precision) @ rounded(b, precision)


@lower
def test_a_product_and_its_gradients_have_rounded_inputs(precision):
    """Only the inputs are rounded: sums have the precision of float32."""

    def products(x, w, g):
        y, pullback = jax.vjp(jnp.matmul, x, w)
        return y, *pullback(g)

    with jax.default_matmul_precision("highest"):  # has no effect
        y, dx, dw = jax.jit(in_precision(products, precision))(X, W, G)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(y, product_of_rounded(X, W, precision))
    close(dx, product_of_rounded(G, W.T, precision))
    close(dw, product_of_rounded(X.T, G, precision))
    assert np.abs(y - X @ W).max() > 1e-4


@jax.custom_vjp
def custom(x, w):
    return x @ w


custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: (g @ saved[1].T, None))


def sharded(x, w):
    rows = jnp.pad(x, ((0, 3), (0, 0)))
    split = jax.shard_map(
        jnp.matmul,
        mesh=device_mesh(),
        in_specs=(PartitionSpec("env"), PartitionSpec()),
        out_specs=PartitionSpec("env"),
        check_vma=False,
    )
    return split(rows, w)[: len(x)]


WRAPPED = {
    "scan": lambda x, w: jax.lax.scan(lambda c, row: (c, row @ w), 0, x)[1],
    "while": lambda x, w: jax.lax.fori_loop(
        0, 2, lambda i, y: x @ w, jnp.zeros((5, 3))
    ),
    "cond": lambda x, w: jax.lax.cond(x.sum() < 1e9, lambda: x @ w, lambda: 2 * x @ w),
    "jit": lambda x, w: jax.jit(jnp.matmul)(x, w),
    "remat": lambda x, w: jax.checkpoint(jnp.matmul)(x, w),
    "custom_vjp": custom,
    "vmap": lambda x, w: jax.vmap(jnp.matmul, (0, None))(x, w),
    "shard_map": sharded,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_products_of_inner_programs_are_rounded(name):
    with jax.set_mesh(device_mesh()):
        found = jax.jit(in_precision(WRAPPED[name], "bfloat16"))(X, W)
    expected = product_of_rounded(X, W, "bfloat16")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    over_seeds = jax.vmap(in_precision(WRAPPED[name], "bfloat16"), (0, None))
    if name != "shard_map":
        np.testing.assert_array_equal(jax.jit(over_seeds)(X[None], W)[0], found)


def test_exact_products_sums_and_integers_are_not_rounded():
    def others(x, w):
        exact = jnp.einsum("bi,ij->bj", x, w, precision="highest")
        counts = x.astype(jnp.int32) @ jnp.full((16, 1), 1001)
        return exact, x.sum(-1), jax.nn.softmax(x), counts

    found = jax.jit(in_precision(others, "bfloat16"))(X, W)
    for x, y in zip(found, jax.jit(others)(X, W), strict=True):
        np.testing.assert_array_equal(x, y)


def test_float32_is_the_same_program_on_a_cpu():
    program = jax.jit(jnp.matmul).lower(X, W).as_text()
    same = jax.jit(in_precision(jnp.matmul, "float32")).lower(X, W).as_text()
    assert same.replace("in_this_precision", "matmul") == program


def dots(function, *args):
    """Return the precision of each product of a traced function."""
    eqns = jax.make_jaxpr(function)(*args).eqns
    return [
        str(x.params["precision"]) for x in eqns if x.primitive.name == "dot_general"
    ]


@pytest.mark.parametrize(
    ("platform", "precision", "expected"),
    [
        ("gpu", "float32", "HIGHEST"),
        ("gpu", "tf32", "HIGH"),
        ("gpu", "bfloat16", "BF16_BF16_F32"),
        ("tpu", "float32", "HIGHEST"),
        ("tpu", "tf32", "HIGH"),
        ("tpu", "bfloat16", "DEFAULT"),
    ],
)
def test_products_of_accelerators_state_their_precision(platform, precision, expected):
    """What a user sets for JAX changes neither the products nor those of environments."""

    def products(x, w):
        return x @ w, jnp.matmul(x, w, precision="highest")

    def step(key, x, w):
        return x @ w

    with tracing_for(platform), jax.default_matmul_precision("tensorfloat32"):
        first, second = dots(in_precision(products, precision), X, W)
        env = make_probe("probe_bandit")._replace(step=step)
        (of_env,) = dots(lambda x: env_in_float32(env).step(KEY, x, W), X)
    assert expected in first and ("HIGHEST" in first) == (expected == "HIGHEST")
    assert "HIGHEST" in second and "HIGHEST" in of_env


def test_a_gpu_without_bfloat16_is_an_error_of_one_line():
    def gpu(capability):
        kind = {"platform": "gpu", "device_kind": "Tesla T4"}
        return [SimpleNamespace(compute_capability=capability, **kind)]

    with pytest.raises(
        ConfigError, match=r"^precision='bfloat16': Tesla T4 has no such"
    ):
        check_devices("bfloat16", gpu("7.5"))
    check_devices("tf32", gpu("7.5"))
    check_devices("bfloat16", gpu("8.0"))
    check_devices("bfloat16", jax.devices())


T, ENVS = 7, 8
GRU = ("network.torso=[16]", "network.memory_width=16")
REPLAY = ("system.batch_size=8", "system.gradient_steps=2", "system.replay_size=112")
PHASE = ("system.minibatches=1", "system.epochs=1")
PPO = {
    "mappo": ("network=gru", "network.head=[16]", *GRU),
    "hpn_mappo": ("network.memory_width=16", "network.hyper_width=16"),
    "mat_ppo": ("network.embed_dim=16", "network.n_head=2"),
    "mam_ppo": ("network.embed_dim=16", "network.d_state=4"),
    "rec_mam": ("network.embed_dim=16", "network.d_state=4"),
    "sable": ("network.embed_dim=16", "network.n_head=2"),
    "rec_sable": ("network.embed_dim=16", "network.n_head=2"),
    "shppo": ("network.head=[16]", *GRU),
}
VALUE = {
    "qmix": ("network=gru", "network.head=[16]", *GRU),
    "spectra_qmix_plus": (),
    "hpn_qmix": ("network.memory_width=16", "network.hyper_width=16"),
}
FAST = ("mappo", "rec_sable", "qmix")
"""Systems whose acting has another form than learning, and the simplest of each family."""


def over(names):
    marks = {True: [], False: [pytest.mark.slow]}
    params = [pytest.param(name, marks=marks[name in FAST]) for name in names]
    return pytest.mark.parametrize("name", params)


@functools.cache
def built(name, precision):
    """Return a run, and parameters far from their initial values."""
    options = (*PPO[name], *PHASE) if name in PPO else (*VALUE[name], *REPLAY)
    sizes = (f"num_envs={ENVS}", f"rollout_length={T}", f"precision={precision}")
    words = ["env=probe_death", "system.lr=0.01", *sizes, *options]
    return build_run(jmarl.load_config(name, words))


@functools.cache
def start(name):
    """Return a runner with parameters far from their initial values."""
    _, env, system = built(name, "float32")
    runner = jax.jit(lambda key: init_runner(env, system, ENVS, key))(jax.random.key(0))
    rng = np.random.default_rng(0)

    def perturb(x):
        fan_in = x.shape[-2] if x.ndim > 1 else 1
        return x + (SPREAD / fan_in**0.5 * rng.standard_normal(x.shape)).astype(x.dtype)

    learner = runner.learner
    params = jax.tree.map(perturb, learner.params)
    return runner.replace(learner=learner.replace(params=params))


@functools.cache
def acted(name, precision):
    """Return the experience of acting in a precision."""
    _, env, system = built(name, precision)
    act = jax.jit(lambda runner, key: rollout(env, system, runner, T, key)[1])
    return act(start(name), jax.random.key(1))


@functools.cache
def learn(name):
    """Return the compiled update in bfloat16."""
    return jax.jit(built(name, "bfloat16").system.update)


SPREAD = 1.0
"""Standard deviation of the change of a weight, times the root of its inputs."""
BOUND = 1e-3
"""Largest |ratio - 1| at the first minibatch of an update with products of bfloat16."""


@over(PPO)
def test_acting_and_learning_in_one_precision_have_ratios_of_one(name):
    """The same is false if they differ, so that the bound means something."""
    learner, key = start(name).learner, jax.random.key(2)
    _, metrics = learn(name)(learner, acted(name, "bfloat16"), key)
    _, mixed = learn(name)(learner, acted(name, "float32"), key)
    assert metrics["ratio_error"] < BOUND
    assert mixed["ratio_error"] > 3 * BOUND


@over(VALUE)
def test_memory_of_acting_is_that_of_learning_in_one_precision(name):
    """Learning computes action values from memory that it unrolls over a sequence."""
    config, env, _ = built(name, "bfloat16")
    agent = make_agent(env.spec, config.network)
    net = QNetwork(agent, make_mixer(env.spec, config.system.mixer), env.spec)

    def unroll(params, experience):
        rows = experience.steps
        inputs = experience.carry, rows.obs, rows.first
        return cast(Any, net.agent).apply(params["agent"], *inputs)[0]

    learned = jax.jit(in_precision(unroll, "bfloat16"))

    def error(precision):
        experience = acted(name, precision)
        carry = learned(start(name).learner.params, experience)
        pairs = zip(*map(jax.tree.leaves, (carry, experience.last_carry)), strict=True)
        return max(np.abs(x - y).max() for x, y in pairs)

    assert error("bfloat16") < BOUND
    assert error("float32") > 3 * BOUND


@over([*PPO, *VALUE])
def test_parameters_moments_and_memory_stay_float32(name):
    """They are not rounded either: some numbers have more bits than those of bfloat16."""
    experience = acted(name, "bfloat16")
    learner, metrics = learn(name)(start(name).learner, experience, jax.random.key(2))
    parts = {
        "params": learner.params,
        "opt_state": learner.opt_state,
        "memory": experience.last_carry,
        "extras": experience.steps.extras,
    }
    for part, tree in parts.items():
        leaves = [
            x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        assert all(x.dtype == jnp.float32 for x in leaves), part
        if leaves:
            every = np.concatenate([np.ravel(x) for x in leaves])
            assert (every != rounded(every, "bfloat16")).mean() > 0.1, part
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(metrics))


@pytest.mark.slow
def test_a_run_of_the_command_line_learns_in_its_precision(tmp_path):
    """Two seeds on four devices; the programs of float32 differ."""
    words = ["env=smax_3m", "num_envs=16", "rollout_length=16", "total_timesteps=1024"]
    words += ["eval.every=512", "eval.episodes=16", "num_seeds=2", "network.torso=[16]"]
    returns = {}
    for precision in ("float32", "bfloat16"):
        config = jmarl.load_config("ippo", [*words, f"precision={precision}"])
        folder = tmp_path / precision
        assert run(dataclasses.replace(config, run_dir=str(folder))) == 0
        rows = [x for x in read_rows(folder / "metrics.jsonl") if x["kind"] == "train"]
        returns[precision] = [x["loss"] for x in rows]
        assert max(max(x["ratio_error"]) for x in rows) < BOUND
    assert returns["float32"] != returns["bfloat16"]
