"""Drawn battles of SMACv2: types, sizes and starts of 20,000 episodes."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jmarl.envs.battle.scenarios.battle_spec import DrawnBattle
from jmarl.envs.battle.smac import smac_battle
from jmarl.envs.battle.smac.smac_facts import Facts
from jmarl.envs.battle.smac.smac_options import SmacConfig


DRAWS = 20_000
CENTER = 16.0
RACES = {
    "terran": {"marine": 0.45, "marauder": 0.45, "medivac": 0.1},
    "protoss": {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1},
    "zerg": {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1},
}
RARE = {"terran": "medivac", "protoss": "colossus", "zerg": "baneling"}


class Draws(NamedTuple):
    """Types and places of the units of many episodes; the allies come first."""

    allies: np.ndarray
    """Names of types, ``[B, N]``."""
    enemies: np.ndarray
    ally_places: np.ndarray
    """``[B, N, 2]``."""
    enemy_places: np.ndarray


@functools.cache
def draw(race: str, n: int, m: int) -> Draws:
    """Draw the starts of n against m units."""
    facts = Facts(DrawnBattle(race, n, m), SmacConfig())
    engine = smac_battle.make_engine(facts)
    keys = jax.random.split(jax.random.key(1), DRAWS)
    state = jax.jit(lambda: engine.first_state(engine.draw_starts(keys)))()
    names = np.asarray([row.name for row in facts.table])[np.asarray(state.row)]
    place = np.asarray(state.position)
    return Draws(names[:, :n], names[:, n:], place[:, :n], place[:, n:])


def assert_share(found: float, expected: float, count: int) -> None:
    """Check a share of independent draws within three standard deviations."""
    sigma = np.sqrt(expected * (1 - expected) / count)
    assert abs(found - expected) < 3 * sigma


@pytest.mark.parametrize("race", list(RACES))
def test_types_have_their_frequencies(race):
    types = draw(race, 5, 6).allies
    for name, share in RACES[race].items():
        assert_share(np.mean(types == name), share, types.size)


@pytest.mark.parametrize("race", list(RACES))
def test_types_of_a_team_are_independent(race):
    types = draw(race, 5, 6).allies
    for name, share in RACES[race].items():
        both = (types[:, 0] == name) & (types[:, 1] == name)
        assert_share(np.mean(both), share**2, len(types))


@pytest.mark.parametrize("race", list(RACES))
def test_enemies_are_the_allies_and_surplus_ones_are_drawn(race):
    battle = draw(race, 5, 6)
    assert (battle.enemies[:, :5] == battle.allies).all()
    for name, share in RACES[race].items():
        assert_share(np.mean(battle.enemies[:, 5] == name), share, DRAWS)


def test_fewer_enemies_are_the_first_allies():
    battle = draw("zerg", 3, 2)
    assert (battle.enemies == battle.allies[:, :2]).all()


@pytest.mark.parametrize(
    ("race", "is_redrawn"), [("terran", 1), ("zerg", 1), ("protoss", 0)]
)
def test_a_team_of_medivacs_or_of_banelings_alone_is_drawn_again(race, is_redrawn):
    """A team of colossi alone is valid: 1 % of the teams of two."""
    rare = draw(race, 2, 2).allies == RARE[race]
    if is_redrawn:
        assert not rare.all(1).any()
        # Of the teams that are left, 18 of 99 have one such unit.
        assert_share(np.mean(rare.any(1)), 18 / 99, DRAWS)
    else:
        assert_share(np.mean(rare.all(1)), 0.01, DRAWS)


def test_no_team_of_5_has_medivacs_alone():
    battle = draw("terran", 5, 6)
    for team in (battle.allies, battle.enemies):
        assert not (team == "medivac").all(1).any()


def is_reflected(battle: Draws) -> np.ndarray:
    """Return the episodes whose first enemies are the mirror image of the allies."""
    both = min(battle.allies.shape[1], battle.enemies.shape[1])
    x, y = np.moveaxis(battle.ally_places[:, :both], -1, 0)
    image = np.stack([2 * CENTER - x, y], axis=-1)
    return np.isclose(battle.enemy_places[:, :both], image, atol=1e-3).all((1, 2))


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Check that values fill a range evenly."""
    assert values.min() >= low
    assert values.max() <= high
    counts = np.histogram(values, bins=10, range=(low, high))[0]
    for count in counts:
        assert abs(count / values.size - 0.1) < 4 * 0.3 / np.sqrt(values.size)


def test_half_of_the_starts_are_reflected():
    assert_share(np.mean(is_reflected(draw("terran", 5, 6))), 0.5, DRAWS)


def test_reflected_allies_are_anywhere_in_the_left_part():
    battle = draw("terran", 5, 6)
    places = battle.ally_places[is_reflected(battle)]
    assert_uniform(places[..., 0], 0.0, 15.0)
    assert_uniform(places[..., 1], 0.0, 32.0)


def test_surplus_enemies_are_anywhere_in_the_right_half():
    battle = draw("terran", 5, 6)
    places = battle.enemy_places[is_reflected(battle)][:, 5]
    assert_uniform(places[..., 0], 16.0, 32.0)
    assert_uniform(places[..., 1], 0.0, 32.0)


ACROSS = 2 * 0.75
"""Distance of touching medivacs, the largest terran bodies."""
JITTER = 0.05


def surrounded(n: int, m: int) -> Draws:
    """Return the episodes of terran units that are not reflected."""
    battle = draw("terran", n, m)
    others = ~is_reflected(battle)
    return Draws(*(x[others] for x in battle))


def test_surrounded_allies_start_around_the_center():
    places = surrounded(5, 6).ally_places
    assert np.abs(places - CENTER).max() < ACROSS + 2 * JITTER
    assert np.abs(places.mean((0, 1)) - CENTER).max() < ACROSS


@pytest.mark.parametrize("team", ["ally_places", "enemy_places"])
def test_no_two_units_start_at_one_point(team):
    """Units at one point would never be pushed apart."""
    places = getattr(surrounded(5, 6), team)
    offsets = places[:, :, None] - places[:, None]
    apart = np.linalg.norm(offsets, axis=-1)[:, ~np.eye(places.shape[1], dtype=bool)]
    assert apart.min() > 1e-3
    assert np.mean(apart < 0.5 * ACROSS) < 0.2


def test_surrounding_enemies_start_on_the_diagonals():
    """A single enemy is alone in its group, at t (16 +- 2) + (1 - t) corner with uniform t."""
    places = surrounded(5, 1).enemy_places[:, 0]
    dx, dy = np.abs(places - CENTER).T
    assert np.abs(dx - dy).max() < 3 * JITTER
    t = (CENTER - np.clip(dx, 2.0, CENTER)) / (CENTER - 2.0)
    assert_uniform(t[(t > 0.05) & (t < 0.95)], 0.05, 0.95)
    quadrant = 2 * (places[:, 0] > CENTER) + (places[:, 1] > CENTER)
    for corner in range(4):
        assert_share(np.mean(quadrant == corner), 0.25, len(quadrant))


def test_surrounding_enemies_form_one_to_four_groups():
    """Two enemies are in one group with probability (1 + 1/2 + 1/3 + 1/4) / 4."""
    places = surrounded(5, 2).enemy_places
    quadrants = 2 * (places[..., 0] > CENTER) + (places[..., 1] > CENTER)
    same = quadrants[:, 0] == quadrants[:, 1]
    assert_share(np.mean(same), 25 / 48, len(same))
    many = surrounded(5, 6).enemy_places
    quadrants = 2 * (many[..., 0] > CENTER) + (many[..., 1] > CENTER)
    counts = [len(set(row)) for row in quadrants.tolist()]
    assert set(counts) == {1, 2, 3, 4}
