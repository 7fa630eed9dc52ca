"""The battle is SMAX: same keys and actions, same transitions, over whole episodes, against JaxMARL itself."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest

from jmarl.envs.battle import smax
from jmarl.envs.battle.rules import Scenario, scenario


TOLERANCE = 5e-5
AS_USERS = {"xla_backend_optimization_level": 3}
"""XLA's default; the other tests are compiled without optimization, which may round differently."""
THOROUGH = [
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


def assert_smax(rules: Scenario, batch: int, length: int) -> smax.Differences:
    peer = smax.reference(rules)
    key = jax.random.key(3)
    program = jax.jit(lambda key: smax.compare(rules, peer, key, batch, length)).lower(
        key
    )
    found = program.compile(compiler_options=AS_USERS)(key)
    assert int(found.available) == int(found.alive) == int(found.ended) == 0
    assert float(found.reward) < 1e-5
    assert (
        max(
            float(found.start),
            float(found.observation),
            float(found.world),
            float(found.state),
        )
        < TOLERANCE
    )
    assert int(found.losses) + int(found.timeouts) >= batch / 2
    return found


def test_drawn_types_and_starts():
    assert int(assert_smax(scenario("5v5"), batch=32, length=110).wins) > 0


def test_unequal_teams_and_the_limit():
    """The limit of SMAX allows one step more than it says: 13 steps, so three episodes in 39."""
    found = assert_smax(replace(scenario("3s_vs_5z"), limit=12), batch=16, length=39)
    assert int(found.timeouts) > 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch"), [(name, 16) for name in THOROUGH] + [(name, 8) for name in LARGE]
)
def test_whole_episodes(name, batch):
    assert_smax(scenario(name), batch, length=210)
