"""The optimizer against the same chain of Optax on the tree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmarl.config.compose import load_config
from jmarl.learning import optimizers
from jmarl.platforms import tracing_for


PARAMS = {
    "dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)},
    "scale": jnp.ones(2),
}


def reference(cfg, steps):
    """Return the chain of Optax, with one moment for each parameter."""
    schedule = optax.linear_schedule(cfg.lr, 0.0, steps)
    adam = optax.adamw(schedule, eps=cfg.adam_eps, weight_decay=cfg.weight_decay)
    return optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(cfg.max_grad_norm), adam), 100
    )


def trajectory(tx, gradients):
    """Return the parameters after each gradient."""
    params, state, found = PARAMS, tx.init(PARAMS), []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found, state


@pytest.fixture(scope="module")
def cfg():
    overrides = ["system.epochs=1", "system.minibatches=1", "system.weight_decay=0.1"]
    return load_config("ippo", overrides).system


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_steps_are_those_of_optax_on_the_tree(cfg, platform, bad):
    """Small and large gradients, and one that is not finite or whose norm overflows."""
    rng = np.random.default_rng(0)
    scales = (0.01, 10.0, 1.0, bad, 1.0)
    gradients = [
        jax.tree.map(lambda x: scale * jnp.asarray(rng.normal(size=x.shape)), PARAMS)
        for scale in scales
    ]
    with tracing_for(platform):
        found, state = trajectory(optimizers.optimizer(cfg, 5), gradients)
    expected, _ = trajectory(reference(cfg, 5), gradients)
    for got, want in zip(found, expected, strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8),
            got,
            want,
        )
    assert optimizers.skipped_steps(state) == (not np.isfinite(bad))


def test_the_moments_are_one_vector_each(cfg):
    state = optimizers.optimizer(cfg, 5).init(PARAMS)
    shapes = {x.shape for x in jax.tree.leaves(state)}
    assert shapes == {(), (3 * 4 + 4 + 2,)}


def test_the_norm_is_that_of_all_leaves():
    with tracing_for("gpu"):
        joint = optimizers.global_norm(PARAMS)
    assert joint == pytest.approx(np.sqrt(3 * 4 + 2))
    assert optimizers.global_norm(PARAMS) == pytest.approx(np.sqrt(3 * 4 + 2))
