"""Between the slots of an observer's entities and the flat vector of actions: what the entity agents share.

Nothing here knows what a group is called. Values are placed by ``Spec.action_target`` and
``Spec.action_kind``.
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
    """For each group, how many outputs each of its slots needs: 1 + the highest kind of an action aimed at one."""
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
    """A dense layer to the actions that aim at nothing; to be called in a compact module."""
    n = spec.action_target.count(-1)
    return (
        nn.Dense(n, kernel_init=orthogonal(scale), name="own_actions")(x)
        if n
        else x[..., :0]
    )


def flat_actions(
    spec: Spec,
    own: Float[Array, "*batch O"],
    aimed: Sequence[Float[Array, "*batch E K"]],
) -> Float[Array, "*batch A"]:
    """Every action's value in the order of ``Spec``: own ones, and one for each slot and kind of the groups aimed at.

    ``aimed`` has the groups with at least one kind, in order. Neighbors stay together: the usual order
    (own, then the slots of one group) costs nothing.
    """
    columns = jnp.concatenate(
        [own, *(x.reshape(*own.shape[:-1], x.shape[-2] * x.shape[-1]) for x in aimed)],
        axis=-1,
    )
    index = np.asarray(_columns(spec))
    runs = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    return jnp.concatenate(
        [columns[..., run[0] : run[-1] + 1] for run in runs], axis=-1
    )


def _columns(spec: Spec) -> list[int]:
    """Where ``flat_actions`` finds each action among its columns: own, then slot by slot, kind by kind."""
    per_slot = [
        kinds
        for group, kinds in zip(spec.groups, slot_kinds(spec), strict=True)
        for _ in range(group.size)
    ]
    start = list(itertools.accumulate(per_slot, initial=spec.action_target.count(-1)))
    pairs = zip(spec.action_target, spec.action_kind, strict=True)
    return [kind if target < 0 else start[target] + kind for target, kind in pairs]
