"""Tests that battles have the transitions of JaxMARL's SMAX, with equal keys and actions."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest

from benchmarks.support import smax_reference
from benchmarks.support.smax_reference import Differences
from jmarl.envs.battle.scenario import Scenario, get_scenario


TOLERANCE = 5e-5
DEFAULT_OPTIMIZATION = {"xla_backend_optimization_level": 3}
"""XLA's default. The other tests compile without optimization, which may round differently."""
MEDIUM = [
    "3m",
    "8m",
    "2s3z",
    "3s5z",
    "5m_vs_6m",
    "10m_vs_11m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "10v10",
]
LARGE = ["25m", "27m_vs_30m", "20v20", "7v4", "4v7"]


def assert_equals_smax(scenario: Scenario, batch: int, length: int) -> Differences:
    """Check that there is no difference beyond rounding over whole episodes."""
    smax = smax_reference.reference(scenario)
    key = jax.random.key(3)

    @jax.jit
    def compare(key):
        return smax_reference.compare(scenario, smax, key, batch, length)

    program = compare.lower(key).compile(compiler_options=DEFAULT_OPTIMIZATION)
    differences = program(key)
    assert int(differences.available) == 0
    assert int(differences.alive) == 0
    assert int(differences.ended) == 0
    assert float(differences.reward) < 1e-5
    assert float(differences.start) < TOLERANCE
    assert float(differences.observation) < TOLERANCE
    assert float(differences.world) < TOLERANCE
    assert float(differences.state) < TOLERANCE
    assert int(differences.losses) + int(differences.timeouts) >= batch / 2
    return differences


def test_drawn_types_and_starts():
    differences = assert_equals_smax(get_scenario("5v5"), batch=32, length=110)
    assert int(differences.wins) > 0


def test_unequal_teams_and_the_limit():
    """SMAX allows one step more than its limit: 13 steps, so three episodes in 39."""
    scenario = replace(get_scenario("3s_vs_5z"), limit=12)
    differences = assert_equals_smax(scenario, batch=16, length=39)
    assert int(differences.timeouts) > 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch"), [(name, 16) for name in MEDIUM] + [(name, 8) for name in LARGE]
)
def test_whole_episodes(name, batch):
    assert_equals_smax(get_scenario(name), batch, length=210)
