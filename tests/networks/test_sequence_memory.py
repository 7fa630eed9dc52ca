"""Sequence policies with memory: acting row by row equals learning on all rows at once."""

from __future__ import annotations

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jmarl import load_config
from jmarl.envs.batched import flat_obs, flat_spec
from jmarl.networks.sequence import retention
from jmarl.networks.sequence.blocks import MLP, DecoderBlock, Identity
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
from jmarl.networks.sequence.policy import action_codec
from jmarl.networks.sequence.retention import CHUNK_TOKENS, count_steps, decays, retain
from jmarl.ssm import MambaConfig
from jmarl.systems import mam_ppo, sable
from jmarl.systems.kits.sequence_ppo import sequence_functions
from jmarl.types import TimeStep, Transition


T, B, N, A, WIDTH = 6, 3, 3, 3, 8
SMALL = (f"network.embed_dim={WIDTH}", "network.n_block=2")
MAM = load_config("rec_mam", [*SMALL, "network.d_state=3"]).network
SABLE = load_config("rec_sable", [*SMALL, "network.n_head=2"]).network
FAMILIES = {"rec_mam": (mam_ppo, MAM), "rec_sable": (sable, SABLE)}
families = pytest.mark.parametrize("family", FAMILIES)
cases = pytest.mark.parametrize(
    ("family", "kind"),
    [("rec_mam", "discrete"), ("rec_sable", "discrete"), ("rec_sable", "continuous")],
)


def make_spec(kind="discrete"):
    return flat_spec(
        N, own_width=5, n_actions=A, episode_limit=10, discrete=kind == "discrete"
    )


def rows(spec, seed=1):
    """Return T rows of observations, with episodes that start at different rows."""
    rng = np.random.default_rng(seed)
    avail = rng.random((T, B, N, A)) < 0.7
    avail[..., 0] = True
    own = jnp.asarray(rng.standard_normal((T, B, N, spec.own_width)), jnp.float32)
    obs = jax.vmap(jax.vmap(lambda own, avail: flat_obs(spec, own, avail=avail)))(
        own, jnp.asarray(avail)
    )
    first = np.zeros((T, B), bool)
    first[2, 0] = first[3, 1] = first[4, 1] = True
    false = jnp.zeros((T, B), bool)
    reward = jnp.zeros((T, B, N))
    return TimeStep(
        obs,
        reward,
        terminated=false,
        truncated=false,
        first=jnp.asarray(first),
        info={},
    )


def random_like(tree, seed):
    """Return random numbers in the shapes and types of a tree."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(rng.integers(0, 5, x.shape), x.dtype)
        return jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype)

    return jax.tree.map(leaf, tree)


@functools.cache
def acted_and_learned(family, kind):
    """Act on T rows from a random memory, then evaluate all of them at once."""
    module, network = FAMILIES[family]
    spec = make_spec(kind)
    policy, steps = module.policy(spec, network), rows(spec)
    params = random_like(jax.eval_shape(policy.init, jax.random.key(0)), 0)
    carry = random_like(jax.eval_shape(lambda: policy.carry(B)), 1)
    functions = sequence_functions(policy, action_codec(spec), shuffle_agents=True)

    def act(carry, inputs):
        step, key = inputs
        action, carry, extras = functions.act(params, carry, step, key, jnp.ones(()))
        return carry, (action, extras)

    @jax.jit
    def run():
        with jax.default_matmul_precision("highest"):
            keys = jax.random.split(jax.random.key(2), T)
            last, (action, extras) = jax.lax.scan(act, carry, (steps, keys))
            transitions = Transition(
                steps.obs,
                steps.first,
                steps.valid,
                action,
                steps.reward,
                steps.terminated,
                steps.truncated,
                extras,
            )
            return last, extras, functions.evaluate(params, carry, transitions)

    return policy, params, carry, steps, *run()


@cases
def test_learning_equals_acting(family, kind):
    *_, extras, learned = acted_and_learned(family, kind)
    np.testing.assert_allclose(learned.logp, extras.logp, atol=1e-4)
    np.testing.assert_allclose(learned.value, extras.value, atol=1e-4)


@pytest.mark.fault(20)
@families
def test_memory_is_carried_and_reset(family):
    """The last row depends on row 0 only if no episode starts in between."""
    policy, params, carry, steps, *_ = acted_and_learned(family, "discrete")

    def last_value(own):
        obs = steps.obs.replace(own=steps.obs.own.at[0].set(own))
        return policy.encode(params, carry.enc, obs, steps.first)[2][-1].sum(-1)

    jacobian = jax.jit(jax.jacrev(last_value))(steps.obs.own[0])
    influence = np.abs(jacobian).max(axis=(2, 3))
    assert (influence[2, 2] > 0).all()  # no episode starts in environment 2
    assert (influence[:, :2] == 0).all()


def assert_no_dependence_on_later_rows(policy):
    spec = make_spec()
    params = random_like(jax.eval_shape(policy.init, jax.random.key(0)), 0)
    steps = rows(spec)
    no_starts = jnp.zeros_like(steps.first)

    def values(own):
        obs = steps.obs.replace(own=own)
        _, _, value = policy.encode(params, policy.carry(B).enc, obs, no_starts)
        return value.sum((1, 2))

    jacobian = jax.jit(jax.jacrev(values))(steps.obs.own)
    influence = np.abs(jacobian).max(axis=(2, 3, 4))
    later = np.triu(np.ones((T, T), bool), k=1)
    assert (influence[later] == 0).all()
    assert (influence[~later] > 0).all()


@families
def test_no_row_depends_on_later_rows(family):
    module, network = FAMILIES[family]
    assert_no_dependence_on_later_rows(module.policy(make_spec(), network))


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="both directions over time and agents flattened together",
)
def test_bidirectional_scan_over_time_and_agents():
    from jmarl.ssm import BiMamba

    class Flat(nn.Module):
        @nn.nowrap
        def initial(self, batch, n_agents):
            return ()

        @nn.compact
        def __call__(self, carry, x, first, joined):
            flat = x.swapaxes(0, 1).reshape(x.shape[1], -1, x.shape[-1])
            mixed = BiMamba(WIDTH, MambaConfig(d_state=3))(flat)
            return carry, mixed.reshape(x.swapaxes(0, 1).shape).swapaxes(0, 1)

    block = partial(DecoderBlock, Identity, Identity, partial(MLP, WIDTH))
    decoder = Decoder(WIDTH, 1, A, True, block)
    assert_no_dependence_on_later_rows(
        sequence_policy(make_spec(), Encoder(WIDTH, 1, Flat), decoder, agent_id=True)
    )


def recurrent(matrix, q, k, v, first, kappa, causal):
    """Compute retention agent by agent, as a reference for ``retain``."""
    out = np.zeros(q.shape)
    matrix = np.array(matrix, np.float64)
    for t in range(q.shape[0]):
        matrix = np.where(
            first[t][:, None, None, None], 0.0, kappa[None, :, None, None] * matrix
        )
        products = np.einsum("bihd,bihe->bihde", k[t], v[t])
        for i in range(q.shape[2]):
            read = products[:, : i + 1] if causal else products
            total = matrix + read.sum(1)
            out[t, :, i] = np.einsum("bhd,bhde->bhe", q[t, :, i], total)
        matrix = matrix + products.sum(1)
    return matrix, out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "agents"),
    [(1, 3), (6, 3), (34, 5), (3, CHUNK_TOKENS), (4, 2 * CHUNK_TOKENS + 1)],
)
def test_chunks_equal_the_recurrence(length, agents, causal):
    """Episodes start inside of chunks, at their first and last rows, and never."""
    heads, width, batch = 2, 3, 4
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, length, batch, agents, heads, width)).astype(
        np.float32
    )
    matrix = rng.standard_normal((batch, heads, width, width)).astype(np.float32)
    first = rng.random((length, batch)) < 0.2
    first[:, 0] = False
    first[0, 1] = first[-1, 2] = True
    kappa = decays(heads, 0.8)
    with jax.default_matmul_precision("highest"):
        after, y = jax.jit(
            partial(retain, kappa=kappa.astype(np.float32), causal=causal)
        )(matrix, q, k, v, first)
    expected_after, expected = recurrent(matrix, q, k, v, first, kappa, causal)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(y / scale, expected / scale, atol=2e-6)
    np.testing.assert_allclose(
        after, expected_after, atol=1e-4 * np.abs(expected_after).max()
    )


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_large_and_small_teams_are_equal(causal, monkeypatch):
    """Row by row, with chunks that do not divide the team, equals all tokens at once."""
    rng = np.random.default_rng(3)
    q, k, v = rng.standard_normal((3, 4, 2, 5, 2, 3)).astype(np.float32)
    first = jnp.asarray(rng.random((4, 2)) < 0.3)
    weight = rng.standard_normal(q.shape).astype(np.float32)

    def gradient(chunk_tokens):
        monkeypatch.setattr(retention, "CHUNK_TOKENS", chunk_tokens)
        run = partial(
            retain, first=first, kappa=decays(2, 0.8).astype(np.float32), causal=causal
        )
        loss = lambda *x: jnp.vdot(weight, run(*x)[1])  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(
            jnp.ones((2, 2, 3, 3)), q, k, v
        )

    with jax.default_matmul_precision("highest"):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            gradient(2),
            gradient(64),
        )


def test_long_chunk_has_finite_value_and_gradient():
    """The published code takes powers of the decay for masked pairs, and replaces the NaN."""
    length = CHUNK_TOKENS
    x = jnp.ones((length, 1, 1, 1, 2))
    kappa = np.full(1, 1e-3, np.float32)
    first = jnp.zeros((length, 1), bool)

    def loss(x):
        matrix = jnp.ones((1, 1, 2, 2))
        _, y = retain(matrix, x, x, x, first, kappa, causal=True)
        return y.sum()

    value, grad = jax.jit(jax.value_and_grad(loss))(x)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_steps_count_from_episode_start():
    first = jnp.array(
        [[False, True], [False, False], [True, False], [False, True], [False, False]]
    )
    after, counted = count_steps(jnp.array([7, 3]), first)
    np.testing.assert_array_equal(counted, [[7, 0], [8, 1], [0, 2], [1, 0], [2, 1]])
    np.testing.assert_array_equal(after, [3, 2])


def test_decays_equal_the_paper():
    np.testing.assert_allclose(decays(2, 1.0), [1 - 1 / 32, 1 - 1 / 512])
    np.testing.assert_allclose(decays(1, 0.8), [0.8 * 31 / 32])


def test_heads_must_divide_width():
    with pytest.raises(ValueError, match=r"network\.n_head=3: must divide"):
        dataclasses.replace(SABLE, n_head=3)
