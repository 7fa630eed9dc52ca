"""Physics of one environment step: in each tick, units attack, move, die and are pushed apart.

All arrays are batch-last (``state.Bodies``). The random draws reproduce those of SMAX from one key
per environment, restricted to the draws in use.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.state import Bodies, distance, trait
from jmarl.envs.keys import bits_to_uniform, fold_in, random_bits
from jmarl.platforms import short_loop


EPSILON = 1e-6
"""Constant added to a distance in a denominator."""
DEAD_RADIUS = -64.0
"""Radius with which dead units never overlap, so that pairs need no mask."""
SCATTER_OVER_UNITS = lax.ScatterDimensionNumbers(
    update_window_dims=(),
    inserted_window_dims=(0,),
    scatter_dims_to_operand_dims=(0,),
    operand_batching_dims=(1,),
    scatter_indices_batching_dims=(1,),
)
"""Scatter over units within each environment. The batch axis keeps it local to a device."""


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
    """Last shot of each unit in this environment step."""

    fired: Bool[Array, "U B"]
    key: Key[Array, "U B"]
    """Key of the tick of the shot."""
    remaining: Float[Array, "U B"]
    """Number of ticks after the shot."""


class _Carry(NamedTuple):
    keys: Key[Array, "B"]
    bodies: Bodies
    shots: Shots


def _traits(rules: Rules, kind: Int[Array, "U B"]) -> Traits:
    return Traits(*(trait(rules, name, kind) for name in Traits._fields))


def simulate(
    rules: Rules,
    keys: Key[Array, "B"],
    bodies: Bodies,
    kind: Int[Array, "U B"],
    orders: Orders,
) -> Bodies:
    """Advance every environment by one environment step."""
    units = _traits(rules, kind)
    shape = bodies.x.shape
    no_shots = Shots(
        fired=jnp.zeros(shape, bool),
        key=jnp.broadcast_to(keys, shape),
        remaining=jnp.zeros(shape),
    )

    def tick(carry: _Carry, remaining: Array) -> tuple[_Carry, None]:
        return _tick(rules, carry, remaining, units, orders), None

    remaining = jnp.arange(rules.ticks - 1, -1, -1, dtype=jnp.float32)
    start = _Carry(keys, bodies, no_shots)
    end, _ = lax.scan(tick, start, remaining, unroll=short_loop())
    cooldown = _reload(rules, end.bodies.cooldown, units.cooldown, end.shots)
    return end.bodies._replace(cooldown=cooldown)


def _tick(
    rules: Rules,
    carry: _Carry,
    remaining: Float[Array, ""],
    units: Traits,
    orders: Orders,
) -> _Carry:
    """Advance every environment by one tick, after which ``remaining`` ticks follow."""
    bodies = carry.bodies
    shots = carry.shots
    keys = jax.vmap(jax.random.split, out_axes=1)(carry.keys)  # [2, B]
    fires = _can_hit(bodies, units, orders.target) & ~shots.fired
    fired = shots.fired | fires
    moved = _move(rules, bodies, units.speed, orders)
    health = _apply_damage(bodies.health, units.damage, orders.target, fires)
    # A weapon that fired is reloaded at the end of the environment step.
    cooldown = bodies.cooldown - jnp.where(fired, 0.0, rules.tick)
    moved = moved._replace(health=health, cooldown=cooldown)
    bodies = _kill_out_of_bounds(rules, moved)
    x, y = push_apart(bodies.x, bodies.y, bodies.health > 0, units.radius)
    shots = Shots(
        fired=fired,
        key=jnp.where(fires, keys[1], shots.key),
        remaining=jnp.where(fires, remaining, shots.remaining),
    )
    return _Carry(keys[0], bodies._replace(x=x, y=y), shots)


def push_apart(
    x: Float[Array, "U B"],
    y: Float[Array, "U B"],
    solid: Bool[Array, "U B"],
    radius: Float[Array, "U B"],
    plane: Int[Array, "U B"] | None = None,
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Move overlapping units apart, each by half the overlap, all pairs at once.

    Args:
        x: first coordinates.
        y: second coordinates.
        solid: units that push and are pushed.
        radius: radii.
        plane: units push only units of their plane; None for a single plane.
    """
    radius = jnp.where(solid, radius, DEAD_RADIUS)
    units = (x, y, radius) if plane is None else (x, y, radius, plane)
    push_x, push_y = lax.platform_dependent(
        *units, cpu=_pushes_in_sequence, default=_pushes_at_once
    )
    return x + push_x / 2, y + push_y / 2


def _push(units: tuple[Array, ...], others: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return the pushes of others on units, which are zero on the same unit."""
    x, y, radius, *plane = units
    other_x, other_y, other_radius, *other_plane = others
    dx = x - other_x
    dy = y - other_y
    ratio = (radius + other_radius) / (distance(dx, dy) + EPSILON)
    overlap = jax.nn.relu(ratio - 1.0)
    for own, other in zip(plane, other_plane, strict=True):
        overlap = jnp.where(own == other, overlap, 0.0)
    return dx * overlap, dy * overlap


def _pushes_in_sequence(*units: Array) -> tuple[Array, Array]:
    """Add the pushes of one unit after another, in U element-wise passes that suit a CPU."""

    def add(
        total: tuple[Array, Array], other: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], None]:
        push_x, push_y = _push(units, other)
        return (total[0] + push_x, total[1] + push_y), None

    zeros = (jnp.zeros_like(units[0]), jnp.zeros_like(units[0]))
    total, _ = lax.scan(add, zeros, units)
    return total


def _pushes_at_once(*units: Array) -> tuple[Array, Array]:
    """Add the pushes of all pairs in one fused reduction, which suits an accelerator."""
    # [U, 1, B] against [1, U, B]
    pushed = tuple(values[:, None] for values in units)
    pushing = tuple(values[None] for values in units)
    push_x, push_y = _push(pushed, pushing)
    return push_x.sum(axis=1), push_y.sum(axis=1)


def _can_hit(
    bodies: Bodies, units: Traits, target: Int[Array, "U B"]
) -> Bool[Array, "U B"]:
    """Return whether a unit is alive, its weapon ready, and its target alive and in range."""
    index = jnp.maximum(target, 0)

    def of_target(values: Float[Array, "U B"]) -> Float[Array, "U B"]:
        return jnp.take_along_axis(values, index, axis=0, mode="clip")

    target_x = of_target(bodies.x)
    target_y = of_target(bodies.y)
    target_health = of_target(bodies.health)
    apart = distance(bodies.x - target_x, bodies.y - target_y)
    in_range = apart < units.attack_range
    has_target = in_range & (target >= 0) & (target_health > 0)
    return has_target & (bodies.health > 0) & (bodies.cooldown <= 0)


def scatter_add(
    values: Float[Array, "U B"], index: Int[Array, "U B"], added: Float[Array, "U B"]
) -> Float[Array, "U B"]:
    """Add to the values of the units at some indices, in each environment."""
    return lax.platform_dependent(
        values, index, added, cpu=_add_in_sequence, default=_add_at_once
    )


def _add_in_sequence(values: Array, index: Array, added: Array) -> Array:
    """Add one number after another, which suits a CPU."""
    return lax.scatter_add(values, index[..., None], added, SCATTER_OVER_UNITS)


def _add_at_once(values: Array, index: Array, added: Array) -> Array:
    """Add in one fused reduction. XLA makes a loop over all numbers of a scatter on a TPU."""
    units = jnp.arange(len(values))[:, None, None]
    return values + jnp.where(index == units, added, 0.0).sum(axis=1)  # [U, U, B]


def _apply_damage(
    health: Float[Array, "U B"],
    damage: Float[Array, "U B"],
    target: Int[Array, "U B"],
    fires: Bool[Array, "U B"],
) -> Float[Array, "U B"]:
    """Return the health after all hits of a tick.

    All hits land at the same time, so two units can kill each other.
    """
    dealt = jnp.where(fires, damage, 0.0)
    health = scatter_add(health, jnp.maximum(target, 0), -dealt)
    return jnp.maximum(health, 0.0)


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


def _reload(
    rules: Rules,
    waited: Float[Array, "U B"],
    cooldown: Float[Array, "U B"],
    shots: Shots,
) -> Float[Array, "U B"]:
    """Return the cooldowns at the end of the step.

    A weapon fires at most once in an environment step, because every cooldown is longer than the
    step. Thus one draw per unit replaces SMAX's draw per unit and tick.
    """
    units = jnp.arange(waited.shape[0], dtype=jnp.uint32)
    words = random_bits(fold_in(shots.key, units), 1)[..., 0]
    deviation = bits_to_uniform(words) * (3 * rules.tick) - rules.tick
    # The order of the additions is SMAX's, so that the results have the same bits.
    loaded = waited + ((cooldown + deviation) - waited)
    return jnp.where(shots.fired, loaded - shots.remaining * rules.tick, waited)
