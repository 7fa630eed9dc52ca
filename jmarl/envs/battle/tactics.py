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
"""Health equivalent of one unit of distance, which breaks ties."""
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
    target = _keep_or_nearest(s, _noticed(s))
    return Choice(target, *s.destination)


def hold(s: Situation) -> Choice:
    """Attack enemies in reach, else stay."""
    target = _keep_or_nearest(s, _in_reach(s))
    return _or_stay(s, target)


def pursue(s: Situation) -> Choice:
    """Attack the last target until it is dead, then the nearest enemy at any distance.

    A unit that cannot walk attacks only within its scan.
    """
    walks = (s.speed[s.own] > 0)[:, None]
    candidates = s.attackable & (walks | _noticed(s))
    target = _keep_or_nearest(s, candidates)
    return _or_stay(s, target)


def heuristic(s: Situation) -> Choice:
    """Attack only within the own reach; else walk to the nearest enemy in sight, else walk on.

    Differs from SMAX: an enemy of SMAX walks to a random one of the enemies in sight.
    """
    target = _keep_or_nearest(s, _in_reach(s))
    in_sight = s.attackable & (s.distance < s.sight)
    seen = _least(s.distance, in_sight)
    x, y = place_of(s, seen, s.destination)
    return Choice(target, x, y)


def healers_first(tactic: Tactic) -> Tactic:
    """Return a tactic that attacks healers first, as SMAClite's opponents do."""

    def choose(s: Situation) -> Choice:
        healers = s.attackable & s.healer
        first = tactic(s._replace(attackable=healers))
        choice = tactic(s)
        target = jnp.where(first.target >= 0, first.target, choice.target)
        return choice._replace(target=target)

    return choose


def tend(tactic: Tactic) -> Tactic:
    """Return a tactic in which healers heal the most wounded teammate within their scan."""

    def choose(s: Situation) -> Choice:
        patients = s.healable & (s.distance <= s.scan)
        patient = _least(s.fraction, patients)
        choice = tactic(s)
        target = jnp.where(s.healer[s.own], patient, choice.target)
        return choice._replace(target=target)

    return choose


def nearest(s: Situation) -> Choice:
    """Attack the nearest enemy; healers heal the nearest wounded teammate."""
    target = _least(s.distance, s.attackable)
    patient = _least(s.distance, s.healable)
    return _support(s, target, patient)


def focus(s: Situation) -> Choice:
    """Attack the weakest enemy in reach, else the nearest; healers heal the most wounded.

    Units choose in turn. They leave out enemies that the shots of others before them kill, and
    patients of other healers. Of equally weak enemies, the nearest is attacked.
    """
    in_reach = s.distance <= s.reach
    weakness = s.strength + TIE * s.distance
    fires = (s.waiting <= STEP)[:, None]
    shots = jnp.where(fires, s.damage, 0.0)
    weakest = _share(weakness, s.attackable & in_reach, s.strength, shots)
    nearest_enemy = _least(s.distance, s.attackable)
    one = jnp.ones_like(s.strength)
    most_wounded = _share(s.fraction, s.healable & in_reach, one, one)
    nearest_patient = _least(s.distance, s.healable)
    return _support(
        s,
        target=_first(weakest, nearest_enemy),
        patient=_first(most_wounded, nearest_patient),
    )


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
    reloads = s.waiting >= STEP / 2
    retreats = reloads & threats.any(1)
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


def _in_reach(s: Situation) -> Bool[Array, "K U B"]:
    return s.attackable & (s.distance <= s.reach)


def _keep_or_nearest(
    s: Situation, candidates: Bool[Array, "K U B"]
) -> Int[Array, "K B"]:
    """Return the last target if it is still a candidate, else the nearest candidate."""
    units = jnp.arange(candidates.shape[1])[:, None]
    is_last = units == s.last_target[:, None]
    keeps = (candidates & is_last).any(1)
    nearest_one = _least(s.distance, candidates)
    return jnp.where(keeps, s.last_target, nearest_one)


def _least(values: Any, candidates: Bool[Array, "K U B"]) -> Int[Array, "K B"]:
    """Return the candidate with the least value, the first of equal ones; -1 if there is none."""
    values = jnp.where(candidates, values, jnp.inf)
    index = jnp.argmin(values, axis=1)
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
        available = possible & (left > 0)
        target = _least(value[None], available[None])[0]
        used = jnp.where(units == target, needed, 0.0)
        return left - used, target

    shape = candidates.shape
    values = jnp.broadcast_to(values, shape)
    use = jnp.broadcast_to(use, shape)
    _, targets = lax.scan(choose, capacity, (values, candidates, use))
    return targets


def _first(target: Int[Array, "K B"], other: Int[Array, "K B"]) -> Int[Array, "K B"]:
    return jnp.where(target >= 0, target, other)


def _or_stay(s: Situation, target: Int[Array, "K B"]) -> Choice:
    return Choice(target, s.x, s.y)


def _support(
    s: Situation, target: Int[Array, "K B"], patient: Int[Array, "K B"]
) -> Choice:
    """Return targets of fighters and healers; healers without a target follow a fighter."""
    leader = _least(s.distance, s.fighters)
    heals = s.healer[s.own]
    followed = jnp.where(heals, leader, -1)
    x, y = place_of(s, followed, (s.x, s.y))
    target = jnp.where(heals, patient, target)
    return Choice(target, x, y)


def _find_refuge(
    s: Situation, threats: Bool[Array, "K U B"]
) -> tuple[Float[Array, "K B"], Float[Array, "K B"]]:
    """Return the place around each own unit at which threats are farthest in the mean.

    The mean is that of the inverse squares of the distances.
    """
    x, y = _refuges(s)
    exposure = _exposure(s, threats, x, y)
    passable = is_free(s, x, y) | ~s.walks[:, None]
    exposure = jnp.where(passable, exposure, jnp.inf)
    best = jnp.argmin(exposure, axis=1)[:, None]

    def pick(places: Array) -> Float[Array, "K B"]:
        return jnp.take_along_axis(places, best, axis=1)[:, 0]

    return pick(x), pick(y)


def _refuges(s: Situation) -> tuple[Float[Array, "K D B"], Float[Array, "K D B"]]:
    """Return the places to which each own unit may step back."""
    angle = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    ways = np.stack([np.cos(angle), np.sin(angle)])
    to_x, to_y = RETREAT * ways.astype(np.float32)[..., None]  # [D, 1]
    low = 0.5
    high = MAP_SIZE - 0.5
    x = jnp.clip(s.x[:, None] + to_x, low, high)
    y = jnp.clip(s.y[:, None] + to_y, low, high)
    return x, y


def _exposure(
    s: Situation, threats: Bool[Array, "K U B"], x: Array, y: Array
) -> Float[Array, "K D B"]:
    """Return the sum of the inverse squares of the distances of places to the threats."""
    unit_x = s.x[:, None] + s.dx
    unit_y = s.y[:, None] + s.dy
    dx = unit_x[:, None] - x[:, :, None]  # [K, D, U, B]
    dy = unit_y[:, None] - y[:, :, None]
    square = jnp.maximum(dx * dx + dy * dy, 0.1)
    each = jnp.where(threats[:, None], 1 / square, 0.0)
    return each.sum(2)
