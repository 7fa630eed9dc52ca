"""Optimizer chains, the gradient step, and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jmarl.types import Metrics, Params


MAX_SKIPS = 20
"""Consecutive updates without a finite gradient that are skipped before one is applied."""


def optimizer(
    lr: float,
    max_grad_norm: float,
    *,
    anneal: bool,
    steps_per_update: int,
    num_updates: int,
) -> optax.GradientTransformation:
    """Build Adam with clipping by global norm that skips non-finite gradients.

    Adam has ``eps = 1e-5``. With ``anneal`` the learning rate falls linearly to zero. It is
    constant within a learning phase.

    Args:
        lr: Learning rate, or its initial value.
        max_grad_norm: Largest global norm of a gradient.
        anneal: True for a learning rate that falls to zero.
        steps_per_update: Gradient steps of a learning phase.
        num_updates: Learning phases of the run.

    Returns:
        Gradient transformation.
    """

    def schedule(count):
        return lr * jnp.maximum(0.0, 1.0 - (count // steps_per_update) / num_updates)

    adam = optax.adam(schedule if anneal else lr, eps=1e-5)
    clipped_adam = optax.chain(optax.clip_by_global_norm(max_grad_norm), adam)
    return optax.apply_if_finite(clipped_adam, MAX_SKIPS * steps_per_update)


def by_part(
    tx: optax.GradientTransformation, parts: Sequence[str]
) -> optax.GradientTransformation:
    """Apply a transformation separately to each top-level entry of the parameters.

    Args:
        tx: Gradient transformation.
        parts: All top-level keys of the parameters.

    Returns:
        Transformation with one state of ``tx`` per part, so that parts are clipped separately.
    """
    return optax.multi_transform(
        {part: tx for part in parts}, {part: part for part in parts}
    )


def apply_gradients(
    tx: optax.GradientTransformation,
    params: Params,
    opt_state: optax.OptState,
    loss_aux_grads: tuple[Float[Array, ""], tuple[Metrics, Metrics], Params],
) -> tuple[Params, optax.OptState, Metrics]:
    """Take one gradient step.

    Args:
        tx: Gradient transformation.
        params: Parameters.
        opt_state: State of ``tx``.
        loss_aux_grads: Result of a function built by ``parallel.gradient``: the loss, auxiliary
            metrics ``(sums, maxima)`` with one number per device, and the gradients.

    Returns:
        New parameters, new optimizer state, and scalar metrics. Metrics are the sums and maxima
        over devices, ``loss``, and ``grad_norm`` before clipping.
    """
    loss, (sums, maxima), grads = loss_aux_grads
    metrics = jax.tree.map(jnp.sum, sums) | jax.tree.map(jnp.max, maxima)
    metrics |= {"loss": loss, "grad_norm": optax.global_norm(grads)}
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, metrics


def skipped_steps(opt_state: optax.OptState) -> Int[Array, ""]:
    """Return the gradient steps skipped so far because a gradient was not finite.

    Args:
        opt_state: State of a chain built by ``optimizer`` or ``by_part``.

    Returns:
        Number of skipped steps, summed over all parts.
    """

    def is_skip_state(node: Any) -> bool:
        return isinstance(node, optax.ApplyIfFiniteState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_skip_state)
    skipped = [node.total_notfinite for node in nodes if is_skip_state(node)]
    return sum(skipped, start=jnp.zeros((), jnp.int32))


def keep_schedules(fresh: optax.OptState, old: optax.OptState) -> optax.OptState:
    """Return a new optimizer state with the learning-rate schedules of an old one.

    Moments, the step count of the bias correction, and the number of skipped steps are those
    of ``fresh``.

    Args:
        fresh: State right after initialization.
        old: State of the same transformation, in which schedules have progressed.

    Returns:
        The state ``fresh`` in which schedules continue from ``old``.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def merge(new: Any, previous: Any) -> Any:
        return previous if is_schedule(previous) else new

    return jax.tree.map(merge, fresh, old, is_leaf=is_schedule)
