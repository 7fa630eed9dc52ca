"""SHPPO: gradient table, ratios at stored latents, teams of one and two, permutation."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.config import ConfigError
from jmarl.envs.batched import flat_spec
from jmarl.networks.flatten import empty_obs
from jmarl.networks.latent import LOG_SIGMA
from jmarl.systems import shppo
from jmarl.systems.kits.ppo import Batch, clipped_loss, loss_weights
from jmarl.training.build import build_run
from jmarl.training.stages import build_stages
from jmarl.types import TimeStep, Transition


T, B = 9, 4
SMALL = (
    "network.torso=[8]",
    "network.memory_width=8",
    "network.head=[8]",
    "system.latent_size=2",
    "system.encoder_width=8",
    "system.inference.width=8",
    "num_envs=8",
    "rollout_length=8",
    "system.minibatches=1",
)


def config_of(*words, env="probe_cue"):
    return jmarl.load_config("shppo", [f"env={env}", *SMALL, *words])


class Case(NamedTuple):
    net: shppo.LatentActorCritic
    cfg: shppo.Config
    params: Any
    carry: Any
    """Memory after the first two rows."""
    batch: Batch
    """Rows 2 to T, in which episodes end and agents join, with an agent that dies."""


def random_rows(n_agents, alive):
    """Draw T rows of observations, with episodes that start and agents that join."""
    spec = flat_spec(n_agents, 3, 4, episode_limit=5)
    rng = np.random.default_rng(0)
    obs = empty_obs(spec, T, B)
    own = jnp.asarray(rng.normal(size=obs.own.shape), jnp.float32)
    first = jnp.asarray(rng.random((T, B)) < 0.2).at[0].set(True)
    joined = jnp.asarray(rng.random((T, B, n_agents)) < 0.15)
    alive = jnp.broadcast_to(jnp.asarray(alive), (T, B, n_agents))
    state = obs.state.replace(features=own.reshape(T, B, -1))
    obs = obs.replace(own=own, joined=joined, state=state, alive=alive)
    ends = jnp.concatenate([first[1:], jnp.zeros((1, B), bool)])
    reward = jnp.asarray(rng.normal(size=(T, B, n_agents)), jnp.float32)
    return spec, TimeStep(obs, reward, ends, jnp.zeros_like(ends), first, {})


def random_params(net):
    """Draw parameters far from zero, without the compilation of their initializers."""
    rng = np.random.default_rng(2)

    def draw(x):
        return jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32)

    return jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0)))


@functools.cache
def case(*words, alive=(True, True, False)) -> Case:
    """Act on random rows with random parameters, and build the batch of all rows but two."""
    cfg = config_of(*words)
    spec, rows = random_rows(len(alive), alive)
    net = shppo.LatentActorCritic(shppo.make_networks(spec, cfg), spec, cfg.system)

    params = random_params(net)

    def step(carry, row):
        timestep, key = row
        action, after, extras = net.act(params, carry, timestep, key, jnp.ones(()))
        return after, (carry, action, extras)

    keys = jax.random.split(jax.random.key(0), T)
    scan = jax.jit(functools.partial(jax.lax.scan, step))
    _, (carries, action, extras) = scan(net.carry(B), (rows, keys))
    flags = rows.first, rows.valid, action, rows.reward, rows.terminated, rows.truncated
    steps = Transition(rows.obs, *flags, extras)
    rng = np.random.default_rng(1)
    advantage, target = jnp.asarray(rng.normal(size=(2, T, B, len(alive))), jnp.float32)
    batch = jax.tree.map(lambda x: x[2:], Batch(steps, advantage, target))
    return Case(net, cfg.system, params, jax.tree.map(lambda x: x[2], carries), batch)


@functools.cache
def evaluation(*words):
    """Return the evaluation of the batch by the parameters that acted."""
    c = case(*words)
    return jax.jit(c.net.evaluate)(c.params, c.carry, c.batch.steps)


def loss_of(c: Case):
    """Return the loss as a function of the parameters, with its four parts as metrics."""
    terms = [shppo.latent_term(c.net.networks.inference, c.cfg)]
    loss = clipped_loss(c.net.evaluate, c.cfg, terms)
    weights = loss_weights(c.batch, c.cfg)

    def parts(params):
        total, (sums, maxima) = loss(params, c.carry, c.batch, weights)
        policy = sums["policy_loss"] - c.cfg.entropy_coef * sums["entropy"]
        value = c.cfg.value_coef * sums["value_loss"]
        encoder = total - policy - value - sums["inference_loss"]
        values = [policy, encoder, sums["inference_loss"], value]
        return jnp.stack(values), maxima["ratio_error"]

    return parts


@functools.cache
def trained_gradients(*words, alive=(True, True, False)):
    """Return the ratio error, then losses and gradients of each loss after three steps."""
    c = case(*words, alive=alive)
    parts = loss_of(c)

    @jax.jit
    def gradients(params):
        return jax.jacrev(parts, has_aux=True)(params)

    params, errors = c.params, []
    for _ in range(4):
        grads, ratio_error = gradients(params)
        errors.append(ratio_error)
        params = jax.tree.map(lambda x, g: x - 0.01 * g.sum(0), params, grads)
    return errors[0], grads


GRAD = "system.ppo_grad_to_latent=true"
EPISODE = "system.latent=episode"
every_form = pytest.mark.parametrize(
    "words", [(), (EPISODE,), (GRAD,), (EPISODE, GRAD)], ids=" ".join
)
LOSSES = ("policy", "encoder", "inference", "value")
MOVES = {
    "policy": {"actor"},
    "encoder": {"latent"},
    "inference": {"inference"},
    "value": {"critic"},
}


@pytest.mark.parametrize("words", [(), (EPISODE, GRAD)], ids=" ".join)
def test_each_loss_moves_exactly_its_part_of_the_parameters(words):
    """Every cell of the gradient table, on parameters after three gradient steps."""
    _, grads = trained_gradients(*words)
    for i, loss in enumerate(LOSSES):
        moves = MOVES[loss] | ({"latent"} if loss == "policy" and words else set())
        for part in ("actor", "critic", "latent", "inference"):
            for path, grad in jax.tree.leaves_with_path(grads[part]):
                where = loss, part, jax.tree_util.keystr(path)
                assert (grad[i] != 0).any() == (part in moves), where


@every_form
def test_learning_recomputes_latents_and_probabilities_of_acting(words):
    """From the middle of episodes, with episodes that end and agents that join."""
    steps = case(*words).batch.steps
    joins = steps.obs.joined & ~steps.first[..., None]
    assert (~steps.valid).any() and joins.any() and steps.first[1:].any()
    result = evaluation(*words)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    close(result.aux.latent, steps.extras.latent)
    close(result.logp, steps.extras.logp, atol=1e-4)
    noise = (result.aux.latent - result.aux.mu) / jnp.exp(result.aux.log_sigma)
    if EPISODE in words:
        starts = steps.first[..., None] | steps.obs.joined
        same = (jnp.diff(steps.extras.latent, axis=0) == 0).all(-1)
        np.testing.assert_array_equal(same, ~starts[1:])
    else:
        close(noise, steps.extras.noise, atol=1e-4)


@pytest.mark.parametrize("words", [(), (EPISODE, GRAD)], ids=" ".join)
def test_the_ratio_is_one_at_the_first_minibatch(words):
    assert trained_gradients(*words)[0] < 1e-4


@pytest.mark.parametrize(
    ("alive", "pool"),
    [((True,), "concat"), ((True, True), "mean"), ((False, True, False), "attn")],
)
def test_small_teams_have_finite_losses_and_gradients(alive, pool):
    c = case("network=mlp", f"system.inference.pool={pool}", alive=alive)

    @jax.jit
    def value_and_grad(params):
        def total(params):
            return loss_of(c)(params)[0].sum()

        return jax.value_and_grad(total)(params)

    value, grads = value_and_grad(c.params)
    assert jnp.isfinite(value)
    for path, grad in jax.tree.leaves_with_path(grads):
        assert jnp.isfinite(grad).all(), path
    assert all((x != 0).any() for x in jax.tree.leaves(grads["latent"]))


def test_latents_of_dead_agents_do_not_affect_the_term():
    c = case()
    term = shppo.latent_term(c.net.networks.inference, c.cfg)
    aux = evaluation().aux
    dead = ~c.batch.steps.obs.alive[..., None]
    changed = jax.tree.map(lambda x: jnp.where(dead, 7.0, x), aux)
    weights = loss_weights(c.batch, c.cfg)
    compiled = jax.jit(term)
    results = [compiled(c.params, x, c.batch, weights) for x in (aux, changed)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_permuting_agents_permutes_greedy_actions():
    c = case()
    rows = random_rows(3, (True, True, True))[1]
    timestep = jax.tree.map(lambda x: x[1], rows)
    avail = jnp.asarray(np.random.default_rng(0).random((B, 3, 4)) < 0.5)
    obs = timestep.obs.replace(avail=avail.at[..., 0].set(True))
    order = jnp.asarray([2, 0, 1])

    def permute(x):
        return x[:, order] if x.ndim > 1 and x.shape[1] == 3 else x

    moved = jax.tree.map(permute, obs).replace(state=obs.state)
    act = jax.jit(c.net.act)
    key, greedy = jax.random.key(0), jnp.zeros(())

    def greedy_step(obs, carry):
        return act(c.params, carry, timestep.replace(obs=obs), key, greedy)

    action, after, extras = greedy_step(obs, c.carry)
    again, moved_after, moved_extras = greedy_step(
        moved, jax.tree.map(permute, c.carry)
    )
    np.testing.assert_array_equal(again, permute(action))
    assert len(np.unique(action)) > 1
    assert (extras.noise == 0).all()
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    close(moved_extras.logp, permute(extras.logp))
    close(moved_after.held.mu, permute(after.held.mu))


def test_without_the_layer_there_are_no_latents():
    run = build_run(config_of("system.hete=false"))
    learner = jax.eval_shape(run.system.init, jax.random.key(0))
    assert set(learner.params) == {"actor", "critic"}
    assert learner.params["actor"]["params"]["hete"]["kernel"].shape == (8, 1, 8)


def test_sigma_stays_within_its_bounds_over_300_updates():
    """The entropy alone would lower it without end."""
    words = ("system.latent_entropy_coef=10", "system.diversity_coef=0")
    c = case(*words)
    weights = loss_weights(c.batch, c.cfg)
    term = shppo.latent_term(c.net.networks.inference, c.cfg)

    def loss(params):
        aux = c.net.evaluate(params, c.carry, c.batch.steps).aux
        return term(params, aux, c.batch, weights)[0], aux.log_sigma

    def update(params, _):
        grads, log_sigma = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda x, g: x - 0.03 * g, params, grads), log_sigma

    @jax.jit
    def learn(params):
        return jax.lax.scan(update, params, None, length=300)[1]

    log_sigma = learn(c.params)
    assert LOG_SIGMA[0] <= log_sigma.min() and log_sigma.max() <= LOG_SIGMA[1]
    assert log_sigma[-1].mean() < log_sigma[0].mean() - 1.0


def test_bad_configurations_are_errors():
    with pytest.raises(ConfigError, match=r"^system\.diversity_coef=-1\.0: must be"):
        config_of("system.diversity_coef=-1")
    with pytest.raises(ConfigError, match=r"^system\.latent_entropy_coef=-1\.0: must"):
        config_of("system.latent_entropy_coef=-1")
    with pytest.raises(ConfigError, match=r"^system\.latent_size=0: must be at least"):
        config_of("system.latent_size=0")


def test_concatenated_latents_need_teams_of_one_size():
    concat = "system.inference.pool=concat"
    message = (
        r"^system\.inference\.pool='concat': smax_1v2\+2v1 has teams of several sizes"
    )
    with pytest.raises(ConfigError, match=message):
        build_run(config_of(concat, env="smax_1v2+2v1"))
    stages = "curriculum.stages=[{env: smax_2v2, fraction: 0.5}, {env: smax_3v3, fraction: 0.5}]"
    words = ("network=hpn", "system.critic_input=entities")
    words = [*words, "env=smax_3v3", stages, "num_envs=8", "rollout_length=8"]
    config = jmarl.load_config("shppo", [*words, "system.minibatches=1", concat])
    with pytest.raises(ConfigError, match=r"^curriculum\.stages=smax_2v2: parameter"):
        build_stages(config)
    build_stages(jmarl.load_config("shppo", [*words, "system.minibatches=1"]))


@pytest.mark.parametrize(
    "network",
    [
        "hpn",
        "updet",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("saqa", "ssm")),
    ],
)
def test_any_agent_network_has_the_layer(network):
    """Shapes of learner and metrics; parameters of entity networks fit any team."""
    shapes = []
    for env in ("smax_2v2", "smax_3v3"):
        words = [f"env={env}", f"network={network}", "num_envs=8", "rollout_length=4"]
        entities = ["system.critic_input=entities"] if network != "ssm" else []
        config = jmarl.load_config("shppo", [*words, *entities, "system.minibatches=1"])
        _, _, system = build_run(config)
        learner = jax.eval_shape(system.init, jax.random.key(0))
        shapes.append(jax.tree.map(lambda x: x.shape, learner.params))
        assert "hete" in learner.params["actor"]["params"]
    assert (shapes[0] == shapes[1]) == (network != "ssm")
