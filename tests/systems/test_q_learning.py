"""The value kit: returns of sequences that cross episodes, double Q, target networks, what the team is paid."""

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
from jmarl.systems.kits import q_learning as value
from jmarl.systems.kits import q_learning_config as value_config
from jmarl.training.anakin import device_mesh, init_runner, rollout
from jmarl.training.train import assemble


TWIN = pytest.mark.xfail(strict=True, raises=AssertionError, reason="defective twin")
GAMMA, LAMBDA = 0.9, 0.7
SUM = SumConfig(name="sum", mask_dead=False)
SHARED = dict(
    lr=1e-2,
    anneal_lr=False,
    max_grad_norm=10.0,
    gamma=GAMMA,
    td_lambda=LAMBDA,
    explore_start=1.0,
    explore_end=0.1,
    explore_steps=100,
    mixer=SUM,
)
REPLAY = value_config.ReplayConfig(
    **SHARED,
    returns="td_lambda",
    replay_size=1024,
    replay_dtype="float32",
    batch_size=8,
    gradient_steps=2,
    target_every=3,
    target_rate=1.0,
)


def sequences(rng, T=13, B=16):
    """Rows of next-step reset: after an end comes a row that is not valid, then a first one."""
    valid, terminated = np.ones((T + 1, B), bool), np.zeros((T + 1, B), bool)
    for b in range(B):
        for t in range(T):
            if valid[t, b] and rng.random() < 0.35:
                valid[t + 1, b] = False
                terminated[t, b] = rng.random() < 0.5
    first = np.concatenate([np.ones((1, B), bool), ~valid[:-1]])
    reward = rng.normal(size=(T + 1, B)) * valid
    return value.Steps(
        obs=None,
        first=first,
        valid=valid,
        action=None,
        reward=reward,
        terminated=terminated,
    )


def slow_return(steps, b, t, best, taken, correct):
    """The target of row t, by recursion over what follows it: ``Q_t + sum of discounted errors`` if ``correct``."""
    following = 0.0 if steps.terminated[t, b] else best[t + 1, b]
    delta = steps.reward[t, b] + GAMMA * following - taken[t, b]
    last = t + 2 == len(best) or not steps.valid[t + 1, b]
    if last:
        return taken[t, b] + delta
    later = slow_return(steps, b, t + 1, best, taken, correct)
    baseline = taken if correct else best
    return taken[t, b] + delta + GAMMA * LAMBDA * (later - baseline[t + 1, b])


@pytest.mark.parametrize("correct", [False, True], ids=["td", "q"])
def test_returns_equal_the_slow_twin(correct):
    rng = np.random.default_rng(0)
    steps = sequences(rng)
    best, taken = rng.normal(size=(2, *steps.valid.shape))
    steps = jax.tree.map(jnp.asarray, steps)
    args = jnp.asarray(best), jnp.asarray(taken)
    got = (
        value.q_lambda(steps, *args, REPLAY)
        if correct
        else value.td_lambda(steps, args[0], REPLAY)
    )
    for t, b in zip(*np.nonzero(steps.valid[:-1]), strict=True):
        np.testing.assert_allclose(
            got[t, b], slow_return(steps, b, t, best, taken, correct), atol=1e-5
        )


def pymarl2(steps, best, taken, cfg):
    """The defective twin: the correction is added to the reward, and stays in the target."""
    return value.td_lambda(steps.replace(reward=steps.reward + best - taken), best, cfg)


@pytest.mark.parametrize("fn", [value.q_lambda, pytest.param(pymarl2, marks=TWIN)])
def test_q_lambda_at_zero_is_the_one_step_target(fn):
    rng = np.random.default_rng(1)
    steps = jax.tree.map(jnp.asarray, sequences(rng))
    best, taken = jnp.asarray(rng.normal(size=(2, *steps.valid.shape)))
    cfg = dataclasses.replace(REPLAY, td_lambda=0.0)
    valid = np.asarray(steps.valid[:-1])
    np.testing.assert_allclose(
        fn(steps, best, taken, cfg)[valid],
        value.td_lambda(steps, best, cfg)[valid],
        atol=1e-5,
    )


class Table(nn.Module):
    """Values that are parameters: the same on every row."""

    n_actions: int

    def initial(self, batch):
        return ()

    @nn.compact
    def __call__(self, carry, obs, first):
        q = self.param("q", nn.initializers.zeros, (self.n_actions,))
        return carry, jnp.broadcast_to(q, obs.avail.shape)


def one_transition(spec, avail):
    """A row that pays nothing, and the row after it, with actions available there."""
    steps = value.empty_steps(spec, 2, 8)
    obs = steps.obs.replace(
        avail=jnp.broadcast_to(jnp.asarray(avail), steps.obs.avail.shape)
    )
    return steps.replace(obs=obs, valid=jnp.ones_like(steps.valid))


def goal(net, online, target, steps):
    """The mean target of the loss, from the metrics it reports."""
    params, frozen = (
        {"agent": {"params": {"q": jnp.asarray(q)}}, "mixer": {}}
        for q in (online, target)
    )
    weight = mean_weights(steps.valid[:-1])
    _, (sums, _) = value.double_q_loss(net, REPLAY)(params, frozen, (), steps, weight)
    return float(sums["target_mean"])


def as_it_is(net):
    return net


def the_targets_own_maximum(net):
    """Plain Q-learning: the target network chooses too."""

    def mix(self, params, q, action, steps):
        return value.QNetwork.mix(
            self, params, q, value.greedy(q, steps.obs.avail), steps
        )

    return type("Single", (type(net),), {"mix": mix})(*net)


def maximum_of_all(net):
    """Whatever is best, available or not: the online network's values of what is not are read as they are."""

    def unroll(self, params, carry, steps):
        open_steps = steps.replace(
            obs=steps.obs.replace(avail=jnp.ones_like(steps.obs.avail))
        )
        return value.QNetwork.unroll(self, params, carry, open_steps)

    def mix(self, params, q, action, steps):
        return value.QNetwork.mix(self, params, q, jnp.argmax(q, -1), steps)

    return type("Unmasked", (type(net),), {"unroll": unroll, "mix": mix})(*net)


@pytest.mark.parametrize(
    "how",
    [
        as_it_is,
        pytest.param(the_targets_own_maximum, marks=TWIN),
        pytest.param(maximum_of_all, marks=TWIN),
    ],
)
def test_the_online_network_chooses_among_the_available_and_the_target_values(how):
    """Two agents. Online prefers 3, which is not available, then 1; the target's best is 0, its value of 1 is 20."""
    spec = make_probe("probe_bandit", n_actions=4).spec
    net = how(value.QNetwork(Table(4), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True, True, True, False])
    got = goal(net, [1.0, 5.0, 2.0, 9.0], [30.0, 20.0, 10.0, 40.0], steps)
    np.testing.assert_allclose(got, GAMMA * 2 * 20.0, rtol=1e-6)


@pytest.mark.parametrize("how", [as_it_is, pytest.param(maximum_of_all, marks=TWIN)])
def test_without_replay_the_value_is_of_what_is_available(how):
    spec = make_probe("probe_bandit", n_actions=4).spec
    net = how(value.QNetwork(Table(4), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True, True, True, False])
    params = {"agent": {"params": {"q": jnp.array([1.0, 5.0, 2.0, 9.0])}}, "mixer": {}}
    loss = value.pqn_loss(
        net, value_config.PQNConfig(**SHARED, epochs=1, minibatches=1)
    )
    _, (sums, _) = loss(params, (), steps, mean_weights(steps.valid[:-1]))
    np.testing.assert_allclose(float(sums["target_mean"]), GAMMA * 2 * 5.0, rtol=1e-6)


class Recollection(nn.Module):
    """Values that are memory, which never changes, times a parameter."""

    @nn.compact
    def __call__(self, carry, obs, first):
        scale = self.param("scale", nn.initializers.ones, ())
        return carry, jnp.broadcast_to(scale * carry[None, ..., None], obs.avail.shape)


def a_cold_target(net):
    """The defect: the target network begins each sequence with an empty memory."""

    def unroll(self, params, carry, steps):
        warm = params["agent"]["params"]["scale"] == ONLINE
        return value.QNetwork.unroll(self, params, jnp.where(warm, carry, 0.0), steps)

    return type("Cold", (type(net),), {"unroll": unroll})(*net)


ONLINE, TARGET, MEMORY = 2.0, 5.0, 3.0


@pytest.mark.parametrize("how", [as_it_is, pytest.param(a_cold_target, marks=TWIN)])
def test_both_networks_unroll_from_the_memory_that_was_stored(how):
    spec = make_probe("probe_bandit").spec
    net = how(value.QNetwork(Recollection(), make_mixer(spec, SUM), spec))
    steps = one_transition(spec, [True] * 3)
    params, frozen = (
        {"agent": {"params": {"scale": jnp.float32(x)}}, "mixer": {}}
        for x in (ONLINE, TARGET)
    )
    carry = jnp.full((8, spec.n_agents), MEMORY)
    _, (sums, _) = value.double_q_loss(net, REPLAY)(
        params, frozen, carry, steps, mean_weights(steps.valid[:-1])
    )
    np.testing.assert_allclose(
        float(sums["q_mean"]), spec.n_agents * ONLINE * MEMORY, rtol=1e-6
    )
    np.testing.assert_allclose(
        float(sums["target_mean"]), GAMMA * spec.n_agents * TARGET * MEMORY, rtol=1e-6
    )


def test_rows_that_do_not_count_teach_nothing():
    spec = make_probe("probe_bandit").spec
    net = value.QNetwork(Table(3), make_mixer(spec, SUM), spec)
    steps = one_transition(spec, [True] * 3)
    params = {"agent": {"params": {"q": jnp.ones(3)}}, "mixer": {}}
    loss = value.pqn_loss(
        net, value_config.PQNConfig(**SHARED, epochs=1, minibatches=1)
    )

    def of(paid, valid):
        rows = steps.replace(
            valid=steps.valid.at[0, 0].set(valid),
            reward=steps.reward.at[0, 0].set(paid),
        )
        return jax.grad(lambda p: loss(p, (), rows, mean_weights(rows.valid[:-1]))[0])(
            params
        )["agent"]["params"]["q"]

    np.testing.assert_array_equal(of(1e6, False), of(0.0, False))
    assert (of(1e6, True) != of(0.0, True)).any()


@pytest.mark.parametrize(("every", "rate"), [(3, 1.0), (1, 0.25), (2, 0.5)])
def test_the_target_follows(every, rate):
    cfg = dataclasses.replace(REPLAY, target_every=every, target_rate=rate)
    target, expected = jnp.zeros(2), np.zeros(2)
    for number in range(1, 7):
        params = jnp.array([number, -0.1 * number])
        target = value.follow(target, params, jnp.int32(number), cfg)
        if number % every == 0:
            expected = expected + rate * (np.asarray(params) - expected)
        np.testing.assert_allclose(target, expected, rtol=1e-6)
        assert rate < 1 or number % every or (target == params).all()


def test_stored_rows_come_back():
    spec = make_probe("probe_cue").spec
    steps = value.empty_steps(spec, 3, 8)
    noise = jax.random.normal(jax.random.key(0), steps.obs.own.shape)
    steps = steps.replace(obs=steps.obs.replace(own=noise), reward=steps.reward + 0.123)
    jax.tree.map(
        np.testing.assert_array_equal,
        value.restore(value.store(steps, None, REPLAY), spec),
        steps,
    )
    small = dataclasses.replace(REPLAY, replay_dtype="bfloat16")
    back = value.restore(value.store(steps, None, small), spec)
    assert jax.tree.map(lambda x: x.dtype, back) == jax.tree.map(
        lambda x: x.dtype, steps
    )
    np.testing.assert_allclose(back.obs.own, noise, rtol=4e-3)
    np.testing.assert_array_equal(back.reward, steps.reward)


def test_a_replay_of_sketches_teaches_what_one_of_observations_does():
    words = [
        "env=smax_2v2",
        "num_envs=8",
        "rollout_length=5",
        "network.torso=[8]",
        "network.memory_width=8",
    ]
    sizes = [
        "network.head=[8]",
        "system.batch_size=8",
        "system.replay_size=120",
        "system.gradient_steps=2",
    ]
    config = jmarl.load_config("vdn", [*words, *sizes])
    env, _ = assemble(config)
    taught = []
    for world in (env, env._replace(spec=env.spec._replace(obs_codec=None))):
        system = vdn.make(world.spec, config)

        @jax.jit
        def learn(key):
            runner = init_runner(world, system, 8, key)
            runner, experience, _ = rollout(world, system, runner, 5, key)
            return system.update(runner.learner, experience, key)[0]

        taught.append(learn(jax.random.key(0)))
    sketches, observations = taught
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        sketches.params,
        observations.params,
    )
    size = [
        sum(x.nbytes for x in jax.tree.leaves(learner.replay.rows))
        for learner in taught
    ]
    assert size[0] < size[1]


def test_a_continuous_world_is_refused():
    spec = make_probe("probe_target").spec
    config = SimpleNamespace(
        system=value_config.PQNConfig(**SHARED, epochs=1, minibatches=1), num_updates=1
    )
    with pytest.raises(ConfigError, match="continuous"):
        value.pqn_system(Table(1), make_mixer(spec, SUM), spec, config)


def test_four_devices_have_the_gradient_of_one():
    """The target network is held fixed outside of what is differentiated, and reaches every device."""
    spec = make_probe("probe_bandit").spec
    net = value.QNetwork(Table(3), make_mixer(spec, SUM), spec)
    steps = one_transition(spec, [True] * 3)
    steps = steps.replace(
        reward=jnp.arange(16.0).reshape(2, 8), valid=steps.valid.at[0, :3].set(False)
    )
    params, target = (
        {"agent": {"params": {"q": jnp.array(q)}}, "mixer": {}}
        for q in ([1.0, 2, 3], [3.0, 1, 2])
    )

    def found(params, target):
        loss = value.double_q_loss(net, REPLAY)
        of = gradient(lambda params, *args: loss(params, target, *args))
        return of(params, (), steps, mean_weights(steps.valid[:-1]))

    one = jax.jit(found)(params, target)
    with jax.set_mesh(device_mesh()):
        four = jax.jit(found)(params, target)
    np.testing.assert_allclose(one[0], four[0], rtol=1e-6)
    np.testing.assert_allclose(
        one[1][0]["q_mean"].sum(), four[1][0]["q_mean"].sum(), rtol=1e-6
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one[2], four[2]
    )
    assert four[1][0]["q_mean"].shape == (4,)
