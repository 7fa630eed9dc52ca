"""PPO kit: masks, ratios of the first minibatch, and the loss compared with NumPy."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmarl
from jmarl.config import ConfigError
from jmarl.envs.probes import make as make_probe
from jmarl.learning.normalizer import denormalize, init_stats
from jmarl.learning.optimizers import by_part, optimizer, skipped_steps
from jmarl.networks.actor_critic import NetworkConfig
from jmarl.networks.heads import rescale_values
from jmarl.systems import mappo
from jmarl.systems.kits.ppo import (
    Evaluation,
    PPOConfig,
    advantages_and_targets,
    clipped_loss,
    loss_weights,
    make_batch,
    value_loss,
)
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


ENVS, ROWS = 16, 13
COMMON = dict(
    lr=3e-3,
    anneal_lr=False,
    adam_eps=1e-5,
    weight_decay=0.0,
    max_grad_norm=0.5,
    gamma=0.9,
    reward_scale=1.0,
    gae_lambda=0.8,
    clip=0.2,
    epochs=2,
    minibatch_rows=104,
    minibatches=2,
    entropy_coef=0.01,
    value_coef=0.5,
    value_clip=0.2,
    huber_delta=10.0,
    value_memory=100 * ENVS * ROWS,
    popart=False,
    mask_dead_values=False,
    advantage="per_agent",
)
CFG = PPOConfig(**COMMON)


def system(env, memory, **changes):
    network = NetworkConfig(
        torso=(8,),
        memory=memory,
        memory_width=8,
        head=(8,),
        activation="tanh",
        layer_norm=False,
        agent_id=False,
    )
    run = SimpleNamespace(
        system=mappo.Config(**{**COMMON, **changes}, critic_input="state_and_id"),
        network=network,
        num_updates=10,
        num_envs=ENVS,
    )
    return mappo.make(env.spec, run)


CASES = [
    ("probe_death", "gru"),
    ("probe_target", "none"),
    pytest.param(("probe_cue", "ssm"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def trained(request):
    """Return a learner after one update, a rollout of it, and its compiled update."""
    probe, memory = request.param
    env = make_probe(probe)
    sys = system(env, memory)
    runner = jax.jit(lambda key: init_runner(env, sys, ENVS, key))(jax.random.key(0))
    act = jax.jit(lambda runner, key: rollout(env, sys, runner, ROWS, key)[:2])
    update = jax.jit(sys.update)
    runner, experience = act(runner, jax.random.key(1))
    learner, _ = update(runner.learner, experience, jax.random.key(2))
    runner, experience = act(runner.replace(learner=learner), jax.random.key(3))

    def next_update(rollout, start=learner):
        return update(start, rollout, jax.random.key(4))

    return learner, experience, next_update


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def scramble(x, mask):
    """Replace the masked entries by arbitrary values."""
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    if x.dtype == bool:
        return jnp.where(mask, ~x, x)
    return jnp.where(mask, (7 - 3 * x).astype(x.dtype), x)


def test_every_ratio_of_the_first_minibatch_is_one(trained):
    _, experience, update = trained
    _, metrics = update(experience)
    assert metrics["ratio_error"] < 1e-4
    assert metrics["approx_kl"] > 0


def test_an_update_changes_every_part_and_is_deterministic(trained):
    learner, experience, update = trained
    after, metrics = update(experience)
    same(after, update(experience)[0])
    for part in ("actor", "critic"):
        moved = jax.tree.map(
            lambda a, b: jnp.any(a != b), after.params[part], learner.params[part]
        )
        assert any(jax.tree.leaves(moved))
    assert after.updates == learner.updates + 1
    assert all(jnp.isfinite(x) for x in jax.tree.leaves(metrics))


def test_invalid_rows_do_not_affect_the_update(trained):
    """Their observations count only through the stored value."""
    _, experience, update = trained
    steps = experience.steps
    ended = ~steps.valid
    assert ended.any()
    extras = steps.extras
    garbage = steps.replace(
        obs=jax.tree.map(lambda x: scramble(x, ended), steps.obs),
        action=scramble(steps.action, ended),
        reward=scramble(steps.reward, ended),
        terminated=scramble(steps.terminated, ended),
        truncated=scramble(steps.truncated, ended),
        extras=extras.replace(
            logp=scramble(extras.logp, ended), sample=scramble(extras.sample, ended)
        ),
    )
    same(update(experience), update(experience.replace(steps=garbage)))


def test_actions_of_dead_agents_do_not_affect_the_update(trained):
    _, experience, update = trained
    extras, dead = experience.steps.extras, ~experience.steps.obs.alive
    garbage = extras.replace(
        logp=scramble(extras.logp, dead), sample=scramble(extras.sample, dead)
    )
    same(
        update(experience),
        update(experience.replace(steps=experience.steps.replace(extras=garbage))),
    )


def test_a_gradient_that_is_not_finite_is_skipped(trained):
    learner, experience, update = trained
    bad = experience.replace(
        steps=experience.steps.replace(reward=experience.steps.reward * jnp.nan)
    )
    after, metrics = update(bad)
    same(after.params, learner.params)
    assert metrics["skipped_steps"] == 2 * 2 * 2
    recovered = after.replace(value_stats=learner.value_stats)
    assert update(experience, recovered)[1]["skipped_steps"] == 0, (
        "counts skips of the previous phase"
    )


@pytest.fixture(scope="module")
def death():
    env = make_probe("probe_death")
    sys = system(env, "none")
    runner = jax.jit(lambda key: init_runner(env, sys, ENVS, key))(jax.random.key(0))
    return jax.jit(lambda runner, key: rollout(env, sys, runner, ROWS, key)[1])(
        runner, jax.random.key(1)
    )


def batch_of(experience, **changes):
    cfg = dataclasses.replace(CFG, **changes)
    return make_batch(
        experience, jnp.zeros_like(experience.steps.reward[0]), init_stats(), cfg
    )


def test_dead_agents_receive_the_team_reward(death):
    """At lambda 1 an agent that dies later has the return of the living in its first row."""
    batch, *_ = batch_of(death, gae_lambda=1.0, value_memory=0)
    steps = death.steps
    assert not steps.obs.alive[1:4, :, 1].any()
    np.testing.assert_allclose(
        batch.target[0, :, 1], 0.9**4 * steps.reward[4, :, 1], atol=1e-6
    )
    np.testing.assert_allclose(batch.target[0, :, 1], batch.target[0, :, 0], atol=1e-6)


def test_advantages_are_normalized_over_living_agents_on_valid_rows(death):
    batch, *_ = batch_of(death)
    advantage = np.asarray(batch.advantage)[np.asarray(batch.policy_mask)]
    moments = [advantage.mean(), advantage.std()]
    assert 0 < advantage.size < batch.advantage.size
    np.testing.assert_allclose(moments, [0.0, 1.0], atol=1e-3)


def test_a_joint_advantage_is_one_for_the_team(death):
    batch, *_ = batch_of(death, advantage="joint")
    assert (batch.advantage == batch.advantage[..., :1]).all()
    assert (batch.target == batch.target[..., :1]).all()
    value = death.steps.extras.value
    assert (value != value[..., :1]).any()


def with_an_absent_agent(experience):
    """Add an agent that is absent from every episode; its value is NaN."""

    def pad(x, value, axis=-1):
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, 1)
        return jnp.pad(x, widths, constant_values=value)

    def pad_obs(obs):
        return obs.replace(
            alive=pad(obs.alive, False), avail=pad(obs.avail, False, axis=-2)
        )

    steps = experience.steps
    steps = steps.replace(
        obs=pad_obs(steps.obs),
        reward=pad(steps.reward, 7.0),
        extras=steps.extras.replace(value=pad(steps.extras.value, jnp.nan)),
    )
    last = experience.last.replace(obs=pad_obs(experience.last.obs))
    return experience.replace(steps=steps, last=last)


@pytest.mark.parametrize("advantage", ["per_agent", "joint"])
def test_absent_agents_are_in_no_statistic(death, advantage):
    batch, stats, metrics = batch_of(death, advantage=advantage)
    padded, padded_stats, padded_metrics = batch_of(
        with_an_absent_agent(death), advantage=advantage
    )
    n = batch.target.shape[-1]
    present = padded.advantage[..., :n], padded.target[..., :n]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (*present, padded_stats, padded_metrics),
        (batch.advantage, batch.target, stats, metrics),
    )
    weights = loss_weights(padded, CFG)
    assert not (weights.policy[..., n].any() or weights.value[..., n].any())


class LossCase(NamedTuple):
    """Random inputs of the loss, and the mean errors that NumPy computes from them."""

    evaluate: Any
    batch: Any
    policy_loss: float
    entropy: float
    clip_fraction: float
    value_loss: float
    value_loss_of_living: float


@pytest.fixture(scope="module")
def loss_case():
    rng = np.random.default_rng(0)
    T, B, N = 4, 3, 2
    logp, old, adv, entropy, value, old_value, target = (
        rng.normal(size=(7, T, B, N)) * 0.5
    )
    valid, alive = rng.random((T, B)) < 0.7, rng.random((T, B, N)) < 0.7
    mask = valid[..., None] & alive
    obs = SimpleNamespace(alive=jnp.asarray(alive), present=jnp.ones((T, B, N), bool))
    extras = SimpleNamespace(logp=jnp.asarray(old), value=jnp.asarray(old_value))
    steps = SimpleNamespace(
        valid=jnp.asarray(valid), reward=jnp.zeros((T, B, N)), obs=obs, extras=extras
    )
    batch = SimpleNamespace(
        steps=steps,
        policy_mask=jnp.asarray(mask),
        advantage=jnp.asarray(adv),
        target=jnp.asarray(target),
    )
    ratio = np.exp(logp - old)
    gain = np.minimum(ratio * adv, np.clip(ratio, 0.8, 1.2) * adv)
    near = old_value + np.clip(value - old_value, -0.1, 0.1)
    error = 0.5 * np.maximum((value - target) ** 2, (near - target) ** 2)
    return LossCase(
        evaluate=lambda *_: Evaluation(logp, entropy, value, aux=2.0),
        batch=batch,
        policy_loss=-gain[mask].mean(),
        entropy=entropy[mask].mean(),
        clip_fraction=(np.abs(ratio - 1) > 0.2)[mask].mean(),
        value_loss=error[valid].mean(),
        value_loss_of_living=error[mask].mean(),
    )


@pytest.mark.parametrize("mask_dead_values", [False, True])
def test_clipped_loss_matches_numpy(loss_case, mask_dead_values):
    cfg = dataclasses.replace(
        CFG, huber_delta=0.0, value_clip=0.1, mask_dead_values=mask_dead_values
    )
    weights = loss_weights(loss_case.batch, cfg)
    loss = clipped_loss(loss_case.evaluate, cfg)
    got, (metrics, _) = loss(None, None, loss_case.batch, weights)

    value_error = loss_case.value_loss
    if mask_dead_values:
        value_error = loss_case.value_loss_of_living
    expected = loss_case.policy_loss - 0.01 * loss_case.entropy + 0.5 * value_error
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], value_error, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["clip_fraction"], loss_case.clip_fraction, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("delta", "clip", "value", "expected"),
    [
        (0.0, 0.0, 3.0, 4.5),
        (1.0, 0.0, 3.0, 2.5),
        (0.0, 0.5, 3.0, 4.5),
        (0.0, 0.5, 0.0, 1.125),
        (2.0, 0.0, -1.0, 0.5),
    ],
)
def test_value_loss(delta, clip, value, expected):
    """Known square, Huber and clipped errors for target 0 and old value 2."""
    cfg = dataclasses.replace(CFG, huber_delta=delta, value_clip=clip)
    np.testing.assert_allclose(
        value_loss(jnp.array(value), jnp.array(2.0), jnp.array(0.0), cfg), expected
    )


@pytest.mark.parametrize(
    ("key", "value"), [("gamma", 1.5), ("lr", 0.0), ("clip", -0.1), ("epochs", 0)]
)
def test_config_error_is_one_line_with_key_and_value(key, value):
    with pytest.raises(ConfigError, match=rf"system\.{key}={value}: must") as error:
        PPOConfig(**{**COMMON, key: value})
    assert "\n" not in str(error.value)


ANNEALED = dict(lr=0.1, anneal_lr=True, epochs=1)
"""Settings with two gradient steps per learning phase."""


def test_terms_read_aux_and_are_added_to_the_loss_with_their_metrics(loss_case):
    weights = loss_weights(loss_case.batch, CFG)
    np.testing.assert_allclose(weights.row.sum(), 1.0, rtol=1e-6)
    assert ((weights.row > 0) == loss_case.batch.steps.valid).all()

    def term(params, aux, batch, weights):
        mean = aux * (params * weights.row).sum()
        return mean, {"mean": mean}

    def loss(terms):
        evaluate = loss_case.evaluate
        return clipped_loss(evaluate, CFG, terms)(3.0, None, loss_case.batch, weights)

    plain, (sums, maxima) = loss(())
    total, (more_sums, same_maxima) = loss((term, term))
    np.testing.assert_allclose(total - plain, 2 * 2.0 * 3.0, rtol=1e-5)
    assert more_sums == {**sums, "mean": more_sums["mean"]}
    np.testing.assert_allclose(more_sums["mean"], 6.0, rtol=1e-6)
    assert same_maxima == maxima


def test_the_learning_rate_falls_to_zero_and_is_constant_within_a_phase():
    tx = optimizer(dataclasses.replace(CFG, **ANNEALED), num_updates=4)
    params = jnp.zeros(())
    state, moves = tx.init(params), []
    for _ in range(9):
        move, state = tx.update(jnp.ones(()), state, params)
        moves.append(-float(move))
    np.testing.assert_allclose(
        moves, np.repeat([0.1, 0.075, 0.05, 0.025, 0.0], 2)[:9], rtol=1e-3, atol=1e-6
    )


def test_parts_are_clipped_and_skipped_separately():
    tx = optax.apply_if_finite(optax.clip_by_global_norm(1.0), 5)
    tx = by_part({"a": tx, "b": tx})
    grads = {"a": {"w": jnp.full(4, 50.0)}, "b": {"w": jnp.full(4, 0.1)}}
    state = tx.init(grads)
    moves, state = tx.update(grads, state, grads)
    np.testing.assert_allclose(moves["a"]["w"], 0.5)
    np.testing.assert_allclose(moves["b"]["w"], 0.1)
    assert skipped_steps(state) == 0
    moves, state = tx.update({**grads, "b": {"w": jnp.full(4, jnp.nan)}}, state, grads)
    assert (moves["b"]["w"] == 0).all()
    np.testing.assert_allclose(moves["a"]["w"], 0.5)
    assert skipped_steps(state) == 1


def test_skipped_steps_of_stacked_states_are_added_over_agents():
    tx = optax.apply_if_finite(optax.sgd(1.0), 5)
    tx = by_part({"actor": tx, "critic": tx})
    grads = {"actor": jnp.asarray([1.0, jnp.nan, jnp.nan]), "critic": jnp.ones(3)}
    state = jax.vmap(tx.init)(grads)
    moves, state = jax.vmap(tx.update)(grads, state)
    assert moves["actor"].tolist() == [-1.0, 0.0, 0.0]
    assert skipped_steps(state) == 2


@pytest.mark.parametrize("change", [1e4, -1e4, 1e30])
def test_a_ratio_beyond_float32_has_a_finite_loss_and_gradient(death, change):
    """Without the clamp the ratio is infinite, and its product with 0 is NaN."""
    batch, *_ = batch_of(death)
    stored = batch.steps.extras.logp

    def evaluate(params, carry, steps):
        logp = stored + jnp.where(batch.policy_mask, params * change, jnp.nan)
        return Evaluation(logp, jnp.zeros_like(logp), params * steps.extras.value)

    loss = clipped_loss(evaluate, CFG)
    weights = loss_weights(batch, CFG)
    value, grad = jax.value_and_grad(lambda p: loss(p, (), batch, weights)[0])(0.5)
    assert jnp.isfinite(value) and jnp.isfinite(grad)


def test_advantages_are_linear_in_the_scale_of_rewards(death):
    value = jnp.zeros((ROWS + 1, ENVS, death.steps.reward.shape[-1]))
    plain, _ = advantages_and_targets(death, value, CFG)
    scaled = dataclasses.replace(CFG, reward_scale=3.0)
    tripled, _ = advantages_and_targets(death, value, scaled)
    assert jnp.abs(plain).max() > 0
    np.testing.assert_allclose(tripled, 3 * plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mappo", ["network.torso=[8]"]),
        pytest.param(
            "hpn_mappo",
            ["network.memory_width=8", "network.hyper_width=8"],
            marks=pytest.mark.slow,
        ),
        ("sable", ["network.embed_dim=8"]),
    ],
)
def test_popart_keeps_values_in_units_of_reward(name, words):
    config = jmarl.load_config(name, ["env=probe_death", "num_envs=8", *words])
    _, env, sys = build_run(config)
    runner = jax.jit(lambda key: init_runner(env, sys, 8, key))(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, runner.learner.params)
    (old_mean, old_std), (mean, std) = (2.0, 3.0), (-50.0, 0.25)
    rescaled = rescale_values(params, (old_mean, old_std), (mean, std))

    @jax.jit
    def values(params):
        key = jax.random.key(1)
        return sys.act(params, runner.carry, runner.timestep, key, 1.0)[2].value

    before, after = values(params), values(rescaled)
    expected = before * old_std + old_mean
    np.testing.assert_allclose(after * std + mean, expected, rtol=1e-3, atol=1e-3)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, rescaled)
    assert sum(jax.tree.leaves(changed)) == 2


def test_popart_changes_no_value_and_no_ratio_when_the_statistics_move(death):
    """Values equal the stored ones before the first step, so clipping them changes nothing."""
    env = make_probe("probe_death")
    far = death.replace(steps=death.steps.replace(reward=death.steps.reward + 50.0))
    results = []
    for value_clip in (0.2, 0.0):
        changes = {"popart": True, "lr": 1e-12, "value_clip": value_clip}
        sys = system(env, "none", **changes, value_memory=ENVS * ROWS)
        start = jax.jit(lambda key: init_runner(env, sys, ENVS, key))
        rows = start(jax.random.key(0))  # as in the fixture
        learner = rows.learner
        after, metrics = jax.jit(sys.update)(learner, far, jax.random.key(1))
        results.append(metrics["value_loss"])
        assert after.value_stats.mean > 20
        values = []
        for one in (learner, after):
            _, _, extras = sys.act(
                one.params, rows.carry, rows.timestep, jax.random.key(2), 1.0
            )
            values.append(denormalize(one.value_stats, extras.value))
        np.testing.assert_allclose(*values, atol=1e-3)
        assert metrics["ratio_error"] < 1e-4
    np.testing.assert_allclose(*results, rtol=1e-4)


def test_weight_decay_shrinks_parameters_without_gradient():
    tx = optimizer(dataclasses.replace(CFG, lr=0.1, weight_decay=0.5), num_updates=4)
    params = jnp.full(3, 2.0)
    move, _ = tx.update(jnp.zeros(3), tx.init(params), params)
    np.testing.assert_allclose(move, -0.1 * 0.5 * 2.0, rtol=1e-6)


@pytest.mark.parametrize(("eps", "share"), [(1e-8, 0.5), (3e-8, 0.25)])
def test_eps_limits_the_steps_of_tiny_gradients(eps, share):
    tx = optimizer(dataclasses.replace(CFG, lr=0.1, adam_eps=eps), num_updates=4)
    move, _ = tx.update(jnp.float32(1e-8), tx.init(jnp.zeros(())), jnp.zeros(()))
    np.testing.assert_allclose(move, -0.1 * share, rtol=1e-3)
