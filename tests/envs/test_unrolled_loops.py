"""On an accelerator short loops are unrolled, which changes no transition."""

import jax
import numpy as np
import pytest

from jmarl import envs
from jmarl.envs.conformance import random_action
from jmarl.platforms import short_loop, tracing_for


def play(name):
    """Return the observations and rewards of some steps of four environments."""
    env = envs.make(name)
    state, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 4)
    step, seen = jax.jit(env.step), []
    act = jax.jit(random_action, static_argnums=2)
    for i in range(25):
        key = jax.random.key(i)
        state, timestep = step(key, state, act(key, timestep, env.spec))
        seen.append((timestep.obs.own, timestep.obs.rows, timestep.reward))
    return seen


@pytest.mark.parametrize("name", ["smax_3m", "smac_2m_vs_1z"])
def test_transitions_are_those_of_loops(name):
    assert not short_loop()
    looped = play(name)
    with tracing_for("gpu"):
        assert short_loop()
        unrolled = play(name)
    for a, b in zip(jax.tree.leaves(looped), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert np.std([reward for *_, reward in looped]) > 0
