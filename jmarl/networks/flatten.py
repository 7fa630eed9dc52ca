"""Flat vectors from entity observations, always in the order of ``Spec.groups``; never the reverse."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.networks.entities import visible
from jmarl.types import CentralState, EntityObs, Spec


def flatten(
    obs: EntityObs, spec: Spec, *, agent_id: bool = False
) -> Float[Array, "*batch N F"]:
    """Each agent's observation as one vector: own | rows of each group | agent one-hot, if asked for.

    Masked rows are zero whatever they hold. The one-hot breaks permutation and size transfer; it
    is for networks that cannot tell agents apart otherwise.
    """
    return jnp.concatenate(flat_parts(obs, spec, agent_id=agent_id), axis=-1)


def flat_parts(
    obs: EntityObs, spec: Spec, *, agent_id: bool = False
) -> tuple[Float[Array, "*batch N F"], ...]:
    """``flatten``, not yet concatenated: ``JointDense`` takes the parts, and spares the copy."""
    parts = (obs.own, *map(_rows, obs.rows, obs.mask))
    return (*parts, one_hot(obs, spec)) if agent_id else parts


def one_hot(obs: EntityObs, spec: Spec) -> Float[Array, "*batch N N"]:
    """Which agent it is, for every agent."""
    return jnp.broadcast_to(
        jnp.eye(spec.n_agents), (*obs.own.shape[:-1], spec.n_agents)
    )


def state_parts(state: CentralState) -> tuple[Float[Array, "*batch F"], ...]:
    """The central state as vectors: global features | rows of each group, for ``JointDense`` to take as one."""
    return state.features, *map(_rows, state.rows, state.mask)


def empty_obs(spec: Spec, *batch: int) -> EntityObs:
    """Zeros in the shape of a world's observations, for initializing networks; all actions available."""
    n = spec.n_agents
    return EntityObs(
        own=jnp.zeros((*batch, n, spec.own_width)),
        rows=tuple(jnp.zeros((*batch, n, g.size, g.width)) for g in spec.groups),
        mask=tuple(jnp.zeros((*batch, n, g.size), bool) for g in spec.groups),
        avail=jnp.ones((*batch, n, spec.n_actions), bool),
        alive=jnp.ones((*batch, n), bool),
        joined=jnp.zeros((*batch, n), bool),
        unit_class=jnp.zeros((*batch, n), jnp.int32),
        state=CentralState(
            features=jnp.zeros((*batch, spec.global_width)),
            rows=tuple(
                jnp.zeros((*batch, g.state_size, g.state_width)) for g in spec.groups
            ),
            mask=tuple(jnp.zeros((*batch, g.state_size), bool) for g in spec.groups),
        ),
    )


def _rows(
    rows: Float[Array, "*batch E F"], mask: Bool[Array, "*batch E"]
) -> Float[Array, "*batch E*F"]:
    return visible(rows, mask).reshape(*rows.shape[:-2], math.prod(rows.shape[-2:]))
