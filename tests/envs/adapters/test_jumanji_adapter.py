"""Foraging and warehouse: sizes from names, team rewards, and ends of episodes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.config import ConfigError


def play(env, action, steps, batch=2):
    """Return ``steps`` time steps in which every agent takes the same action."""

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
        ("jumanji_lbf_2s-10x10-3p-3f", 3, 6, 18),
        ("jumanji_lbf_15x15-4p-5f", 4, 6, 27),
        ("jumanji_rware_tiny-4ag", 4, 5, 66),
    ],
)
def test_name_determines_the_sizes(name, agents, actions, width):
    spec = envs.make(name).spec
    assert (spec.n_agents, spec.n_actions, spec.own_width) == (agents, actions, width)
    assert spec.episode_limit == (100 if name.startswith("jumanji_lbf") else 500)


@pytest.mark.parametrize("name", ["jumanji_lbf_8x8-2p-2f-coop", "rware_tiny-2ag"])
def test_time_limit_is_truncation(name):
    steps = play(envs.make(name, episode_limit=3), 0, 4)
    np.testing.assert_array_equal(steps.truncated[:, 0], [False, False, True, False])
    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.first[:, 0], [False, False, False, True])


def test_collision_of_robots_terminates():
    """All robots walk forward; in some of the environments two collide."""
    steps = play(envs.make("jumanji_rware_tiny-4ag", episode_limit=20), 1, 20, batch=64)
    assert steps.terminated.any()
    assert not (steps.terminated & steps.truncated).any()
    assert not steps.terminated.all(0).any()


def test_foraging_team_shares_its_reward():
    """The team reward is the sum of the individual rewards, for players that always load."""
    name = "jumanji_lbf_5x5-2p-1f"
    individual = play(envs.make(name, individual_rewards=True), 5, 2, batch=256)
    team = play(envs.make(name), 5, 2, batch=256)
    assert (individual.reward > 0).any()
    np.testing.assert_allclose(
        team.reward, individual.reward.sum(-1, keepdims=True).repeat(2, -1), atol=1e-6
    )
    won = individual.reward.sum((0, 2))
    np.testing.assert_allclose(won[won > 0], 1.0, atol=1e-6)
    assert team.terminated[team.reward[..., 0] > 0].all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "jumanji_lbf_8x9-2p-2f",
            "env='jumanji_lbf_8x9-2p-2f': must have a square grid",
        ),
        ("jumanji_lbf_5x5-2p-40f", "env=jumanji_lbf_5x5-2p-40f: "),
        ("jumanji_lbf_4x4-2p-1f", "env=jumanji_lbf_4x4-2p-1f: "),
    ],
)
def test_unsupported_size_raises_one_line(name, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        envs.make(name)
    assert "\n" not in str(error.value)


def test_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jumanji", None)
    monkeypatch.delitem(
        sys.modules, "jumanji.environments.routing.lbf.env", raising=False
    )
    for module in [m for m in sys.modules if m.startswith("jumanji.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigError, match=r"pip install 'jmarl\[envs\]'"):
        envs.make("jumanji_lbf_8x8-2p-2f")
