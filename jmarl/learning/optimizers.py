"""Configuration of learning, optimizer chains, the gradient step, and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jmarl.config import SystemConfig, check_positive, check_range
from jmarl.learning.parallel import sum_shares
from jmarl.platforms import platform
from jmarl.types import Metrics, Params


MAX_SKIPS = 20
"""Consecutive updates without a finite gradient that are skipped before one is applied."""


@dataclasses.dataclass(frozen=True)
class LearningConfig(SystemConfig):
    """Configuration that systems with Adam and discounted rewards share."""

    lr: float
    anneal_lr: bool
    adam_eps: float
    weight_decay: float
    max_grad_norm: float
    gamma: float
    reward_scale: float

    def __post_init__(self) -> None:
        check_range("system.gamma", self.gamma, 0, 1)
        check_range("system.weight_decay", self.weight_decay, 0)
        for key in ("lr", "adam_eps", "max_grad_norm", "reward_scale"):
            check_positive(f"system.{key}", getattr(self, key))

    @property
    def anneals_lr(self) -> bool:
        """True if the learning rate depends on the length of the run."""
        return self.anneal_lr


def optimizer(cfg: LearningConfig, num_updates: int) -> optax.GradientTransformation:
    """Build AdamW with clipping by global norm that skips non-finite gradients.

    With ``anneal_lr`` the learning rate falls linearly to zero. It is constant within a learning
    phase of ``cfg.steps_per_update`` gradient steps. The moments of all parameters are one vector
    each, so that an accelerator updates them in a few kernels.

    Args:
        cfg: Configuration of the system.
        num_updates: Learning phases of the run.

    Returns:
        Gradient transformation.
    """
    steps = cfg.steps_per_update

    def schedule(count):
        share = (count // steps) / max(1, num_updates)
        return cfg.lr * jnp.maximum(0.0, 1.0 - share)

    lr = schedule if cfg.anneal_lr else cfg.lr
    adam = optax.adamw(lr, eps=cfg.adam_eps, weight_decay=cfg.weight_decay)
    skipping = optax.apply_if_finite(adam, MAX_SKIPS * steps)
    return optax.chain(clip_by_global_norm(cfg.max_grad_norm), optax.flatten(skipping))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale gradients whose ``global_norm`` is larger than ``max_norm`` down to that norm.

    As Optax's transformation of this name, with the norm of this module. Gradients that are not
    finite stay so.
    """

    def clip(grads: Params, _: Any) -> Params:
        norm = global_norm(grads)
        is_small = norm < max_norm
        return jax.tree.map(
            lambda x: jnp.where(is_small, x, x / norm * max_norm), grads
        )

    return optax.stateless(clip)


def global_norm(tree: Params) -> Float[Array, ""]:
    """Return the Euclidean norm of all leaves together.

    An accelerator launches a kernel or more for the sum of each leaf, so there the leaves are
    concatenated.
    """
    if platform() == "cpu":
        return optax.global_norm(tree)
    return jnp.linalg.norm(ravel_pytree(tree)[0])


def by_part(
    chains: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Apply a transformation of its own to each top-level entry of the parameters.

    Args:
        chains: Gradient transformation for each top-level key of the parameters.

    Returns:
        Transformation with one state per part, so that parts are clipped separately.
    """
    return optax.multi_transform({**chains}, {part: part for part in chains})


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
    metrics = jax.tree.map(sum_shares, sums) | jax.tree.map(jnp.max, maxima)
    metrics |= {"loss": loss, "grad_norm": global_norm(grads)}
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, metrics


def skipped_steps(opt_state: optax.OptState) -> Int[Array, ""]:
    """Return the gradient steps skipped so far because a gradient was not finite.

    Args:
        opt_state: State of a chain built by ``optimizer`` or ``by_part``. It may be a stack of the
            states of several agents.

    Returns:
        Number of skipped steps, summed over all parts and agents.
    """

    def is_skip_state(node: Any) -> bool:
        return isinstance(node, optax.ApplyIfFiniteState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_skip_state)
    skipped = [node.total_notfinite.sum() for node in nodes if is_skip_state(node)]
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
