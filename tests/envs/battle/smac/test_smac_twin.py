"""Battles equal their reference twin: masks, observations, states, rewards and verdicts."""

from __future__ import annotations

import pytest
from smac_duel import Comparison
from smac_twin import acting, fighting

from jmarl.envs.battle.scenarios.naming import parse_name
from jmarl.envs.battle.scenarios.scenario_file import map_names


RACES = ("terran", "protoss", "zerg")
SIZES = ("5v5", "10v11", "20v23")
DRAWN = [f"smacv2_{race}_{size}" for race in RACES for size in SIZES]
WHOLE = [*(f"smac_{name}" for name in map_names()), *DRAWN]


def compare(name: str, batch: int, steps: int, **options) -> Comparison:
    """Compare some steps of a battle with its twin."""
    comparison = Comparison(parse_name(name), **options)
    comparison.run(batch, steps)
    assert comparison.faults() == {}
    assert comparison.rounded <= 0.2 * comparison.steps
    return comparison


@pytest.mark.parametrize(
    ("name", "steps"),
    [("smac_MMM", 24), ("smac_1c3s5z", 20), ("smac_so_many_baneling", 16)],
)
def test_some_steps_of_maps(name, steps):
    compare(name, batch=2, steps=steps)


def test_some_steps_of_drawn_units():
    compare("smacv2_zerg_5v6", batch=4, steps=12)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole_episodes(name):
    battle = parse_name(name)
    comparison = compare(name, batch=4, steps=battle.limit)
    ends = comparison.ends
    assert sum(ends.values()) - ends["running"] == 4
    assert len(comparison.deviations) > 10 or "baneling" in name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smac_MMM2", "smac_12m4m_30m", "smac_3m2d_vs_2m"])
def test_whole_episodes_in_smacs_layout(name):
    compare(name, batch=4, steps=parse_name(name).limit, layout="clash")


def test_the_comparison_detects_defects(monkeypatch):
    comparison = Comparison(parse_name("smac_3m"))
    with monkeypatch.context() as patch:
        patch.setattr(fighting, "take_hit", lambda unit, attacker: 0.0)
        comparison.run(batch=2, steps=12)
        assert {"health", "reward"} <= set(comparison.faults())
    comparison.worst.clear()
    with monkeypatch.context() as patch:
        patch.setattr(acting, "TARGET_RANGE", 5.5)
        comparison.run(batch=2, steps=12)
        assert "avail" in comparison.faults()
