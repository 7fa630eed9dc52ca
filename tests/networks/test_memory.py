"""Memory: a scan is its steps, an episode's start cuts it, a death does not."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    """Module, parameters, inputs, and a first call's function."""
    net = make_memory(request.param, F)
    x = jax.random.normal(jax.random.key(1), (T, B, N, F))
    params = jax.jit(net.init)(
        jax.random.key(0), net.initial(B, N), x, jnp.zeros((T, B), bool)
    )
    noise = np.random.default_rng(0).normal(size=64)
    shake = jax.tree.map(lambda p: p + 0.3 * np.resize(noise, p.shape), params)
    return net, x, jax.jit(lambda carry, x, first: net.apply(shake, carry, x, first))


def random_carry(net):
    zero = net.initial(B, N)
    return jax.tree.map(lambda h: jax.random.normal(jax.random.key(3), h.shape), zero)


@pytest.mark.parametrize("agents", [False, True])
def test_a_scan_equals_its_steps(memory, agents):
    net, x, apply = memory
    first = jax.random.bernoulli(
        jax.random.key(4), 0.3, (T, B, N) if agents else (T, B)
    )
    start = random_carry(net)
    end, y = apply(start, x, first)
    carry, rows = start, []
    for t in range(T):
        carry, row = apply(carry, x[t : t + 1], first[t : t + 1])
        rows.append(row[0])
    np.testing.assert_allclose(y, jnp.stack(rows), atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), end, carry)


def test_nothing_leaks_over_an_episodes_start(memory):
    net, x, apply = memory
    first = jnp.zeros((T, B), bool).at[3, 0].set(True)

    def after(x, carry):
        return apply(carry, x, first)[1][3:]

    jacobian = jax.jit(jax.jacobian(lambda x, c: after(x, c).sum((0, 2, 3)), (0, 1)))
    by_input, by_carry = jacobian(x, random_carry(net))
    assert (by_input[0, :3, 0] == 0).all()
    assert (by_input[1, :3, 1] != 0).any()
    assert all((leaf[0, 0] == 0).all() for leaf in jax.tree.leaves(by_carry))
    assert any((leaf[1, 1] != 0).any() for leaf in jax.tree.leaves(by_carry))


def test_an_agent_that_joins_is_reset_alone(memory):
    net, x, apply = memory
    first = jnp.zeros((T, B, N), bool).at[2, 1, 0].set(True)
    kept = apply(random_carry(net), x, jnp.zeros_like(first))[1]
    reset = apply(random_carry(net), x, first)[1]
    changed = jnp.any(kept != reset, axis=(0, 3))
    assert changed.tolist() == [[False] * N, [True, False, False]]


def test_it_remembers(memory):
    net, x, apply = memory
    none = jnp.zeros((T, B), bool)
    last = lambda x0: apply(net.initial(B, N), x.at[0].set(x0), none)[1][-1].sum()  # noqa: E731
    assert (jax.jit(jax.grad(last))(x[0]) != 0).any()


def test_the_gru_equals_flax_with_its_parameters():
    net = GRU(F)
    x = jax.random.normal(jax.random.key(1), (T, B, N, 5))
    params = jax.jit(net.init)(
        jax.random.key(0), net.initial(B, N), x, jnp.zeros((T, B), bool)
    )["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    split = lambda array: jnp.split(array, 3, axis=-1)  # noqa: E731
    kernels, biases = split(params["kernel"]), split(params["bias"])
    theirs = {
        f"i{g}": {"kernel": k, "bias": b}
        for g, k, b in zip("rzn", kernels, biases, strict=True)
    }
    theirs |= {
        f"h{g}": {"kernel": k}
        for g, k in zip("rzn", split(params["recurrent"]), strict=True)
    }
    theirs["hn"]["bias"] = params["candidate_bias"]
    _, y = net.apply({"params": params}, net.initial(B, N), x, jnp.zeros((T, B), bool))
    cell = nn.RNN(nn.GRUCell(F), time_major=True)
    out = jax.jit(cell.apply)({"params": {"cell": theirs}}, x.reshape(T, B * N, 5))
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
    """The defect of JaxMARL's recurrent baselines: a unit's death resets its memory."""
    return net.apply(params, carry, obs.replace(joined=obs.joined | ~obs.alive), first)


def reset_at_first(net, params, carry, obs, first):
    return net.apply(params, carry, obs, first)


TWIN = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: memory reset by a unit's death",
)


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
def test_a_death_resets_no_memory(run, net):
    obs = empty_obs(SPEC, T, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jnp.zeros((T, B), bool).at[0].set(True)
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)
    dead = obs.replace(alive=obs.alive.at[2:4, :, 1].set(False))
    output = jax.jit(lambda obs: run(net, params, net.initial(B), obs, first)[1])
    outputs = [output(o) for o in (obs, dead)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("reads", ["obs", "state", "state_and_id", "state_and_obs"])
def test_a_critic_reads_what_it_should(reads):
    net = Critic(SPEC, network("none"), reads=reads)
    obs, first = empty_obs(SPEC, 1, 1), jnp.ones((1, 1), bool)
    own = jax.random.normal(jax.random.key(1), obs.own.shape)
    obs = obs.replace(
        own=own,
        state=obs.state.replace(
            features=jax.random.normal(jax.random.key(2), (1, 1, 6))
        ),
    )
    params = jax.jit(net.init)(jax.random.key(0), (), obs, first)

    @jax.jit
    def value(own, features):
        seen = obs.replace(own=own, state=obs.state.replace(features=features))
        return net.apply(params, (), seen, first)[1][0, 0]

    by_own, by_state = jax.jacobian(value, (0, 1))(obs.own, obs.state.features)
    assert bool((by_own != 0).any()) == (reads in ("obs", "state_and_obs"))
    assert bool((by_state != 0).any()) == (reads != "obs")
    values = value(obs.own, obs.state.features)
    assert bool((values == values[0]).all()) == (reads == "state")
    others = by_own[0, 0, 0, 1:]
    assert (others == 0).all()


def test_a_layer_on_parts_is_the_layer_on_their_concatenation():
    team, own = (
        jax.random.normal(jax.random.key(1), (T, B, 1, 6)),
        jax.random.normal(jax.random.key(2), (T, B, N, 5)),
    )
    layer = JointDense(F)
    params = layer.init(jax.random.key(0), team, own)
    whole = jnp.concatenate([jnp.broadcast_to(team, (T, B, N, 6)), own], axis=-1)
    np.testing.assert_allclose(
        layer.apply(params, team, own), layer.apply(params, whole), atol=1e-5
    )
    thirds = (team, own[..., :2], own[..., 2:])
    np.testing.assert_allclose(
        layer.apply(params, *thirds), layer.apply(params, whole), atol=1e-5
    )
    products = str(jax.make_jaxpr(layer.apply)(params, *thirds)).count("dot_general")
    assert products == 2, (
        "one for what the team shares, one for all that is each agent's own"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_over_a_rollout_equals_its_single_steps(kind):
    """What acting computed is what learning differentiates, on every platform's way through time."""
    net = AgentNet(SPEC, network(kind))
    obs = empty_obs(SPEC, T, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jax.random.bernoulli(jax.random.key(4), 0.3, (T, B))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)
    apply = jax.jit(net.apply)
    carry, rows = net.initial(B), []
    for t in range(T):
        carry, row = apply(
            params, carry, *jax.tree.map(lambda x: x[t : t + 1], (obs, first))
        )
        rows.append(row[0])
    end, out = apply(params, net.initial(B), obs, first)
    np.testing.assert_allclose(out, jnp.stack(rows), atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), end, carry)


@pytest.mark.parametrize("rows", [1, 2 * B * N, 10**6])
def test_the_blocks_of_a_trunk_change_nothing(rows, monkeypatch):
    net = AgentNet(SPEC, network("gru"))
    obs = empty_obs(SPEC, 8, B)
    obs = obs.replace(own=jax.random.normal(jax.random.key(1), obs.own.shape))
    first = jax.random.bernoulli(jax.random.key(4), 0.3, (8, B))
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, first)

    def gradient():
        return jax.jit(
            jax.value_and_grad(
                lambda p: (net.apply(p, net.initial(B), obs, first)[1] ** 2).mean()
            )
        )(params)

    usual = gradient()
    monkeypatch.setattr(actor_critic, "BLOCK_ROWS", rows)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(),
        usual,
    )


@pytest.mark.parametrize(
    ("length", "rows", "block"),
    [(64, 48, 8), (128, 320, 1), (7, 100, 1), (7, 70, 7), (64, 10_000, 1)],
)
def test_blocks_divide_the_rollout_and_fit(length, rows, block):
    assert actor_critic._block(length, rows) == block


def test_an_ssm_needs_a_torso_of_its_width():
    with pytest.raises(ConfigError, match=r"network\.memory_width=16"):
        network("ssm", memory_width=16)
