"""Flat vectors: a fixed order, no effect of masked rows, an optional one-hot of the agent."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.networks.flatten import empty_obs, flatten, state_parts
from jmarl.types import Group, Spec


GROUPS = (Group("enemies", 2, 3, 2, 4), Group("allies", 1, 2, 2, 3))
SPEC = Spec(2, 3, 4, GROUPS, global_width=5, episode_limit=7, action_target=(-1, 0, 1))


def filled(*batch):
    """Build observations in which every number is different and every row is visible."""
    counter = itertools.count()

    def fill(x):
        if x.dtype == bool:
            return jnp.ones_like(x)
        numbers = [next(counter) for _ in range(x.size)]
        return jnp.array(numbers, x.dtype).reshape(x.shape)

    return jax.tree.map(fill, empty_obs(SPEC, *batch))


def test_own_features_precede_groups_in_the_order_of_the_spec():
    obs = filled()
    flat = flatten(obs, SPEC)
    assert flat.shape == (2, 4 + 2 * 3 + 1 * 2)
    parts = [obs.own[1], obs.rows[0][1].ravel(), obs.rows[1][1].ravel()]
    np.testing.assert_array_equal(flat[1], jnp.concatenate(parts))
    state = jnp.concatenate(state_parts(obs.state), axis=-1)
    parts = [obs.state.features, obs.state.rows[0].ravel(), obs.state.rows[1].ravel()]
    np.testing.assert_array_equal(state, jnp.concatenate(parts))


def test_a_batch_is_flattened_elementwise():
    obs = filled(4, 3)
    assert flatten(obs, SPEC).shape == (4, 3, 2, 12)
    one = jax.tree.map(lambda x: x[2, 1], obs)
    np.testing.assert_array_equal(flatten(obs, SPEC)[2, 1], flatten(one, SPEC))
    for part, alone in zip(state_parts(obs.state), state_parts(one.state), strict=True):
        np.testing.assert_array_equal(part[2, 1], alone)


@pytest.mark.parametrize("i", [0, 1])
def test_one_agent_is_a_team_of_one(i):
    obs = filled(4, 3)
    alone = jax.jit(lambda obs, i: obs.agent(i))(obs, i)
    spec = SPEC._replace(n_agents=1)
    shapes = jax.tree.map(jnp.shape, alone)
    assert shapes == jax.tree.map(jnp.shape, empty_obs(spec, 4, 3))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, alone.state, obs.state))
    whole, one = (x.replace(state=()) for x in (obs, alone))
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(x[:, :, i], y[:, :, 0])
    teams = obs.split_agents()
    assert teams.state is obs.state
    split = jax.tree.leaves(teams.replace(state=()))
    for x, y in zip(split, jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(x[i], y)


def flatten_all(obs, spec):
    """Flatten every row, including padding: a defect."""
    rows = [x.reshape(*x.shape[:-2], -1) for x in obs.rows]
    return jnp.concatenate([obs.own, *rows], axis=-1)


UNMASKED = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: the mask is not read"
)


@pytest.mark.parametrize(
    "flatten", [flatten, pytest.param(flatten_all, marks=UNMASKED)]
)
def test_content_of_masked_rows_changes_nothing(flatten):
    obs = filled()
    hidden = obs.replace(mask=(obs.mask[0].at[0, 1].set(False), obs.mask[1]))
    other = hidden.replace(rows=(hidden.rows[0].at[0, 1].set(jnp.nan), hidden.rows[1]))
    np.testing.assert_array_equal(flatten(hidden, SPEC), flatten(other, SPEC))
    assert (flatten(hidden, SPEC)[0, 7:10] == 0).all()


def test_one_hot_identifies_agents():
    flat = flatten(filled(), SPEC, agent_id=True)
    np.testing.assert_array_equal(flat[:, -2:], jnp.eye(2))


def test_kind_of_an_action_is_its_rank_among_actions_with_the_same_target():
    """Check two own actions, two on slot 0 (for example attack and heal) and one on slot 1."""
    spec = SPEC._replace(n_actions=6, action_target=(-1, 0, 0, -1, 1, -1))
    assert spec.action_kind == (0, 0, 1, 1, 0, 2)
