"""Zones: parts of the map that slow, conceal or damage units on the ground."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.scenarios.battle_spec import Zone


Zones = tuple[Zone, ...]


def of(effect: str, zones: Zones) -> Zones:
    """Return the zones with a given effect."""
    return tuple(zone for zone in zones if zone.effect == effect)


def is_inside(zone: Zone, x: Array, y: Array) -> Bool[Array, "*shape"]:
    """Return whether points lie in a zone."""
    if zone.shape == "circle":
        center_x, center_y, radius = zone.bounds
        return (x - center_x) ** 2 + (y - center_y) ** 2 <= radius**2
    low_x, low_y, high_x, high_y = zone.bounds
    return (x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)


def speed_factor(
    zones: Zones, x: Array, y: Array, grounded: Any
) -> Float[Array, "*shape"]:
    """Return the product of the factors of all zones that slow a unit."""
    factor = jnp.ones_like(x)
    for zone in of("slow", zones):
        factor = jnp.where(
            is_inside(zone, x, y) & grounded, factor * zone.amount, factor
        )
    return factor


def damage_rate(
    zones: Zones, x: Array, y: Array, grounded: Any
) -> Float[Array, "*shape"]:
    """Return the health per second that a unit loses in zones."""
    rate = jnp.zeros_like(x)
    for zone in of("damage", zones):
        rate = jnp.where(is_inside(zone, x, y) & grounded, rate + zone.amount, rate)
    return rate


def visible_from(
    zones: Zones, x: Array, y: Array, grounded: Any
) -> Float[Array, "*shape"]:
    """Return the maximum distance from which enemies see a unit; infinite outside of zones."""
    farthest = jnp.full_like(x, jnp.inf)
    for zone in of("conceal", zones):
        hidden = jnp.minimum(farthest, zone.amount)
        farthest = jnp.where(is_inside(zone, x, y) & grounded, hidden, farthest)
    return farthest
