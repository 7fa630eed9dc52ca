"""Mapping between the slots of an observer's entities and the flat vector of actions.

All entity agents share it. It does not depend on the names of groups. Values are placed by
``Spec.action_target`` and ``Spec.action_kind``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmarl.nn.initializers import orthogonal
from jmarl.types import Spec


def slot_kinds(spec: Spec) -> tuple[int, ...]:
    """Return, for each group, the number of outputs that each of its slots needs.

    It is 1 + the highest kind of an action aimed at a slot of the group, or 0 without such actions.
    """
    ends = list(itertools.accumulate(group.size for group in spec.groups))
    kinds = [0] * len(ends)
    for target, kind in zip(spec.action_target, spec.action_kind, strict=True):
        if target >= 0:
            group = next(i for i, end in enumerate(ends) if target < end)
            kinds[group] = max(kinds[group], kind + 1)
    return tuple(kinds)


def own_values(
    spec: Spec, x: Float[Array, "*batch H"], scale: float
) -> Float[Array, "*batch O"]:
    """Apply a dense layer for the actions without a target; call it in a compact method."""
    n = spec.action_target.count(-1)
    if n == 0:
        return x[..., :0]
    return nn.Dense(n, kernel_init=orthogonal(scale), name="own_actions")(x)


def flat_actions(
    spec: Spec,
    own: Float[Array, "*batch O"],
    aimed: Sequence[Float[Array, "*batch E K"]],
) -> Float[Array, "*batch A"]:
    """Return the value of every action in the order of ``Spec``.

    Adjacent columns are copied together. The usual order (own, then the slots of one group) needs
    no reordering.

    Args:
        spec: Specification of the environment.
        own: Values of the actions without a target.
        aimed: Values per slot and kind, for each group with at least one kind, in group order.
    """
    columns = jnp.concatenate([own, *map(_flatten_slots, aimed)], axis=-1)
    index = np.asarray(_columns(spec))
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    runs = np.split(index, breaks)
    spans = [(run[0], run[-1] + 1) for run in runs]
    slices = [columns[..., start:end] for start, end in spans]
    return jnp.concatenate(slices, axis=-1)


def _flatten_slots(x: Float[Array, "*batch E K"]) -> Float[Array, "*batch E*K"]:
    *batch, n_slots, n_kinds = x.shape
    return x.reshape(*batch, n_slots * n_kinds)


def _columns(spec: Spec) -> list[int]:
    """Return each action's index in ``flat_actions``'s columns: own, then by slot, then by kind."""
    kinds = slot_kinds(spec)
    per_slot = [
        n
        for group, n in zip(spec.groups, kinds, strict=True)
        for _ in range(group.size)
    ]
    n_own = spec.action_target.count(-1)
    start = list(itertools.accumulate(per_slot, initial=n_own))
    actions = zip(spec.action_target, spec.action_kind, strict=True)
    return [kind if target < 0 else start[target] + kind for target, kind in actions]
