"""Tactics: laws on situations made by hand, and a slow twin on random ones."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.battle import tactics
from jmarl.envs.battle.combat.tick import Bodies
from jmarl.envs.battle.combat.unit_table import ENEMY_UNITS, UNITS
from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.scenarios.terrain import get_terrain, is_walkable
from jmarl.envs.battle.situation import look
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_opponents import battle_facts, choose_orders
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.battle.smac.smac_starts import draw_starts
from jmarl.envs.battle.smac.smac_state import first_state, to_bodies
from jmarl.envs.battle.tactics import RETREAT, SAFETY, STEP, TIE


TABLE = (*UNITS, *ENEMY_UNITS)
ROWS = {unit.name: row for row, unit in enumerate(UNITS)}
FACTS = battle_facts(TABLE, (get_terrain("open"),))
TACTICS = {
    "attack_move": tactics.attack_move,
    "hold": tactics.hold,
    "pursue": tactics.pursue,
    "heuristic": tactics.heuristic,
    "healers_first": tactics.healers_first(tactics.attack_move),
    "tend": tactics.tend(tactics.attack_move),
    "nearest": tactics.nearest,
    "focus": tactics.focus,
    "kite": tactics.kite,
}
DESTINATION = (30.0, 2.0)


class Unit(NamedTuple):
    kind: str
    x: float
    y: float = 16.0
    health: float = 1.0
    """Fraction."""
    waiting: float = 0.0
    last: int = -1


def choose(name, own, others, terrain="open"):
    """Return targets [K] and places [K] of own units against others, by a tactic."""
    units = [*own, *others]
    kinds = np.asarray([ROWS[unit.kind] for unit in units])
    rows = kinds + np.where(np.arange(len(units)) < len(own), 0, len(UNITS))
    full = np.asarray([TABLE[row].health for row in rows])
    health = full * [unit.health for unit in units]
    shield = [TABLE[row].shield for row in rows] * (health > 0)
    bodies = Bodies(*_columns([u.x for u in units], [u.y for u in units], health))
    bodies = bodies._replace(shield=jnp.asarray(shield)[:, None])
    waiting = jnp.asarray([[unit.waiting] for unit in units])
    choice = _run(
        name,
        terrain,
        tuple(map(int, rows)),
        len(own),
        bodies._replace(cooldown=waiting),
        jnp.asarray([[unit.last] for unit in own]),
    )
    return [np.asarray(x)[:, 0].tolist() for x in choice]


def _columns(x, y, health):
    x, y, health = (
        jnp.asarray(values, jnp.float32)[:, None] for values in (x, y, health)
    )
    return x, y, health, jnp.zeros_like(x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(name, terrain, rows, own, bodies, last):
    shape = (own, bodies.x.shape[1])
    place = tuple(jnp.full(shape, value) for value in DESTINATION)
    facts = battle_facts(TABLE, (get_terrain(terrain),))
    column = np.asarray(rows)[:, None]
    return TACTICS[name](look(facts, column, bodies, slice(own), last, place))


def target(name, own, *others):
    return choose(name, [own], others)[0][0]


def place(name, own, *others, **options):
    _, x, y = choose(name, [own], others, **options)
    return x[0], y[0]


def marine(x, **fields):
    return Unit("marine", x, **fields)


def test_attack_move_keeps_its_target_within_the_scan():
    assert target("attack_move", marine(10, last=2), marine(12), marine(14)) == 2
    assert target("attack_move", marine(10, last=2), marine(12), marine(16)) == 1
    assert (
        target("attack_move", marine(10, last=2), marine(12), marine(14, health=0)) == 1
    )


def test_attack_move_walks_on_and_hold_stays_without_a_target():
    assert target("attack_move", marine(10), marine(16)) == -1
    assert place("attack_move", marine(10), marine(16)) == DESTINATION
    assert target("hold", marine(10), marine(16)) == -1
    assert place("hold", marine(10), marine(16)) == (10, 16)


def test_hold_attacks_only_within_reach():
    zealot = Unit("zealot", 10, last=1)
    assert target("hold", zealot, marine(10.9)) == 1
    assert target("hold", zealot, marine(12)) == -1
    assert target("attack_move", zealot, marine(12)) == 1


def test_pursue_ends_only_with_the_death_of_the_target():
    assert target("pursue", marine(2, last=2), marine(4), marine(30)) == 2
    assert target("pursue", marine(2, last=2), marine(4), marine(30, health=0)) == 1
    assert target("pursue", marine(2), marine(30)) == 1


def test_a_unit_that_cannot_walk_pursues_only_what_is_in_reach():
    crawler = Unit("spine_crawler", 2, last=2)
    assert target("pursue", crawler, marine(4), marine(30)) == 1
    assert target("pursue", crawler, marine(20), marine(30)) == -1


def test_the_heuristic_attacks_within_its_reach_and_walks_to_enemies_in_sight():
    zealot = Unit("zealot", 10)
    assert target("heuristic", zealot, marine(10.9)) == 1
    assert target("heuristic", zealot, marine(12)) == -1
    assert place("heuristic", zealot, marine(12), marine(17)) == (12, 16)
    assert place("heuristic", zealot, marine(20)) == DESTINATION


def test_healers_come_first_within_the_scan_if_the_weapon_hits_them():
    medivac = Unit("medivac", 14)
    assert target("healers_first", marine(10), marine(11), medivac) == 2
    assert target("healers_first", marine(10), marine(11), medivac._replace(x=17)) == 1
    assert target("healers_first", Unit("zealot", 10), marine(11), medivac) == 1


def test_healers_heal_the_most_wounded_nearby():
    healer = Unit("medivac", 10)
    patients = [marine(11, health=0.9), marine(13, health=0.5), marine(20, health=0.1)]
    assert choose("tend", [healer, *patients], [marine(30)])[0][0] == 2


@pytest.mark.parametrize("name", ["tend", "nearest", "focus"])
def test_healers_heal_no_machine_and_none_that_is_well_or_dead(name):
    others = [marine(11), marine(11, health=0), Unit("stalker", 11, health=0.5)]
    team = [Unit("medivac", 10, health=0.5), *others]
    assert choose(name, team, [marine(12)])[0][0] == -1


def test_a_healer_without_a_patient_follows_a_fighter():
    team = [Unit("medivac", 10), Unit("medivac", 11), marine(14), marine(20)]
    for name in ("nearest", "focus"):
        _, x, y = choose(name, team, [marine(30)])
        assert (x[0], y[0]) == (14, 16)


def test_focus_attacks_the_weakest_in_reach_and_else_the_nearest():
    weak, weaker = marine(14, health=0.5), marine(20, health=0.1)
    assert target("focus", marine(10), marine(11), weak, weaker) == 2
    assert target("nearest", marine(10), marine(11), weak, weaker) == 1
    assert target("focus", marine(10), marine(18), weaker) == 1
    assert target("focus", marine(10), marine(14), marine(12)) == 2


def test_focus_wastes_no_shots():
    team = [marine(10)] * 3
    dying = marine(12, health=12 / 45)  # dies of two shots
    assert choose("focus", team, [marine(11), dying])[0] == [4, 4, 3]
    team[0] = marine(10, waiting=STEP + 0.1)
    assert choose("focus", team, [marine(11), dying])[0] == [4, 4, 4]


def test_two_healers_of_focus_have_two_patients():
    team = [Unit("medivac", 10), Unit("medivac", 10)]
    team += [marine(11, health=0.5), marine(11, health=0.6)]
    assert choose("focus", team, [marine(30)])[0][:2] == [2, 3]


@pytest.mark.parametrize(
    ("own", "other", "steps_back"),
    [
        (Unit("stalker", 10, waiting=1.0), Unit("zealot", 12), True),
        (Unit("stalker", 10, waiting=0.0), Unit("zealot", 12), False),
        (Unit("stalker", 10, waiting=1.0), Unit("zealot", 15), False),
        (Unit("stalker", 10, waiting=1.0), marine(12), False),  # shoots nearly as far
        (Unit("marine", 10, waiting=1.0), Unit("zergling", 12), False),  # is faster
        (Unit("marine", 10, waiting=1.0), Unit("zealot", 12), True),
        (Unit("zealot", 10, waiting=1.0), Unit("zealot", 12), False),
    ],
)
def test_kite_steps_back_from_melee_enemies_while_it_reloads(own, other, steps_back):
    (index,), (x,), (y,) = choose("kite", [own], [other])
    assert (index == -1) == steps_back
    if steps_back:
        assert (x, y) == (pytest.approx(10 - RETREAT), pytest.approx(16))


def test_kite_does_not_step_back_into_walls_or_off_the_map():
    stalker = Unit("stalker", 16.0, 8.5, waiting=1.0)
    x, y = place("kite", stalker, Unit("zealot", 16.2, 10.0), terrain="strip")
    assert is_walkable(get_terrain("strip"), x, y) and x < 16
    corner = Unit("stalker", 0.5, 0.5, waiting=1.0)
    x, y = place("kite", corner, Unit("zealot", 1.5, 2.0))
    assert 0 < x < 32 and 0 < y < 32 and x > 1


def test_units_of_a_team_follow_their_own_tactics():
    by_order = {0: tactics.hold, 1: tactics.pursue}
    bodies = Bodies(*_columns([2, 2, 30], [16] * 3, [45.0] * 3))
    rows = np.full((3, 1), ROWS["marine"])
    nothing = jnp.full((2, 1), -1)
    home = bodies.x[:2], bodies.y[:2]
    s = look(FACTS, rows, bodies, slice(2), nothing, home)
    choice = tactics.by_order(np.asarray([[0], [1]]), by_order, s)
    assert choice.target[:, 0].tolist() == [-1, 2]


@pytest.mark.parametrize(
    ("opponent", "expected"),
    [("orders", 0), ("healer_first", 1), ("heuristic", 0)],
)
def test_the_option_opponent_chooses_the_tactic_of_the_enemies(opponent, expected):
    f = Facts(parse_name("smac_1m1d_vs_1m"), SmacConfig(opponent=opponent))
    names = [f.table[row].name for row in f.rows]
    x = jnp.asarray([{"marine": 12.0, "medivac": 13.5}[name] for name in names])
    x = x.at[-1].set(10.0)
    start = draw_starts(f, jax.random.split(jax.random.key(0), 1))
    state = first_state(f, start)
    bodies = to_bodies(state)._replace(x=x[:, None], y=jnp.full((3, 1), 16.0))
    reply = choose_orders(f, state, bodies)
    kinds = ["marine", "medivac"]
    assert names[int(reply.target[0, 0])] == kinds[expected]


KINDS = ("marine", "marauder", "medivac", "stalker", "zealot", "colossus", "zergling")
OWN, OTHERS, BATTLES = 5, 6, 24


def test_targets_equal_those_of_a_slow_twin():
    rng = np.random.default_rng(0)
    units = OWN + OTHERS
    rows = np.asarray([ROWS[kind] for kind in rng.choice(KINDS, units)])
    rows[[0, OWN]] = ROWS["medivac"]
    rows[OWN:] += len(UNITS)
    shape = (units, BATTLES)
    full = np.asarray([[TABLE[row].health] for row in rows])
    alive, well = rng.random(shape) < 0.8, rng.random(shape) < 0.3
    bodies = Bodies(
        x=rng.uniform(8, 20, shape),
        y=rng.uniform(10, 18, shape),
        health=full * np.where(well, 1, rng.uniform(0.1, 1, shape)) * alive,
        cooldown=rng.uniform(0, 1, shape),
        shield=rng.uniform(0, 50, shape),
    )
    bodies = jax.tree.map(np.float32, bodies)
    last = rng.integers(-1, units, (OWN, BATTLES))
    for name in TACTICS:
        found = _run(name, "open", tuple(map(int, rows)), OWN, bodies, last)
        for b in range(BATTLES):
            world = [_twin_unit(rows, bodies, i, b) for i in range(units)]
            expected = twin(name, world, last[:, b])
            alive_own = [i for i in range(OWN) if world[i].health > 0]
            got = np.asarray(found.target)[:, b]
            assert [got[i] for i in alive_own] == [expected[i] for i in alive_own], name


class TwinUnit(NamedTuple):
    index: int
    x: float
    y: float
    health: float
    shield: float
    waiting: float
    type: object


def _twin_unit(rows, bodies, i, b):
    fields = (bodies.x, bodies.y, bodies.health, bodies.shield, bodies.cooldown)
    return TwinUnit(i, *(float(x[i, b]) for x in fields), TABLE[rows[i]])


def twin(name, world, last):
    """Return the targets of the first ``OWN`` units of a list of units."""
    shots, patients, targets = {}, set(), []
    for unit in world[:OWN]:
        chosen = twin_unit(name, unit, world, int(last[unit.index]), shots, patients)
        targets.append(chosen)
    return targets


def twin_unit(name, unit, world, last, shots, patients):
    if unit.health <= 0:
        return -1
    friends = [f for f in world[:OWN] if f.health > 0 and f is not unit]
    wounded = [f for f in friends if unit.type.heal and _can_be_healed(f)]
    enemies = [e for e in world[OWN:] if e.health > 0 and _hits(unit.type, e.type)]
    if unit.type.heal and name in ("tend", "nearest", "focus", "kite"):
        return _twin_patient(name, unit, wounded, patients)
    if name == "nearest":
        return _nearest(unit, enemies)
    if name in ("focus", "kite"):
        found = _twin_focus(unit, enemies, shots)
        return -1 if name == "kite" and _twin_retreats(unit, enemies) else found
    return _twin_opponent(name, unit, enemies, last)


def _twin_patient(name, unit, wounded, patients):
    if name == "tend":
        near = [f for f in wounded if _apart(unit, f) <= 5 + f.type.radius]
        return _most_wounded(near)
    free = [f for f in wounded if f.index not in patients and _in_reach(unit, f)]
    if name == "nearest" or not free:
        return _nearest(unit, wounded)
    patients.add(_most_wounded(free))
    return _most_wounded(free)


def _most_wounded(units):
    order = min(units, key=lambda f: f.health / f.type.health, default=None)
    return order.index if order else -1


def _twin_opponent(name, unit, enemies, last):
    scan = max(unit.type.attack_range, 5.0)
    near = [e for e in enemies if _apart(unit, e) <= scan + e.type.radius]
    if name in ("heuristic", "hold"):
        near = [e for e in enemies if _in_reach(unit, e)]
    if name == "pursue":
        near = enemies
    healers = [e for e in near if e.type.heal and name == "healers_first"]
    return _keep(unit, healers or near, last)


def _twin_focus(unit, enemies, shots):
    kind = unit.type
    near = [e for e in enemies if _in_reach(unit, e)]
    near = [e for e in near if e.health + e.shield > shots.get(e.index, 0)]
    if not near:
        return _nearest(unit, enemies)
    weakest = min(near, key=lambda e: e.health + e.shield + TIE * _apart(unit, e))
    if unit.waiting <= STEP:
        bonus = kind.bonus * (kind.bonus_against in weakest.type.attributes)
        hit = max(kind.damage + bonus - weakest.type.armor, 0.5)
        shots[weakest.index] = shots.get(weakest.index, 0) + hit * kind.hits
    return weakest.index


def _twin_retreats(unit, enemies):
    def threatens(e):
        danger = _reach(e.type, unit.type)
        outranged = _reach(unit.type, e.type) >= danger + tactics.OUTRANGED
        hits = _hits(e.type, unit.type)
        close = not hits or _apart(unit, e) <= danger + SAFETY
        return hits and outranged and unit.type.speed >= e.type.speed and close

    return unit.waiting >= STEP / 2 and any(map(threatens, enemies))


def _keep(unit, candidates, last):
    kept = [e.index for e in candidates if e.index == last]
    return kept[0] if kept else _nearest(unit, candidates)


def _nearest(unit, others):
    return min(others, key=lambda e: _apart(unit, e)).index if others else -1


def _apart(unit, other):
    return np.hypot(unit.x - other.x, unit.y - other.y)


def _in_reach(unit, other):
    return _apart(unit, other) <= _reach(unit.type, other.type)


def _reach(kind, other):
    return kind.attack_range + kind.radius + other.radius


def _hits(kind, other):
    planes = {"air"} if other.flies else {"ground"}
    planes |= {"air"} if other.colossal else set()
    weapon = {"both": {"ground", "air"}, "": set()}.get(kind.targets, {kind.targets})
    return bool(planes & weapon)


def _can_be_healed(unit):
    biological = "biological" in unit.type.attributes and not unit.type.flies
    return biological and unit.health < unit.type.health
