"""Rows of entities as networks read them, zero where masked, whatever stood there: an observer's and the state's."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.types import EntityObs, Spec


def visible(
    rows: Float[Array, "*batch E F"], mask: Bool[Array, "*batch E"]
) -> Float[Array, "*batch E F"]:
    """The rows of a group, zero where masked."""
    return jnp.where(mask[..., None], rows, 0.0)


def visible_rows(obs: EntityObs) -> tuple[Float[Array, "*batch N E F"], ...]:
    """The rows of each group that every agent sees."""
    return tuple(map(visible, obs.rows, obs.mask))


class EntityRows(NamedTuple):
    """A group of entities in the central state, masked rows zero."""

    name: str
    rows: Float[Array, "*batch E F"]
    mask: Bool[Array, "*batch E"]


def entity_rows(obs: EntityObs, spec: Spec) -> list[EntityRows]:
    """All groups of the central state, first the one whose first N rows are the agents in their order.

    That is ``allies``; rows beyond N are team-mates that nobody here controls. A world whose state has no such rows
    (flat observations, say) lends the agents' own.
    """
    groups = [
        EntityRows(group.name, visible(rows, mask), mask)
        for group, rows, mask in zip(
            spec.groups, obs.state.rows, obs.state.mask, strict=True
        )
    ]
    held = [g.name == "allies" and g.state_size >= spec.n_agents for g in spec.groups]
    if True not in held:
        return [EntityRows("own", visible(obs.own, obs.alive), obs.alive), *groups]
    return [groups.pop(held.index(True)), *groups]
