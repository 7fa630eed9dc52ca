"""Battles of every kind pass ``check_env``: maps, drawn and joined ones, and all options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import pytest

from jmarl.envs.battle.scenarios import naming
from jmarl.envs.battle.scenarios.battle_spec import AnyBattle, DrawnBattle, JoinedBattle
from jmarl.envs.battle.scenarios.scenario_file import parse
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_options import SmacConfig
from jmarl.envs.conformance import check_env
from jmarl.envs.registry import make


LIMIT = 10
"""Step limit of short battles, which both teams can survive."""


def read(text: str) -> AnyBattle:
    return parse(f"limit: {LIMIT}\n{text}", "short.yaml", "short")


HEALERS = read(
    "allies: [{units: {marine: 1, medivac: 2}, at: [12, 16]}]\n"
    "enemies: [{units: {marine: 2}, at: [17, 16]}]"
)
MIXED = read(
    "terrain: strip\n"
    "allies: [{units: {colossus: 1, zealot: 1}, at: [12, 16]}]\n"
    "enemies: [{units: {baneling: 1, hydralisk: 1}, at: [19, 16]}]"
)
CHANGING = read("""
allies:
  - {units: {zealot: 1, sentinel: 1}, at: [12, 16]}
  - {units: {marine: 1}, at: [[4, 12], [4, 20]], arrives: [2, 4]}
  - {units: {marauder: 1}, at: [12, 12], leaves: 5}
enemies:
  - {units: {stalker: 1}, at: [18, 16]}
  - {units: {zergling: 2}, at: [20, 20], arrives: 3, leaves: 8}
zones:
  - {slow: 0.5, rectangle: [13, 14, 16, 18]}
  - {conceal: 3, circle: [20, 20, 2]}
  - {damage: 2, circle: [12, 12, 1]}
reward:
  team: 0.5
  zealot: {survival: 1, sight: 0.1}
units:
  sentinel: {like: medivac, heal: false, energy: 0, abilities: [ward, spot]}
""")
DRAWN = DrawnBattle("terran", 2, 3, limit=LIMIT)
KINDS: dict[str, tuple[AnyBattle, Mapping[str, Any]]] = {
    "healers in SMAC's layout": (HEALERS, {"layout": "clash", "smac_reward": True}),
    "cone and partial observability": (
        HEALERS,
        {"cone": True, "prob_obs_enemy": 0.5, "own_position": True, "reset_pool": 2},
    ),
    "joined, padded and shuffled": (
        JoinedBattle((HEALERS, MIXED)),
        {"pad": (4, 3), "shuffle_slots": True},
    ),
    "times, zones, wards and weights": (CHANGING, {}),
    "drawn": (DRAWN, {"action_mask": False}),
}
SLOW_KINDS: dict[str, tuple[AnyBattle, Mapping[str, Any]]] = {
    "healers": (HEALERS, {}),
    "lines, bursts and walls": (MIXED, {}),
    "all of a changing battle": (
        CHANGING,
        {"cone": True, "prob_obs_enemy": 0.5, "pad": (6, 6), "shuffle_slots": True},
    ),
    "drawn in SMAC's layout": (DRAWN, {"layout": "clash", "cone": True}),
    "joined drawn battles": (
        JoinedBattle((DRAWN, DrawnBattle("zerg", 3, 2, limit=LIMIT))),
        {"prob_obs_enemy": 0.0, "shuffle_slots": True, "reset_pool": 3},
    ),
}


def check(battle: AnyBattle, options: Mapping[str, Any]) -> None:
    env = smac_battle.build("short", battle, SmacConfig(**options))
    check_env(env, jax.random.key(0), batch=3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_of_battle_conforms(kind):
    check(*KINDS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(SLOW_KINDS))
def test_another_kind_of_battle_conforms(kind):
    check(*SLOW_KINDS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in naming.names()])
def test_a_listed_battle_conforms(name):
    env = make(name)
    assert env.name == name
    check_env(env, jax.random.key(0), batch=3)
