"""Error of predictions for other action groups, for the cross-group inverse (CGI) loss.

    L = mean_{i, k} || p_i,k - mean_{j in k} p_j ||^2,    k != group of i

The mean runs over pairs of a living agent i and another action group k with living members. An
action group is a set of unit classes with equal actions. Its members are the agents of these
classes. Agent i predicts the mean output of the members: probabilities, or action values.

With respect to the prediction, this error has the same gradient as the mean error over members. Its
cost is linear in the number of agents.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmarl.types import EntityObs, Spec


_einsum = partial(jnp.einsum, precision="highest")
"""Sums of the loss, written as products: float32 in every precision of a run."""


def group_members(obs: EntityObs, spec: Spec) -> Bool[Array, "*batch N K"]:
    """Return whether each agent belongs to each action group, dead agents included.

    Args:
        obs: Observations with any leading axes.
        spec: Description of the environment.
    """
    group = jnp.asarray(spec.action_group)[obs.unit_class]
    return group[..., None] == jnp.arange(len(spec.group_actions))


def group_softmax(
    values: Float[Array, "*batch K A"], spec: Spec
) -> Float[Array, "*batch K A"]:
    """Return a softmax over the actions that each action group can ever take.

    Args:
        values: Logits or action values for each group.
        spec: Description of the environment.
    """
    able = np.asarray(spec.group_actions)
    return jax.nn.softmax(jnp.where(able, values, jnp.finfo(values.dtype).min))


class PairErrors(NamedTuple):
    """Error of each agent's prediction for each action group."""

    error: Float[Array, "*batch N K"]
    counts: Bool[Array, "*batch N K"]
    """Pairs of a living agent and another group with living members; others do not count."""


def pair_errors(
    predicted: Float[Array, "*batch N K A"],
    outputs: Float[Array, "*batch N A"],
    members: Bool[Array, "*batch N K"],
    alive: Bool[Array, "*batch N"],
    weights: Float[Array, "K A"] | np.ndarray,
) -> PairErrors:
    """Return the error of each agent's prediction for each action group.

    Args:
        predicted: Prediction of each agent for each action group.
        outputs: Probabilities or values of each agent. Those of dead agents must be finite.
        members: Whether each agent belongs to each group.
        alive: Living agents. The others neither predict nor are predicted.
        weights: Weight of each action in the error of a group.
    """
    living = members & alive[..., None]  # [..., N, K]
    count = living.sum(-2)  # [..., K]
    total = _einsum("...nk,...na->...ka", living.astype(outputs.dtype), outputs)
    mean = total / jnp.maximum(count, 1)[..., None]  # [..., K, A]
    error = (predicted - mean[..., None, :, :]) ** 2  # [..., N, K, A]
    error = (error * weights).sum(-1)
    pairs = alive[..., None] & ~members & (count > 0)[..., None, :]
    return PairErrors(error, pairs)


def cross_group_error(pairs: PairErrors) -> Float[Array, "*batch"]:
    """Return the mean error of all pairs of a row, or 0 for a row without pairs."""
    sums = jnp.where(pairs.counts, pairs.error, 0.0).sum((-1, -2))
    return sums / jnp.maximum(pairs.counts.sum((-1, -2)), 1)


def group_errors(
    pairs: PairErrors, members: Bool[Array, "*batch N K"], rows: Bool[Array, "*batch"]
) -> Float[Array, "K K"]:
    """Return the mean error of the members of each group (first axis) about each other group.

    Args:
        pairs: Errors of agents.
        members: Whether each agent belongs to each group.
        rows: Rows that count.

    Returns:
        Mean over agents and rows. It is NaN for pairs of groups that never met, and on the
        diagonal.
    """
    counts = pairs.counts & rows[..., None, None]
    own = members.astype(jnp.float32)
    sums = jnp.where(counts, pairs.error, 0.0)
    total = _einsum("...ng,...nk->gk", own, sums)
    number = _einsum("...ng,...nk->gk", own, counts.astype(jnp.float32))
    return jnp.where(number > 0, total / jnp.maximum(number, 1), jnp.nan)
