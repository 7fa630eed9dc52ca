"""Flat vectors: a fixed order, masked rows silent, the agent's one-hot on request."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.networks.flatten import empty_obs, flatten, state_parts
from jmarl.types import Group, Spec


GROUPS = (Group("enemies", 2, 3, 2, 4), Group("allies", 1, 2, 2, 3))
SPEC = Spec(2, 3, 4, GROUPS, global_width=5, episode_limit=7, action_target=(-1, 0, 1))


def filled(*batch):
    """Every number different, every row visible."""
    obs = empty_obs(SPEC, *batch)
    leaves, tree = jax.tree.flatten(obs)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    floats = [
        leaf | True
        if leaf.dtype == bool
        else jnp.arange(a, a + leaf.size, dtype=leaf.dtype).reshape(leaf.shape)
        for leaf, a in zip(leaves, ends, strict=False)
    ]
    return jax.tree.unflatten(tree, floats)


def test_own_then_groups_in_the_order_of_the_spec():
    obs = filled()
    flat = flatten(obs, SPEC)
    assert flat.shape == (2, 4 + 2 * 3 + 1 * 2)
    np.testing.assert_array_equal(
        flat[1],
        jnp.concatenate([obs.own[1], obs.rows[0][1].ravel(), obs.rows[1][1].ravel()]),
    )
    state = jnp.concatenate(state_parts(obs.state), axis=-1)
    parts = [obs.state.features, obs.state.rows[0].ravel(), obs.state.rows[1].ravel()]
    np.testing.assert_array_equal(state, jnp.concatenate(parts))


def test_a_batch_is_flattened_row_by_row():
    obs = filled(4, 3)
    assert flatten(obs, SPEC).shape == (4, 3, 2, 12)
    one = jax.tree.map(lambda x: x[2, 1], obs)
    np.testing.assert_array_equal(flatten(obs, SPEC)[2, 1], flatten(one, SPEC))
    for part, alone in zip(state_parts(obs.state), state_parts(one.state), strict=True):
        np.testing.assert_array_equal(part[2, 1], alone)


def flatten_all(obs, spec):
    """The defect: every row goes in, padding too."""
    return jnp.concatenate(
        [obs.own, *(rows.reshape(*rows.shape[:-2], -1) for rows in obs.rows)], axis=-1
    )


UNMASKED = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: the mask is not read"
)


@pytest.mark.parametrize(
    "flatten", [flatten, pytest.param(flatten_all, marks=UNMASKED)]
)
def test_what_a_masked_row_holds_changes_nothing(flatten):
    obs = filled()
    hidden = obs.replace(mask=(obs.mask[0].at[0, 1].set(False), obs.mask[1]))
    other = hidden.replace(rows=(hidden.rows[0].at[0, 1].set(jnp.nan), hidden.rows[1]))
    np.testing.assert_array_equal(flatten(hidden, SPEC), flatten(other, SPEC))
    assert (flatten(hidden, SPEC)[0, 7:10] == 0).all()


def test_the_one_hot_tells_agents_apart():
    flat = flatten(filled(), SPEC, agent_id=True)
    np.testing.assert_array_equal(flat[:, -2:], jnp.eye(2))


def test_the_kind_of_an_action_is_its_rank_among_those_of_its_target():
    """Two of its own, two things to do to slot 0 (attack and heal, say), one to slot 1."""
    spec = SPEC._replace(n_actions=6, action_target=(-1, 0, 0, -1, 1, -1))
    assert spec.action_kind == (0, 0, 1, 1, 0, 2)
