"""Operations of matrix products in traced programs, against values counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from jmarl.forecast.flops import Product, matmul_flops, products
from jmarl.nn.linear import product


A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
ONE = 2 * 3 * 4 * 5


def looped(a, b):
    return jax.lax.scan(lambda c, _: (c + a @ b, None), jnp.zeros((3, 5)), length=7)[0]


def branched(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: (a @ b) + (a @ b + 1))


def scoped(a, b):
    with jax.named_scope("rollout"):
        inside = looped(a, b)
    return inside + a @ b


def while_loop(a, b):
    def step(x):
        return x + unused(a, b)[0]

    return jax.lax.while_loop(lambda x: x.sum() < 0, step, jnp.zeros((3, 5)))


def unused(a, b):
    """Compute ``a @ b`` once, and 7 times without a use."""
    _, seven = jax.lax.scan(lambda c, _: (c, a @ b), 0, length=7)
    return a @ b, seven.shape[0]


@pytest.mark.parametrize(
    ("program", "count"),
    [
        (jnp.matmul, 1),
        (unused, 1),
        (while_loop, 1),
        (looped, 7),
        (jax.jit(looped), 7),
        (branched, 2),
        (jax.grad(lambda a, b: (a @ b).sum(), (0, 1)), 2),
        (jax.value_and_grad(lambda a, b: product(a, b).sum(), 1), 2),
        (scoped, 8),
    ],
)
def test_products_count_as_often_as_they_run(program, count):
    assert matmul_flops(jax.make_jaxpr(program)(A, B)) == count * ONE


def test_a_scope_selects_products_in_inner_programs():
    assert matmul_flops(jax.make_jaxpr(scoped)(A, B), "rollout") == 7 * ONE
    batch = jax.make_jaxpr(jax.vmap(scoped))(A[None], B[None])
    assert matmul_flops(batch, "rollout") == 7 * ONE
    assert matmul_flops(batch, "roll") == 0


def test_products_have_shapes_and_counts():
    def program(a, b):
        return looped(a, b), jnp.einsum("nij,njk->nik", a[None], b[None]), b.T @ b

    found = products(jax.make_jaxpr(program)(A, B))
    assert found == {
        Product(1, 3, 4, 5): 7 + 1,
        Product(1, 5, 4, 5): 1,
    }


def test_a_batch_of_products_counts_each():
    jaxpr = jax.make_jaxpr(jax.vmap(jnp.matmul))(
        A[None].repeat(6, 0), B[None].repeat(6, 0)
    )
    assert matmul_flops(jaxpr) == 6 * ONE


def test_a_program_of_each_device_counts_on_all_devices():
    mesh = jax.sharding.AbstractMesh((4,), ("env",))
    rows, whole = jax.P("env"), jax.P()
    split = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    jaxpr = jax.make_jaxpr(split)(jnp.ones((12, 4)), B)
    assert matmul_flops(jaxpr) == 4 * ONE


def test_a_product_with_its_own_gradient_counts_once():
    jaxpr = jax.make_jaxpr(product)(A, B)
    assert matmul_flops(jaxpr) == ONE
