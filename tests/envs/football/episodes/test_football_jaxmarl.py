"""The class for JaxMARL: the transitions of the environment, and JaxMARL's own wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.wrappers.baselines import CTRolloutManager, LogWrapper

from jmarl.envs.football.core.world import World
from jmarl.envs.football.football_env import build, make_setup
from jmarl.envs.football.jaxmarl import Football


SCENARIO = "pass_and_shoot_with_keeper"
OPTIONS = {"episode_limit": 30, "start_noise": 1.0, "reward": "checkpoints"}
BATCH, STEPS = 3, 31
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def football():
    return Football(SCENARIO, **OPTIONS)


def stack(by_agent):
    """Stack the values of the agents along axis 1."""
    values = list(by_agent.values())
    return jnp.stack(values, axis=1)


class Both:
    """The environment of a batch, and the class with the same keys and actions."""

    def __init__(self, football):
        env = build(make_setup(SCENARIO, OPTIONS), "football_x")
        self.env_step = jax.jit(env.step)
        self.step = jax.jit(jax.vmap(football.step_env))
        self.mask = jax.jit(jax.vmap(football.get_avail_actions))
        reset = jax.jit(env.reset, static_argnums=1)
        self.states, self.now = reset(KEY, BATCH)
        episodes, _ = jax.random.split(KEY)
        keys = jax.random.split(episodes, BATCH)
        self.obs, self.worlds = jax.vmap(football.reset)(keys)
        self.running = np.ones(BATCH, bool)

    def same(self, x, y):
        """Compare the environments that have not ended before."""
        return np.allclose(
            x[self.running],
            y[self.running],
            atol=1e-4,
        )

    def compare_states(self):
        for name in World.__dataclass_fields__:
            expected = getattr(self.states, name)
            assert self.same(getattr(self.worlds, name), expected), name
        own = self.now.obs.own
        assert self.same(
            stack(self.obs)[..., : own.shape[-1]],
            own,
        )
        assert self.same(
            stack(self.mask(self.worlds)),
            self.now.obs.avail,
        )

    def advance(self, football, key):
        action = jax.random.randint(
            key,
            (BATCH, 2),
            0,
            19,
        )
        actions = dict(zip(football.agents, action.T, strict=True))
        keys = jax.random.split(key, BATCH)
        keys = jax.vmap(jax.random.split)(keys)[:, 0]
        result = self.step(keys, self.worlds, actions)
        self.obs, self.worlds, reward, done, info = result
        self.states, self.now = self.env_step(key, self.states, action)
        assert self.same(stack(reward), self.now.reward)
        assert self.same(done["__all__"], self.now.last)
        assert self.same(
            info["truncated"][:, 0],
            self.now.truncated,
        )


def test_its_transitions_are_those_of_the_environment(football):
    both = Both(football)
    both.compare_states()
    for t in range(STEPS):
        both.advance(football, jax.random.key(t))
        both.compare_states()
        both.running &= ~np.asarray(both.now.last)
    assert not both.running.any()


def test_spaces_and_vectors_have_the_declared_sizes(football):
    assert football.agents == ["left_0", "left_1"]
    assert football.num_agents == 2
    assert football.agent_classes == {"left": football.agents}
    obs, world = football.reset(KEY)
    for agent in football.agents:
        assert obs[agent].shape == football.observation_space(agent).shape
        assert football.action_space(agent).n == 19
    vector = football.get_world_state(world)
    assert vector.shape == (football.state_size,)
    entities = football.get_entities(world)
    assert [rows.shape[1] for rows in entities.rows] == [2, 2, 1]
    rest = sum(rows[0].size for rows in entities.rows)
    assert obs["left_0"].size == football.spec.own_width + rest


def test_flat_observations_are_passed_through():
    football = Football("3_vs_1_with_keeper", obs="simple115")
    assert football.observation_space("left_0").shape == (115,)
    assert football.num_agents == 3


def test_step_resets_at_the_end_of_an_episode_and_wrappers_count_it():
    env = LogWrapper(Football(SCENARIO, episode_limit=3))
    _, state = env.reset(KEY)
    idle = dict.fromkeys(env.agents, jnp.int32(0))
    lengths = []
    for t in range(4):
        _, state, _, done, info = env.step(
            jax.random.key(t),
            state,
            idle,
        )
        lengths.append(int(info["returned_episode_lengths"][0]))
        assert bool(done["__all__"]) == (t == 2)
        assert {x.shape for x in info.values()} == {(2,)}
    assert lengths == [0, 0, 3, 3]
    assert int(state.env_state.steps) == 1


def test_the_rollout_manager_of_the_baselines_runs(football):
    manager = CTRolloutManager(football, batch_size=BATCH)
    _, states = manager.batch_reset(KEY)
    actions = {agent: manager.batch_sample(KEY, agent) for agent in manager.agents}
    obs, _, rewards, dones, _ = manager.batch_step(KEY, states, actions)
    assert obs["left_0"].shape == (BATCH, manager.obs_size)
    assert rewards["__all__"].shape == (BATCH,)
    assert dones["__all__"].shape == (BATCH,)
    width = football.observation_space("left_0").shape[0]
    assert obs["__all__"].shape == (BATCH, 2 * width)
