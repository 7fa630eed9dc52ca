"""The skirmish is SMAX: same keys and actions, same transitions, over whole episodes, against JaxMARL itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jmarl.envs.skirmish import env as skirmish
from jmarl.envs.skirmish import smax
from jmarl.envs.skirmish.rules import SCENARIOS, Scenario, SkirmishConfig, scenario


TOLERANCE = 5e-5
# Random play ends an episode long before 101 steps; of a rollout of that length every world sees a whole one.
QUICK = [("3m", 64, 110), ("3s_vs_5z", 16, 110)]
THOROUGH = [(name, 16, 210) for name in SCENARIOS if name not in ("25m", "27m_vs_30m", "3m", "smacv2_5_units")]
LARGE = [("25m", 8, 110), ("27m_vs_30m", 8, 110), ("40v40", 4, 110), ("7v4", 32, 210), ("4v7", 32, 210)]


def assert_same(rules: Scenario, peer, batch: int, length: int) -> smax.Differences:
    found = jax.jit(lambda key: smax.compare(rules, peer, key, batch, length))(jax.random.key(3))
    assert int(found.available) == int(found.alive) == int(found.ended) == 0
    assert float(found.reward) < 1e-5
    assert max(float(found.observation), float(found.world), float(found.state)) < TOLERANCE
    assert int(found.losses) + int(found.timeouts) >= batch / 2
    return found


def assert_same_starts(rules: Scenario, peer) -> None:
    keys = jax.random.split(jax.random.key(4), 128)
    theirs = smax.from_smax(jax.jit(jax.vmap(peer.reset))(keys)[1])
    ours = jax.jit(lambda keys: skirmish.begin(rules, SkirmishConfig(), keys))(keys)
    assert bool(jnp.all(ours.kind == theirs.kind))
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.allclose(mine, other, atol=TOLERANCE)


@pytest.fixture(scope="module", params=["5v5"])
def drawn(request):
    rules = scenario(request.param)
    return rules, smax.reference(rules)


def test_drawn_scenario_has_smax_transitions(drawn):
    found = assert_same(*drawn, batch=32, length=110)
    assert int(found.wins) > 0


def test_drawn_scenario_has_smax_starts(drawn):
    assert_same_starts(*drawn)


@pytest.mark.parametrize(("name", "batch", "length"), QUICK)
def test_same_transitions(name, batch, length):
    rules = scenario(name)
    assert_same(rules, smax.reference(rules), batch, length)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch", "length"), THOROUGH + LARGE)
def test_same_transitions_and_starts(name, batch, length):
    rules = scenario(name)
    peer = smax.reference(rules)
    assert_same(rules, peer, batch, length)
    assert_same_starts(rules, peer)


def test_an_idle_episode_ends_at_the_101st_step_as_in_smax():
    """A limit of 3 stands for SMAX's 100: the counter is looked at before it counts, so the episode has 4 steps."""
    rules = Scenario((0, 0), (0, 0), limit=3)
    peer = smax.reference(rules)
    found = jax.jit(lambda key: smax.compare(rules, peer, key, 8, 12))(jax.random.key(0))
    assert int(found.ended) == 0 and int(found.timeouts) == 8 * 3
