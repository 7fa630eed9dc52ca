"""Flat vectors: a fixed order, masked rows silent, the agent's one-hot on request."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.networks.flatten import empty_obs, flatten, flatten_state
from jmarl.types import Group, Spec


GROUPS = (Group("enemies", 2, 3, 2, 4), Group("allies", 1, 2, 2, 3))
SPEC = Spec(2, 3, 4, GROUPS, global_width=5, episode_limit=7, action_target=(-1, 0, 1))


def filled(*batch):
    """Every number different, every row visible."""
    obs = empty_obs(SPEC, *batch)
    leaves, tree = jax.tree.flatten(obs)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    floats = [
        leaf | True if leaf.dtype == bool else jnp.arange(a, a + leaf.size, dtype=leaf.dtype).reshape(leaf.shape)
        for leaf, a in zip(leaves, ends, strict=False)
    ]
    return jax.tree.unflatten(tree, floats)


def test_own_then_groups_in_the_order_of_the_spec():
    obs = filled()
    flat = flatten(obs, SPEC)
    assert flat.shape == (2, 4 + 2 * 3 + 1 * 2)
    np.testing.assert_array_equal(
        flat[1], jnp.concatenate([obs.own[1], obs.rows[0][1].ravel(), obs.rows[1][1].ravel()])
    )
    state = flatten_state(obs.state)
    parts = [obs.state.features, obs.state.rows[0].ravel(), obs.state.rows[1].ravel()]
    np.testing.assert_array_equal(state, jnp.concatenate(parts))


def test_a_batch_is_flattened_row_by_row():
    obs = filled(4, 3)
    assert flatten(obs, SPEC).shape == (4, 3, 2, 12)
    one = jax.tree.map(lambda x: x[2, 1], obs)
    np.testing.assert_array_equal(flatten(obs, SPEC)[2, 1], flatten(one, SPEC))
    np.testing.assert_array_equal(flatten_state(obs.state)[2, 1], flatten_state(one.state))


def test_what_a_masked_row_holds_changes_nothing():
    obs = filled()
    hidden = obs.replace(mask=(obs.mask[0].at[0, 1].set(False), obs.mask[1]))
    other = hidden.replace(rows=(hidden.rows[0].at[0, 1].set(jnp.nan), hidden.rows[1]))
    np.testing.assert_array_equal(flatten(hidden, SPEC), flatten(other, SPEC))
    assert (flatten(hidden, SPEC)[0, 7:10] == 0).all()


def test_the_one_hot_tells_agents_apart():
    flat = flatten(filled(), SPEC, agent_id=True)
    np.testing.assert_array_equal(flat[:, -2:], jnp.eye(2))
