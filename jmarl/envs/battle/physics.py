"""What bodies do to each other in one environment step: eight sub-steps of moving, shooting, dying, pushing apart.

Everything is batch-last (``state.Bodies``). Random draws come from one key for each world and reproduce
SMAX's own, but only the ones that are used are made.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jmarl.envs.battle.keys import bits, fold, uniform
from jmarl.envs.battle.rules import DT, MAP_SIZE, SUBSTEPS, UNITS
from jmarl.envs.battle.state import Bodies, distance, trait


TOUCH = 1e-6
"""Added to a distance before it divides."""
BY_UNIT = lax.ScatterDimensionNumbers(
    update_window_dims=(),
    inserted_window_dims=(0,),
    scatter_dims_to_operand_dims=(0,),
    operand_batching_dims=(1,),
    scatter_indices_batching_dims=(1,),
)
"""A scatter over units within each world. Naming the world a batch axis keeps it local to a device."""


class Orders(NamedTuple):
    """What the units do throughout one environment step."""

    heading_x: Float[Array, "U B"]
    heading_y: Float[Array, "U B"]
    target: Int[Array, "U B"]
    """Index of the unit that is shot at; -1: nobody."""


class Traits(NamedTuple):
    """The columns of the unit table that the physics needs, looked up for each unit."""

    speed: Float[Array, "U B"]
    damage: Float[Array, "U B"]
    reach: Float[Array, "U B"]
    radius: Float[Array, "U B"]
    cooldown: Float[Array, "U B"]


class Shots(NamedTuple):
    """The last shot of each unit within this environment step."""

    fired: Bool[Array, "U B"]
    key: Key[Array, "U B"]
    """Of the sub-step in which the shot fell."""
    left: Float[Array, "U B"]
    """Sub-steps that were still to come."""


def traits(kind: Int[Array, "U B"]) -> Traits:
    """Look the physics' columns up for units of these types."""
    return Traits(*(trait(getattr(UNITS, name), kind) for name in Traits._fields))


def fight(
    keys: Key[Array, "B"], bodies: Bodies, kind: Int[Array, "U B"], orders: Orders
) -> Bodies:
    """Advance every world by one environment step of ``SUBSTEPS`` sub-steps; ``keys`` is one key for each world."""
    unit = traits(kind)
    shape = bodies.x.shape
    no_shots = Shots(
        jnp.zeros(shape, bool), jnp.broadcast_to(keys, shape), jnp.zeros(shape)
    )

    def substep(
        carry: tuple[Array, Bodies, Shots], left: Array
    ) -> tuple[tuple[Array, Bodies, Shots], None]:
        keys, bodies, shots = carry
        pair = jax.vmap(jax.random.split, out_axes=1)(keys)
        fires = _fires(bodies, unit, orders.target) & ~shots.fired
        fired = shots.fired | fires
        moved = _move(bodies, unit.speed, orders)
        bodies = _drown(
            moved._replace(
                health=_health_after(bodies.health, unit.damage, orders.target, fires),
                cooldown=bodies.cooldown - jnp.where(fired, 0.0, DT),
            )
        )
        x, y = push_apart(bodies.x, bodies.y, bodies.health > 0, unit.radius)
        shots = Shots(
            fired,
            jnp.where(fires, pair[1], shots.key),
            jnp.where(fires, left, shots.left),
        )
        return (pair[0], bodies._replace(x=x, y=y), shots), None

    remaining = jnp.arange(SUBSTEPS - 1, -1, -1, dtype=jnp.float32)
    (_, bodies, shots), _ = lax.scan(substep, (keys, bodies, no_shots), remaining)
    return bodies._replace(cooldown=_reload(bodies.cooldown, unit.cooldown, shots))


def push_apart(
    x: Float[Array, "U B"],
    y: Float[Array, "U B"],
    alive: Bool[Array, "U B"],
    radius: Float[Array, "U B"],
) -> tuple[Float[Array, "U B"], Float[Array, "U B"]]:
    """Move living bodies that overlap apart, each by half the overlap, all pairs at once."""
    # A sum of radii that is negative never overlaps, so the dead need no mask over pairs.
    radius = jnp.where(alive, radius, -2 * MAP_SIZE)
    push_x, push_y = lax.platform_dependent(
        x, y, radius, cpu=_pushes_in_turn, default=_pushes_at_once
    )
    return x + push_x / 2, y + push_y / 2


def _push(
    x: Array, y: Array, radius: Array, other: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    """Push of ``other`` on the units; zero on itself, because the difference of positions is."""
    dx, dy = x - other[0], y - other[1]
    overlap = jax.nn.relu((radius + other[2]) / (distance(dx, dy) + TOUCH) - 1.0)
    return dx * overlap, dy * overlap


def _pushes_in_turn(x: Array, y: Array, radius: Array) -> tuple[Array, Array]:
    """One pusher after another: U small element-wise passes, which is what a CPU vectorizes best."""

    def add(
        total: tuple[Array, Array], other: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        push = _push(x, y, radius, other)
        return (total[0] + push[0], total[1] + push[1]), None

    return lax.scan(add, (jnp.zeros_like(x), jnp.zeros_like(y)), (x, y, radius))[0]


def _pushes_at_once(x: Array, y: Array, radius: Array) -> tuple[Array, Array]:
    """All pairs in one fused reduction, for an accelerator."""
    push_x, push_y = _push(
        x[:, None], y[:, None], radius[:, None], (x[None], y[None], radius[None])
    )
    return push_x.sum(axis=1), push_y.sum(axis=1)


def _fires(
    bodies: Bodies, unit: Traits, target: Int[Array, "U B"]
) -> Bool[Array, "U B"]:
    """Who hits: alive, weapon ready, and a living target within reach."""
    at = jnp.maximum(target, 0)
    there = [
        jnp.take_along_axis(a, at, axis=0, mode="clip")
        for a in (bodies.x, bodies.y, bodies.health)
    ]
    near = distance(bodies.x - there[0], bodies.y - there[1]) < unit.reach
    return (
        near
        & (target >= 0)
        & (there[2] > 0)
        & (bodies.health > 0)
        & (bodies.cooldown <= 0)
    )


def _health_after(
    health: Float[Array, "U B"],
    damage: Float[Array, "U B"],
    target: Int[Array, "U B"],
    fires: Bool[Array, "U B"],
) -> Float[Array, "U B"]:
    """All hits of a sub-step land at once, so two units can kill each other."""
    harm = jnp.where(fires, damage, 0.0)
    return jnp.maximum(
        lax.scatter_add(health, jnp.maximum(target, 0)[..., None], -harm, BY_UNIT), 0.0
    )


def _move(bodies: Bodies, speed: Float[Array, "U B"], orders: Orders) -> Bodies:
    """The living walk, but not off the map."""
    x = jnp.clip(bodies.x + orders.heading_x * speed * DT, 0.0, MAP_SIZE)
    y = jnp.clip(bodies.y + orders.heading_y * speed * DT, 0.0, MAP_SIZE)
    alive = bodies.health > 0
    return bodies._replace(
        x=jnp.where(alive, x, bodies.x), y=jnp.where(alive, y, bodies.y)
    )


def _drown(bodies: Bodies) -> Bodies:
    """A unit on the border of the map dies."""
    low, high = jnp.minimum(bodies.x, bodies.y), jnp.maximum(bodies.x, bodies.y)
    return bodies._replace(
        health=jnp.where((low <= 0.0) | (high >= MAP_SIZE), 0.0, bodies.health)
    )


def _reload(
    waited: Float[Array, "U B"], cooldown: Float[Array, "U B"], shots: Shots
) -> Float[Array, "U B"]:
    """Cooldowns at the end of the step.

    A weapon fires once in an environment step at most, since every cooldown is longer than
    that, so one draw for each unit stands for SMAX's one for each unit and sub-step. The order
    of the additions is SMAX's, for the sake of the last bit.
    """
    unit_keys = fold(shots.key, jnp.arange(waited.shape[0], dtype=jnp.uint32))
    loaded = waited + (
        (cooldown + (uniform(bits(unit_keys, 1)[..., 0]) * (3 * DT) - DT)) - waited
    )
    return jnp.where(shots.fired, loaded - shots.left * DT, waited)
