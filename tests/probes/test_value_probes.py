"""Q-learning on tiny worlds whose values are known, with and without replay."""

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
from jmarl.systems.kits import q_learning as value
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.train import assemble


GAMMA = 0.9
TWIN = pytest.mark.xfail(strict=True, raises=AssertionError, reason="defective twin")
SIZES = (
    "network=mlp",
    "network.torso=[16]",
    "num_envs=32",
    "rollout_length=16",
    "system.explore_steps=1",
    "system.lr=0.01",
)
KINDS = {
    "pqn_vdn": ("system.minibatches=2", "system.epochs=4"),
    "vdn": (
        "system.batch_size=32",
        "system.gradient_steps=8",
        "system.target_every=20",
        "system.replay_size=4096",
    ),
}


def train(name, probe, *overrides, updates):
    """The team's value of the best actions on every row of a rollout after training, and those rows."""
    words = [f"env={probe}", f"system.gamma={GAMMA}", *SIZES, *KINDS[name], *overrides]
    rows = updates * 32 * 16
    config = jmarl.load_config(
        name, [*words, f"total_timesteps={rows}", f"eval.every={rows}"]
    )
    env, system = assemble(config)
    net = value.QNetwork(
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
        runner, _ = jax.lax.scan(
            iteration, init_runner(env, system, 32, key), jax.random.split(key, updates)
        )
        steps = value.steps_of(
            rollout(env, system, runner, config.rollout_length, key)[1]
        )
        params = runner.learner.params
        q = net.unroll(params, runner.carry, steps)
        return net.mix(params, q, greedy(q, steps.obs.avail), steps), steps

    return jax.tree.map(lambda x: x[:-1], run(jax.random.key(0)))


def one_step_late(reward, terminated, valid, value, **options):
    """JaxMARL's VDN and QMIX: each target is masked by the flag of the row before."""
    late = jnp.concatenate([jnp.zeros_like(terminated[:1]), terminated[:-1]])
    return lambda_return(reward, late, valid, value, **options)


def limit_as_end(reward, terminated, valid, value, **options):
    """Whatever ends an episode is a termination: JaxMARL's SMAX says so to every learner."""
    return lambda_return(reward, ~valid[1:], valid, value, **options)


def cases(defect):
    return [
        ("pqn_vdn", lambda_return),
        ("vdn", lambda_return),
        pytest.param("pqn_vdn", defect, marks=TWIN),
    ]


@pytest.mark.parametrize(("name", "returns"), cases(one_step_late))
def test_two_phases_are_worth_1_9_and_1(name, returns, monkeypatch):
    monkeypatch.setattr(value, "lambda_return", returns)
    q, steps = train(name, "probe_two_phase", updates=60)
    known = jnp.array([1.9, 1.0])[steps.obs.own[:, :, 0, :2].argmax(-1)]
    np.testing.assert_allclose(q[steps.valid], known[steps.valid], atol=0.05)


@pytest.mark.parametrize(("name", "returns"), cases(limit_as_end))
def test_a_time_limit_takes_nothing_from_the_value(name, returns, monkeypatch):
    monkeypatch.setattr(value, "lambda_return", returns)
    q, steps = train(name, "probe_two_phase_truncated", updates=150)
    np.testing.assert_allclose(q[steps.valid], 1 / (1 - GAMMA), rtol=0.05)


def test_a_beginning_is_worth_what_it_leads_to():
    """``probe_delayed`` pays three steps later, to those who began well; a corrected trace learns it off-policy."""
    q, steps = train("vdn", "probe_delayed", "system.returns=q_lambda", updates=100)
    at_start = steps.first & steps.valid
    np.testing.assert_allclose(q[at_start], GAMMA**3, atol=0.05)


def greedy_return(name, probe, *overrides, updates):
    words = [f"env={probe}", *SIZES, *KINDS[name], "eval.episodes=256", *overrides]
    rows = updates * 32 * 16
    config = jmarl.load_config(
        name, [*words, f"total_timesteps={rows}", f"eval.every={rows}"]
    )
    _, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    return float(metrics["eval"]["greedy"]["return"][-1].mean())


MEMORY = ("network.memory=gru", "network.memory_width=16")


@pytest.mark.parametrize("name", ["pqn_vdn", "vdn"])
def test_memory_carries_the_cue_past_a_death(name):
    """Without memory, or with one that a death resets, the return is at most 3/4."""
    slowly = ("system.explore_steps=20_000",)
    assert greedy_return(name, "probe_death", *MEMORY, *slowly, updates=120) > 0.9


def test_memory_solves_the_hidden_cue():
    """The best policy without memory gets 1/2."""
    assert (
        greedy_return(
            "pqn_vdn", "probe_cue", *MEMORY, "system.explore_steps=20_000", updates=120
        )
        > 0.9
    )


def test_agents_come_to_differ():
    """Alike ones, and those who draw, get 1/2."""
    assert greedy_return("pqn_vdn", "probe_xor", updates=60) == 1.0
