"""Healing in one tick, which costs energy."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Healing(NamedTuple):
    """Results of one tick of healing."""

    health: Float[Array, "U B"]
    energy: Float[Array, "K B"]
    heals: Bool[Array, "K B"]
    """Healers that healed another unit."""


class HealRule(NamedTuple):
    """Rates of healing."""

    rate: float
    """Health per second."""
    per_energy: float
    """Health for one unit of energy."""
    least_energy: float
    """Energy that a unit needs to start healing."""


class Healers(NamedTuple):
    """The K units that can heal."""

    willing: Bool[Array, "K B"]
    """Whether they are alive and in reach of a living target of a type that they can heal."""
    target: Int[Array, "K B"]
    """Index of the target."""
    energy: Float[Array, "K B"]
    healing: Bool[Array, "K B"]
    """Whether they healed the same target in the last tick."""


def heal(
    rule: HealRule,
    tick: float,
    healers: Healers,
    health: Float[Array, "U B"],
    full: Float[Array, "U *"],
) -> Healing:
    """Heal the targets in one tick. Only the first of several healers heals a unit.

    Args:
        rule: rates.
        tick: seconds.
        healers: units that heal.
        health: health of all units.
        full: maximum health of all units.
    """
    willing, target, energy, healing = healers
    wounds = jnp.maximum(full - health, 0.0)
    wound = jnp.take_along_axis(wounds, target, axis=0)
    can_begin = energy >= rule.least_energy
    able = willing & (wound > 0) & (can_begin | (healing & (energy > 0)))
    heals = able & _is_first(able, target)
    amount = jnp.minimum(jnp.minimum(rule.rate * tick, wound), rule.per_energy * energy)
    amount = jnp.where(heals, amount, 0.0)
    units = jnp.arange(health.shape[0])[:, None]
    received = jnp.where(target[:, None] == units, amount[:, None], 0.0).sum(0)
    return Healing(health + received, energy - amount / rule.per_energy, heals)


def _is_first(
    able: Bool[Array, "K B"], target: Int[Array, "K B"]
) -> Bool[Array, "K B"]:
    """Return whether no healer before this one is able to heal the same target."""
    same = (target[:, None] == target[None]) & able[None]  # [K, K, B]
    n = able.shape[0]
    before = jnp.tril(jnp.ones((n, n), bool), -1)[..., None]
    return ~(same & before).any(1)
