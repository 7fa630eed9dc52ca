"""Q-learning kit: targets across episodes, double Q, target networks, replay formats."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.config import ConfigError
from jmarl.envs.probes import make as make_probe
from jmarl.learning.parallel import gradient, mean_weights
from jmarl.networks.mixers import SumConfig, make_mixer
from jmarl.systems import vdn
from jmarl.systems.kits import q_learning as kit
from jmarl.systems.kits.q_learning_config import PQNConfig, ReplayConfig
from jmarl.training.anakin import device_mesh, init_runner, rollout
from jmarl.training.build import build_run


TWIN = pytest.mark.xfail(strict=True, raises=AssertionError, reason="defective twin")
GAMMA, LAMBDA = 0.9, 0.7
SUM = SumConfig(name="sum", mask_dead=False)
SHARED = dict(
    lr=1e-2,
    anneal_lr=False,
    adam_eps=1e-5,
    weight_decay=0.0,
    max_grad_norm=10.0,
    gamma=GAMMA,
    reward_scale=1.0,
    td_lambda=LAMBDA,
    explore_start=1.0,
    explore_end=0.1,
    explore_steps=100,
    mixer=SUM,
)
REPLAY = ReplayConfig(
    **SHARED,
    returns="td_lambda",
    replay_size=1024,
    replay_dtype="float32",
    warmup=0,
    batch_size=8,
    burn_in=0,
    stored_carry=True,
    rows_per_gradient_step=104,
    gradient_steps=2,
    target_every=3,
    target_rate=1.0,
)
PQN = PQNConfig(**SHARED, epochs=1, minibatch_rows=208, minibatches=1)


def sequences(rng, T=13, B=16):
    """Return random rows of next-step reset: one invalid row follows each episode."""
    valid, terminated = np.ones((T + 1, B), bool), np.zeros((T + 1, B), bool)
    for b in range(B):
        for t in range(T):
            if valid[t, b] and rng.random() < 0.35:
                valid[t + 1, b] = False
                terminated[t, b] = rng.random() < 0.5
    first = np.concatenate([np.ones((1, B), bool), ~valid[:-1]])
    reward = rng.normal(size=(T + 1, B)) * valid
    return kit.Steps(
        obs=None,
        first=first,
        valid=valid,
        action=None,
        reward=reward,
        terminated=terminated,
    )


def recursive_target(steps, b, t, value, q_taken, correct):
    """Compute the target of row t; ``correct`` selects Q(lambda) instead of TD(lambda)."""
    bootstrap = 0.0 if steps.terminated[t, b] else value[t + 1, b]
    delta = steps.reward[t, b] + GAMMA * bootstrap - q_taken[t, b]
    last = t + 2 == len(value) or not steps.valid[t + 1, b]
    if last:
        return q_taken[t, b] + delta
    following = recursive_target(steps, b, t + 1, value, q_taken, correct)
    baseline = q_taken if correct else value
    return q_taken[t, b] + delta + GAMMA * LAMBDA * (following - baseline[t + 1, b])


@pytest.mark.parametrize("correct", [False, True], ids=["td", "q"])
def test_targets_match_the_recursive_reference(correct):
    rng = np.random.default_rng(0)
    steps = sequences(rng)
    v, q_taken = rng.normal(size=(2, *steps.valid.shape))
    steps = jax.tree.map(jnp.asarray, steps)
    if correct:
        got = kit.q_lambda(steps, jnp.asarray(v), jnp.asarray(q_taken), REPLAY)
    else:
        got = kit.td_lambda(steps, jnp.asarray(v), REPLAY)
    for t, b in zip(*np.nonzero(steps.valid[:-1]), strict=True):
        expected = recursive_target(steps, b, t, v, q_taken, correct)
        np.testing.assert_allclose(got[t, b], expected, atol=1e-5)


def pymarl2(steps, v, q_taken, cfg):
    """Leave the correction of the reward in the target, as PyMARL2 does (defective)."""
    return kit.td_lambda(steps.replace(reward=steps.reward + v - q_taken), v, cfg)


@pytest.mark.parametrize("fn", [kit.q_lambda, pytest.param(pymarl2, marks=TWIN)])
def test_q_lambda_at_zero_is_the_one_step_target(fn):
    rng = np.random.default_rng(1)
    steps = jax.tree.map(jnp.asarray, sequences(rng))
    v, q_taken = jnp.asarray(rng.normal(size=(2, *steps.valid.shape)))
    cfg = dataclasses.replace(REPLAY, td_lambda=0.0)
    valid = np.asarray(steps.valid[:-1])
    np.testing.assert_allclose(
        fn(steps, v, q_taken, cfg)[valid],
        kit.td_lambda(steps, v, cfg)[valid],
        atol=1e-5,
    )


class Table(nn.Module):
    """Agent network whose action values are parameters, the same on every row."""

    n_actions: int

    def initial(self, batch):
        return ()

    @nn.compact
    def __call__(self, carry, obs, first):
        q = self.param("q", nn.initializers.zeros, (self.n_actions,))
        return carry, jnp.broadcast_to(q, obs.avail.shape), q


def one_transition(spec, avail):
    """Return two rows without reward, with the given available actions."""
    steps = kit.empty_steps(spec, 2, 8)
    obs = steps.obs.replace(
        avail=jnp.broadcast_to(jnp.asarray(avail), steps.obs.avail.shape)
    )
    return steps.replace(obs=obs, valid=jnp.ones_like(steps.valid))


def table_params(q):
    return {"agent": {"params": {"q": jnp.asarray(q)}}, "mixer": {}}


def mean_target(net, online, target, steps):
    """Return the mean target of the loss, from the metrics that it reports."""
    loss = kit.double_q_loss(net, REPLAY)
    weight = mean_weights(steps.valid[:-1])
    _, (sums, _) = loss(table_params(online), table_params(target), (), steps, weight)
    return float(sums["target_mean"])


def unchanged(net):
    return net


def single_q(net):
    """Let the target network select its own greedy actions (defective)."""

    def mix(self, params, q, action, steps):
        return kit.QNetwork.mix(self, params, q, kit.greedy(q, steps.obs.avail), steps)

    return type("Single", (type(net),), {"mix": mix})(*net)


def unmasked(net):
    """Select greedy actions among all actions, available or not (defective)."""

    def unroll(self, params, carry, steps):
        open_steps = steps.replace(
            obs=steps.obs.replace(avail=jnp.ones_like(steps.obs.avail))
        )
        return kit.QNetwork.unroll(self, params, carry, open_steps)

    def mix(self, params, q, action, steps):
        return kit.QNetwork.mix(self, params, q, jnp.argmax(q, -1), steps)

    return type("Unmasked", (type(net),), {"unroll": unroll, "mix": mix})(*net)


@pytest.mark.parametrize(
    "how",
    [
        unchanged,
        pytest.param(single_q, marks=TWIN),
        pytest.param(unmasked, marks=TWIN),
    ],
)
def test_the_online_network_selects_available_actions_and_the_target_evaluates_them(
    how,
):
    """Online prefers action 3 (unavailable), then 1; the target prefers 0 and values 1 at 20."""
    spec = make_probe("probe_bandit", n_actions=4).spec
    net = how(kit.QNetwork(Table(4), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True, True, True, False])
    got = mean_target(net, [1.0, 5.0, 2.0, 9.0], [30.0, 20.0, 10.0, 40.0], steps)
    np.testing.assert_allclose(got, GAMMA * 2 * 20.0, rtol=1e-6)


@pytest.mark.parametrize("how", [unchanged, pytest.param(unmasked, marks=TWIN)])
def test_without_replay_values_use_available_actions_only(how):
    spec = make_probe("probe_bandit", n_actions=4).spec
    net = how(kit.QNetwork(Table(4), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True, True, True, False])
    params = table_params([1.0, 5.0, 2.0, 9.0])
    loss = kit.pqn_loss(net, PQN)
    _, (sums, _) = loss(params, (), steps, mean_weights(steps.valid[:-1]))
    np.testing.assert_allclose(float(sums["target_mean"]), GAMMA * 2 * 5.0, rtol=1e-6)


class ConstantMemory(nn.Module):
    """Agent network whose action values are a constant memory times a parameter."""

    @nn.compact
    def __call__(self, carry, obs, first):
        scale = self.param("scale", nn.initializers.ones, ())
        q = jnp.broadcast_to(scale * carry[None, ..., None], obs.avail.shape)
        return carry, q, None


def target_without_memory(net):
    """Start the target network with an empty memory (defective)."""

    def unroll(self, params, carry, steps):
        online = params["agent"]["params"]["scale"] == ONLINE
        carry = jnp.where(online, carry, 0.0)
        return kit.QNetwork.unroll(self, params, carry, steps)

    return type("WithoutMemory", (type(net),), {"unroll": unroll})(*net)


ONLINE, TARGET, MEMORY = 2.0, 5.0, 3.0


@pytest.mark.parametrize(
    "how", [unchanged, pytest.param(target_without_memory, marks=TWIN)]
)
def test_both_networks_unroll_from_the_stored_memory(how):
    spec = make_probe("probe_bandit").spec
    net = how(kit.QNetwork(ConstantMemory(), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True] * 3)
    params, target = (
        {"agent": {"params": {"scale": jnp.float32(x)}}, "mixer": {}}
        for x in (ONLINE, TARGET)
    )
    carry = jnp.full((8, spec.n_agents), MEMORY)
    loss = kit.double_q_loss(net, REPLAY)
    weight = mean_weights(steps.valid[:-1])
    _, (sums, _) = loss(params, target, carry, steps, weight)
    q_mean = spec.n_agents * ONLINE * MEMORY
    target_mean = GAMMA * spec.n_agents * TARGET * MEMORY
    np.testing.assert_allclose(float(sums["q_mean"]), q_mean, rtol=1e-6)
    np.testing.assert_allclose(float(sums["target_mean"]), target_mean, rtol=1e-6)


@pytest.mark.parametrize("kind", ["replay", "pqn"])
def test_terms_read_aux_and_are_added_to_the_loss_with_their_metrics(kind):
    spec = make_probe("probe_bandit").spec
    net = kit.QNetwork(Table(3), make_mixer(spec, SUM), spec)
    steps = one_transition(spec, [True] * 3)
    params = table_params([1.0, 5.0, 2.0])
    weight = mean_weights(steps.valid[:-1])

    def term(params, aux, steps, weight):
        return weight.sum() * aux.max(), {"largest": weight.sum() * aux[1]}

    def loss(terms):
        if kind == "pqn":
            return kit.pqn_loss(net, PQN, terms)(params, (), steps, weight)
        replay_loss = kit.double_q_loss(net, REPLAY, terms)
        return replay_loss(params, params, (), steps, weight)

    plain, (sums, maxima) = loss(())
    total, (more_sums, same_maxima) = loss((term, term))
    np.testing.assert_allclose(total - plain, 2 * 5.0, rtol=1e-5)
    assert more_sums == {**sums, "largest": 5.0}
    assert same_maxima == maxima


def test_invalid_rows_have_no_gradient():
    spec = make_probe("probe_bandit").spec
    net = kit.QNetwork(Table(3), make_mixer(spec, SUM), spec)
    steps = one_transition(spec, [True] * 3)
    loss = kit.pqn_loss(net, PQN)

    def loss_gradient(reward, valid):
        rows = steps.replace(
            valid=steps.valid.at[0, 0].set(valid),
            reward=steps.reward.at[0, 0].set(reward),
        )
        weight = mean_weights(rows.valid[:-1])
        grads = jax.grad(lambda p: loss(p, (), rows, weight)[0])(
            table_params([1.0] * 3)
        )
        return grads["agent"]["params"]["q"]

    np.testing.assert_array_equal(loss_gradient(1e6, False), loss_gradient(0.0, False))
    assert (loss_gradient(1e6, True) != loss_gradient(0.0, True)).any()


@pytest.mark.parametrize(("every", "rate"), [(3, 1.0), (1, 0.25), (2, 0.5)])
def test_update_target_params(every, rate):
    cfg = dataclasses.replace(REPLAY, target_every=every, target_rate=rate)
    target, expected = jnp.zeros(2), np.zeros(2)
    for number in range(1, 7):
        params = jnp.array([number, -0.1 * number])
        target = kit.update_target_params(target, params, jnp.int32(number), cfg)
        if number % every == 0:
            expected = expected + rate * (np.asarray(params) - expected)
        np.testing.assert_allclose(target, expected, rtol=1e-6)
        assert rate < 1 or number % every or (target == params).all()


def test_decompress_inverts_compress():
    spec = make_probe("probe_cue").spec
    steps = kit.empty_steps(spec, 3, 8)
    noise = jax.random.normal(jax.random.key(0), steps.obs.own.shape)
    steps = steps.replace(obs=steps.obs.replace(own=noise), reward=steps.reward + 0.123)
    jax.tree.map(
        np.testing.assert_array_equal,
        kit.decompress(kit.compress(steps, None, REPLAY), spec),
        steps,
    )
    small = dataclasses.replace(REPLAY, replay_dtype="bfloat16")
    back = kit.decompress(kit.compress(steps, None, small), spec)
    assert jax.tree.map(lambda x: x.dtype, back) == jax.tree.map(
        lambda x: x.dtype, steps
    )
    np.testing.assert_allclose(back.obs.own, noise, rtol=4e-3)
    np.testing.assert_array_equal(back.reward, steps.reward)


def test_encoded_and_plain_replay_give_the_same_update():
    overrides = [
        "env=smax_2v2",
        "num_envs=8",
        "rollout_length=5",
        "network.torso=[8]",
        "network.memory_width=8",
        "network.head=[8]",
        "system.batch_size=8",
        "system.replay_size=120",
        "system.gradient_steps=2",
    ]
    config = jmarl.load_config("vdn", overrides)
    _, env, _ = build_run(config)
    learners = []
    for variant in (env, env._replace(spec=env.spec._replace(obs_codec=None))):
        system = vdn.make(variant.spec, config)

        @jax.jit
        def learn(key):
            runner = init_runner(variant, system, 8, key)
            runner, experience, _ = rollout(variant, system, runner, 5, key)
            return system.update(runner.learner, experience, key)[0]

        learners.append(learn(jax.random.key(0)))
    encoded, plain = learners
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        encoded.params,
        plain.params,
    )
    size = [
        sum(x.nbytes for x in jax.tree.leaves(learner.replay.rows))
        for learner in learners
    ]
    assert size[0] < size[1]


def test_continuous_actions_raise_config_error():
    spec = make_probe("probe_target").spec
    config = SimpleNamespace(env={"name": "probe_target"}, system=PQN, num_updates=1)
    message = "^env=probe_target: has continuous actions"
    with pytest.raises(ConfigError, match=message):
        kit.make_pqn(spec, config, Table(1))


def test_four_devices_have_the_gradient_of_one():
    """The target network is not differentiated, and reaches every device."""
    spec = make_probe("probe_bandit").spec
    net = kit.QNetwork(Table(3), make_mixer(spec, SUM), spec)
    steps = one_transition(spec, [True] * 3)
    steps = steps.replace(
        reward=jnp.arange(16.0).reshape(2, 8), valid=steps.valid.at[0, :3].set(False)
    )
    params, target = table_params([1.0, 2, 3]), table_params([3.0, 1, 2])

    def loss_gradient(params, target):
        loss = kit.double_q_loss(net, REPLAY)
        differentiated = gradient(lambda params, *args: loss(params, target, *args))
        return differentiated(params, (), steps, mean_weights(steps.valid[:-1]))

    one = jax.jit(loss_gradient)(params, target)
    with jax.set_mesh(device_mesh()):
        four = jax.jit(loss_gradient)(params, target)
    np.testing.assert_allclose(one[0], four[0], rtol=1e-6)
    np.testing.assert_allclose(
        one[1][0]["q_mean"].sum(), four[1][0]["q_mean"].sum(), rtol=1e-6
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one[2], four[2]
    )
    assert four[1][0]["q_mean"].shape == (4,)


def small_gru(*overrides):
    """Return system, one rollout and a compiled update of VDN with a GRU."""
    words = ["env=probe_cue", "num_envs=8", "rollout_length=4", "network.torso=[8]"]
    words += ["network.memory_width=8", "network.head=[8]", "system.batch_size=8"]
    words += ["system.gradient_steps=2", "system.replay_size=96", *overrides]
    config = jmarl.load_config("vdn", words)
    _, env, system = build_run(config)
    start = jax.jit(lambda key: init_runner(env, system, 8, key))
    play = jax.jit(lambda runner, key: rollout(env, system, runner, 4, key)[:2])
    runner, experience = play(start(jax.random.key(0)), jax.random.key(1))
    update = jax.jit(lambda learner, rows: system.update(learner, rows, KEY)[0])
    return runner.learner, experience, update


KEY = jax.random.key(2)


def moved(a, b):
    return jax.tree.leaves(jax.tree.map(lambda x, y: bool((x != y).any()), a, b))


def test_gradient_steps_start_after_the_warm_up_and_need_no_stored_memory():
    start, experience, update = small_gru(
        "system.warmup=64", "system.stored_carry=false"
    )
    first = update(start, experience)
    assert not any(moved(first.params, start.params))
    assert int(first.updates) == 1
    second = update(first, experience)
    assert all(moved(second.params, first.params))
    other = experience.replace(carry=jax.tree.map(lambda x: x + 5.0, experience.carry))
    same = update(update(start, other), other)
    assert not any(moved(same.params, second.params))


def test_rewards_of_the_burn_in_have_no_effect():
    """With a lambda of 0, targets of later rows do not depend on them either."""
    start, experience, update = small_gru("system.burn_in=2", "system.td_lambda=0")

    def with_reward(row):
        reward = experience.steps.reward.at[row].add(5.0)
        return experience.replace(steps=experience.steps.replace(reward=reward))

    first, second, later = (update(start, with_reward(row)) for row in (0, 1, 2))
    assert not any(moved(first.params, second.params))
    assert any(moved(first.params, later.params))


def test_rewards_are_scaled_in_learning_only():
    _, experience, _ = small_gru()
    rows = [
        kit.steps_of(experience, dataclasses.replace(REPLAY, reward_scale=scale))
        for scale in (1.0, 10.0)
    ]
    assert jnp.abs(rows[0].reward).max() > 0
    np.testing.assert_allclose(rows[1].reward, 10 * rows[0].reward)
