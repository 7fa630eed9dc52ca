"""Heterogeneous layer, latents over time, and the networks that read and write latents."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturb import perturb

from jmarl.networks.agents.hete_layer import HeteLayer
from jmarl.networks.flatten import empty_obs
from jmarl.networks.latent import (
    LOG_SIGMA,
    InferenceConfig,
    InferenceNet,
    LatentEncoder,
    Latents,
    bound_log_sigma,
    forward_fill,
)
from jmarl.types import Group, Spec


T, B, N, K = 4, 3, 3, 2
SPEC = Spec(
    n_agents=N,
    n_actions=5,
    own_width=4,
    groups=(Group("allies", N - 1, 3, N, 4), Group("enemies", 2, 3, 2, 4)),
    global_width=2,
    episode_limit=9,
    action_target=(-1,) * 5,
)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@functools.cache
def layer(latent_size=4, width=16):
    params = HeteLayer().init(
        jax.random.key(0), jnp.zeros((1, width)), jnp.zeros((1, latent_size))
    )
    return HeteLayer(), params


def materialized(params, x, latent):
    """Compute the layer with one matrix for each agent."""
    factors = jnp.concatenate([latent, jnp.ones((*latent.shape[:-1], 1))], -1)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    weights = jnp.einsum("...k,ikd->...id", factors, kernel)
    return jnp.einsum("...id,...i->...d", weights, x) + factors @ bias


@pytest.mark.parametrize("latent_size", [0, 1, 4])
def test_the_bilinear_layer_equals_the_materialized_one(latent_size):
    net, params = layer(latent_size)
    params = perturb(params)
    inputs = normal(1, T, B, N, 16), normal(2, T, B, N, latent_size)

    def loss(apply, params, *inputs):
        return (apply(params, *inputs) ** 2).sum()

    grads = [
        jax.grad(functools.partial(loss, apply), (0, 1, 2))(params, *inputs)
        for apply in (net.apply, materialized)
    ]
    np.testing.assert_allclose(
        net.apply(params, *inputs), materialized(params, *inputs), atol=2e-5
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-3)
    jax.tree.map(close, *grads)


def test_one_layer_serves_all_slots_of_an_agent():
    net, params = layer()
    params = perturb(params)
    x, latent = normal(1, T, B, N, 5, 16), normal(2, T, B, N, 4)
    slots = [net.apply(params, x[..., i, :], latent) for i in range(5)]
    together = net.apply(params, x, latent)
    np.testing.assert_allclose(together, jnp.stack(slots, -2), atol=1e-5)


def temporary_bytes(apply, params, *inputs):
    """Return the temporary memory of the compiled loss and gradient."""

    def loss(params, x, latent):
        return jnp.tanh(apply(params, x, latent)).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    compiled = gradient.lower(params, *inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_gradient_needs_a_quarter_of_the_memory_of_materialized_weights():
    net, params = layer(4, 64)
    inputs = [
        jax.ShapeDtypeStruct((16, 64, 10, n), jnp.float32) for n in (64, 4)
    ]  # T, B, N
    ours = temporary_bytes(net.apply, params, *inputs)
    theirs = temporary_bytes(materialized, params, *inputs)
    assert ours <= theirs / 4


@pytest.mark.parametrize("width", [16, 64])
def test_initial_outputs_differ_by_less_than_a_tenth_across_agents(width):
    net, params = layer(4, width)
    x = jnp.broadcast_to(normal(1, 50, 1, width), (50, 10, width))
    y = net.apply(params, x, normal(2, 50, 10, 4))
    difference = y[:, :, None] - y[:, None]  # [T, N, N, H]
    size = jnp.sqrt((y**2).sum(-1).mean())
    spread = jnp.sqrt((difference**2).sum(-1).mean())
    assert 0 < spread < 0.1 * size


def filled_twin(drawn, fresh, held):
    rows, current = [], held.copy()
    for flags, row in zip(drawn, fresh, strict=True):
        current = np.where(flags[..., None], row, current)
        rows.append(current)
    return np.stack(rows)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_latents_in_use_equal_a_loop_over_time(share):
    rng = np.random.default_rng(0)
    drawn = rng.random((9, B, N)) < share
    fresh = Latents(*(normal(i, 9, B, N, K) for i in range(3)))
    held = Latents(*(normal(i, B, N, K) for i in range(3, 6)))
    filled = forward_fill(jnp.asarray(drawn), fresh, held)
    for actual, rows, before in zip(filled, fresh, held, strict=True):
        expected = filled_twin(drawn, np.asarray(rows), np.asarray(before))
        np.testing.assert_array_equal(actual, expected)


def random_obs():
    """Draw observations of noise with a dead agent."""
    obs = empty_obs(SPEC, T, B)
    numbers = iter(range(100))

    def noise(x):
        return normal(next(numbers), *x.shape)

    state = obs.state.replace(
        features=noise(obs.state.features),
        rows=tuple(map(noise, obs.state.rows)),
        mask=tuple(jnp.ones_like(mask) for mask in obs.state.mask),
    )
    alive = obs.alive.at[..., 1].set(False)
    return obs.replace(own=noise(obs.own), state=state, alive=alive)


@functools.cache
def inference_case(pool, entities):
    net = InferenceNet(SPEC, InferenceConfig(pool, 8), entities)
    obs = random_obs()
    latents = normal(7, T, B, N, K), normal(8, T, B, N, K)
    params = jax.jit(net.init)(jax.random.key(0), obs, *latents)
    return jax.jit(net.apply), perturb(params), obs, latents


every_pool = pytest.mark.parametrize(
    ("pool", "entities"), [("concat", False), ("mean", True), ("attn", False)]
)


@every_pool
def test_a_dead_agent_has_no_effect_on_the_value_and_a_living_one_has(pool, entities):
    apply, params, obs, latents = inference_case(pool, entities)
    value = apply(params, obs, *latents)
    assert value.shape == (T, B)
    dead, living = ([x.at[..., agent, :].add(1.0) for x in latents] for agent in (1, 2))
    np.testing.assert_array_equal(apply(params, obs, *dead), value)
    assert (apply(params, obs, *living) != value).all()


@every_pool
def test_a_value_of_a_dead_team_is_finite(pool, entities):
    apply, params, obs, latents = inference_case(pool, entities)
    nobody = obs.replace(alive=jnp.zeros_like(obs.alive))

    def total(latents):
        return apply(params, nobody, *latents).sum()

    value, grads = jax.value_and_grad(total)(latents)
    assert jnp.isfinite(value)
    assert all((x == 0).all() for x in grads)


@pytest.mark.parametrize(("pool", "entities"), [("mean", True), ("attn", False)])
def test_pooled_values_do_not_depend_on_the_order_of_agents(pool, entities):
    apply, params, obs, latents = inference_case(pool, entities)
    order = jnp.asarray([2, 0, 1])
    state = obs.state
    rows, mask = (
        tuple(x[:, :, order[: x.shape[2]]] for x in xs)
        for xs in (state.rows[:1], state.mask[:1])
    )
    if entities:
        state = state.replace(rows=rows + state.rows[1:], mask=mask + state.mask[1:])
    permuted = obs.replace(
        own=obs.own[:, :, order], alive=obs.alive[:, :, order], state=state
    )
    moved = [x[:, :, order] for x in latents]
    np.testing.assert_allclose(
        apply(params, permuted, *moved), apply(params, obs, *latents), atol=1e-4
    )


@pytest.mark.parametrize("own_only", [True, False])
def test_sigma_is_within_its_bounds_for_any_input(own_only):
    encoder = LatentEncoder(SPEC, K, 8, own_only)
    obs, before = random_obs(), normal(1, T, B, N, 6)
    params = perturb(encoder.init(jax.random.key(0), obs, before), scale=30.0)
    mu, log_sigma = encoder.apply(params, obs, before)
    assert mu.shape == log_sigma.shape == (T, B, N, K)
    assert LOG_SIGMA[0] <= log_sigma.min() and log_sigma.max() <= LOG_SIGMA[1]


def test_log_sigma_beyond_a_bound_can_return_and_moves_no_further():
    low, high = LOG_SIGMA
    x = jnp.array([low - 1, low, 0.0, high, high + 1])
    value, pull = jax.vjp(bound_log_sigma, x)
    np.testing.assert_array_equal(value, [low, low, 0.0, high, high])
    np.testing.assert_array_equal(pull(jnp.ones(5))[0], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(pull(-jnp.ones(5))[0], [-1, -1, -1, 0, 0])
