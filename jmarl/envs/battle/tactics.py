"""Tactics of scripted units: pure functions from a situation to targets and places.

Opponents and scripted players share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat.combatants import Rows
from jmarl.envs.battle.scenarios.terrain import MAP_SIZE
from jmarl.envs.battle.situation import STEP, Choice, Situation, is_free, place_of


Tactic = Callable[[Situation], Choice]
TIE = 0.01
"""Health that a unit of distance counts for, so that it decides between equally weak units."""
OUTRANGED = 2.0
"""Least difference of ranges at which a unit keeps its distance from another."""
SAFETY = 2.5
"""Distance beyond the reach of an enemy within which a unit steps back."""
RETREAT = 2.0
"""Distance of the places to which a unit may step back."""
DIRECTIONS = 8
"""Number of these places."""


def attack_move(s: Situation) -> Choice:
    """Attack the last target while it is within the scan, else the nearest, else walk on."""
    return Choice(_keep_or_nearest(s, _noticed(s)), *s.destination)


def hold(s: Situation) -> Choice:
    """Attack what is within reach, and stay."""
    return _or_stay(s, _keep_or_nearest(s, s.attackable & (s.distance <= s.reach)))


def pursue(s: Situation) -> Choice:
    """Attack the last target until it is dead, then the nearest enemy at any distance.

    A unit that cannot walk attacks only within its scan.
    """
    walks = (s.speed[s.own] > 0)[:, None]
    return _or_stay(s, _keep_or_nearest(s, s.attackable & (walks | _noticed(s))))


def heuristic(s: Situation) -> Choice:
    """Attack only within the own reach; else walk to the nearest enemy in sight, else walk on.

    Differs from SMAX: an enemy of SMAX walks to a random one of the enemies in sight.
    """
    target = _keep_or_nearest(s, s.attackable & (s.distance <= s.reach))
    seen = _least(s.distance, s.attackable & (s.distance < s.sight))
    return Choice(target, *place_of(s, seen, s.destination))


def healers_first(tactic: Tactic) -> Tactic:
    """Return a tactic that attacks healers first, as SMAClite's opponents do."""

    def choose(s: Situation) -> Choice:
        healers = s._replace(attackable=s.attackable & s.healer)
        first, choice = tactic(healers), tactic(s)
        target = jnp.where(first.target >= 0, first.target, choice.target)
        return choice._replace(target=target)

    return choose


def tend(tactic: Tactic) -> Tactic:
    """Return a tactic in which healers heal the most wounded teammate within their scan."""

    def choose(s: Situation) -> Choice:
        patient = _least(s.fraction, s.healable & (s.distance <= s.scan))
        choice = tactic(s)
        target = jnp.where(s.healer[s.own], patient, choice.target)
        return choice._replace(target=target)

    return choose


def nearest(s: Situation) -> Choice:
    """Attack the nearest enemy; healers heal the nearest wounded teammate."""
    target = _least(s.distance, s.attackable)
    return _support(s, target, _least(s.distance, s.healable))


def focus(s: Situation) -> Choice:
    """Attack the weakest enemy in reach, else the nearest; healers heal the most wounded.

    Units choose in turn. They leave out enemies that the shots of others before them kill, and
    patients of other healers. Of equally weak enemies, the nearest is attacked.
    """
    in_reach = s.distance <= s.reach
    weakness = s.strength + TIE * s.distance
    shots = jnp.where((s.waiting <= STEP)[:, None], s.damage, 0.0)
    weakest = _share(weakness, s.attackable & in_reach, s.strength, shots)
    target = _first(weakest, _least(s.distance, s.attackable))
    one = jnp.ones_like(s.strength)
    patient = _share(s.fraction, s.healable & in_reach, one, one)
    return _support(s, target, _first(patient, _least(s.distance, s.healable)))


def kite(s: Situation) -> Choice:
    """Attack like ``focus``, but step back from melee enemies while the weapon reloads.

    A unit steps back from enemies that come close to their reach, if it outranges them and is at
    least as fast.
    """
    choice = focus(s)
    outranged = s.reach >= s.danger + OUTRANGED
    slower = s.speed <= s.speed[s.own][:, None]
    near = s.distance <= s.danger + SAFETY
    threats = s.attackable & outranged & slower & near
    retreats = (s.waiting >= STEP / 2) & threats.any(1)
    x, y = _find_refuge(s, threats)
    return Choice(
        target=jnp.where(retreats, -1, choice.target),
        x=jnp.where(retreats, x, choice.x),
        y=jnp.where(retreats, y, choice.y),
    )


def by_order(orders: Rows, tactics: Mapping[int, Tactic], s: Situation) -> Choice:
    """Return the choices of own units that follow the tactics of their orders.

    Args:
        orders: order of each own unit, ``[K, 1]`` or ``[K, B]``.
        tactics: tactics of all orders that occur.
        s: situation.
    """
    (_, first), *others = tactics.items()
    merged = first(s)
    for order, tactic in others:
        follows = orders == order
        merged = jax.tree.map(partial(jnp.where, follows), tactic(s), merged)
    return merged


def _noticed(s: Situation) -> Bool[Array, "K U B"]:
    return s.attackable & (s.distance <= s.scan)


def _keep_or_nearest(
    s: Situation, candidates: Bool[Array, "K U B"]
) -> Int[Array, "K B"]:
    """Return the last target if it is still a candidate, else the nearest candidate."""
    units = jnp.arange(candidates.shape[1])[:, None]
    keeps = (candidates & (units == s.last_target[:, None])).any(1)
    return jnp.where(keeps, s.last_target, _least(s.distance, candidates))


def _least(values: Any, candidates: Bool[Array, "K U B"]) -> Int[Array, "K B"]:
    """Return the candidate with the least value, the first of equal ones; -1 if there is none."""
    index = jnp.argmin(jnp.where(candidates, values, jnp.inf), axis=1)
    return jnp.where(candidates.any(1), index, -1)


def _share(
    values: Any,
    candidates: Bool[Array, "K U B"],
    capacity: Float[Array, "U B"],
    use: Any,
) -> Int[Array, "K B"]:
    """Return for each own unit in turn the candidate with the least value, or -1.

    Only candidates with capacity are left, which each choice reduces by the use of the unit.
    """
    units = jnp.arange(len(capacity))[:, None]

    def choose(left: Array, unit: tuple[Array, ...]) -> tuple[Array, Array]:
        value, possible, needed = unit
        target = _least(value[None], (possible & (left > 0))[None])[0]
        return left - jnp.where(units == target, needed, 0.0), target

    shape = candidates.shape
    each = jnp.broadcast_to(values, shape), candidates, jnp.broadcast_to(use, shape)
    return lax.scan(choose, capacity, each)[1]


def _first(target: Int[Array, "K B"], other: Int[Array, "K B"]) -> Int[Array, "K B"]:
    return jnp.where(target >= 0, target, other)


def _or_stay(s: Situation, target: Int[Array, "K B"]) -> Choice:
    return Choice(target, s.x, s.y)


def _support(
    s: Situation, target: Int[Array, "K B"], patient: Int[Array, "K B"]
) -> Choice:
    """Return targets for fighters and for healers, who otherwise follow a fighter."""
    leader = _least(s.distance, s.fighters)
    heals = s.healer[s.own]
    x, y = place_of(s, jnp.where(heals, leader, -1), (s.x, s.y))
    return Choice(jnp.where(heals, patient, target), x, y)


def _find_refuge(
    s: Situation, threats: Bool[Array, "K U B"]
) -> tuple[Float[Array, "K B"], Float[Array, "K B"]]:
    """Return the place around each own unit at which threats are farthest in the mean.

    The mean is that of the inverse squares of the distances.
    """
    angle = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    ways = RETREAT * np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
    to_x, to_y = ways[..., None]  # [D, 1]
    x = jnp.clip(s.x[:, None] + to_x, 0.5, MAP_SIZE - 0.5)  # [K, D, B]
    y = jnp.clip(s.y[:, None] + to_y, 0.5, MAP_SIZE - 0.5)
    from_x = (s.x[:, None] + s.dx)[:, None] - x[:, :, None]  # [K, D, U, B]
    from_y = (s.y[:, None] + s.dy)[:, None] - y[:, :, None]
    square = jnp.maximum(from_x * from_x + from_y * from_y, 0.1)
    exposure = jnp.where(threats[:, None], 1 / square, 0.0).sum(2)
    free = is_free(s, x, y)
    exposure = jnp.where(free | ~s.walks[:, None], exposure, jnp.inf)
    best = jnp.argmin(exposure, axis=1)[:, None]

    def pick(places: Array) -> Float[Array, "K B"]:
        return jnp.take_along_axis(places, best, axis=1)[:, 0]

    return pick(x), pick(y)
