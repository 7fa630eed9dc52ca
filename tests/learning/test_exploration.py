"""Epsilon-greedy: available actions only, greedy at 0, uniform at 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.learning.exploration import epsilon_greedy, greedy, linear_decay


ROWS = 6000
Q = jnp.array([3.0, -1.0, 9.0, 2.0])
AVAIL = jnp.array([True, True, False, True])


def action_frequencies(epsilon):
    q = jnp.broadcast_to(Q, (ROWS, 4))
    avail = jnp.broadcast_to(AVAIL, (ROWS, 4))
    actions = epsilon_greedy(jax.random.key(0), q, avail, jnp.float32(epsilon))
    return np.bincount(actions, minlength=4) / ROWS


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_action_frequencies_match_epsilon_and_exclude_unavailable_actions(epsilon):
    frequencies = action_frequencies(epsilon)
    assert frequencies[2] == 0
    np.testing.assert_allclose(
        frequencies,
        [1 - epsilon * 2 / 3, epsilon / 3, 0, epsilon / 3],
        atol=0.03 * (epsilon > 0),
    )


@pytest.mark.parametrize("q", [Q, -Q, jnp.full(4, jnp.finfo(jnp.float32).min)])
def test_greedy_takes_only_available_actions(q):
    """Even if their values are very low."""
    assert bool(AVAIL[greedy(q, AVAIL)])


def test_agents_draw_independently():
    action = epsilon_greedy(
        jax.random.key(0),
        jnp.zeros((64, 8, 5)),
        jnp.ones((64, 8, 5), bool),
        jnp.ones(()),
    )
    assert (action != action[:, :1]).any()
    assert (action != action[:1]).any()


def test_linear_decay_falls_and_stays_constant():
    rate = linear_decay(1.0, 0.1, 100)
    np.testing.assert_allclose(
        [rate(jnp.float32(n)) for n in (0, 50, 100, 1e9, jnp.inf)],
        [1, 0.55, 0.1, 0.1, 0.1],
        rtol=1e-6,
    )
