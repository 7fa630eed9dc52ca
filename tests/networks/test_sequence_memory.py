"""Sequence policies with memory over time: acting row after row and learning on all rows are the same function."""

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
from jmarl.networks.sequence.blocks import MLP, DecoderBlock, Through
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
from jmarl.networks.sequence.policy import action_codec
from jmarl.networks.sequence.retention import CHUNK_TOKENS, count_steps, decays, retain
from jmarl.ssm import MambaConfig
from jmarl.systems import mam_ppo, sable
from jmarl.systems.kits.sequence_ppo import sequence_functions
from jmarl.types import TimeStep, Transition


T, B, N, A, WIDTH = 6, 3, 3, 3, 8
SMALL = (f"network.embed_dim={WIDTH}", "network.n_block=2")
MAM = load_config("mam_ppo", ["system=rec_mam", *SMALL, "network.d_state=3"]).network
SABLE = load_config("sable", ["system=rec_sable", *SMALL, "network.n_head=2"]).network
FAMILIES = {"rec_mam": (mam_ppo, MAM), "rec_sable": (sable, SABLE)}
families = pytest.mark.parametrize("family", FAMILIES)
cases = pytest.mark.parametrize(
    ("family", "kind"),
    [("rec_mam", "discrete"), ("rec_sable", "discrete"), ("rec_sable", "continuous")],
)


def world(kind="discrete"):
    return flat_spec(
        N, own_width=5, n_actions=A, episode_limit=10, discrete=kind == "discrete"
    )


def rows(spec, seed=1):
    """T rows of observations; episodes begin within them, at different rows."""
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


def far(tree, seed):
    """Random numbers in the shapes of a tree, integers for integers."""
    rng = np.random.default_rng(seed)

    def leaf(x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(rng.integers(0, 5, x.shape), x.dtype)
        return jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype)

    return jax.tree.map(leaf, tree)


@functools.cache
def played(family, kind):
    """Acting on T rows from a memory that is not empty, and learning on them at once."""
    module, network = FAMILIES[family]
    spec = world(kind)
    policy, steps = module.policy(spec, network), rows(spec)
    params = far(jax.eval_shape(policy.init, jax.random.key(0)), 0)
    carry = far(jax.eval_shape(lambda: policy.carry(B)), 1)
    functions = sequence_functions(policy, action_codec(spec), shuffle_agents=True)

    def act(carry, inputs):
        step, key = inputs
        action, carry, extras = functions.act(params, carry, step, key, jnp.ones(()))
        return carry, (action, extras)

    @jax.jit
    def run():
        with jax.default_matmul_precision("highest"):
            last, (action, extras) = jax.lax.scan(
                act, carry, (steps, jax.random.split(jax.random.key(2), T))
            )
            kept = (
                steps.obs,
                steps.first,
                steps.valid,
                action,
                steps.reward,
                steps.terminated,
                steps.truncated,
            )
            return (
                last,
                extras,
                functions.evaluate(params, carry, Transition(*kept, extras)),
            )

    return policy, params, carry, steps, *run()


@cases
def test_learning_gives_what_acting_gave(family, kind):
    *_, extras, (logp, _, value) = played(family, kind)
    np.testing.assert_allclose(logp, extras.logp, atol=1e-4)
    np.testing.assert_allclose(value, extras.value, atol=1e-4)


@families
def test_memory_is_carried_and_reset(family):
    """The last row depends on the first one in the episode that lasts, and not over the start of another."""
    policy, params, carry, steps, *_ = played(family, "discrete")

    def last_value(own):
        obs = steps.obs.replace(own=steps.obs.own.at[0].set(own))
        return policy.encode(params, carry.enc, obs, steps.first)[2][-1].sum(-1)

    influence = np.abs(jax.jit(jax.jacrev(last_value))(steps.obs.own[0])).max(
        axis=(2, 3)
    )
    assert (influence[2, 2] > 0).all()  # no episode begins in environment 2
    assert (influence[:, :2] == 0).all()


def sees_no_later_row(policy):
    spec = world()
    params = far(jax.eval_shape(policy.init, jax.random.key(0)), 0)
    steps = rows(spec)
    quiet = jnp.zeros_like(steps.first)

    def values(own):
        return policy.encode(
            params, policy.carry(B).enc, steps.obs.replace(own=own), quiet
        )[2].sum((1, 2))

    influence = np.abs(jax.jit(jax.jacrev(values))(steps.obs.own)).max(axis=(2, 3, 4))
    assert (influence[np.triu(np.ones((T, T), bool), k=1)] == 0).all()
    assert (influence[np.tril(np.ones((T, T), bool))] > 0).all()


@families
def test_no_row_hears_of_a_later_one(family):
    module, network = FAMILIES[family]
    sees_no_later_row(module.policy(world(), network))


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="both directions over time and agents flattened together",
)
def test_a_scan_over_time_and_agents_in_both_directions():
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

    through = partial(DecoderBlock, Through, Through, partial(MLP, WIDTH))
    decoder = Decoder(WIDTH, 1, A, True, through)
    sees_no_later_row(
        sequence_policy(world(), Encoder(WIDTH, 1, Flat), decoder, agent_id=True)
    )


def recurrent(matrix, q, k, v, first, kappa, causal):
    """The slow twin of ``retain``: one agent after the other, as the formula has it."""
    out = np.zeros(q.shape)
    matrix = np.array(matrix, np.float64)
    for t in range(q.shape[0]):
        matrix = np.where(
            first[t][:, None, None, None], 0.0, kappa[None, :, None, None] * matrix
        )
        said = np.einsum("bihd,bihe->bihde", k[t], v[t])
        for i in range(q.shape[2]):
            heard = said[:, : i + 1] if causal else said
            out[t, :, i] = np.einsum("bhd,bhde->bhe", q[t, :, i], matrix + heard.sum(1))
        matrix = matrix + said.sum(1)
    return matrix, out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "agents"),
    [(1, 3), (6, 3), (34, 5), (3, CHUNK_TOKENS), (4, 2 * CHUNK_TOKENS + 1)],
)
def test_chunks_equal_the_recurrence(length, agents, causal):
    """With episodes that begin inside of chunks, at their first and last rows, and never."""
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
def test_large_teams_have_the_gradient_of_small_ones(causal, monkeypatch):
    """Row by row, by pieces that do not divide the team, and all tokens with all."""
    rng = np.random.default_rng(3)
    q, k, v = rng.standard_normal((3, 4, 2, 5, 2, 3)).astype(np.float32)
    first = jnp.asarray(rng.random((4, 2)) < 0.3)
    weight = rng.standard_normal(q.shape).astype(np.float32)

    def gradient(largest):
        monkeypatch.setattr(retention, "CHUNK_TOKENS", largest)
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


def test_a_long_chunk_is_finite_with_its_gradient():
    """The published code computes powers of the decay for pairs that do not see each other, and patches the NaN."""
    length = CHUNK_TOKENS
    x = jnp.ones((length, 1, 1, 1, 2))
    kappa = np.full(1, 1e-3, np.float32)
    first = jnp.zeros((length, 1), bool)

    def loss(x):
        return retain(jnp.ones((1, 1, 2, 2)), x, x, x, first, kappa, causal=True)[
            1
        ].sum()

    value, grad = jax.jit(jax.value_and_grad(loss))(x)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_steps_are_counted_from_the_start_of_the_episode():
    first = jnp.array(
        [[False, True], [False, False], [True, False], [False, True], [False, False]]
    )
    after, counted = count_steps(jnp.array([7, 3]), first)
    np.testing.assert_array_equal(counted, [[7, 0], [8, 1], [0, 2], [1, 0], [2, 1]])
    np.testing.assert_array_equal(after, [3, 2])


def test_decays_are_those_of_the_paper():
    np.testing.assert_allclose(decays(2, 1.0), [1 - 1 / 32, 1 - 1 / 512])
    np.testing.assert_allclose(decays(1, 0.8), [0.8 * 31 / 32])


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match=r"network\.n_head=3: must divide"):
        dataclasses.replace(SABLE, n_head=3)
