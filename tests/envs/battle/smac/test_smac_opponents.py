"""Orders of the enemies: attack-move, pursuit, hold, and healers."""

from __future__ import annotations

import numpy as np
import pytest
from smac_worlds import Case, arena


CENTER = 16.0
SCAN = 5.0
ATTACK_MOVE = "{attack_move: [4, 16]}"
NOBODY = -1


def targets(cases: list[Case], unit: int, orders: str) -> list[int]:
    """Return the targets of an enemy after one step of each case."""
    state = arena(orders=orders).run(cases).state
    return state.last_target[-1, : len(cases), unit].tolist()


def scene(orders: str, *allies: tuple[str, float, float], enemy: str = "marine"):
    """Return a case of an enemy in the center, and of allies at offsets from it."""
    case = arena(orders=orders).case()
    unit = case.enemy(enemy, CENTER, CENTER)
    indices = [case.ally(name, CENTER + x, CENTER + y) for name, x, y in allies]
    return case, unit, indices


@pytest.mark.parametrize(
    ("enemy", "scan"), [("marine", 5), ("zealot", 5), ("marauder", 6), ("colossus", 7)]
)
def test_an_attack_move_acquires_within_5_or_the_range_plus_the_radius(enemy, scan):
    near, unit, (marine,) = scene(ATTACK_MOVE, ("marine", scan + 0.37, 0), enemy=enemy)
    far, *_ = scene(ATTACK_MOVE, ("marine", scan + 0.38, 0), enemy=enemy)
    assert targets([near, far], unit, ATTACK_MOVE) == [marine, NOBODY]


def test_an_attack_move_takes_the_nearest_target_that_it_can_hit():
    """A healer is a target like others; a marauder cannot hit it."""
    allies = ("marine", 0, 4), ("medivac", 0, 3), ("zealot", 5, 0)
    case, unit, (marine, medivac, _) = scene(ATTACK_MOVE, *allies)
    assert targets([case], unit, ATTACK_MOVE) == [medivac]
    case, unit, (marine, *_) = scene(ATTACK_MOVE, *allies, enemy="marauder")
    assert targets([case], unit, ATTACK_MOVE) == [marine]


def test_an_attack_move_keeps_its_target_while_it_is_near():
    kept, unit, (_, other) = scene(ATTACK_MOVE, ("marine", 2, 0), ("marine", -4, 0))
    kept.changes[unit]["last_target"] = other
    gone, _, (near, far) = scene(ATTACK_MOVE, ("marine", 2, 0), ("marine", -6, 0))
    gone.changes[unit]["last_target"] = far
    assert targets([kept, gone], unit, ATTACK_MOVE) == [other, near]


def test_an_attack_move_without_a_target_walks_on_to_its_destination():
    case, unit, _ = scene(ATTACK_MOVE, ("marine", 12, 12))
    battle = arena(orders=ATTACK_MOVE)
    trace = battle.run([case], steps=12)
    x = trace.state.position[:, 0, unit, 0]
    assert np.diff(x)[:10] == pytest.approx([-1.125] * 10, abs=1e-4)
    assert trace.state.position[-1, 0, unit] == pytest.approx([4, 16], abs=1e-3)


def test_pursuit_attacks_the_nearest_ally_at_any_distance_until_it_is_dead():
    allies = ("marine", 10, 0), ("marine", -9, 0)
    fresh, unit, (first, second) = scene("pursue", *allies)
    kept, *_ = scene("pursue", *allies)
    kept.changes[unit]["last_target"] = first
    killed, *_ = scene("pursue", *allies)
    killed.changes[unit]["last_target"] = first
    killed.changes[first]["health"] = 0.0
    cases = [fresh, kept, killed]
    assert targets(cases, unit, "pursue") == [second, first, second]
    walk = arena(orders="pursue").run(cases).walk(1, unit)
    assert walk == pytest.approx([1.125, 0], abs=1e-4)


def test_holding_units_attack_what_is_within_their_reach():
    """A spine crawler reaches 7 from edge to edge, and never moves."""
    reach = 7 + 1.125 + 0.625
    crawler = "spine_crawler"
    near, unit, (stalker,) = scene("hold", ("stalker", reach - 0.01, 0), enemy=crawler)
    far, *_ = scene("hold", ("stalker", reach + 0.01, 0), enemy=crawler)
    assert targets([near, far], unit, "hold") == [stalker, NOBODY]
    near.changes[unit]["cooldown"] = 0.0
    trace = arena().run([near, far])
    assert trace.lost(0, stalker) == 30
    assert not trace.walk(0, unit).any()
    assert not trace.walk(1, unit).any()


@pytest.mark.parametrize("orders", [ATTACK_MOVE, "pursue"])
def test_enemy_healers_never_attack_and_heal_the_lowest_fraction_nearby(orders):
    case, medivac, _ = scene(orders, ("marine", 3, 0), enemy="medivac")
    case.enemy("marine", CENTER, CENTER + 2, health=30.0)
    badly = case.enemy("marauder", CENTER, CENTER - 2, health=60.0)
    case.enemy("marine", CENTER + 5.5, CENTER, health=1.0)
    case.enemy("zealot", CENTER + 1, CENTER)
    mended, *_ = scene(orders, ("marine", 3, 0), enemy="medivac")
    assert targets([case, mended], medivac, orders) == [badly, NOBODY]


def test_idle_healers_of_smacv2_stay_while_others_walk_to_their_destination():
    walks = []
    for orders in ("pursue", ATTACK_MOVE):
        case, medivac, _ = scene(orders, ("marine", 12, 12), enemy="medivac")
        walks.append(arena(orders=orders).run([case]).walk(0, medivac)[0])
    assert walks[0] == 0
    assert walks[1] < 0


def test_a_dead_enemy_has_no_target():
    case, unit, _ = scene("pursue", ("marine", 2, 0))
    case.changes[unit]["health"] = 0.0
    assert targets([case], unit, "pursue") == [NOBODY]
