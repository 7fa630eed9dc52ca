"""Rows of entities with masked rows set to zero, and attention to entities.

The rows are those of each agent's observation or those of the central state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.nn.attention import attend
from jmarl.types import EntityObs, Spec


def zero_masked(
    rows: Float[Array, "*batch E F"], mask: Bool[Array, "*batch E"]
) -> Float[Array, "*batch E F"]:
    """Return the rows of a group, with masked rows set to zero."""
    return jnp.where(mask[..., None], rows, 0.0)


def visible_rows(obs: EntityObs) -> tuple[Float[Array, "*batch N E F"], ...]:
    """Return the rows of each group in every agent's observation, with masked rows set to zero."""
    return tuple(map(zero_masked, obs.rows, obs.mask))


def self_and_entity_mask(
    obs: EntityObs, groups: Iterable[int]
) -> Bool[Array, "*batch N 1+E"]:
    """Return the mask of the observer, which is never masked, followed by those of some groups."""
    observer = jnp.ones((*obs.alive.shape, 1), bool)
    masks = [obs.mask[i] for i in groups]
    return jnp.concatenate([observer, *masks], axis=-1)


class EntityRows(NamedTuple):
    """One group of entities in the central state; masked rows are zero."""

    name: str
    rows: Float[Array, "*batch E F"]
    mask: Bool[Array, "*batch E"]


def entity_rows(obs: EntityObs, spec: Spec) -> list[EntityRows]:
    """Return all groups of the central state, with the agents' group first.

    The first N rows of that group are the agents in their order. The group is ``allies``; its rows
    beyond N are teammates without a controlling agent. If the state has no such group, as with
    flat observations, the group ``own`` of the agents' own features is prepended.
    """
    groups = [
        EntityRows(group.name, zero_masked(rows, mask), mask)
        for group, rows, mask in zip(
            spec.groups, obs.state.rows, obs.state.mask, strict=True
        )
    ]
    has_agents = [
        group.name == "allies" and group.state_size >= spec.n_agents
        for group in spec.groups
    ]
    if any(has_agents):
        agents = groups.pop(has_agents.index(True))
    else:
        agents = EntityRows("own", zero_masked(obs.own, obs.alive), obs.alive)
    return [agents, *groups]


def attend_to_entities(
    query: Float[Array, "*batch I D"],
    key: Float[Array, "*batch E D"],
    value: Float[Array, "*batch E D"],
    mask: Bool[Array, "*batch E"],
    n_head: int,
) -> Float[Array, "*batch I D"]:
    """Return multi-head attention to the unmasked entities; the heads split the last axis."""

    def split_heads(x: Array) -> Array:  # [..., L, D] -> [..., n, L, D/n]
        heads = x.reshape(*x.shape[:-1], n_head, -1)
        return heads.swapaxes(-2, -3)

    query_mask = mask[..., None, None, :]
    heads = attend(split_heads(query), split_heads(key), split_heads(value), query_mask)
    return heads.swapaxes(-2, -3).reshape(query.shape)
