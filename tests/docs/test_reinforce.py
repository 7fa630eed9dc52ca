"""The system of docs/how-to/write-a-system.md is short and learns known values."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
import yaml

import jmarl
from jmarl.config import build


EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def config(load_system):
    module = load_system("reinforce")
    defaults = yaml.safe_load((EXAMPLES / "reinforce.yaml").read_text())
    words = ["num_envs=8", "rollout_length=8", "total_timesteps=6_400", "env=probe_cue"]
    return dataclasses.replace(
        jmarl.load_config("ippo", [*words, "system.minibatches=1"]),
        system_name="reinforce",
        system=build(module.Config, defaults["system"], "system"),
        network=build(module.Network, defaults["network"], "network"),
    )


# --8<-- [start:training]
@pytest.mark.parametrize("env", ["probe_bandit", "probe_delayed"])
def test_reinforce_learns_the_optimal_return(config, env):
    config = config.with_env(env)
    keys = jax.random.split(jax.random.key(0), 4)
    train = jax.jit(jax.vmap(functools.partial(jmarl.train, config)))
    _, metrics = train(keys)
    returns = metrics["eval"]["greedy"]["return"].mean(-1)  # [seeds, evaluations]
    assert returns[:, 0].min() < 1
    np.testing.assert_array_equal(returns[:, -1], 1)


# --8<-- [end:training]


def test_the_file_has_at_most_sixty_lines():
    assert len((EXAMPLES / "reinforce.py").read_text().splitlines()) <= 60
