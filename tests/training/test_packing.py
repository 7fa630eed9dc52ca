"""Packed rows of a rollout are the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.platforms import tracing_for
from jmarl.training.packing import Packed, pack, unpack


def row(seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    return {
        "rows": (
            jnp.round(9 * jax.random.normal(keys[0], (6, 2, 3))),
            jnp.zeros((6, 0)),
        ),
        "count": jax.random.randint(keys[1], (6,), 0, 9),
        "ended": jax.random.bernoulli(keys[2], shape=(6,)),
        "reward": jax.random.uniform(keys[3], (6, 2)),
        "nothing": None,
    }


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_loop_over_packed_rows_returns_the_rows(target):
    with tracing_for(target):

        def store(carry, seed):
            new = row(seed)
            return pack(new), pack((new, unpack(carry)))

        last, stored = jax.lax.scan(store, pack(row(7)), jnp.arange(3))
        assert isinstance(stored, Packed) == (target == "gpu")
        rows, before = unpack(stored)
        last = unpack(last)
    assert rows["nothing"] is None
    for i in range(3):
        assert_equal(jax.tree.map(lambda x, i=i: x[i], rows), row(i))
        previous = row(i - 1) if i else row(7)
        assert_equal(jax.tree.map(lambda x, i=i: x[i], before), previous)
    assert_equal(last, row(2))


def test_a_row_has_one_array_for_each_dtype():
    with tracing_for("gpu"):
        packed = pack(row(0))
    assert sorted(str(x.dtype) for x in packed.arrays.values()) == [
        "bool",
        "float32",
        "int32",
    ]


def assert_equal(tree, other):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
