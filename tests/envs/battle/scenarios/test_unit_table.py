"""The unit table of SMAC: figures, attributes, and differences of the enemies."""

from __future__ import annotations

import pytest

from jmarl.envs.battle.combat.unit_table import ATTRIBUTES, ENEMY_UNITS, RACES
from jmarl.envs.battle.combat.unit_table import UNITS as UNIT_ROWS
from jmarl.envs.battle.rules import SMAX


UNITS = {unit.name: unit for unit in UNIT_ROWS}


def test_cooldowns_are_the_loops_of_the_game():
    loops = {name: round(unit.cooldown * 16, 1) for name, unit in UNITS.items()}
    loops = {name: value for name, value in loops.items() if value}
    assert loops == {
        "marine": 13.8,
        "marauder": 24.0,
        "stalker": 29.9,
        "zealot": 19.2,
        "colossus": 24.0,
        "zergling": 11.1,
        "hydralisk": 13.2,
        "spine_crawler": 29.6,
    }


def _hit(name: str, target: str, field: str) -> float:
    attacker, victim = UNITS[name], UNITS[target]
    bonus = attacker.bonus * (attacker.bonus_against in victim.attributes)
    armor = victim.armor * (field == "health")
    return attacker.hits * (attacker.damage + bonus - armor)


def test_hits_are_the_anchors_of_the_spec():
    assert 7 * UNITS["marine"].cooldown == pytest.approx(6.03, abs=0.01)
    assert -(-UNITS["marine"].health // UNITS["marine"].damage) == 8
    assert _hit("marauder", "marauder", "health") == 19
    assert _hit("marauder", "stalker", "shield") == 20
    assert _hit("zealot", "marauder", "health") == 14
    assert _hit("zealot", "marauder", "shield") == 16
    assert _hit("baneling", "zealot", "shield") == 35
    assert _hit("baneling", "zergling", "health") == UNITS["zergling"].health
    assert _hit("baneling", "baneling", "health") == 20


def test_planes_and_attributes_are_consistent():
    for unit in UNIT_ROWS:
        assert unit.attributes <= set(ATTRIBUTES)
        assert bool(unit.damage) == (unit.targets != "") != unit.heal
        assert (unit.bonus > 0) == (unit.bonus_against != "")
        assert (unit.weapon == "burst") == (unit.burst_radius > 0)
        assert (unit.shield > 0) == (unit.shield_regen > 0)
    assert [u.name for u in UNIT_ROWS if u.flies] == ["medivac"]
    assert [u.name for u in UNIT_ROWS if u.colossal] == ["colossus"]
    assert len({u.letter for u in UNIT_ROWS}) == len(UNIT_ROWS)


def test_letters_are_those_of_smax():
    assert all(UNITS[unit.name].letter == unit.letter for unit in SMAX.units)


def test_enemies_differ_in_two_figures():
    pairs = list(zip(UNIT_ROWS, ENEMY_UNITS, strict=True))
    different = {ally.name: foe for ally, foe in pairs if ally != foe}
    assert different == {
        "medivac": UNITS["medivac"]._replace(speed=2.5),
        "hydralisk": UNITS["hydralisk"]._replace(health=90.0),
    }


def test_a_race_has_probabilities_of_its_types():
    for kinds in RACES.values():
        assert sum(share for _, share in kinds) == pytest.approx(1)
        assert all(name in UNITS for name, _ in kinds)
