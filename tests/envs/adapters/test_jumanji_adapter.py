"""Foraging and the warehouse: sizes from names, the team's reward, and how an episode ends."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.config import ConfigError


def play(env, action, steps, batch=2):
    """``steps`` time steps of the same action for all."""

    @jax.jit
    def run(key):
        state, _ = env.reset(key, batch)
        actions = jnp.broadcast_to(
            jnp.asarray(action, jnp.int32), (batch, env.spec.n_agents)
        )
        step = lambda state, key: env.step(key, state, actions)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    return run(jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "agents", "actions", "width"),
    [
        ("lbf_2s-10x10-3p-3f", 3, 6, 18),
        ("lbf_15x15-4p-5f", 4, 6, 27),
        ("rware_tiny-4ag", 4, 5, 66),
    ],
)
def test_sizes_are_those_of_the_name(name, agents, actions, width):
    spec = envs.make(name).spec
    assert (spec.n_agents, spec.n_actions, spec.own_width) == (agents, actions, width)
    assert spec.episode_limit == (100 if name.startswith("lbf") else 500)


@pytest.mark.parametrize("name", ["lbf_8x8-2p-2f-coop", "rware_tiny-2ag"])
def test_a_time_limit_is_no_termination(name):
    steps = play(envs.make(name, episode_limit=3), 0, 4)
    np.testing.assert_array_equal(steps.truncated[:, 0], [False, False, True, False])
    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.first[:, 0], [False, False, False, True])


def test_robots_that_collide_end_the_episode():
    """All walk ahead until two meet, which some of many teams do."""
    steps = play(envs.make("rware_tiny-4ag", episode_limit=20), 1, 20, batch=64)
    assert steps.terminated.any()
    assert not (steps.terminated & steps.truncated).any()
    assert not steps.terminated.all(0).any()


def test_a_foraging_team_shares_its_reward():
    """Players who always load, next to food by chance: individual rewards differ, and the team's is their sum."""
    name = "lbf_5x5-2p-1f"
    apart = play(envs.make(name, individual_rewards=True), 5, 2, batch=256)
    team = play(envs.make(name), 5, 2, batch=256)
    assert (apart.reward > 0).any()
    np.testing.assert_allclose(
        team.reward, apart.reward.sum(-1, keepdims=True).repeat(2, -1), atol=1e-6
    )
    won = apart.reward.sum((0, 2))
    np.testing.assert_allclose(won[won > 0], 1.0, atol=1e-6)
    assert team.terminated[team.reward[..., 0] > 0].all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lbf_8x9-2p-2f", "env='lbf_8x9-2p-2f': must have a square grid"),
        ("lbf_5x5-2p-40f", "env=lbf_5x5-2p-40f: "),
        ("lbf_4x4-2p-1f", "env=lbf_4x4-2p-1f: "),
    ],
)
def test_an_impossible_size_is_one_line(name, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        envs.make(name)
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jumanji", None)
    monkeypatch.delitem(
        sys.modules, "jumanji.environments.routing.lbf.env", raising=False
    )
    for module in [m for m in sys.modules if m.startswith("jumanji.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigError, match=r"pip install 'jmarl\[envs\]'"):
        envs.make("lbf_8x8-2p-2f")
