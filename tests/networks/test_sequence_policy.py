"""Sequence policies: acting one agent at a time equals learning in parallel."""

from __future__ import annotations

import dataclasses
import functools
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import load_config
from jmarl.config import ConfigError
from jmarl.envs.batched import flat_obs, flat_spec
from jmarl.networks.sequence.attention_mixer import Attention
from jmarl.networks.sequence.blocks import MLP, DecoderBlock, EncoderBlock
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
from jmarl.networks.sequence.policy import (
    action_codec,
    arrange,
    restore,
    sample_order,
    teacher_forced,
)
from jmarl.systems import mam_ppo, mat_ppo, sable
from jmarl.systems.kits.sequence_ppo import sequence_functions, sequence_system
from jmarl.types import TimeStep, Transition


T, B, N, A, WIDTH = 2, 3, 4, 3, 8
SMALL = f"network.embed_dim={WIDTH}"
MAT = load_config("mat_ppo", [SMALL, "network.n_head=2", "network.n_block=2"]).network
MAM = load_config("mam_ppo", [SMALL, "network.d_state=3", "network.d_conv=3"]).network
SABLE = load_config("sable", [SMALL, "network.n_head=2", "network.n_block=2"]).network
FAMILIES = {
    "mat": (mat_ppo, MAT),
    "sable": (sable, SABLE),
    "mam_sum": (mam_ppo, MAM),
    "mam_product": (
        mam_ppo,
        dataclasses.replace(MAM, bi_mode="mam", double_residual=False),
    ),
    "mam_attention": (mam_ppo, dataclasses.replace(MAM, cross="attention")),
    "mam_none": (mam_ppo, dataclasses.replace(MAM, cross="none")),
}
CASES = [
    ("mat", "discrete"),
    ("mat", "continuous"),
    ("mam_sum", "discrete"),
    ("mam_sum", "continuous"),
    ("mam_product", "discrete"),
    ("mam_attention", "discrete"),
    ("mam_none", "discrete"),
    ("sable", "discrete"),
    ("sable", "continuous"),
]
SLOW = [("mat", "continuous"), ("mam_product", "discrete"), ("mam_none", "discrete")]
"""Cases whose parts are in other cases too."""
cases = pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case in SLOW else [])
        for case in CASES
    ],
)
families = pytest.mark.parametrize("family", ["mat", "mam_sum", "sable"])
WEIGHT = jnp.asarray(
    np.random.default_rng(6).standard_normal((3, T, B, N)), jnp.float32
)


class Case(NamedTuple):
    """A policy with large random parameters; initial heads are too small to reveal wrong orders."""

    spec: Any
    policy: Any
    params: Any
    act: Any
    learn: Any
    """``(params, steps) -> ((loss, (logp, entropy, value)), gradient)``."""


def make_spec(kind="discrete", n_agents=N):
    return flat_spec(
        n_agents,
        own_width=5,
        n_actions=A,
        episode_limit=10,
        discrete=kind == "discrete",
    )


def random_params(policy):
    leaves, tree = jax.tree.flatten(jax.eval_shape(policy.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return tree.unflatten(
        [jnp.asarray(0.5 * rng.standard_normal(x.shape), jnp.float32) for x in leaves]
    )


def learner(policy, codec):
    evaluate = sequence_functions(policy, codec, shuffle_agents=True).evaluate

    def loss(params, steps):
        *out, _ = evaluate(params, policy.carry(B), steps)
        pairs = zip(WEIGHT, out, strict=True)
        return sum(jnp.vdot(w[:, :, : x.shape[2]], x) for w, x in pairs), out

    return jit_precise(jax.value_and_grad(loss, has_aux=True))


def jit_precise(function):
    """Jit at the highest matmul precision, with little optimization to compile faster."""

    def call(*args):
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return jax.jit(call, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def build(family, kind, n_agents=N):
    spec = make_spec(kind, n_agents)
    module, network = FAMILIES[family]
    policy = module.policy(spec, network)
    codec, step = action_codec(spec), time_step(spec)
    act = sequence_functions(policy, codec, shuffle_agents=True).act
    run = jit_precise(
        lambda params, key, explore: act(params, policy.carry(B), step, key, explore)
    )
    return Case(spec, policy, random_params(policy), run, learner(policy, codec))


def time_step(spec):
    rng = np.random.default_rng(1)
    avail = rng.random((B, spec.n_agents, A)) < 0.7
    avail[..., 0] = True
    own = jnp.asarray(
        rng.standard_normal((B, spec.n_agents, spec.own_width)), jnp.float32
    )
    obs = jax.vmap(lambda own, avail: flat_obs(spec, own, avail=avail))(
        own, jnp.asarray(avail)
    )
    false = jnp.zeros(B, bool)
    return TimeStep(obs, jnp.zeros((B, spec.n_agents)), false, false, false, {})


def play(case, *, explore=1.0, seed=2):
    action, _, extras = case.act(
        case.params, jax.random.key(seed), jnp.float32(explore)
    )
    return action, extras


def as_rollout(spec, action, extras):
    """Repeat the row acted on T times."""
    step = time_step(spec)
    row = Transition(
        step.obs,
        step.first,
        step.valid,
        action,
        step.reward,
        step.terminated,
        step.truncated,
        extras,
    )
    return jax.tree.map(lambda x: jnp.stack([x] * T), row)


def ratio_error(case, learn=None, relabel=lambda extras: extras):
    """Return the largest |ratio - 1| between acting and learning with the same parameters."""
    action, extras = play(case)
    (_, (logp, _, value)), _ = (learn or case.learn)(
        case.params, as_rollout(case.spec, action, relabel(extras))
    )
    np.testing.assert_allclose(value, jnp.stack([extras.value] * T), atol=1e-4)
    return float(jnp.max(jnp.abs(jnp.exp(logp - extras.logp) - 1)))


@cases
def test_learning_gives_log_probabilities_of_acting(family, kind):
    assert ratio_error(build(family, kind)) < 1e-4


@families
def test_one_agent(family):
    assert ratio_error(build(family, "discrete", n_agents=1)) < 1e-4


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Mava's MAT: agents permuted between acting and learning",
)
@families
def test_learning_in_another_order_than_acting(family):
    def permute(extras):
        return extras.replace(order=jnp.roll(extras.order, 1, axis=-1))

    assert ratio_error(build(family, "discrete"), relabel=permute) < 1e-4


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="MAM's code: raw tokens in learning, squashed tokens in acting",
)
def test_learning_with_unsquashed_tokens():
    case = build("mat", "continuous")
    raw = action_codec(case.spec)._replace(
        token=lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 0)])
    )
    assert ratio_error(case, learn=learner(case.policy, raw)) < 1e-4


@cases
def test_every_parameter_has_a_finite_gradient(family, kind):
    case = build(family, kind)
    _, gradient = case.learn(case.params, as_rollout(case.spec, *play(case)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-6, name


def assert_causal(policy):
    """Check that ``d out[i] / d token[j]`` is zero exactly for j > i; token j is of agent j - 1."""
    params, rng = random_params(policy), np.random.default_rng(3)
    tokens = jnp.asarray(rng.random((1, 1, N, A + 1)), jnp.float32)
    rep = jnp.asarray(rng.standard_normal((1, 1, N, WIDTH)), jnp.float32)
    carry, first = policy.carry(1).dec, jnp.zeros((1, 1), bool)
    out = partial(policy.decode_parallel, params, carry)
    jacobian = jax.jit(jax.jacrev(lambda x: out(x, rep, first)[0, 0]))(tokens)
    influence = np.abs(jacobian[:, :, 0, 0]).max(axis=(1, 3))
    later = np.triu(np.ones((N, N), bool), k=1)
    assert (influence[later] == 0).all()
    assert (influence[~later] > 0).all()


@families
def test_decoder_is_causal(family):
    assert_causal(build(family, "discrete").policy)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="attention mask dropped")
def test_decoder_without_its_mask():
    attention = partial(Attention, WIDTH, 2, n_agents=N)
    unmasked = partial(attention, causal=False)
    causal = partial(attention, causal=True)
    mlp = partial(MLP, WIDTH)
    decoder = Decoder(WIDTH, 1, A, True, partial(DecoderBlock, unmasked, causal, mlp))
    encoder = Encoder(WIDTH, 1, partial(EncoderBlock, unmasked, mlp))
    assert_causal(sequence_policy(make_spec(), encoder, decoder, agent_id=True))


@families
def test_greedy_equals_sequential_argmax_of_parallel_decoder(family):
    case = build(family, "discrete")
    step, codec = time_step(case.spec), action_codec(case.spec)
    obs, first = jax.tree.map(lambda x: x[None], (step.obs, step.first))

    @jit_precise
    def best(action):
        carry = case.policy.carry(B)
        _, rep, _ = case.policy.encode(case.params, carry.enc, obs, first)
        tokens = teacher_forced(codec, action)[None]
        out = case.policy.decode_parallel(case.params, carry.dec, tokens, rep, first)[0]
        return jnp.argmax(jnp.where(step.obs.avail, out, -jnp.inf), axis=-1)

    chain = jnp.zeros((B, N), jnp.int32)
    for i in range(N):
        chain = chain.at[:, i].set(best(chain)[:, i])
    np.testing.assert_array_equal(play(case, explore=0.0)[0], chain)


def assert_greedy(play):
    first, second = play(explore=0.0, seed=2), play(explore=0.0, seed=3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].order, np.tile(np.arange(N), (B, 1)))
    assert (np.asarray(play(explore=1.0, seed=3)[0]) != first[0]).any()


@cases
def test_greedy_does_not_depend_on_the_key(family, kind):
    assert_greedy(partial(play, build(family, kind)))


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Mava's MAT and Sable: greedy evaluation samples",
)
def test_greedy_that_samples():
    assert_greedy(lambda explore, seed: play(build("mat", "discrete"), seed=seed))


def test_unavailable_actions_are_never_chosen():
    case = build("mat", "discrete")
    for seed in range(20):
        action, _ = play(case, seed=seed)
        assert jnp.take_along_axis(
            time_step(case.spec).obs.avail, action[..., None], axis=-1
        ).all()


@pytest.mark.parametrize("family", ["mat", "sable"])
def test_set_encoder_is_equivariant_to_agent_order(family):
    spec = make_spec()
    module, network = FAMILIES[family]
    policy = module.policy(spec, dataclasses.replace(network, agent_id=False))
    params, step = random_params(policy), time_step(spec)
    order = jnp.asarray([[2, 0, 3, 1]] * B)
    moved = step.obs.replace(own=arrange(step.obs.own, order))
    encode = jit_precise(
        lambda obs: policy.encode(
            params,
            policy.carry(B).enc,
            jax.tree.map(lambda x: x[None], obs),
            step.first[None],
        )
    )
    pairs = zip(encode(moved)[1:], encode(step.obs)[1:], strict=True)
    for permuted, original in pairs:
        np.testing.assert_allclose(permuted[0], arrange(original[0], order), atol=1e-5)


def test_orders_are_permutations_and_restore_undoes_arrange():
    order = sample_order(jax.random.key(0), (64, N), jnp.float32(1.0))
    np.testing.assert_array_equal(
        np.sort(order, axis=-1), np.tile(np.arange(N), (64, 1))
    )
    assert len(np.unique(order, axis=0)) > N
    x = jax.random.normal(jax.random.key(1), (64, N, 2))
    np.testing.assert_array_equal(restore(arrange(x, order), order), x)
    np.testing.assert_array_equal(arrange(x, None), x)


def test_shuffled_agents_need_agent_id():
    class Run:
        network = dataclasses.replace(MAT, agent_id=False)
        system = type("System", (), {"shuffle_agents": True})

    with pytest.raises(
        ConfigError, match=r"system\.shuffle_agents=True: needs network\.agent_id=true"
    ):
        sequence_system(make_spec(), build("mat", "discrete").policy, cast(Any, Run))
