"""Sequence policies on a probe that needs memory."""

from __future__ import annotations

import jax
import pytest

import jmarl


ENVS, ROWS = 32, 20
SIZES = (
    "network.embed_dim=16",
    "network.agent_id=false",
    "system.minibatches=2",
    "eval.episodes=256",
)


def greedy_return(name, updates):
    """Return the greedy return after training on ``probe_cue``: 1 with memory, 1/2 without."""
    overrides = [
        "env=probe_cue",
        f"num_envs={ENVS}",
        f"rollout_length={ROWS}",
        *SIZES,
    ]
    steps = updates * ENVS * ROWS
    config = jmarl.load_config(
        name, [*overrides, f"total_timesteps={steps}", f"eval.every={steps}"]
    )
    _, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    return float(metrics["eval"]["greedy"]["return"][-1].mean())


@pytest.mark.parametrize(
    "name", [pytest.param("rec_mam", marks=pytest.mark.slow), "rec_sable"]
)
def test_memory_over_time_solves_the_cue(name):
    assert greedy_return(name, updates=40) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mam_ppo", "sable"])
def test_without_memory_the_cue_is_not_solved(name):
    """In 256 episodes of two reports, 1/2 up to four standard errors; never reporting gets 0."""
    assert 0.4 < greedy_return(name, updates=40) < 0.6
