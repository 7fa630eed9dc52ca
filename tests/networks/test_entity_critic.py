"""The critic that reads entities, and HPN-MAPPO: blind to order, to padding and to team size."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmarl
from jmarl.networks.agents import HPNConfig
from jmarl.networks.entity_critic import EntityCritic
from jmarl.networks.flatten import empty_obs
from jmarl.training.train import assemble
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


def world(n=N, m=M):
    """The shapes of SMAX."""
    groups = tuple(
        Group(k, size, 12, own, ROW)
        for k, size, own in (("allies", n - 1, n), ("enemies", m, m))
    )
    return Spec(
        n, 5 + m, ROW, groups, 1, 100, (-1,) * 5 + tuple(range(n - 1, n - 1 + m))
    )


def random_obs(spec):
    """Noise in every row of the state, of which some are masked."""
    obs, rng = empty_obs(spec, T, B), np.random.default_rng(0)
    noise = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    mask = tuple(jnp.asarray(rng.random(m.shape) < 0.7) for m in obs.state.mask)
    state = obs.state.replace(
        features=noise(obs.state.features),
        rows=tuple(map(noise, obs.state.rows)),
        mask=mask,
    )
    return obs.replace(state=state, alive=mask[0])


@functools.cache
def case(kind):
    """A critic with parameters far from their first values, compiled, and a memory that is not empty."""
    net, obs = EntityCritic(world(), CONFIGS[kind]), random_obs(world())
    params = jax.jit(net.init)(jax.random.key(0), net.initial(B), obs, no_start())
    noise = np.random.default_rng(0).normal(size=257)
    shaken = jax.tree.map(
        lambda p: p + 0.3 * np.resize(noise, p.shape).astype(np.float32), params
    )
    carry = jax.tree.map(
        lambda h: jax.random.normal(jax.random.key(3), h.shape), net.initial(B)
    )
    return shaken, obs, carry, jax.jit(net.apply)


def no_start():
    return jnp.zeros((T, B), bool)


def with_rows(obs, change):
    """``change(group, rows or mask, [T, B, E, ...])`` of the central state."""
    rows, mask = (
        tuple(change(i, x) for i, x in enumerate(xs))
        for xs in (obs.state.rows, obs.state.mask)
    )
    return obs.replace(state=obs.state.replace(rows=rows, mask=mask), alive=mask[0])


@every
@pytest.mark.parametrize("group", range(2))
def test_the_order_of_a_team_changes_no_value_and_its_rows_do(kind, group):
    params, obs, carry, apply = case(kind)
    usual = apply(params, carry, obs, no_start())[1]
    assert (usual == usual[..., :1]).all()
    turned = with_rows(obs, lambda i, x: jnp.roll(x, 1, axis=2) if i == group else x)
    np.testing.assert_allclose(
        apply(params, carry, turned, no_start())[1], usual, atol=2e-5
    )
    other = with_rows(obs, lambda i, x: -x if i == group and x.ndim == 4 else x)
    assert (
        float(jnp.abs(apply(params, carry, other, no_start())[1] - usual).max()) > 0.01
    )


@every
def test_who_is_absent_changes_no_value_whatever_stands_in_its_row(kind):
    params, obs, carry, apply = case(kind)

    def pad(i, x):
        return jnp.pad(
            x,
            [(0, 0), (0, 0), (0, 2), *[(0, 0)] * (x.ndim - 3)],
            constant_values=_garbage(x),
        )

    larger = jax.jit(EntityCritic(world(N + 2, M + 2), CONFIGS[kind]).apply)
    value = larger(params, carry, with_rows(obs, pad), no_start())[1]
    np.testing.assert_allclose(
        value[..., :N], apply(params, carry, obs, no_start())[1], atol=2e-5
    )


def _garbage(x):
    return False if x.dtype == bool else 1e3


def test_parameters_are_the_input_half_of_a_hypernetwork_for_each_team_a_gru_and_a_value():
    config = HPNConfig(
        "hpn",
        "gru",
        memory_width=64,
        hyper_width=64,
        n_head=1,
        pool="sum",
        agent_id=False,
    )
    h, hyper, width = 64, 64, ROW
    team = (width + 1) * hyper + width * hyper * h + width * h
    expected = (1 + 1) * h + 2 * team + (6 * h * h + 4 * h) + (h + 1)
    for n, m in ((5, 5), (10, 10), (20, 27)):
        spec = world(n, m)
        net = EntityCritic(spec, config)
        args = (
            jax.eval_shape(lambda spec=spec: empty_obs(spec, 1, 1)),
            jnp.zeros((1, 1), bool),
        )
        params = jax.eval_shape(net.init, jax.random.key(0), net.initial(1), *args)
        assert sum(x.size for x in jax.tree.leaves(params)) == expected


@functools.cache
def system(name):
    words = [
        f"env={name}",
        "num_envs=8",
        "network.memory_width=8",
        "network.hyper_width=8",
    ]
    return assemble(jmarl.load_config("hpn_mappo", words))


def test_parameters_fit_teams_of_any_size():
    shapes = [
        jax.tree.map(jnp.shape, jax.eval_shape(system(name)[1].init, jax.random.key(0)))
        for name in ("smax_5v5", "smax_10v10", "smax_5m_vs_6m")
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_policy_moves_with_its_agents_and_its_targets():
    """Greedy actions of a permuted team are the permuted actions; a permuted enemy is still the one that is shot at."""
    env, hpn = system("smax_3v3")
    _, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 8)
    params = jax.jit(hpn.init)(jax.random.key(1)).params
    noise = np.random.default_rng(0).normal(size=257)
    params = jax.tree.map(
        lambda p: p + 0.3 * np.resize(noise, p.shape).astype(np.float32), params
    )
    rows = tuple(
        jax.random.normal(jax.random.key(3), x.shape) for x in timestep.obs.rows
    )
    everything = {"rows": rows} | jax.tree.map(
        jnp.ones_like, {"mask": timestep.obs.mask, "avail": timestep.obs.avail}
    )
    timestep = timestep.replace(obs=timestep.obs.replace(**everything))
    act = jax.jit(hpn.act)
    act = functools.partial(
        act, params, hpn.carry(8), key=jax.random.key(2), explore=jnp.zeros(())
    )
    action, _, extras = act(timestep=timestep)
    assert len(np.unique(action)) > 3

    team, foes = jnp.array([2, 0, 1]), jnp.array([1, 2, 0])
    obs = timestep.obs
    pick = functools.partial(jax.tree.map, lambda x: x[:, team])
    pick_foes = lambda rows: jax.tree.map(lambda x: x[:, :, foes], rows)  # noqa: E731
    moved = obs.replace(
        own=obs.own[:, team],
        rows=(pick(obs.rows[0]), pick_foes(pick(obs.rows[1]))),
        mask=(pick(obs.mask[0]), pick_foes(pick(obs.mask[1]))),
        state=obs.state.replace(
            rows=(pick(obs.state.rows[0]), obs.state.rows[1][:, foes]),
            mask=(pick(obs.state.mask[0]), obs.state.mask[1][:, foes]),
        ),
    )
    again, _, others = act(timestep=timestep.replace(obs=moved))
    slot_of = jnp.concatenate([jnp.arange(5), 5 + jnp.argsort(foes)])
    np.testing.assert_array_equal(again, slot_of[action[:, team]])
    np.testing.assert_allclose(others.logp, extras.logp[:, team], atol=1e-5)
    np.testing.assert_allclose(others.value, extras.value[:, team], atol=1e-5)
