"""The JaxMARL adapter equals the package, except for episode ends, and rejects unknown options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.config import ConfigError
from jmarl.envs import make
from jmarl.envs.conformance import random_action


BATCH = 3


@pytest.fixture(scope="module")
def spread():
    import jaxmarl

    return make("mpe_spread"), jaxmarl.make("MPE_simple_spread_v3")


def env_keys(key):
    """Return the key of each environment, as ``batched`` derives it from the key of the step."""
    return jax.random.split(jax.random.split(key)[0], BATCH)


def play_both(spread, package_step):
    """Play an episode; return our results, those of ``package_step``, and the last time step."""
    env, source = spread
    state, timestep = env.reset(jax.random.key(0), BATCH)
    step, ours, theirs = jax.jit(env.step), [], []
    package = jax.jit(jax.vmap(package_step))
    for t in range(env.spec.episode_limit):
        key = jax.random.key(t)
        action = random_action(key, timestep, env.spec)
        named = {agent: action[:, i] for i, agent in enumerate(source.agents)}
        obs, _, reward, done, _ = package(env_keys(key), state.env_state, named)
        state, timestep = step(key, state, action)
        ours.append((flat(timestep.obs), timestep.reward, timestep.last))
        theirs.append((stack(obs, source), stack(reward, source), done["__all__"]))
    return ours, theirs, timestep


def flat(obs):
    """Return observations in JaxMARL's layout: own | landmarks | others | messages (all zero)."""
    allies, landmarks = obs.rows
    merge = lambda x: x.reshape(*x.shape[:2], -1)  # noqa: E731
    return jnp.concatenate(
        [obs.own, merge(landmarks), merge(allies), jnp.zeros((BATCH, 3, 4))], axis=-1
    )


def stack(named, source):
    return jnp.stack([named[agent] for agent in source.agents], axis=1)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def test_episode_equals_the_package_including_the_last_observation(spread):
    ours, theirs, last = play_both(spread, spread[1].step_env)
    assert_same(ours, theirs)
    assert last.last.all()


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="auto-reset loses the last observation (JaxMARL's own step)",
)
def test_episode_equals_the_package_with_auto_reset(spread):
    ours, theirs, _ = play_both(spread, spread[1].step)
    assert_same(ours, theirs)


def assert_limit_truncates(env):
    state, timestep = env.reset(jax.random.key(0), BATCH)
    step = jax.jit(env.step)
    for t in range(env.spec.episode_limit):
        state, timestep = step(
            jax.random.key(t),
            state,
            random_action(jax.random.key(t), timestep, env.spec),
        )
    assert timestep.truncated.all() and not timestep.terminated.any()


def test_time_limit_is_truncation(spread):
    assert_limit_truncates(spread[0])


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="the time limit reported as termination (JaxMARL, Mava's MAT)",
)
def test_time_limit_as_termination(spread):
    env = spread[0]

    def step(key, state, action):
        state, timestep = env.step(key, state, action)
        return state, timestep.replace(
            terminated=timestep.last, truncated=jnp.zeros_like(timestep.truncated)
        )

    assert_limit_truncates(env._replace(step=step))


def test_terminal_state_at_the_limit_is_termination():
    """In the switch riddle a wrong claim ends the game, also at the last step before the limit."""
    env = make("jaxmarl_switch_riddle")
    step, claim = jax.jit(env.step), 2
    for when in (0, 5):
        state, timestep = env.reset(jax.random.key(0), BATCH)
        for t in range(when + 1):
            assert not timestep.last.any()
            state, timestep = step(
                jax.random.key(t),
                state,
                jnp.full((BATCH, 3), claim if t == when else 0),
            )
        assert timestep.terminated.all() and not timestep.truncated.any()


def test_continuous_actions_are_mapped_to_the_range_of_the_package(spread):
    _, source = spread
    env = make("mpe_spread_continuous")
    assert not env.spec.discrete and env.spec.n_actions == 5
    state, _ = env.reset(jax.random.key(0), BATCH)
    right = jnp.tile(jnp.asarray([-1.0, -1.0, 1.0, -1.0, -1.0]), (BATCH, 3, 1))
    _, ours = env.step(jax.random.key(1), state, right)
    named = {agent: jnp.full(BATCH, 2) for agent in source.agents}
    obs = jax.vmap(source.step_env)(
        env_keys(jax.random.key(1)), state.env_state, named
    )[0]
    np.testing.assert_allclose(flat(ours.obs), stack(obs, source), atol=1e-5)


def test_unequal_agents_are_padded_and_masked():
    env = make("mpe_speaker_listener")
    _, timestep = env.reset(jax.random.key(0), BATCH)
    np.testing.assert_array_equal(
        timestep.obs.avail[0], [[True] * 3 + [False] * 2, [True] * 5]
    )
    assert env.spec.own_width == 11 and not timestep.obs.own[:, 0, 3:].any()


def test_options_reach_the_package_or_raise():
    spec = make("mpe_spread", num_agents=4, num_landmarks=2, max_steps=9).spec
    assert (
        spec.n_agents,
        spec.groups[0].size,
        spec.groups[1].size,
        spec.episode_limit,
    ) == (
        4,
        3,
        2,
        10,
    )
    message = r"^env\.num_agnets=4: unknown option of .*; did you mean num_agents\?$"
    with pytest.raises(ConfigError, match=message):
        make("mpe_spread", num_agnets=4)
    assert make("mpe_spread", episode_limit=7).spec.episode_limit == 7
    with pytest.raises(ValueError, match="not in registered"):
        make("jaxmarl_no_such_env")


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (dict(episode_limit=0), "must be at least 1"),
        (dict(episode_limit=-3), "must be at least 1"),
        (dict(episode_limit="9"), "expected int"),
        (dict(continuous="no"), "expected bool"),
        (dict(continuous=1), "expected bool"),
    ],
)
def test_options_of_the_adapter_are_checked(option, rule):
    with pytest.raises(ConfigError, match=f"^env.{next(iter(option))}=.*: {rule}$"):
        make("mpe_spread", **option)


def test_state_without_a_step_counter_raises():
    with pytest.raises(ValueError, match="no field 'step'"):
        make("jaxmarl_HeuristicEnemySMAX")
