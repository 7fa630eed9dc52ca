"""Sequence policies on a tiny world that asks for memory."""

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


def greedy_return(name, *overrides, updates):
    """Of the final parameters on ``probe_cue``, where the best policy without memory gets 1/2 and any with it 1."""
    words = [
        "env=probe_cue",
        f"num_envs={ENVS}",
        f"rollout_length={ROWS}",
        *SIZES,
        *overrides,
    ]
    steps = updates * ENVS * ROWS
    config = jmarl.load_config(
        name, [*words, f"total_timesteps={steps}", f"eval.every={steps}"]
    )
    _, metrics = jax.jit(lambda key: jmarl.train(config, key))(jax.random.key(0))
    return float(metrics["eval"]["greedy"]["return"][-1].mean())


@pytest.mark.parametrize(
    ("name", "variant"), [("mam_ppo", "rec_mam"), ("sable", "rec_sable")]
)
def test_memory_over_time_solves_the_hidden_cue(name, variant):
    assert greedy_return(name, f"system={variant}", updates=40) > 0.9


@pytest.mark.parametrize("name", ["mam_ppo", "sable"])
def test_without_memory_the_cue_is_lost(name):
    """256 episodes of two reports: 1/2 within four standard errors, where a policy that reports nothing gets 0."""
    assert 0.4 < greedy_return(name, updates=40) < 0.6
