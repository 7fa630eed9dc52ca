"""Comparison of a battle that has absent units with the battle of the others alone."""

from __future__ import annotations

from operator import itemgetter

import jax
import numpy as np
import pytest
from option_worlds import Episodes, random_actions
from slots import Slots, assert_same_obs

from jmarl.envs.battle.smac.smac_actions import n_own_actions
from jmarl.types import EntityObs


ATOL = 5e-4
"""Tolerance. The large battle may have shields, whose damage is summed in another order."""


def assert_same_battle(
    large: Episodes, small: Episodes, batch: int, steps: int, choice: int = 0
) -> None:
    """Check that absent units change nothing while agents take random actions.

    Args:
        large: battle with absent units in its last slots.
        small: the battle without them.
        batch: number of episodes.
        steps: number of steps.
        choice: rank of the battle, if episodes of ``large`` are drawn among several.
    """
    rng = np.random.default_rng(0)
    state, obs = large.first(batch)
    rows = np.ones(batch, bool) if state.choice is None else state.choice == choice
    assert rows.sum() > 3
    slots = Slots(large, small, np.arange(small.n), np.arange(small.m))
    own = slots.state(state)
    damage = 0.0
    for t in range(steps):
        action = random_actions(obs, rng, targeted=n_own_actions(large.facts))
        ours = large.step(state, action, seed=t)
        theirs = small.step(own, slots.actions(action[:, : small.n]), seed=t)
        state, own, obs = ours.state, theirs.state, ours.obs
        ours, theirs = jax.tree.map(itemgetter(rows), (ours, theirs))
        _assert_only(ours.obs, slots)
        assert_same_obs(slots.obs(ours.obs), theirs.obs, ATOL)
        assert ours.reward[:, : small.n] == pytest.approx(theirs.reward, abs=ATOL)
        for name in ("terminated", "truncated", "won"):
            assert (getattr(ours, name) == getattr(theirs, name)).all(), name
        damage += theirs.reward.sum()
    assert damage > 0


def _assert_only(obs: EntityObs, slots: Slots) -> None:
    """Check that absent units and actions that are aimed at them are empty."""
    n, m = slots.new.n, slots.new.m
    assert not obs.present[:, n:].any()
    used = np.zeros(obs.avail.shape[1:], bool)
    np.put_along_axis(used[:n], slots.columns, True, axis=-1)
    assert not obs.avail[:, ~used].any()
    padding = (
        *(obs.own[:, n:], obs.mask[0][:, :, n - 1 :], obs.mask[1][:, :, m:]),
        *(obs.state.mask[0][:, n:], obs.state.mask[1][:, m:]),
        *(x[:, n:] for x in obs.mask),
    )
    assert not any(part.any() for part in padding)
