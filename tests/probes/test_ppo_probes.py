"""PPO on tiny worlds whose values are known: IPPO and MAPPO, with and without memory."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.probes import make as make_probe
from jmarl.learning.normalizer import denormalize
from jmarl.networks.actor_critic import NetworkConfig
from jmarl.systems import ippo, mappo
from jmarl.training.anakin import init_runner, rollout


ENVS, ROWS, GAMMA = 32, 16, 0.9


def make(module, env, *, memory="none", updates, **changes):
    hyper = dict(
        lr=5e-3,
        anneal_lr=True,
        max_grad_norm=0.5,
        gamma=GAMMA,
        gae_lambda=0.9,
        clip=0.2,
        epochs=4,
        minibatches=2,
        entropy_coef=0.01,
        value_coef=0.5,
        value_clip=0.0,
        huber_delta=10.0,
        value_decay=0.9,
        mask_dead_values=False,
        advantage="per_agent",
    )
    if module is mappo:
        hyper["critic_input"] = "state_and_obs"
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
    """The last rollout of training: its rows, their values in units of reward, the mean return."""
    env = make_probe(probe)
    system = make(module, env, memory=memory, updates=updates, **changes)

    def iteration(runner, key):
        runner, experience, episodes = rollout(env, system, runner, ROWS, key)
        values = denormalize(runner.learner.value_stats, experience.steps.extras.value)
        learner, _ = system.update(runner.learner, experience, key)
        return runner.replace(learner=learner), (
            experience.steps,
            values,
            episodes["return"] / episodes["count"],
        )

    @jax.jit
    def run(key):
        return jax.lax.scan(
            iteration,
            init_runner(env, system, ENVS, key),
            jax.random.split(key, updates),
        )[1]

    return jax.tree.map(lambda x: x[-1], run(jax.random.key(0)))


def test_a_reward_that_is_seen_is_the_value():
    steps, values, _ = train(ippo, "probe_observation", updates=60)
    seen = steps.obs.own[..., -1]
    np.testing.assert_allclose(values[steps.valid], seen[steps.valid], atol=0.05)


def test_two_phases_are_worth_1_9_and_1():
    steps, values, _ = train(mappo, "probe_two_phase", updates=60)
    known = jnp.array([1.9, 1.0])[steps.obs.own[..., :2].argmax(-1)]
    np.testing.assert_allclose(values[steps.valid], known[steps.valid], atol=0.05)


def test_a_time_limit_takes_nothing_from_the_value():
    steps, values, _ = train(
        ippo, "probe_two_phase_truncated", updates=150, gae_lambda=1.0
    )
    np.testing.assert_allclose(values[steps.valid], 1 / (1 - GAMMA), rtol=0.05)


@pytest.mark.parametrize("memory", ["gru", pytest.param("ssm", marks=pytest.mark.slow)])
def test_memory_carries_the_cue_past_a_death(memory):
    """Without memory, or with one that a death resets, the return is at most 3/4."""
    assert train(mappo, "probe_death", updates=100, memory=memory)[2] > 0.85


def test_continuous_actions_reach_their_target():
    """A free choice around the target costs 0.2; staying at 0, 0.21."""
    assert train(mappo, "probe_target", updates=100, entropy_coef=0.0)[2] > -0.05
