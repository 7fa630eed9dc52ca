"""Fault 20: rows of a batch that are mixed up. Memory and returns stay with their own agent.

Observations name their environment, their agent and the age of the agent in steps. Episodes end
at other times in each environment, and one agent of each team joins late. So the expected resets
follow from the observations alone, and not from the flags under test.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.networks.actor_critic import AgentNet, Critic, NetworkConfig
from jmarl.system import System
from jmarl.systems.kits.ppo import advantages_and_targets
from jmarl.training.anakin import init_runner, rollout


pytestmark = pytest.mark.fault(20)

T, B, N = 24, 4, 3
JOINS = jnp.array([0, 2, 0])
"""Time step of an episode at which each agent appears."""
SPEC = flat_spec(N, own_width=3, n_actions=2, episode_limit=9, global_width=1)


class CodedState(struct.PyTreeNode):
    code: jax.Array
    t: jax.Array


def coded_env():
    """Return environments with codes that are drawn at each reset and set the episode length."""

    def observe(state):
        age = state.t - JOINS
        own = jnp.stack([jnp.full(N, state.code), jnp.arange(N), age], axis=-1)
        alive = age >= 0
        obs = flat_obs(SPEC, own / 8, alive=alive, state=jnp.array([state.code]))
        return obs.replace(joined=(age == 0) & (state.t > 0))

    def reset(key):
        state = CodedState(jax.random.randint(key, (), 0, 100), jnp.int32(0))
        return state, observe(state)

    def step(key, state, action):
        state = state.replace(t=state.t + 1)
        reward = 100 * state.code + 10 * jnp.arange(N) + state.t
        return state, Step(observe(state), reward, state.t >= 3 + state.code % 5)

    return batched(SingleEnv("coded", SPEC, reset, step))


class IdleLearner(struct.PyTreeNode):
    params: jax.Array


IDLE = System(
    init=lambda key: IdleLearner(params=jnp.zeros(())),
    carry=lambda batch: (),
    act=lambda params, carry, timestep, key, explore: (
        jnp.zeros(timestep.obs.alive.shape, jnp.int32),
        carry,
        (),
    ),
    update=lambda learner, experience, key: (learner, {}),
    explore=lambda env_steps: jnp.ones(()),
)


@functools.cache
def experience():
    env = coded_env()
    runner = init_runner(env, IDLE, B, jax.random.key(0))
    play = jax.jit(lambda runner, key: rollout(env, IDLE, runner, T, key)[1])
    return play(runner, jax.random.key(1))


def ages():
    """Return the age of each agent, ``[T, B, N]``, as its observation states it."""
    return np.asarray(experience().steps.obs.own[..., 2] * 8).round().astype(int)


def test_episodes_end_at_other_times_in_each_environment():
    starts = [tuple(np.flatnonzero(ages()[:, b, 0] == 0)) for b in range(B)]
    assert len(set(starts)) == B
    assert all(len(times) > 2 for times in starts)


def own_flags(obs, first):
    return first, obs.joined


def flags_of_another_row(obs, first):
    """Order inputs by environment and resets by agent, as in JaxMARL#169."""
    rows = jnp.arange(B * N).reshape(B, N)
    return jnp.zeros_like(first), first[:, rows % B] | obs.joined


def flags_lost_by_auto_reset(obs, first):
    """Reset at a flag that an environment with auto-reset never sets, as proposed in Mava#1006."""
    return first.at[1:].set(False), obs.joined


def flags_one_step_late(obs, first):
    """Reset after the first observation of an episode, as in PufferLib#622."""
    return jnp.roll(first, 1, axis=0).at[0].set(True), jnp.roll(obs.joined, 1, axis=0)


def twin(defect):
    reason = f"defective twin: {defect.__doc__}"
    mark = pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)
    return pytest.param(defect, marks=mark)


def network(memory):
    return NetworkConfig(
        torso=(8,),
        memory=memory,
        memory_width=8,
        head=(8,),
        activation="tanh",
        layer_norm=False,
        agent_id=False,
    )


NETS = {
    "policy": lambda spec, memory: AgentNet(spec, network(memory), out_scale=1.0),
    "critic": lambda spec, memory: Critic(spec, network(memory), reads="state_and_obs"),
}


@functools.cache
def reference(kind, memory):
    """Return parameters, and the outputs of each agent alone, step by step, in Python."""
    obs = experience().steps.obs
    net = NETS[kind](SPEC, memory)
    first = experience().steps.first
    params = jax.jit(net.init)(jax.random.key(2), net.initial(B), obs, first)
    alone = NETS[kind](flat_spec(1, 3, 2, 9, global_width=1), memory)
    apply = jax.jit(lambda *args: alone.apply(params, *args))
    outputs = {}
    for b, n in np.ndindex(B, N):
        carry = alone.initial(1)
        for t in range(T):
            row = row_of(obs, t, b, n)
            first = jnp.full((1, 1), ages()[t, b, n] == 0)
            carry, out, *_ = apply(carry, row, first)
            outputs[t, b, n] = np.asarray(out[0, 0, 0])
    return params, np.stack([outputs[i] for i in np.ndindex(T, B, N)])


def row_of(obs, t, b, n):
    """Return the observation of one agent as a team of one, at one time."""
    per_agent = jax.tree.map(
        lambda x: x[t, b, n][None, None, None], obs.replace(state=())
    )
    state = jax.tree.map(lambda x: x[t, b][None, None], obs.state)
    no = jnp.zeros((1, 1, 1), bool)
    return per_agent.replace(state=state, joined=no)


@pytest.mark.parametrize(
    "flags",
    [
        own_flags,
        twin(flags_of_another_row),
        twin(flags_lost_by_auto_reset),
        twin(flags_one_step_late),
    ],
)
@pytest.mark.parametrize(
    ("kind", "memory"), [("policy", "gru"), ("policy", "ssm"), ("critic", "gru")]
)
def test_memory_is_a_function_of_the_agents_own_observations_since_its_start(
    kind, memory, flags
):
    params, expected = reference(kind, memory)
    obs = experience().steps.obs
    first, joined = flags(obs, experience().steps.first)
    net = NETS[kind](SPEC, memory)
    _, out, *_ = jax.jit(net.apply)(
        params, net.initial(B), obs.replace(joined=joined), first
    )
    actual = np.asarray(out).reshape(T * B * N, *expected.shape[1:])
    present = (ages() >= 0).ravel()
    np.testing.assert_allclose(actual[present], expected[present], atol=1e-5)


GAMMA, LAMBDA = 0.9, 0.8


def returns_in_python(reward, terminated, valid, value):
    """Return the lambda-returns of one agent in one environment."""
    result, following = np.zeros(T), value[T]
    for t in reversed(range(T)):
        if not valid[t]:
            following = value[t]
        elif terminated[t]:
            following = reward[t]
        else:
            mixed = (1 - LAMBDA) * value[t + 1] + LAMBDA * following
            following = reward[t] + GAMMA * mixed
        result[t] = following
    return result


def own_ends(steps):
    return steps


def ends_of_another_row(steps):
    """Order rewards by environment and ends by agent, as in JaxMARL#169."""
    other = jnp.arange(B) * N % B
    return steps.replace(
        terminated=steps.terminated[:, other], valid=steps.valid[:, other]
    )


def ends_one_step_late(steps):
    """Shift the ends of episodes by a step, as in PufferLib#622."""
    return steps.replace(terminated=jnp.roll(steps.terminated, 1, axis=0))


@pytest.mark.parametrize(
    "ends", [own_ends, twin(ends_of_another_row), twin(ends_one_step_late)]
)
def test_returns_sum_the_rewards_of_the_same_agent_to_the_end_of_its_episode(ends):
    rows, last = experience().steps, experience().last
    value = np.random.default_rng(0).normal(size=(T + 1, B, N)).astype(np.float32)
    settings = {"gamma": GAMMA, "gae_lambda": LAMBDA, "advantage": "per_agent"}
    config = SimpleNamespace(**settings, reward_scale=1.0)
    mixed = experience().replace(steps=ends(rows))
    _, target = advantages_and_targets(mixed, jnp.asarray(value), config)
    valid = np.concatenate([rows.valid, last.valid[None]])
    for b, n in np.ndindex(B, N):
        expected = returns_in_python(
            np.asarray(rows.reward[:, b, n]),
            np.asarray(rows.terminated[:, b]),
            valid[:, b],
            value[:, b, n],
        )
        np.testing.assert_allclose(target[:, b, n], expected, rtol=1e-4)
