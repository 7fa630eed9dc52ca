"""Q-learning on probes with known values, with and without replay."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.learning.exploration import greedy
from jmarl.learning.returns import lambda_return
from jmarl.networks.actor_critic import AgentNet
from jmarl.networks.mixers import make_mixer
from jmarl.systems.kits import q_learning
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


GAMMA = 0.9
DEFECTIVE = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective copy"
)
SIZES = (
    "network=mlp",
    "network.torso=[16]",
    "num_envs=32",
    "rollout_length=16",
    "system.explore_steps=1",
    "system.lr=0.01",
)
ALGORITHMS = {
    "pqn_vdn": ("system.minibatches=2", "system.epochs=4"),
    "vdn": (
        "system.batch_size=32",
        "system.gradient_steps=8",
        "system.target_every=20",
        "system.replay_size=4096",
    ),
}
MEMORY = ("network.memory=gru", "network.memory_width=16")


def load(name, probe, *overrides, updates):
    rows = updates * 32 * 16
    return jmarl.load_config(
        name,
        [
            f"env={probe}",
            *SIZES,
            *ALGORITHMS[name],
            *overrides,
            f"total_timesteps={rows}",
            f"eval.every={rows}",
        ],
    )


def train(name, probe, *overrides, updates):
    """Train; return the team's greedy values ``[T, B]`` on a further rollout, and its rows."""
    overrides = (f"system.gamma={GAMMA}", *overrides)
    config = load(name, probe, *overrides, updates=updates)
    _, env, system = build_run(config)
    net = q_learning.QNetwork(
        AgentNet(env.spec, config.network),
        make_mixer(env.spec, config.system.mixer),
        env.spec,
    )

    def iteration(runner, key):
        runner, experience, _ = rollout(env, system, runner, config.rollout_length, key)
        learner, _ = system.update(runner.learner, experience, key)
        return runner.replace(learner=learner), None

    @jax.jit
    def run(key):
        runner = init_runner(env, system, 32, key)
        keys = jax.random.split(key, updates)
        runner, _ = jax.lax.scan(iteration, runner, keys)
        _, experience, _ = rollout(env, system, runner, config.rollout_length, key)
        steps = q_learning.steps_of(experience, config.system)
        params = runner.learner.params
        q, _ = net.unroll(params, runner.carry, steps)
        return net.mix(params, q, greedy(q, steps.obs.avail), steps), steps

    return jax.tree.map(lambda x: x[:-1], run(jax.random.key(0)))


def one_step_late(reward, terminated, valid, value, **options):
    """Mask each target by the flag of the previous row, as JaxMARL's VDN and QMIX do."""
    late = jnp.concatenate([jnp.zeros_like(terminated[:1]), terminated[:-1]])
    return lambda_return(reward, late, valid, value, **options)


def limit_as_termination(reward, terminated, valid, value, **options):
    """Treat every end of an episode as termination, as JaxMARL's SMAX does."""
    return lambda_return(reward, ~valid[1:], valid, value, **options)


def cases(defect):
    return [
        ("pqn_vdn", lambda_return),
        ("vdn", lambda_return),
        pytest.param("pqn_vdn", defect, marks=DEFECTIVE),
    ]


@pytest.mark.parametrize(("name", "returns"), cases(one_step_late))
def test_two_phase_values_are_1_9_and_1(name, returns, monkeypatch):
    monkeypatch.setattr(q_learning, "lambda_return", returns)
    q, steps = train(name, "probe_two_phase", updates=60)
    known = jnp.array([1.9, 1.0])[steps.obs.own[:, :, 0, :2].argmax(-1)]
    np.testing.assert_allclose(q[steps.valid], known[steps.valid], atol=0.05)


@pytest.mark.parametrize(("name", "returns"), cases(limit_as_termination))
def test_time_limit_does_not_reduce_the_value(name, returns, monkeypatch):
    monkeypatch.setattr(q_learning, "lambda_return", returns)
    q, steps = train(name, "probe_two_phase_truncated", updates=150)
    np.testing.assert_allclose(q[steps.valid], 1 / (1 - GAMMA), rtol=0.05)


def test_first_action_is_worth_its_delayed_reward():
    """``probe_delayed`` pays three steps later; a corrected trace learns it off-policy."""
    q, steps = train("vdn", "probe_delayed", "system.returns=q_lambda", updates=100)
    at_start = steps.first & steps.valid
    np.testing.assert_allclose(q[at_start], GAMMA**3, atol=0.05)


def greedy_return(name, probe, *overrides, updates):
    overrides = ("eval.episodes=256", *overrides)
    config = load(name, probe, *overrides, updates=updates)
    _, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    return float(metrics["eval"]["greedy"]["return"][-1].mean())


@pytest.mark.parametrize(
    "name", [pytest.param("pqn_vdn", marks=pytest.mark.slow), "vdn"]
)
def test_memory_survives_a_death(name):
    """Without memory, or with one that a death resets, the return is at most 3/4."""
    explore_longer = "system.explore_steps=20_000"
    assert (
        greedy_return(name, "probe_death", *MEMORY, explore_longer, updates=120) > 0.9
    )


@pytest.mark.slow
def test_memory_solves_the_cue():
    """The best policy without memory gets 1/2."""
    assert (
        greedy_return(
            "pqn_vdn", "probe_cue", *MEMORY, "system.explore_steps=20_000", updates=120
        )
        > 0.9
    )


def test_agents_learn_different_actions():
    """Equal policies, and random ones, get 1/2."""
    assert greedy_return("pqn_vdn", "probe_xor", updates=60) == 1.0
