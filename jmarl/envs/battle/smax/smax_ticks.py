"""Ticks of SMAX's physics: in each, units attack, move, die and are pushed apart.

All arrays are batch-last (``state.Bodies``).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.state import Bodies, distance
from jmarl.envs.battle.unit_pairs import push_apart, scatter_add, take


class Orders(NamedTuple):
    """Headings and targets of all units during one environment step."""

    heading_x: Float[Array, "U B"]
    heading_y: Float[Array, "U B"]
    target: Int[Array, "U B"]
    """Index of the attacked unit; -1 if there is none."""


class Traits(NamedTuple):
    """Fields of the unit type that the physics needs, for each unit."""

    speed: Float[Array, "U B"]
    damage: Float[Array, "U B"]
    attack_range: Float[Array, "U B"]
    radius: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


class Shots(NamedTuple):
    """Shots of this environment step, at most one per unit."""

    fired: Bool[Array, "U B"]
    remaining: Float[Array, "U B"]
    """Number of ticks after the shot; 0 without a shot."""


def run_ticks(
    rules: Rules,
    bodies: Bodies,
    units: Traits,
    orders: Orders,
    *,
    unroll: bool,
) -> tuple[Bodies, Shots]:
    """Advance every environment by the ticks of one environment step.

    Weapons that fire are not reloaded: their cooldowns keep the value at the shot.

    Args:
        rules: length and number of the ticks, size of the map.
        bodies: state of all units.
        units: their types.
        orders: their headings and targets.
        unroll: make no loop.
    """
    shape = bodies.x.shape
    start = bodies, Shots(jnp.zeros(shape, bool), jnp.zeros(shape))

    def tick(index: Array, carry: tuple[Bodies, Shots]) -> tuple[Bodies, Shots]:
        remaining = (rules.ticks - 1 - index).astype(jnp.float32)
        return _tick(rules, carry, remaining, units, orders)

    return lax.fori_loop(0, rules.ticks, tick, start, unroll=unroll)


def _tick(
    rules: Rules,
    carry: tuple[Bodies, Shots],
    remaining: Float[Array, ""],
    units: Traits,
    orders: Orders,
) -> tuple[Bodies, Shots]:
    """Advance every environment by one tick, after which ``remaining`` ticks follow."""
    bodies, shots = carry
    fires = _can_hit(bodies, units, orders.target) & ~shots.fired
    fired = shots.fired | fires
    moved = _move(rules, bodies, units.speed, orders)
    dealt = jnp.where(fires, units.damage, 0.0)
    # All hits land at the same time, so two units can kill each other.
    health = scatter_add(bodies.health, jnp.maximum(orders.target, 0), -dealt)
    # A weapon that fired is reloaded at the end of the environment step.
    cooldown = bodies.cooldown - jnp.where(fired, 0.0, rules.tick)
    moved = moved._replace(health=jnp.maximum(health, 0.0), cooldown=cooldown)
    bodies = _kill_out_of_bounds(rules, moved)
    x, y = push_apart(bodies.x, bodies.y, bodies.health > 0, units.radius)
    remaining = jnp.where(fires, remaining, shots.remaining)
    return bodies._replace(x=x, y=y), Shots(fired, remaining)


def _can_hit(
    bodies: Bodies, units: Traits, target: Int[Array, "U B"]
) -> Bool[Array, "U B"]:
    """Return whether a unit is alive, its weapon ready, and its target alive and in range."""
    index = jnp.maximum(target, 0)
    target_x = take(bodies.x, index)
    target_y = take(bodies.y, index)
    target_health = take(bodies.health, index)
    apart = distance(bodies.x - target_x, bodies.y - target_y)
    in_range = apart < units.attack_range
    has_target = in_range & (target >= 0) & (target_health > 0)
    return has_target & (bodies.health > 0) & (bodies.cooldown <= 0)


def _move(
    rules: Rules, bodies: Bodies, speed: Float[Array, "U B"], orders: Orders
) -> Bodies:
    """Move the units that are alive, within the map."""
    x = bodies.x + orders.heading_x * speed * rules.tick
    y = bodies.y + orders.heading_y * speed * rules.tick
    x = jnp.clip(x, 0.0, rules.map_size)
    y = jnp.clip(y, 0.0, rules.map_size)
    alive = bodies.health > 0
    x = jnp.where(alive, x, bodies.x)
    y = jnp.where(alive, y, bodies.y)
    return bodies._replace(x=x, y=y)


def _kill_out_of_bounds(rules: Rules, bodies: Bodies) -> Bodies:
    """Set the health of units on the border of the map or beyond to zero."""
    low = jnp.minimum(bodies.x, bodies.y)
    high = jnp.maximum(bodies.x, bodies.y)
    outside = (low <= 0.0) | (high >= rules.map_size)
    return bodies._replace(health=jnp.where(outside, 0.0, bodies.health))
