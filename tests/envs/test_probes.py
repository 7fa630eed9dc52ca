"""Returns of played episodes equal the values that the docstrings of the probes state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.config import ConfigError
from jmarl.envs import make


GAMMA = 0.9


def play(env, policy, steps, batch=16, key=0):
    """Return time steps (row 0 is the reset) and actions of ``policy(t, timestep) -> [B, N]``."""
    state, timestep = env.reset(jax.random.key(key), batch)
    step, rows, actions = jax.jit(env.step), [timestep], []
    for t in range(steps):
        actions.append(policy(t, timestep))
        state, timestep = step(jax.random.key(t), state, actions[-1])
        rows.append(timestep)
    return jax.tree.map(lambda *x: np.stack(x), *rows), np.stack(actions)


def returns(rows, bootstrap=0.0):
    """Return the discounted sum of rewards from each row to the last."""
    value = np.full(rows.reward.shape[1:], bootstrap)
    out = []
    for t in reversed(range(len(rows.reward) - 1)):
        value = rows.reward[t + 1] + GAMMA * np.where(
            rows.terminated[t + 1][:, None], 0.0, value
        )
        out.insert(0, value)
    return np.stack(out)


def constant_action(action, n_agents=2):
    return lambda t, timestep: jnp.full((timestep.first.shape[0], n_agents), action)


def test_two_phase_values_are_1_9_and_1():
    rows, _ = play(make("probe_two_phase"), constant_action(0), 2)
    np.testing.assert_allclose(returns(rows)[:, 0, 0], [1.9, 1.0])
    assert rows.terminated[2].all()


def test_two_phase_truncated_has_value_ten():
    rows, _ = play(make("probe_two_phase_truncated"), constant_action(0), 2)
    np.testing.assert_allclose(returns(rows, bootstrap=10.0), 10.0)
    assert rows.truncated[2].all() and not rows.terminated.any()
    np.testing.assert_array_equal(rows.obs.own[2], rows.obs.own[0])


def test_observation_pays_the_observed_sign():
    rows, _ = play(make("probe_observation"), constant_action(0), 1)
    np.testing.assert_array_equal(rows.reward[1], rows.obs.own[0, ..., -1])
    assert set(np.unique(rows.reward[1])) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("name", "actions", "reward"),
    [
        ("probe_constant", (0, 1), (1, 1)),
        ("probe_bandit", (2, 1), (1, 0)),
        ("probe_xor", (0, 0), (0, 0)),
        ("probe_xor", (1, 0), (1, 1)),
        ("probe_xor_hidden", (1, 1), (0, 0)),
        ("probe_xor_hidden", (0, 1), (1, 1)),
        ("probe_matrix", (0, 0), (8, 8)),
        ("probe_matrix", (0, 1), (-12, -12)),
        ("probe_matrix", (2, 1), (0, 0)),
    ],
)
def test_one_step_rewards(name, actions, reward):
    rows, _ = play(
        make(name), lambda t, timestep: jnp.tile(jnp.asarray(actions), (16, 1)), 1
    )
    np.testing.assert_array_equal(rows.reward[1], np.tile(reward, (16, 1)))
    assert rows.terminated[1].all()


def test_target_costs_the_squared_distance():
    env = make("probe_target", width=2)
    rows, _ = play(
        env, lambda t, timestep: timestep.obs.own + jnp.asarray([0.1, -0.2]), 1
    )
    np.testing.assert_allclose(rows.reward[1], -0.05, rtol=1e-4)
    assert not env.spec.discrete and np.abs(rows.obs.own).max() <= 1


def test_delayed_pays_the_first_action_at_the_end():
    rows, actions = play(
        make("probe_delayed"),
        lambda t, ts: jax.random.randint(jax.random.key(t), (16, 2), 0, 2),
        4,
    )
    np.testing.assert_allclose(returns(rows)[0], GAMMA**3 * actions[0])
    np.testing.assert_array_equal(rows.obs.own[1, ..., -1], actions[0])


def reporting_policy(resets):
    """Build a policy that reports the sign; ``first`` or ``resets(timestep)`` reset its memory."""
    memory = [jnp.zeros((16, 2))]

    def policy(t, timestep):
        kept = jnp.where(timestep.first[:, None] | resets(timestep), 0.0, memory[0])
        memory[0] = kept + timestep.obs.own[..., -1]
        return jnp.where(memory[0] < 0, 1, 2)

    return policy


@pytest.mark.parametrize(("name", "length"), [("probe_cue", 4), ("probe_death", 5)])
def test_memory_reports_the_cue(name, length):
    rows, _ = play(
        make(name),
        reporting_policy(lambda timestep: jnp.zeros((16, 2), bool)),
        2 * length + 1,
    )
    np.testing.assert_array_equal(rows.reward[[length, 2 * length + 1]], 1.0)
    assert rows.terminated[length].all() and not rows.obs.joined.any()


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="memory reset by a unit's death (JaxMARL's recurrent baselines)",
)
def test_memory_reset_by_death_reports_the_cue():
    rows, _ = play(
        make("probe_death"), reporting_policy(lambda timestep: ~timestep.obs.alive), 5
    )
    np.testing.assert_array_equal(rows.reward[5], 1.0)


def test_dead_agents_have_only_the_no_op():
    rows, _ = play(make("probe_death"), constant_action(0), 5)
    dead = ~rows.obs.alive
    assert dead[1:4, :, 1].all() and not dead[:, :, 0].any() and not dead[[0, 4]].any()
    np.testing.assert_array_equal(
        rows.obs.avail[dead], np.tile([True, False, False], (dead.sum(), 1))
    )


@pytest.mark.parametrize(
    ("name", "option", "rule"),
    [
        ("probe_bandit", dict(n_agents=0), "must be at least 1"),
        ("probe_bandit", dict(n_actions="3"), "expected int"),
        ("probe_constant", dict(reward="much"), "expected float"),
        (
            "probe_cue",
            dict(lenght=3),
            r"unknown option; did you mean length\?",
        ),
        (
            "probe_matrix",
            dict(payoff=[[1, 2]]),
            "must be a square table of at least one row",
        ),
    ],
)
def test_wrong_options_raise(name, option, rule):
    with pytest.raises(ConfigError, match=f"^env.{next(iter(option))}=.*: {rule}$"):
        make(name, **option)


def test_payoff_may_be_a_list():
    """YAML configurations have no tuples."""
    assert make("probe_matrix", payoff=[[1, 0], [0, 1]]).spec.n_actions == 2
