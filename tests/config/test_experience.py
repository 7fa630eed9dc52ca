"""Learning is specified by experience: it does not depend on the number of environments."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmarl
from jmarl.config.choices import systems
from jmarl.config.experience import learning_text, learning_warnings
from jmarl.learning.exploration import linear_decay
from jmarl.learning.optimizers import LearningConfig, optimizer
from jmarl.training.anakin import init_runner, rollout
from jmarl.training.build import build_run


ENVS = (64, 256, 1024)
TOTAL = 700_000


def load(system, *overrides):
    return jmarl.load_config(system, ["env=smax_3m", *overrides])


def sized(system, num_envs):
    return load(system, f"num_envs={num_envs}", f"total_timesteps={TOTAL}")


@pytest.mark.parametrize("system", systems())
def test_a_run_learns_the_same_amount_at_any_number_of_environments(system):
    runs = [sized(system, num_envs) for num_envs in ENVS]
    for a, b in itertools.combinations(runs, 2):
        assert abs(math.log(a.gradient_steps / b.gradient_steps)) < 0.05
        assert abs(math.log(minibatch_rows(a) / minibatch_rows(b))) <= math.log(2)
        assert target_updates(a) == pytest.approx(target_updates(b), rel=0.05)
    assert not [warning for run in runs for warning in learning_warnings(run)]


def minibatch_rows(config):
    if config.system.replay_batch:
        return config.system.replay_batch * config.rollout_length
    return config.rows_per_update / config.system.num_minibatches


def target_updates(config):
    every = config.system.steps_per_target_update
    return config.gradient_steps / every if every else 0


@pytest.mark.parametrize("arch", ["cpu", "gpu", "tpu"])
def test_a_preset_changes_no_learning(arch):
    """Besides the counts that follow from the number of environments."""
    config, cpu = load("qmix", f"arch={arch}"), load("qmix", "arch=cpu")
    rows = "rows_per_gradient_step", "replay_size", "batch_size", "explore_steps"
    for key in rows:
        assert getattr(config.system, key) == getattr(cpu.system, key)
    assert config.gradient_steps == pytest.approx(cpu.gradient_steps, rel=0.05)


@pytest.mark.parametrize("system", ["ippo", "mam_ppo", "pqn_vdn", "qmix"])
def test_the_learning_rate_is_the_same_function_of_experience(system):
    """Within one update, the unit of the schedule."""
    curves = {}
    for num_envs in ENVS:
        config = sized(system, num_envs)
        curves[num_envs] = learning_rates(config), 2 / config.num_updates
    at = np.linspace(0, 0.99, 50)
    for a, b in itertools.combinations(ENVS, 2):
        (rate_a, unit_a), (rate_b, unit_b) = curves[a], curves[b]
        gap = np.abs(rate_a(at) - rate_b(at))
        assert gap.max() <= unit_a + unit_b


def learning_rates(config):
    """Return the share of the initial rate as a function of the share of the run."""
    cfg = config.system
    assert isinstance(cfg, LearningConfig)
    assert cfg.anneal_lr
    tx, params = optimizer(cfg, config.learning_updates), jnp.zeros(())
    state = tx.init(params)

    def is_schedule(node):
        return isinstance(node, optax.ScaleByScheduleState)

    @jax.jit
    @jax.vmap
    def first_move(count):
        """Return Adam's first step with the schedule of a later gradient step."""
        late = jax.tree.map(
            lambda node: (
                optax.ScaleByScheduleState(count) if is_schedule(node) else node
            ),
            state,
            is_leaf=is_schedule,
        )
        return tx.update(jnp.ones(()), late, params)[0]

    def rate(share):
        steps = (share * config.gradient_steps).astype(np.int32)
        return -np.asarray(first_move(steps)) / cfg.lr

    return rate


@pytest.mark.parametrize("num_envs", [8, 32])
def test_exploration_is_the_same_function_of_experience(num_envs):
    """Within a rollout too, as long as no row resets an environment."""
    words = [
        "env=probe_cue",
        "network=mlp",
        "network.torso=[8]",
        f"num_envs={num_envs}",
    ]
    words += ["system.explore_steps=200", "rollout_length=3", "total_timesteps=1000"]
    config = jmarl.load_config("vdn", words)
    _, env, system = build_run(config)
    runner = init_runner(env, system, num_envs, jax.random.key(0))
    runner = runner.replace(env_steps=jnp.uint32(64))
    _, experience, _ = rollout(env, system, runner, 3, jax.random.key(1))
    schedule = linear_decay(1.0, 0.05, 200)
    expected = [schedule(jnp.float32(64 + num_envs * t)) for t in range(3)]
    epsilon = experience.steps.extras.epsilon
    np.testing.assert_allclose(epsilon, np.tile(np.array(expected)[:, None], num_envs))


@pytest.mark.parametrize(
    ("system", "words", "texts"),
    [
        ("ippo", ["total_timesteps=1000"], ["less than the 8,192 rows", "16 gradient"]),
        (
            "qmix",
            ["num_envs=1", "system.target_every=1"],
            ["one gradient step per 32 rows, not per 256; raise num_envs or roll"],
        ),
        ("mappo", ["num_envs=1"], ["2,048 rows, not per 512; raise num_envs to a mul"]),
        ("vdn", ["total_timesteps=100_000"], ["changes 15 times"]),
        ("qmix", ["system.gradient_steps=8", "num_envs=512"], []),
        ("ippo", [], []),
    ],
)
def test_a_size_that_limits_learning_is_named(system, words, texts):
    warnings = list(learning_warnings(load(system, *words)))
    assert len(warnings) == len(texts), warnings
    for warning, text in zip(warnings, texts, strict=True):
        assert text in warning
        assert "\n" not in warning


def test_a_count_that_is_given_replaces_the_size_in_rows():
    config = load("qmix", "num_envs=64", "system.gradient_steps=4")
    assert config.system.rows_per_gradient_step == 512
    config = load("ippo", "num_envs=8", "rollout_length=10", "system.minibatches=2")
    assert config.system.minibatch_rows == 40


def test_warm_up_is_repeated_in_every_stage():
    stages = "curriculum.stages=[{env: smax_2v2, fraction: 0.5}, {env: smax_3m, fraction: 0.5}]"
    words = ["num_envs=64", "system.warmup=5_000", "total_timesteps=20_480", stages]
    assert load("vdn", *words).gradient_steps == 6 * 8


@pytest.mark.parametrize("num_envs", [64, 16, 12, 4, 7])
def test_the_table_of_shards(num_envs):
    page = Path(__file__).parents[2] / "docs/explanation/devices.md"
    minibatches = load("ippo", f"num_envs={num_envs}").system.num_minibatches
    shards = math.gcd(8, num_envs // minibatches)
    cells = num_envs, minibatches, shards, num_envs // minibatches // shards
    assert f"| {' | '.join(map(str, cells))} |" in page.read_text()


def test_warm_up_delays_learning_by_rows():
    words = ["num_envs=64", "system.warmup=5_000", "total_timesteps=20_480"]
    config = load("vdn", *words)
    assert (config.warmup_updates, config.gradient_steps) == (2, 8 * 8)
    assert "the first after 6,144 rows" in learning_text(config)


@pytest.mark.parametrize("num_envs", ENVS)
def test_the_table_of_the_documentation(num_envs):
    page = Path(__file__).parents[2] / "docs/explanation/experience.md"
    config = load("qmix", f"num_envs={num_envs}")
    row = config.rows_per_update, config.system.gradient_steps, config.gradient_steps
    cells = " | ".join(f"{n:,}" for n in row)
    assert f"| {num_envs} | {cells} |" in page.read_text()
