"""The time axis of acting is added to every leaf, and removed again."""

import jax
import jax.numpy as jnp

from jmarl.networks.flatten import empty_obs
from jmarl.networks.rows import add_time_axis, drop_time_axis
from jmarl.types import Group, Spec


SPEC = Spec(
    n_agents=2,
    n_actions=3,
    own_width=4,
    groups=(Group("enemies", 2, 5, 2, 6),),
    global_width=1,
    episode_limit=10,
    action_target=(-1, 0, 1),
)


def shapes(tree):
    return [x.shape for x in jax.tree.leaves(tree)]


def test_every_leaf_gets_a_time_axis_of_length_one():
    row = empty_obs(SPEC, 7), jnp.zeros(7, bool)
    assert shapes(add_time_axis(row)) == shapes(
        (empty_obs(SPEC, 1, 7), jnp.zeros((1, 7)))
    )


def test_dropping_the_axis_restores_the_tree():
    row = {
        "action": jnp.arange(6).reshape(2, 3),
        "first": jnp.array([True, False]),
        "carry": (),
    }
    again = drop_time_axis(add_time_axis(row))
    assert jax.tree.structure(again) == jax.tree.structure(row)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: (x == y).all(), again, row)))


def test_the_first_time_step_of_a_longer_rollout_is_kept():
    assert drop_time_axis(jnp.array([[1, 2], [3, 4]])).tolist() == [1, 2]
