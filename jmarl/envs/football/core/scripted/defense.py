"""Defense of a scripted team: the attack on the carrier, and the marking of free attackers."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jmarl.envs.football.core import keeper, pitch, vectors
from jmarl.envs.football.core.scripted import formation
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.vectors import Vector
from jmarl.envs.football.core.world import World, expand, first_of, pick_vector


MEET = 8.0
"""Distance of the carrier to the line of a defender's place at which he is attacked, in meters."""
HUNT = 6.5
"""Distance within which a defender attacks the carrier, in meters.

Differs from GRF's source: it does not depend on the difficulty, because the duration of measured
duels does not.
"""
OVERTAKE = 8.0
"""Distance within which a defender overtakes the carrier, and that to which he does, in meters."""
OVERTAKEN = 2.5
"""Distance by which he is nearer to his goal than the carrier when he attacks, in meters."""
MARK = 0.15
"""Part of the way from a marked attacker to the goal at which his marker stands."""
GOAL_SIDE = 0.8
"""Distance by which a defender stays on the side of his goal, in meters."""
LEAD_TIME = 0.14
"""Seconds of the carrier's run by which a defender meets him further on."""
BESIDE = 0.3
"""Least cosine of the angle between the carrier's ways to the goal and to a defender who meets
him."""


class Defense(NamedTuple):
    """What each player does while the opponents have the ball."""

    nearest: Bool[Array, "P *b"]
    """The player of his team nearest to the carrier."""
    hunts: Bool[Array, "P *b"]
    """He attacks the carrier."""
    marks: Bool[Array, "P *b"]
    """He marks a free attacker."""
    place: Vector
    """Where he goes, meters."""


class Attacker(NamedTuple):
    """The carrier as each player sees him."""

    place: Vector
    """His position, meters."""
    to_goal: Vector
    """Way from him to the player's own goal, meters."""
    way: Vector
    """Way from him to the player, meters."""
    square: Array
    """Square of the distance between them."""


class Marking(NamedTuple):
    """Who is left to attack the carrier, and who marks another attacker."""

    nearest: Bool[Array, "P *b"]
    """The player of his team nearest to the carrier."""
    spare: Bool[Array, "P *b"]
    """His team has more defenders than there are other free attackers."""
    marks: Bool[Array, "P *b"]
    """He marks a free attacker."""
    place: Vector
    """Where he stands, meters."""


def defend(
    setup: Setup, world: World, goal: keeper.Goal, carries: Array, foreign: Array
) -> Defense:
    """Return what each player does while the opponents have the ball.

    The nearest one attacks the carrier if his teammates suffice for the other attackers: he runs
    to the point of the carrier's way to the goal that both reach at the same time. If they do not
    suffice, the defenders leave the carrier and mark the free attacker who is nearest to the goal.

    Args:
        setup: Scenario and options.
        world: Current state.
        goal: Own goals.
        carries: Mask of the carrier.
        foreign: The opponents of each player have the ball.
    """
    attacker = _attacker(world, goal, carries)
    marking = _mark(setup, world, goal, carries, attacker)
    nearest, spare, marks, place = marking
    (x, _), (gx, _) = attacker.place, attacker.to_goal
    meets = jnp.abs(place[0] - x) < MEET
    goal_side = jnp.abs(goal.x - world.x) < jnp.abs(gx) - OVERTAKEN
    hunts = foreign & nearest & spare & meets & goal_side
    hunts &= attacker.square < HUNT**2
    # A defender behind the carrier overtakes him before he attacks.
    overtakes = nearest & spare & ~goal_side & (attacker.square < OVERTAKE**2)
    passed = x + jnp.sign(gx) * OVERTAKE, world.y
    place = vectors.where(overtakes, passed, place)
    meeting = _meeting_point(world, carries, attacker)
    place = vectors.where(hunts, meeting, place)
    return Defense(nearest, hunts, marks, place)


def _attacker(
    world: World,
    goal: keeper.Goal,
    carries: Array,
) -> Attacker:
    place = pick_vector(world.place, carries)
    dx, dy = vectors.minus(world.place, place)
    return Attacker(
        place,
        to_goal=(goal.x - place[0], -place[1]),
        way=(dx, dy),
        square=dx**2 + dy**2,
    )


def _meeting_point(
    world: World,
    carries: Array,
    attacker: Attacker,
) -> Vector:
    """Return the point of the carrier's way to the goal that he and a defender reach together."""
    ux, uy = vectors.direction(attacker.to_goal)
    ahead = jnp.maximum(
        vectors.dot((ux, uy), attacker.way),
        BESIDE * jnp.sqrt(attacker.square) + 1e-3,
    )
    length = vectors.length(attacker.to_goal)
    way = jnp.clip(attacker.square / (2 * ahead), 0.0, length) + GOAL_SIDE
    (x, y), (vx, vy) = attacker.place, pick_vector(world.velocity, carries)
    return x + way * ux + LEAD_TIME * vx, y + way * uy + LEAD_TIME * vy


def _mark(
    setup: Setup,
    world: World,
    goal: keeper.Goal,
    carries: Array,
    attacker: Attacker,
) -> Marking:
    """Return who is nearest to the carrier, and the places of all in formation or marking."""
    outfield = formation.outfield_players(setup, world)
    side = expand(setup.side, world.x)
    place = formation.in_defense(setup, world, goal)
    nearest = spare = marks = jnp.zeros_like(outfield)
    for team in (0, 1):
        mates, others = outfield & (side == team), outfield & (side != team)
        nearest |= first_of(attacker.square, mates)
        free = others & ~carries & formation.is_near_goal(setup, world)
        enough = jnp.sum(mates, axis=0) > jnp.sum(free, axis=0)
        spare |= enough & (side == team)
        goal_x = (1 - 2 * team) * pitch.HALF_LENGTH
        marked = first_of(jnp.hypot(goal_x + world.x, world.y), free)
        x, y = pick_vector(world.place, marked)
        beside = x + MARK * (goal.x - x), (1 - MARK) * y
        now = mates & ~enough & jnp.any(marked, axis=0)
        place = vectors.where(now, beside, place)
        marks |= now
    return Marking(nearest, spare, marks, place)
