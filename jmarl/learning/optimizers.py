"""Optimizer chains, and what a run reports of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


MAX_SKIPS = 20
"""Gradients with a NaN or an infinity are skipped up to this many times in a row; then they are let through."""


def optimizer(
    lr: float,
    max_grad_norm: float,
    *,
    anneal: bool,
    steps_per_update: int,
    num_updates: int,
) -> optax.GradientTransformation:
    """Clip by global norm, then Adam with ``eps = 1e-5``; a gradient that is not finite is skipped.

    With ``anneal`` the learning rate falls linearly to zero over ``num_updates`` learning phases
    of ``steps_per_update`` gradient steps, in stairs: it is constant within a phase.
    """

    def schedule(count):
        return lr * jnp.maximum(0.0, 1.0 - (count // steps_per_update) / num_updates)

    adam = optax.adam(schedule if anneal else lr, eps=1e-5)
    return optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), adam), MAX_SKIPS
    )


def by_part(
    tx: optax.GradientTransformation, parts: Sequence[str]
) -> optax.GradientTransformation:
    """Give each top-level entry of the parameters its own state of ``tx``: clip norms do not couple them."""
    return optax.multi_transform(
        {part: tx for part in parts}, {part: part for part in parts}
    )


def skipped_steps(opt_state: Any) -> Int[Array, ""]:
    """Gradient steps skipped so far because a gradient was not finite, over all parts."""
    is_guard = lambda node: isinstance(node, optax.ApplyIfFiniteState)  # noqa: E731 - a predicate for tree.leaves
    guards = [
        leaf for leaf in jax.tree.leaves(opt_state, is_leaf=is_guard) if is_guard(leaf)
    ]
    return sum(
        (guard.total_notfinite for guard in guards), start=jnp.zeros((), jnp.int32)
    )


def keep_schedules(fresh: Any, old: Any) -> Any:
    """The state ``fresh``, in which schedules go on from where they are in ``old``.

    All else is as in ``fresh``: moments, the count that corrects their bias, and the gradients skipped.
    """
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731 - a predicate for tree.map
    return jax.tree.map(
        lambda new, was: was if is_schedule(was) else new,
        fresh,
        old,
        is_leaf=is_schedule,
    )
