"""Memory: a scan equals its steps; the start of an episode resets it, and a death does not."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturb import perturb

from jmarl.config import ConfigError
from jmarl.networks import actor_critic
from jmarl.networks.actor_critic import AgentNet, Critic, NetworkConfig
from jmarl.networks.flatten import empty_obs
from jmarl.networks.memory import GRU, make_memory
from jmarl.nn.linear import JointDense
from jmarl.types import Spec


T, B, N, F = 6, 2, 3, 8
KINDS = ("gru", "ssm")


@pytest.fixture(scope="module", params=KINDS)
def memory(request):
    """Build a memory, inputs, and its compiled call with perturbed parameters."""
    net = make_memory(request.param, F)
    x = jax.random.normal(jax.random.key(1), (T, B, N, F))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B, N), x, no_start())
    params = perturb(params, period=64)
    return net, x, jax.jit(lambda carry, x, first: net.apply(params, carry, x, first))


def no_start():
    return jnp.zeros((T, B), bool)


def assert_close(actual, expected, atol):
    close = functools.partial(np.testing.assert_allclose, atol=atol)
    jax.tree.map(close, actual, expected)


def random_carry(net):
    zero = net.initial(B, N)
    return jax.tree.map(lambda h: jax.random.normal(jax.random.key(3), h.shape), zero)


@pytest.mark.parametrize("agents", [False, True])
def test_a_scan_equals_its_steps(memory, agents):
    net, x, apply = memory
    shape = (T, B, N) if agents else (T, B)
    first = jax.random.bernoulli(jax.random.key(4), 0.3, shape)
    start = random_carry(net)
    end, y = apply(start, x, first)
    carry, rows = start, []
    for t in range(T):
        carry, row = apply(carry, x[t : t + 1], first[t : t + 1])
        rows.append(row[0])
    np.testing.assert_allclose(y, jnp.stack(rows), atol=2e-5)
    assert_close(end, carry, atol=2e-5)


@pytest.mark.fault(20)
def test_nothing_leaks_across_the_start_of_an_episode(memory):
    net, x, apply = memory
    first = no_start().at[3, 0].set(True)

    def sums_after_start(x, carry):
        _, y = apply(carry, x, first)
        return y[3:].sum((0, 2, 3))

    jacobian = jax.jit(jax.jacobian(sums_after_start, (0, 1)))
    by_input, by_carry = jacobian(x, random_carry(net))
    assert (by_input[0, :3, 0] == 0).all()
    assert (by_input[1, :3, 1] != 0).any()
    assert all((leaf[0, 0] == 0).all() for leaf in jax.tree.leaves(by_carry))
    assert any((leaf[1, 1] != 0).any() for leaf in jax.tree.leaves(by_carry))


@pytest.mark.fault(20)
def test_only_the_joining_agent_is_reset(memory):
    net, x, apply = memory
    first = jnp.zeros((T, B, N), bool).at[2, 1, 0].set(True)
    kept = apply(random_carry(net), x, jnp.zeros_like(first))[1]
    reset = apply(random_carry(net), x, first)[1]
    changed = jnp.any(kept != reset, axis=(0, 3))
    assert changed.tolist() == [[False] * N, [True, False, False]]


def test_the_last_output_depends_on_the_first_input(memory):
    net, x, apply = memory

    def last_output(first_input):
        _, y = apply(net.initial(B, N), x.at[0].set(first_input), no_start())
        return y[-1].sum()

    assert (jax.jit(jax.grad(last_output))(x[0]) != 0).any()


def test_the_gru_equals_flax_with_its_parameters():
    net = GRU(F)
    x = jax.random.normal(jax.random.key(1), (T, B, N, 5))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B, N), x, no_start())
    params = jax.tree.map(lambda p: p + 0.1, params)
    _, y = net.apply(params, net.initial(B, N), x, no_start())
    params = params["params"]

    def split(array):
        return dict(zip("rzn", jnp.split(array, 3, axis=-1), strict=True))

    kernels, biases = split(params["kernel"]), split(params["bias"])
    flax = {f"i{g}": {"kernel": kernels[g], "bias": biases[g]} for g in "rzn"}
    flax |= {f"h{g}": {"kernel": k} for g, k in split(params["recurrent"]).items()}
    flax["hn"]["bias"] = params["candidate_bias"]
    cell = nn.RNN(nn.GRUCell(F), time_major=True)
    out = jax.jit(cell.apply)({"params": {"cell": flax}}, x.reshape(T, B * N, 5))
    np.testing.assert_allclose(y.reshape(T, B * N, F), out, atol=1e-5)


SPEC = Spec(
    n_agents=N,
    n_actions=4,
    own_width=5,
    groups=(),
    global_width=6,
    episode_limit=9,
    action_target=(-1,) * 4,
)


def network(memory, **sizes):
    base = dict(
        torso=(F,),
        memory=memory,
        memory_width=F,
        head=(F,),
        activation="relu",
        layer_norm=False,
    )
    return NetworkConfig(**(base | dict(agent_id=False) | sizes))


def reset_by_death(net, params, carry, obs, first):
    """Reset the memory of a dead unit, the defect of JaxMARL's recurrent baselines."""
    return net.apply(params, carry, obs.replace(joined=obs.joined | ~obs.alive), first)


def reset_at_first(net, params, carry, obs, first):
    return net.apply(params, carry, obs, first)


TWIN = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: memory reset by a unit's death",
)


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    "run", [reset_at_first, pytest.param(reset_by_death, marks=TWIN)]
)
@pytest.mark.parametrize(
    "net",
    [
        AgentNet(SPEC, network("gru")),
        Critic(SPEC, network("gru"), reads="state_and_obs"),
    ],
)
def test_death_does_not_reset_memory(run, net):
    obs = empty_obs(SPEC, T, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jnp.zeros((T, B), bool).at[0].set(True)
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)
    dead = obs.replace(alive=obs.alive.at[2:4, :, 1].set(False))
    output = jax.jit(lambda obs: run(net, params, net.initial(B), obs, first)[1])
    np.testing.assert_array_equal(output(dead), output(obs))


@pytest.mark.parametrize("reads", ["obs", "state", "state_and_id", "state_and_obs"])
def test_critic_depends_on_its_inputs_only(reads):
    net = Critic(SPEC, network("none"), reads=reads)
    obs, first = empty_obs(SPEC, 1, 1), jnp.ones((1, 1), bool)
    own = jax.random.normal(jax.random.key(1), obs.own.shape)
    features = jax.random.normal(jax.random.key(2), (1, 1, 6))
    obs = obs.replace(own=own, state=obs.state.replace(features=features))
    params = jax.jit(net.init)(jax.random.key(0), (), obs, first)

    @jax.jit
    def value(own, features):
        changed = obs.replace(own=own, state=obs.state.replace(features=features))
        return net.apply(params, (), changed, first)[1][0, 0]

    by_own, by_state = jax.jacobian(value, (0, 1))(own, features)
    assert bool((by_own != 0).any()) == (reads in ("obs", "state_and_obs"))
    assert bool((by_state != 0).any()) == (reads != "obs")
    values = value(own, features)
    assert bool((values == values[0]).all()) == (reads == "state")
    others = by_own[0, 0, 0, 1:]
    assert (others == 0).all()


def test_a_layer_on_parts_equals_the_layer_on_their_concatenation():
    team = jax.random.normal(jax.random.key(1), (T, B, 1, 6))
    own = jax.random.normal(jax.random.key(2), (T, B, N, 5))
    layer = JointDense(F)
    params = layer.init(jax.random.key(0), team, own)
    whole = jnp.concatenate([jnp.broadcast_to(team, (T, B, N, 6)), own], axis=-1)
    expected = layer.apply(params, whole)
    thirds = (team, own[..., :2], own[..., 2:])
    assert_close(layer.apply(params, team, own), expected, atol=1e-5)
    assert_close(layer.apply(params, *thirds), expected, atol=1e-5)
    products = str(jax.make_jaxpr(layer.apply)(params, *thirds)).count("dot_general")
    assert products == 2, "one for the shared part, one for the agents' own parts"


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_over_a_rollout_equals_its_single_steps(kind):
    """Check that learning differentiates the outputs of acting, with and without blocks."""
    net = AgentNet(SPEC, network(kind))
    obs = empty_obs(SPEC, T, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jax.random.bernoulli(jax.random.key(4), 0.3, (T, B))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)
    apply = jax.jit(net.apply)
    carry, rows = net.initial(B), []
    for t in range(T):
        step = jax.tree.map(lambda x: x[t : t + 1], (obs, first))
        carry, row, _ = apply(params, carry, *step)
        rows.append(row[0])
    end, out, _ = apply(params, net.initial(B), obs, first)
    assert_close(out, jnp.stack(rows), atol=1e-5)
    assert_close(end, carry, atol=1e-5)


@pytest.mark.parametrize("between", [None, lambda features, x: features * x])
@pytest.mark.parametrize("rows", [1, 2 * B * N, 10**6])
def test_the_blocks_of_a_trunk_change_nothing(rows, between, monkeypatch):
    net = AgentNet(SPEC, network("gru"))
    obs = empty_obs(SPEC, 8, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jax.random.bernoulli(jax.random.key(4), 0.3, (8, B))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)

    def gradient():
        def loss(params):
            _, out, features = net.apply(params, net.initial(B), obs, first, between)
            return (out**2).mean() + features.mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    expected = gradient()
    monkeypatch.setattr(actor_critic, "BLOCK_ROWS", rows)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, gradient(), expected)


@pytest.mark.parametrize(
    ("length", "rows", "block"),
    [(64, 48, 8), (128, 320, 1), (7, 100, 1), (7, 70, 7), (64, 10_000, 1)],
)
def test_blocks_divide_the_rollout_and_fit(length, rows, block):
    assert actor_critic._block_length(length, rows) == block


def test_ssm_width_must_equal_the_last_torso_width():
    with pytest.raises(ConfigError, match=r"network\.memory_width=16"):
        network("ssm", memory_width=16)


@pytest.mark.parametrize("key", ["torso", "head"])
def test_layers_must_have_units(key):
    rule = rf"network\.{key}=\(8, 0\): must have layers of at least one unit"
    with pytest.raises(ConfigError, match=rule):
        network("gru", **{key: (8, 0)})
