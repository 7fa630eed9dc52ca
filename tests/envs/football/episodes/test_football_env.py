"""Football as an environment: conformance, ends of episodes, and effects of the options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.envs.conformance import check_env
from jmarl.envs.football import play
from jmarl.envs.football.core.world import ENDS, World
from jmarl.envs.football.football_env import (
    build,
    draw_start,
    ends,
    first_state,
    make_setup,
    outcomes,
)
from jmarl.envs.football.scenarios import football_names


NAME = "football_empty_goal_close"
LEFT = 1
CHOICES = [
    {"obs": "simple115"},
    {"obs": "spectra"},
    {"obs": "cds"},
    {"reward": "checkpoints"},
    {"reward": "spectra"},
    {"mask": "spectra"},
    {"mask": "none"},
    {"passes": "aimed"},
    {
        "opponent": 0.05,
        "start_noise": 2.0,
        "view_radius": 20.0,
        "substeps": 2,
    },
]


def test_conforms():
    env = envs.make("football_3_vs_1_with_keeper", episode_limit=12)
    assert env.name == "football_3_vs_1_with_keeper"
    assert env.spec.outcomes == ("won", "conceded") and env.spec.episode_limit == 12
    check_env(env, jax.random.key(0), batch=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name, _ in football_names.names()],
)
def test_listed_environments_conform(name):
    check_env(
        envs.make(name, episode_limit=12),
        jax.random.key(0),
        batch=3,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_options_conform(options):
    env = envs.make("football_2_vs_1_with_keeper", episode_limit=12, **options)
    check_env(env, jax.random.key(0), batch=3)


def test_only_the_time_limit_truncates():
    setup = make_setup(NAME, {})
    start = jax.vmap(lambda key: draw_start(setup, key))(
        jax.random.split(jax.random.key(0), 7)
    )
    state = first_state(setup, start).replace(end=jnp.arange(7, dtype=jnp.int8))
    terminated, truncated = ends(state)
    assert truncated.tolist() == [reason == "time" for reason in ENDS]
    assert terminated.tolist() == [reason not in ("", "time") for reason in ENDS]
    assert state.ended.tolist() == [reason != "" for reason in ENDS]
    score = jnp.asarray(
        [[0, 0], [1, 0], [0, 1]],
        jnp.int8,
    )
    found = outcomes(state.replace(score=score))
    assert found["won"].tolist() == [False, True, False]
    assert found["conceded"].tolist() == [False, False, True]


def test_only_with_spectras_reward_an_episode_ends_in_the_own_half():
    def back(obs, key):
        return jnp.full(obs.alive.shape, LEFT)

    key, limit = jax.random.key(0), 120
    ends = {
        reward: play(NAME, back, 4, key, reward=reward, episode_limit=limit)["ends"]
        for reward in ("scoring", "spectra")
    }
    assert ends["spectra"]["own_half"] == 4
    assert "own_half" not in ends["scoring"] and ends["scoring"]["out"] == 0


def test_starts_are_displaced_within_the_radius_and_ties_are_even():
    setup = make_setup(NAME, {"start_noise": 3.0})
    keys = jax.random.split(jax.random.key(0), 2000)
    start = jax.jit(jax.vmap(lambda key: draw_start(setup, key)))(keys)
    distance = jnp.linalg.norm(start.noise, axis=-1)
    assert 2.99 < distance.max() <= 3.0
    # Points are uniform in the disc: half of them are within 3 / sqrt(2).
    assert abs(float((distance < 3 / 2**0.5).mean()) - 0.5) < 0.03
    assert jnp.abs(start.noise.mean((0, 1))).max() < 0.1
    assert abs(float(start.right_first.mean()) - 0.5) < 0.05


def test_mask_and_observations_change_no_transition():
    plain = make_setup(NAME, {"episode_limit": 9})
    other = make_setup(
        NAME,
        {"episode_limit": 9, "mask": "spectra", "obs": "cds"},
    )
    envs_ = [build(setup, NAME) for setup in (plain, other)]
    states = [
        jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 8)[0] for env in envs_
    ]
    steps = [jax.jit(env.step) for env in envs_]
    for t in range(12):
        key = jax.random.key(t)
        action = jax.random.randint(
            key,
            (8, 1),
            0,
            19,
        )
        states = [
            step(key, state, action)[0]
            for step, state in zip(steps, states, strict=True)
        ]
        for name in World.__dataclass_fields__:
            x, y = (np.asarray(getattr(state, name)) for state in states)
            assert np.allclose(x, y, atol=1e-5), (t, name)
