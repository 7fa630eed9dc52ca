"""Damage of one tick: armor, shields, bonuses, volleys, and weapons that hit several units.

All hits of a tick land at the same time. The shield of a unit absorbs them in the order of the
attackers, without armor. Armor reduces the rest of each hit.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


LEAST_DAMAGE = 0.5
"""Minimum damage of a hit that the shield does not absorb completely."""
DISCS = 5
"""Discs of a line weapon on either side of its target."""
DISC_SPACING = 0.25
DISC_RADIUS = 0.15
PER_KERNEL = 40
"""Attackers whose hits land in one kernel of an accelerator."""


class Vital(NamedTuple):
    """Health and shields, which damage reduces."""

    health: Float[Array, "U B"]
    shield: Float[Array, "U B"] | None


class Volley(NamedTuple):
    """Hits of L attackers on all units."""

    lands: Bool[Array, "L U B"]
    raw: Float[Array, "L U B"]
    """Damage of one hit, with the bonus and before the armor."""
    hits: Float[Array, "L B"]
    """Number of consecutive hits."""


def land(
    vital: Vital, armor: Float[Array, "U B"], volley: Volley, most_hits: int
) -> Vital:
    """Return health and shields after all hits of a volley, at least 0.

    Args:
        vital: health and shields before.
        armor: armor of each unit.
        volley: the hits.
        most_hits: maximum number of hits of an attacker.
    """
    if vital.shield is None:
        after_armor = jnp.maximum(volley.raw - armor, LEAST_DAMAGE)
        lost = jnp.where(volley.lands, after_armor * volley.hits[:, None], 0.0)
        return vital._replace(health=jnp.maximum(vital.health - lost.sum(0), 0.0))
    return lax.platform_dependent(
        vital,
        armor,
        volley,
        cpu=partial(_land_in_sequence, most_hits, 1),
        default=partial(_land_in_sequence, most_hits, PER_KERNEL),
    )


def _land_in_sequence(
    most_hits: int, unroll: int, vital: Vital, armor: Array, volley: Volley
) -> Vital:
    """Let one attacker after another hit, in L element-wise passes.

    A CPU runs one pass after another. An accelerator runs ``unroll`` passes in one kernel.
    """
    zeros = jnp.zeros_like(vital.health)

    def hit(
        carry: tuple[Array, Array], attacker: Volley
    ) -> tuple[tuple[Array, Array], None]:
        prior, lost = carry
        lost = lost + _health_lost(vital, armor, attacker, prior, most_hits)
        total = jnp.where(attacker.lands, attacker.raw * attacker.hits, 0.0)
        return (prior + total, lost), None

    (total, lost), _ = lax.scan(hit, (zeros, zeros), volley, unroll=unroll)
    assert vital.shield is not None
    return Vital(
        health=jnp.maximum(vital.health - lost, 0.0),
        shield=jnp.maximum(vital.shield - total, 0.0),
    )


def _health_lost(
    vital: Vital, armor: Array, volley: Volley, prior: Array, most_hits: int
) -> Array:
    """Return the health lost to one attacker, given the ``prior`` damage of previous ones."""
    assert vital.shield is not None
    lost = jnp.zeros_like(prior)
    for earlier in range(most_hits):
        shield = jnp.maximum(vital.shield - prior - earlier * volley.raw, 0.0)
        rest = volley.raw - jnp.minimum(volley.raw, shield)
        part = jnp.where(rest > 0, jnp.maximum(rest - armor, LEAST_DAMAGE), 0.0)
        lost = lost + jnp.where(volley.lands & (earlier < volley.hits), part, 0.0)
    return lost


def touched_by_line(
    shooter: tuple[Array, Array],
    target: tuple[Array, Array],
    units: tuple[Array, Array],
    radius: Float[Array, "U B"],
) -> Bool[Array, "L U B"]:
    """Return the units that a line of discs across the shot touches.

    Args:
        shooter: x and y of the shooters, ``[L, B]`` each.
        target: x and y of their targets, ``[L, B]`` each.
        units: x and y of all units, ``[U, B]`` each.
        radius: radius of each unit.
    """
    dx, dy = target[0] - shooter[0], target[1] - shooter[1]
    length = jnp.sqrt(dx * dx + dy * dy)
    far = length > 0
    along_x = jnp.where(far, dx / jnp.where(far, length, 1.0), 1.0)[:, None]
    along_y = jnp.where(far, dy / jnp.where(far, length, 1.0), 0.0)[:, None]
    offset_x = units[0] - target[0][:, None]  # [L, U, B]
    offset_y = units[1] - target[1][:, None]
    across = offset_y * along_x - offset_x * along_y
    depth = offset_x * along_x + offset_y * along_y
    disc = jnp.clip(jnp.round(across / DISC_SPACING), -DISCS, DISCS) * DISC_SPACING
    apart = jnp.sqrt((across - disc) ** 2 + depth**2)
    return apart <= DISC_RADIUS + radius
