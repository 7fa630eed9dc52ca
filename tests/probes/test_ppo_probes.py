"""PPO on probes with known values: IPPO, MAPPO and HAPPO, with and without memory."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.probes import make as make_probe
from jmarl.learning.normalizer import denormalize
from jmarl.networks.actor_critic import NetworkConfig
from jmarl.systems import happo, ippo, mappo
from jmarl.training.anakin import init_runner, rollout


ENVS, ROWS, GAMMA = 32, 16, 0.9


def make(module, env, *, memory="none", updates, **changes):
    hyper = dict(
        lr=5e-3,
        anneal_lr=True,
        adam_eps=1e-5,
        weight_decay=0.0,
        max_grad_norm=0.5,
        gamma=GAMMA,
        reward_scale=1.0,
        gae_lambda=0.9,
        clip=0.2,
        epochs=4,
        minibatch_rows=256,
        minibatches=2,
        entropy_coef=0.01,
        value_coef=0.5,
        value_clip=0.0,
        huber_delta=10.0,
        value_memory=10 * ENVS * ROWS,
        popart=False,
        mask_dead_values=False,
        advantage="per_agent",
        critic_input="obs" if module is ippo else "state_and_obs",
    )
    if module is happo:
        hyper["fixed_order"] = False
    network = NetworkConfig(
        torso=(16,),
        memory=memory,
        memory_width=16,
        head=(16,),
        activation="tanh",
        layer_norm=False,
        agent_id=False,
    )
    run = SimpleNamespace(
        system=module.Config(**(hyper | changes)), network=network, num_updates=updates
    )
    return module.make(env.spec, run)


def train(module, probe, *, updates, memory="none", **changes):
    """Train; return the transitions, values and mean return of the last rollout."""
    env = make_probe(probe)
    system = make(module, env, memory=memory, updates=updates, **changes)

    def iteration(runner, key):
        runner, experience, episodes = rollout(env, system, runner, ROWS, key)
        values = denormalize(runner.learner.value_stats, experience.steps.extras.value)
        learner, _ = system.update(runner.learner, experience, key)
        mean_return = episodes["return"] / episodes["count"]
        return runner.replace(learner=learner), (experience.steps, values, mean_return)

    @jax.jit
    def run(key):
        runner = init_runner(env, system, ENVS, key)
        keys = jax.random.split(key, updates)
        _, results = jax.lax.scan(iteration, runner, keys)
        return results

    return jax.tree.map(lambda x: x[-1], run(jax.random.key(0)))


def test_value_equals_an_observed_reward():
    steps, values, _ = train(ippo, "probe_observation", updates=60)
    sign = steps.obs.own[..., -1]
    np.testing.assert_allclose(values[steps.valid], sign[steps.valid], atol=0.05)


def test_two_phase_values_are_1_9_and_1():
    steps, values, _ = train(mappo, "probe_two_phase", updates=60)
    known = jnp.array([1.9, 1.0])[steps.obs.own[..., :2].argmax(-1)]
    np.testing.assert_allclose(values[steps.valid], known[steps.valid], atol=0.05)


def test_time_limit_does_not_reduce_the_value():
    steps, values, _ = train(
        ippo, "probe_two_phase_truncated", updates=150, gae_lambda=1.0
    )
    np.testing.assert_allclose(values[steps.valid], 1 / (1 - GAMMA), rtol=0.05)


@pytest.mark.parametrize("memory", ["gru", pytest.param("ssm", marks=pytest.mark.slow)])
def test_memory_survives_a_death(memory):
    """Without memory, or with one that a death resets, the return is at most 3/4."""
    assert train(mappo, "probe_death", updates=100, memory=memory)[2] > 0.85


def test_continuous_actions_reach_their_target():
    """Initial noise around the target would cost 0.2, and the constant action 0 costs 0.21."""
    assert train(mappo, "probe_target", updates=100, entropy_coef=0.0)[2] > -0.05


@pytest.mark.parametrize("module", [pytest.param(mappo, marks=pytest.mark.slow), happo])
def test_only_separate_policies_let_indistinguishable_agents_act_differently(module):
    """A shared policy gets at most 1/2 on average; this allows four standard errors."""
    mean_return = train(module, "probe_xor_hidden", updates=40)[2]
    if module is happo:
        assert mean_return > 0.9
    else:
        assert mean_return < 0.5 + 4 * 0.5 / (ENVS * ROWS / 2) ** 0.5
