"""Flat vectors from observations of entities, always in the order of ``Spec.groups``.

An observation of entities is never built from a flat vector.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.entities import zero_masked
from jmarl.types import CentralState, EntityObs, Spec


def flatten(
    obs: EntityObs, spec: Spec, *, agent_id: bool = False
) -> Float[Array, "*batch N F"]:
    """Return each agent's observation as one vector.

    Masked rows are zero, so their content has no effect. An agent's one-hot breaks permutation
    invariance and transfer to other team sizes. It is for networks that cannot
    otherwise tell agents apart.

    Args:
        obs: Observations with any leading axes.
        spec: Specification of the environment.
        agent_id: Whether to append the agent's one-hot.

    Returns:
        Vectors ``[..., N, F]``: own features | rows of each group | one-hot, if ``agent_id``.
    """
    return jnp.concatenate(obs_parts(obs, spec, agent_id=agent_id), axis=-1)


def obs_parts(
    obs: EntityObs, spec: Spec, *, agent_id: bool = False
) -> tuple[Float[Array, "*batch N F"], ...]:
    """Return the vectors that ``flatten`` concatenates.

    ``JointDense`` takes them without a copy.
    """
    parts = (obs.own, *map(_flatten_rows, obs.rows, obs.mask))
    if agent_id:
        return (*parts, agent_one_hot(obs, spec))
    return parts


def agent_one_hot(obs: EntityObs, spec: Spec) -> Float[Array, "*batch N N"]:
    """Return the one-hot of every agent's index."""
    shape = (*obs.own.shape[:-1], spec.n_agents)
    return jnp.broadcast_to(jnp.eye(spec.n_agents), shape)


def state_parts(state: CentralState) -> tuple[Float[Array, "*batch F"], ...]:
    """Return the central state as vectors: global features | rows of each group."""
    return state.features, *map(_flatten_rows, state.rows, state.mask)


def empty_obs(spec: Spec, *batch: int) -> EntityObs:
    """Build observations of zeros, for example to initialize networks.

    Args:
        spec: Specification of the environment.
        *batch: Leading axes, for example ``T, B``.

    Returns:
        Observations in which all actions are available, all agents are alive, and all rows masked.
    """
    agents = (*batch, spec.n_agents)
    seen = [(g.size, g.width) for g in spec.groups]
    in_state = [(g.state_size, g.state_width) for g in spec.groups]
    return EntityObs(
        own=jnp.zeros((*agents, spec.own_width)),
        rows=_empty_rows(agents, seen),
        mask=_empty_mask(agents, seen),
        avail=jnp.ones((*agents, spec.n_actions), bool),
        alive=jnp.ones(agents, bool),
        joined=jnp.zeros(agents, bool),
        unit_class=jnp.zeros(agents, jnp.int32),
        state=CentralState(
            features=jnp.zeros((*batch, spec.global_width)),
            rows=_empty_rows(batch, in_state),
            mask=_empty_mask(batch, in_state),
        ),
    )


def _empty_rows(
    batch: tuple[int, ...], groups: list[tuple[int, int]]
) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((*batch, size, width)) for size, width in groups)


def _empty_mask(
    batch: tuple[int, ...], groups: list[tuple[int, int]]
) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((*batch, size), bool) for size, _ in groups)


def _flatten_rows(
    rows: Float[Array, "*batch E F"], mask: Bool[Array, "*batch E"]
) -> Float[Array, "*batch E*F"]:
    *batch, size, width = rows.shape
    return zero_masked(rows, mask).reshape(*batch, size * width)
