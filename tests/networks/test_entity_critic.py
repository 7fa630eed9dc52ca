"""Entity critic and HPN-MAPPO: invariance to order, padding and team size."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturb import perturb

import jmarl
from jmarl.networks.agents import HPNConfig
from jmarl.networks.entity_critic import EntityCritic, make_critic
from jmarl.networks.flatten import empty_obs
from jmarl.training.build import build_run
from jmarl.types import Group, Spec


T, B, N, M, ROW = 3, 4, 3, 4, 10
SMALL = HPNConfig(
    "hpn", "gru", memory_width=8, hyper_width=6, n_head=2, pool="sum", agent_id=False
)
CONFIGS = {
    "gru": SMALL,
    "mean": dataclasses.replace(SMALL, pool="mean"),
    "one_head": dataclasses.replace(SMALL, memory="none", n_head=1),
}
every = pytest.mark.parametrize("kind", CONFIGS)


def make_spec(n=N, m=M):
    """Build a spec with the shapes of SMAX."""
    allies = Group("allies", n - 1, 12, n, ROW)
    enemies = Group("enemies", m, 12, m, ROW)
    target = (-1,) * 5 + tuple(range(n - 1, n - 1 + m))
    return Spec(n, 5 + m, ROW, (allies, enemies), 1, 100, target)


def random_obs(spec):
    """Draw noise in every row of the state and mask some rows."""
    obs = empty_obs(spec, T, B)
    rng = np.random.default_rng(0)

    def noise(x):
        return jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    mask = tuple(jnp.asarray(rng.random(m.shape) < 0.7) for m in obs.state.mask)
    state = obs.state.replace(
        features=noise(obs.state.features),
        rows=tuple(map(noise, obs.state.rows)),
        mask=mask,
    )
    return obs.replace(state=state, alive=mask[0])


@functools.cache
def case(kind):
    """Build a compiled critic with perturbed parameters and a random memory."""
    spec = make_spec()
    net = EntityCritic(spec, CONFIGS[kind])
    obs = random_obs(spec)
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, no_start())

    def random_memory(h):
        return jax.random.normal(jax.random.key(3), h.shape)

    carry = jax.tree.map(random_memory, net.initial(B))
    return perturb(params), obs, carry, jax.jit(net.apply)


def no_start():
    return jnp.zeros((T, B), bool)


def with_rows(obs, change):
    """Apply ``change(group, x)`` to all rows and masks ``[T, B, E, ...]`` of the central state."""
    rows = tuple(change(i, x) for i, x in enumerate(obs.state.rows))
    mask = tuple(change(i, x) for i, x in enumerate(obs.state.mask))
    return obs.replace(state=obs.state.replace(rows=rows, mask=mask), alive=mask[0])


@every
@pytest.mark.parametrize("group", range(2))
def test_values_depend_on_the_rows_of_a_team_but_not_on_their_order(kind, group):
    params, obs, carry, apply = case(kind)

    def roll(i, x):
        return jnp.roll(x, 1, axis=2) if i == group else x

    def negate(i, x):
        return -x if i == group and x.ndim == 4 else x

    _, expected = apply(params, carry, obs, no_start())
    _, rolled = apply(params, carry, with_rows(obs, roll), no_start())
    _, negated = apply(params, carry, with_rows(obs, negate), no_start())
    assert (expected == expected[..., :1]).all()
    np.testing.assert_allclose(rolled, expected, atol=2e-5)
    assert float(jnp.abs(negated - expected).max()) > 0.01


@every
def test_content_of_absent_rows_changes_no_value(kind):
    params, obs, carry, apply = case(kind)

    def pad(i, x):
        widths = [(0, 0)] * x.ndim
        widths[2] = (0, 2)
        fill = False if x.dtype == bool else 1e3
        return jnp.pad(x, widths, constant_values=fill)

    larger = jax.jit(EntityCritic(make_spec(N + 2, M + 2), CONFIGS[kind]).apply)
    _, value = larger(params, carry, with_rows(obs, pad), no_start())
    _, expected = apply(params, carry, obs, no_start())
    np.testing.assert_allclose(value[..., :N], expected, atol=2e-5)


def test_parameter_count_is_one_input_hypernetwork_per_team_a_gru_and_a_value():
    config = dataclasses.replace(SMALL, memory_width=64, hyper_width=64, n_head=1)
    h, hyper, width = 64, 64, ROW
    team = (width + 1) * hyper + width * hyper * h + width * h
    expected = (1 + 1) * h + 2 * team + (6 * h * h + 4 * h) + (h + 1)
    for n, m in ((5, 5), (10, 10), (20, 27)):
        spec = make_spec(n, m)
        net = EntityCritic(spec, config)
        obs = jax.eval_shape(lambda spec=spec: empty_obs(spec, 1, 1))
        args = jax.random.key(0), net.initial(1), obs, jnp.zeros((1, 1), bool)
        params = jax.eval_shape(net.init, *args)
        assert sum(x.size for x in jax.tree.leaves(params)) == expected


def hpn_mappo(name):
    """Build the environment and HPN-MAPPO with small networks."""
    sizes = ["num_envs=8", "network.memory_width=8", "network.hyper_width=8"]
    run = build_run(jmarl.load_config("hpn_mappo", [f"env={name}", *sizes]))
    return run.env, run.system


def test_parameters_fit_every_team_size():
    def shapes(name):
        _, system = hpn_mappo(name)
        learner = jax.eval_shape(system.init, jax.random.key(0))
        return jax.tree.map(jnp.shape, learner)

    assert shapes("smax_5v5") == shapes("smax_10v10") == shapes("smax_5m_vs_6m")


def test_permuting_agents_and_enemies_permutes_the_actions():
    """Permute the agents and the enemies: greedy actions and their targets permute alike."""
    env, system = hpn_mappo("smax_3v3")
    _, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 8)
    params = perturb(jax.jit(system.init)(jax.random.key(1)).params)
    obs = timestep.obs
    obs = obs.replace(
        rows=tuple(jax.random.normal(jax.random.key(3), x.shape) for x in obs.rows),
        mask=jax.tree.map(jnp.ones_like, obs.mask),
        avail=jnp.ones_like(obs.avail),
    )
    compiled_act = jax.jit(system.act)

    def act(obs):
        step, key = timestep.replace(obs=obs), jax.random.key(2)
        action, _, extras = compiled_act(
            params, system.carry(8), step, key, explore=jnp.zeros(())
        )
        return action, extras

    action, extras = act(obs)
    assert len(np.unique(action)) > 3

    agents, enemies = jnp.array([2, 0, 1]), jnp.array([1, 2, 0])
    permuted_action, permuted_extras = act(permuted(obs, agents, enemies))
    slot_of = jnp.concatenate([jnp.arange(5), 5 + jnp.argsort(enemies)])
    np.testing.assert_array_equal(permuted_action, slot_of[action[:, agents]])
    logp, value = extras.logp[:, agents], extras.value[:, agents]
    np.testing.assert_allclose(permuted_extras.logp, logp, atol=1e-5)
    np.testing.assert_allclose(permuted_extras.value, value, atol=1e-5)


def permuted(obs, agents, enemies):
    """Permute the agents ``[B, N]`` and every observer's enemies; allies' slots stay."""

    def permute_rows(groups):
        allies, foes = (x[:, agents] for x in groups)
        return allies, foes[:, :, enemies]

    def permute_state(groups):
        allies, foes = groups
        return allies[:, agents], foes[:, enemies]

    state = obs.state.replace(
        rows=permute_state(obs.state.rows), mask=permute_state(obs.state.mask)
    )
    return obs.replace(
        own=obs.own[:, agents],
        rows=permute_rows(obs.rows),
        mask=permute_rows(obs.mask),
        state=state,
    )


@pytest.mark.parametrize("reads", ["state_and_id", "entities"])
@pytest.mark.parametrize("network", ["gru", "hpn", "saqa", "updet"])
def test_every_critic_joins_every_agent_network(network, reads):
    config = jmarl.load_config("mappo", ["env=smax_3m", f"network={network}"])
    spec = make_spec()
    critic = make_critic(spec, config.network, reads)
    obs, first = empty_obs(spec, 2, 3), jnp.ones((2, 3), bool)
    carry = critic.initial(3)
    run = critic.init_with_output
    (_, value), _ = jax.eval_shape(run, jax.random.key(0), carry, obs, first)
    assert value.shape == (2, 3, spec.n_agents)
