"""Paths and shapes of leaves."""

import jax
import jax.numpy as jnp

from jmarl.learning.trees import leaf_paths, leaf_shapes, raw_shapes


def tree():
    return {
        "params": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4, jnp.bfloat16)},
        "flags": (jnp.array([True]), jnp.uint32(7)),
        "key": jax.random.split(jax.random.key(0), 3),
    }


def test_paths_are_joined_by_slashes():
    expected = ["flags/0", "flags/1", "key", "params/bias", "params/kernel"]
    assert leaf_paths(tree()) == expected


def test_shapes_are_text_with_dtype():
    assert leaf_shapes(tree()) == {
        "flags/0": "bool[1]",
        "flags/1": "uint32[]",
        "key": "uint32[3,2]",
        "params/bias": "bfloat16[4]",
        "params/kernel": "float32[3,4]",
    }


def test_abstract_leaves_have_the_same_shapes():
    assert raw_shapes(jax.eval_shape(tree)) == raw_shapes(tree())
