"""Translation of choices to available actions, along the shortest paths around walls."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.battle.combat.paths import DIRECT
from jmarl.envs.battle.players.battlefield import Battlefield
from jmarl.envs.battle.situation import (
    STEP,
    Choice,
    Situation,
    Way,
    find_way,
    goal,
    has_detours,
    in_reach,
    next_cell,
)
from jmarl.types import Spec


STRAY = 1e3
"""Cost of a move that leaves a straight way, and of stopping on a way around walls."""


def to_actions(
    spec: Spec,
    field: Battlefield,
    s: Situation,
    choice: Choice,
    avail: Bool[Array, "B N A"],
) -> Int[Array, "B N"]:
    """Return an available action for each ally that has any.

    An ally takes the action that is aimed at its target if this action is available. A target out
    of reach must also have no wall in the way. Otherwise, the ally takes the move that leads most
    directly to the target or the place.
    """
    avail = jnp.moveaxis(avail, 0, -1)  # [N, A, B]
    aims = _aims(spec)[..., None] == choice.target[:, None]
    aims &= avail & (choice.target >= 0)[:, None]
    place = goal(s, choice)
    way = find_way(s, *place)
    is_aimed = aims.any(1) & (in_reach(s, choice.target) | ~way.detour)
    score = _scores(field, s, way, place)
    score = jnp.where(avail[:, : score.shape[1]], score, -jnp.inf)
    move = jnp.argmax(score, axis=1)
    action = jnp.where(is_aimed, jnp.argmax(aims, axis=1), move)
    offered = jnp.take_along_axis(avail, action[:, None], axis=1)[:, 0]
    return jnp.where(offered, action, jnp.argmax(avail, axis=1)).T


def _aims(spec: Spec) -> np.ndarray:
    """Return the index of the unit at which each action of each ally is aimed, or -1."""
    slot = np.asarray(spec.action_target)
    observer = np.arange(spec.n_agents)[:, None]
    return np.where(slot < 0, -1, slot + (slot >= observer))  # the observer has no slot


def _scores(
    field: Battlefield, s: Situation, way: Way, place: tuple[Array, Array]
) -> Float[Array, "N A B"]:
    """Return how much nearer each own action leads to the next part of the way.

    Of all moves of one length, the move with the largest component along the way ends nearest to
    the place. To stay is better than a move past the place that ends farther away, except on the
    way around walls.
    """
    dx, dy = field.headings.T[..., None]  # [A, 1]
    nearer = dx * (way.x - s.x)[:, None] + dy * (way.y - s.y)[:, None]
    stays = np.flatnonzero(np.arange(len(dx)) == field.stop)
    half_step = jnp.where(way.detour, -STRAY, s.speed[s.own] * STEP / 2)
    nearer = nearer.at[:, stays].set(half_step[:, None])
    if has_detours(s.terrains):
        beside = s.x[:, None] + dx, s.y[:, None] + dy
        there = place[0][:, None], place[1][:, None]
        strays = next_cell(s, beside, there) != DIRECT
        strays &= (s.walks & ~way.detour)[:, None]
        nearer -= STRAY * strays
    return nearer
