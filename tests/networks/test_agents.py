"""The entity agents: blind to order, padding and team size; cheap forms equal to written-out ones."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jmarl import load_config
from jmarl.config import ConfigError, build
from jmarl.config.choices import configs_dir
from jmarl.networks.actor_critic import AgentNet
from jmarl.networks.agents import (
    HPN,
    SAQA,
    AgentConfig,
    HPNConfig,
    SAQAConfig,
    UPDeT,
    UPDeTConfig,
    make_agent,
)
from jmarl.networks.agents.slots import flat_actions, slot_kinds
from jmarl.networks.entities import visible_rows
from jmarl.networks.flatten import empty_obs
from jmarl.nn.attention import attend
from jmarl.types import EntityObs, Group, Spec


T, B, N, WIDTH = 3, 2, 3, 8
HPN_CONFIG = HPNConfig(
    "hpn",
    "gru",
    memory_width=WIDTH,
    hyper_width=6,
    n_head=2,
    pool="sum",
    agent_id=False,
)
CONFIGS = {
    "hpn": HPN_CONFIG,
    "hpn_mean": dataclasses.replace(HPN_CONFIG, n_head=1, pool="mean"),
    "updet": UPDeTConfig("updet", embed_dim=WIDTH, n_head=2, n_block=2, mlp_width=16),
    "saqa": SAQAConfig("saqa", "gru", embed_dim=WIDTH, n_head=2),
}
SIZES, WIDTHS = (2, 3, 2), (5, 4, 3)


def world(sizes=SIZES, n_agents=N, widths=WIDTHS, target=None):
    """Allies that can be healed and passed to, enemies to attack, landmarks that nothing aims at."""
    if target is None:
        allies, enemies = (
            tuple(range(sizes[0])),
            tuple(range(sizes[0], sizes[0] + sizes[1])),
        )
        target = (-1,) * 4 + enemies + allies + allies
    names = ("allies", "enemies", "landmarks")[: len(sizes)]
    groups = tuple(
        Group(name, size, width, size, 2)
        for name, size, width in zip(names, sizes, widths, strict=True)
    )
    return Spec(n_agents, len(target), 6, groups, 1, 9, tuple(target))


def battle(n_allies, n_enemies, row=12, own=10, n_own=5):
    """The shapes of SMAX: every enemy is the target of one action."""
    groups = tuple(
        Group(k, n, row, n, own)
        for k, n in (("allies", n_allies - 1), ("enemies", n_enemies))
    )
    target = (-1,) * n_own + tuple(range(n_allies - 1, n_allies - 1 + n_enemies))
    return Spec(n_allies, n_own + n_enemies, own, groups, 1, 100, target)


def random_obs(spec, key=1, length=T, seen=0.7):
    """Noise everywhere; masked rows are garbage, not zero."""
    obs, rng = empty_obs(spec, length, B), np.random.default_rng(key)
    noise = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32),
        (obs.own, obs.rows),
    )
    return obs.replace(
        own=noise[0],
        rows=noise[1],
        mask=tuple(jnp.asarray(rng.random(m.shape) < seen) for m in obs.mask),
    )


class Case(NamedTuple):
    net: Any
    params: Any
    obs: EntityObs
    carry: Any
    apply: Any
    """``(params, carry, obs, first) -> (carry, out)``, compiled."""


@functools.cache
def case(kind) -> Case:
    """A network with parameters far from their initial values, where zero biases and small heads hide nothing."""
    spec = world()
    net, obs = make_agent(spec, CONFIGS[kind]), random_obs(spec)
    params = jax.jit(net.init)(
        jax.random.key(0), net.initial(B), obs, jnp.zeros((T, B), bool)
    )
    noise = np.random.default_rng(0).normal(size=257)
    shaken = jax.tree.map(
        lambda p: p + 0.3 * np.resize(noise, p.shape).astype(np.float32), params
    )
    carry = jax.tree.map(
        lambda h: jax.random.normal(jax.random.key(3), h.shape), net.initial(B)
    )
    return Case(net, shaken, obs, carry, jax.jit(net.apply))


def no_start(length=T):
    return jnp.zeros((length, B), bool)


every = pytest.mark.parametrize("kind", CONFIGS)
each_class = pytest.mark.parametrize("kind", ["hpn", "updet", "saqa"])
attentive = pytest.mark.parametrize("kind", ["updet", "saqa"])


@every
@pytest.mark.parametrize("group", range(3))
def test_the_order_of_a_group_moves_the_values_aimed_at_it_and_nothing_else(
    kind, group
):
    net, params, obs, carry, apply = case(kind)
    order = np.roll(np.arange(SIZES[group]), 1)

    def pick(xs):
        return tuple(x[:, :, :, order] if i == group else x for i, x in enumerate(xs))

    start = sum(SIZES[:group])
    came_from = {start + slot: start + old for slot, old in enumerate(order)}
    actions = list(zip(net.spec.action_target, net.spec.action_kind, strict=True))
    columns = [actions.index((came_from.get(t, t), k)) for t, k in actions]
    before, out = apply(params, carry, obs, no_start())
    after, moved = apply(
        params, carry, obs.replace(rows=pick(obs.rows), mask=pick(obs.mask)), no_start()
    )
    np.testing.assert_allclose(moved, out[..., columns], atol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), after, before
    )
    assert columns == sorted(columns) or float(jnp.abs(moved - out).max()) > 1e-2


def masked(obs):
    return obs


def mask_dropped(obs):
    """The SMACv2 agent of SPECTra computes a mask and hands None to its attention."""
    return obs.replace(mask=tuple(jnp.ones_like(m) for m in obs.mask))


def mask_inverted(obs):
    """JaxMARL's TransfQMIX marks the rows that are all zero as the ones to attend to."""
    return obs.replace(mask=tuple(~m for m in obs.mask))


def padded(obs, spec, value):
    """More slots in every group and one more agent, all absent, and the larger world's spec."""
    wider = lambda x, axis, fill: jnp.pad(  # noqa: E731
        x, [(0, int(i == axis)) for i in range(x.ndim)], constant_values=fill
    )
    larger = world(tuple(g.size + 1 for g in spec.groups), spec.n_agents + 1)
    more = empty_obs(larger, *obs.alive.shape[:2])
    rows = tuple(wider(wider(x, 3, value), 2, value) for x in obs.rows)
    mask = tuple(wider(wider(x, 3, False), 2, False) for x in obs.mask)
    return more.replace(own=wider(obs.own, 2, value), rows=rows, mask=mask), larger


def columns_in(spec, larger):
    """Where the actions of a world stand in one with one more slot in every group."""
    ends = np.cumsum([0, *(g.size for g in spec.groups)])

    def shift(t):
        return t if t < 0 else t + int(np.searchsorted(ends, t, side="right")) - 1

    actions = list(zip(larger.action_target, larger.action_kind, strict=True))
    return [
        actions.index((shift(t), k))
        for t, k in zip(spec.action_target, spec.action_kind, strict=True)
    ]


def difference_by_padding(kind, reading, value):
    net, params, obs, carry, apply = case(kind)
    obs = obs if value else obs.replace(rows=visible_rows(obs))
    more, larger = padded(obs, net.spec, value)
    wide = jax.tree.map(lambda h: jnp.concatenate([h, h[:, :1]], axis=1), carry)
    run = jax.jit(make_agent(larger, CONFIGS[kind]).apply)
    after, out = run(params, wide, reading(more), no_start())
    before, expected = apply(params, carry, reading(obs), no_start())
    gaps = [out[:, :, :N, columns_in(net.spec, larger)] - expected]
    gaps += jax.tree.leaves(jax.tree.map(lambda a, b: a[:, :N] - b, after, before))
    assert all(bool(jnp.isfinite(x).all()) for x in [out, *jax.tree.leaves(after)])
    return max(float(jnp.abs(gap).max()) for gap in gaps)


@every
def test_absent_entities_and_agents_change_nothing_whatever_stands_in_their_rows(kind):
    assert difference_by_padding(kind, masked, value=1e3) < 2e-5


DEFECTS = [
    pytest.param(
        reading,
        marks=pytest.mark.xfail(
            strict=True, raises=AssertionError, reason=f"defective twin: {why}"
        ),
    )
    for reading, why in (
        (mask_dropped, "attention mask dropped"),
        (mask_inverted, "attention mask inverted"),
    )
]


@attentive
@pytest.mark.parametrize("reading", [masked, *DEFECTS])
def test_padding_with_zero_rows_changes_nothing(kind, reading):
    assert difference_by_padding(kind, reading, value=0.0) < 2e-5


def test_hpn_needs_no_mask_where_rows_are_zero():
    assert difference_by_padding("hpn", mask_dropped, value=0.0) < 2e-5


@each_class
def test_every_parameter_learns_and_an_agent_that_sees_nothing_stays_finite(kind):
    net, params, obs, carry, _ = case(kind)
    blind = obs.replace(
        own=obs.own.at[:, 0].set(0), mask=tuple(m.at[:, 0].set(False) for m in obs.mask)
    )

    @jax.jit
    def outputs(params):
        after, out = net.apply(params, carry, blind, no_start())
        wave = jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return (out * wave).sum(), (after, out)

    (_, made), grads = jax.jit(jax.value_and_grad(outputs, has_aux=True))(params)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((made, grads)))
    flat = jax.tree_util.tree_leaves_with_path(grads)
    assert not [
        jax.tree_util.keystr(path) for path, g in flat if float(jnp.abs(g).max()) < 1e-6
    ]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((made, params)))


@each_class
def test_a_rollout_equals_its_steps_and_memory_is_reset_at_first_and_for_who_joins(
    kind,
):
    net, params, obs, carry, apply = case(kind)
    first = no_start().at[1, 0].set(True)
    obs = obs.replace(joined=obs.joined.at[2, 1, 0].set(True))
    end, out = apply(params, carry, obs, first)
    state, rows, zero = carry, [], net.initial(B)
    for t in range(T):
        begins = first[t, :, None] | obs.joined[t]
        state = jax.tree.map(
            lambda h, z, s=begins: jnp.where(s[..., None], z, h), state, zero
        )
        row = jax.tree.map(lambda x, t=t: x[t : t + 1], obs).replace(
            joined=jnp.zeros((1, B, N), bool)
        )
        state, y = apply(params, state, row, no_start(1))
        rows.append(y[0])
    np.testing.assert_allclose(out, jnp.stack(rows), atol=5e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), end, state)
    kept = apply(
        params, carry, obs.replace(joined=jnp.zeros_like(obs.joined)), no_start()
    )[1]
    changed = jnp.abs(kept - out).max(-1) > 1e-4
    assert changed[:, 0].tolist() == [[False] * N, [True] * N, [True] * N]
    assert changed[:, 1].tolist() == [[False] * N, [False] * N, [True, False, False]]


@every
def test_one_set_of_parameters_serves_every_team_size(kind):
    small = make_agent(battle(5, 5), CONFIGS[kind])

    def shapes(net):
        obs = jax.eval_shape(lambda: empty_obs(net.spec, T, B))
        return jax.eval_shape(
            net.init, jax.random.key(0), net.initial(B), obs, no_start()
        ), obs

    params, _ = shapes(small)
    for sizes in [(5, 6), (10, 10), (20, 20), (1, 1)]:
        net = make_agent(battle(*sizes), CONFIGS[kind])
        theirs, obs = shapes(net)
        assert jax.tree.map(lambda x: x.shape, theirs) == jax.tree.map(
            lambda x: x.shape, params
        )
        carry, out = jax.eval_shape(net.apply, params, net.initial(B), obs, no_start())
        assert out.shape == (T, B, sizes[0], 5 + sizes[1])
        assert jax.tree.map(lambda x: x.shape, carry) == jax.tree.map(
            lambda x: x.shape, net.initial(B)
        )


ODD = {
    "no_groups": world((), widths=(), target=(-1,) * 3),
    "no_targets": world(target=(-1,) * 3),
    "an_empty_group": world((2, 0, 1), target=(-1, -1, 0, 1, 2)),
    "targets_alone": world((2, 3), widths=(5, 4), target=(0, 1, 2, 3, 4, 0, 1, 0, 1)),
    "some_slots_of_a_group": world((2, 3), widths=(5, 4), target=(4, 2, -1, -1, 2)),
}


@every
@pytest.mark.parametrize("odd", ODD)
def test_any_layout_of_groups_and_actions_works(kind, odd):
    net = make_agent(ODD[odd], CONFIGS[kind])
    args = net.initial(B), jax.eval_shape(lambda: empty_obs(net.spec, T, B)), no_start()
    (_, out), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), *args)
    assert out.shape == (T, B, N, net.spec.n_actions)


def test_values_stand_where_the_spec_says():
    spec = world((2, 3), widths=(5, 4), target=(4, -1, 0, 2, -1, 0, 2, 2))
    assert slot_kinds(spec) == (2, 3)
    own, allies = jnp.arange(2.0), 10 * jnp.arange(2.0)[:, None] + jnp.arange(2.0) + 100
    enemies = 10 * jnp.arange(3.0)[:, None] + jnp.arange(3.0) + 200
    out = flat_actions(spec, own, [allies, enemies])
    assert out.tolist() == [220, 0, 100, 200, 1, 101, 201, 202]


def test_attention_that_may_see_nothing_is_finite():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    mask = jnp.array([True, True, False])[None, None].repeat(2, 0).at[1].set(False)
    run = jax.jit(
        jax.value_and_grad(
            lambda x: (lambda y: (y.sum(), y))(attend(x, x, x, mask)), has_aux=True
        )
    )
    (_, out), grad = run(x)
    assert bool(jnp.isfinite(out).all() & jnp.isfinite(grad).all())
    seen = x[0, :2]
    by_hand = jax.nn.softmax(x[0] @ seen.T / 2.0, axis=-1) @ seen
    np.testing.assert_allclose(out[0], by_hand, atol=1e-6)


def written_out(config, spec, params, own, rows):
    """HPN of one agent without memory, by the paper's formulas: a matrix for each entity."""
    n, hidden, width = config.n_head, config.hyper_width, config.memory_width
    softmax = functools.partial(jax.nn.softmax, axis=0)
    made = []
    for group, x in zip(spec.groups, rows, strict=True):
        p = params[f"hyper_{group.name}"]
        u = jax.nn.relu(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
        w_in = (
            jnp.einsum("ey,fyo->efo", u, p["kernel"].reshape(-1, hidden, n * width))
            + p["bias"]
        )
        made.append((x, u, w_in, p))
    pooled = sum(jnp.einsum("ef,efo->eo", x, w).sum(0) for x, _, w, _ in made)
    heard = (softmax(params["merge"]) * pooled.reshape(n, width)).sum(0)
    h = jax.nn.relu(own @ params["own"]["kernel"] + params["own"]["bias"] + heard)
    q_own = h @ params["own_actions"]["kernel"] + params["own_actions"]["bias"]
    aimed = []
    for (_, u, _, p), kinds in zip(made, slot_kinds(spec), strict=True):
        if kinds:
            u1 = jnp.concatenate([u, jnp.ones((len(u), 1))], -1)
            w_out = jnp.einsum(
                "ey,hoy->eho",
                u1,
                p["value"]["kernel"].reshape(width, n * kinds, hidden + 1),
            )
            b_out = jnp.einsum(
                "ey,oy->eo", u1, p["value"]["bias"].reshape(n * kinds, hidden + 1)
            )
            q = jnp.einsum("h,eho->eo", h, w_out) + b_out
            aimed.append((q.reshape(-1, n, kinds) * softmax(p["merge"])).sum(1))
    return flat_actions(spec, q_own, aimed)


def test_hpn_equals_itself_with_a_matrix_for_each_entity():
    spec, config = world(), dataclasses.replace(HPN_CONFIG, memory="none")
    net = HPN(spec, config)
    _, params, obs, _, _ = case("hpn")
    params = {k: v for k, v in params["params"].items() if k != "memory"}
    agent = functools.partial(written_out, config, spec, params)
    slow = jax.jit(jax.vmap(jax.vmap(jax.vmap(agent))))(obs.own, visible_rows(obs))
    _, fast = jax.jit(net.apply)({"params": params}, (), obs, no_start())
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def attended(config, spec, params, own, rows, mask):
    """SAQA of one agent without memory, every embedding, key and value formed; ``part`` is a head's width."""
    n, part = config.n_head, config.embed_dim // config.n_head
    dense = lambda p, x: x @ p["kernel"] + p["bias"]  # noqa: E731
    heads = lambda x: x.reshape(-1, n, part)  # noqa: E731
    entities = [
        dense(params[f"embed_{g.name}"], x)
        for g, x in zip(spec.groups, rows, strict=True)
    ]
    own = dense(params["own"], own)
    x, p = jnp.concatenate([own[None], *entities]), params["attention"]
    q, k, v = (
        heads(dense(p["query"], own[None]))[0],
        heads(x @ p["key"]),
        heads(x @ p["value"] + p["value_bias"]),
    )
    seen = jnp.concatenate([jnp.ones(1, bool), *mask])
    scores = jnp.where(seen[:, None], (q * k).sum(-1) / part**0.5, -jnp.inf)
    z = own + (jax.nn.softmax(scores, axis=0)[..., None] * v).sum(0).reshape(-1)
    h = (z - z.mean()) / jnp.sqrt(z.var() + 1e-6) * params["norm"]["scale"] + params[
        "norm"
    ]["bias"]
    p, aimed = params["aimed_actions"], []
    queries = dense(p["query"], h).reshape(-1, n, part)
    for e, kinds in zip(entities, slot_kinds(spec), strict=True):
        if kinds:
            inner = jnp.einsum(
                "knp,enp->ekn", queries, heads(e @ p["key"] + p["key_bias"])
            )
            aimed.append(inner.mean(-1)[:, :kinds] / part**0.5)
    return flat_actions(spec, dense(params["own_actions"], h), aimed)


def test_saqa_equals_itself_with_embeddings_keys_and_values_formed():
    spec, config = world(), dataclasses.replace(CONFIGS["saqa"], memory="none")
    _, params, obs, _, _ = case("saqa")
    params = {k: v for k, v in params["params"].items() if k != "memory"}
    agent = functools.partial(attended, config, spec, params)
    slow = jax.jit(jax.vmap(jax.vmap(jax.vmap(agent))))(
        obs.own, visible_rows(obs), obs.mask
    )
    _, fast = jax.jit(SAQA(spec, config).apply)({"params": params}, (), obs, no_start())
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_a_mean_over_entities_is_blind_to_how_many_there_are():
    _, params, obs, carry, apply = case("hpn_mean")
    doubled = lambda xs: tuple(jnp.concatenate([x, x], axis=3) for x in xs)  # noqa: E731
    twice = make_agent(world(tuple(2 * n for n in SIZES)), CONFIGS["hpn_mean"])
    more = obs.replace(rows=doubled(obs.rows), mask=doubled(obs.mask))
    after, out = jax.jit(twice.apply)(params, carry, more, no_start())
    before, expected = apply(params, carry, obs, no_start())
    np.testing.assert_allclose(out[..., :4], expected[..., :4], atol=2e-5)
    np.testing.assert_allclose(after, before, atol=2e-5)


@pytest.mark.parametrize("kind", ["hpn", "saqa"])
def test_work_is_linear_in_entities_and_less_than_a_matrix_for_each(kind):
    """Of three spaced team sizes the FLOPs have no second difference."""
    config = STANDARD[kind]

    def flops(n):
        net = make_agent(battle(n, n)._replace(n_agents=1), config)
        obs = jax.eval_shape(lambda: empty_obs(net.spec, 1, 1))
        args = net.initial(1), obs, jnp.zeros((1, 1), bool)
        params = jax.eval_shape(net.init, jax.random.key(0), *args)
        return jax.jit(net.apply).lower(params, *args).cost_analysis()["flops"]

    few, some, many = (flops(n) for n in (10, 20, 30))
    entity, features, width = (some - few) / 20, 12, 64
    assert many - some == pytest.approx(some - few, rel=0.02)
    assert entity < 2 * features * width * 64 / 10


QUADRATIC = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="every entity asks every other one"
)


@pytest.mark.parametrize("kind", ["saqa", pytest.param("updet", marks=QUADRATIC)])
def test_the_work_of_an_agent_doubles_with_the_entities(kind):
    """Of whole teams of 10, 20 and 40 against as many, by XLA's count."""

    def flops(n):
        net = make_agent(battle(n, n), STANDARD[kind])
        obs = jax.eval_shape(lambda: empty_obs(net.spec, 1, 1))
        args = net.initial(1), obs, jnp.zeros((1, 1), bool)
        params = jax.eval_shape(net.init, jax.random.key(0), *args)
        return jax.jit(net.apply).lower(params, *args).cost_analysis()["flops"] / n

    few, some, many = map(flops, (10, 20, 40))
    assert some / few < 2.05
    assert many / some < 2.05


STANDARD = {
    "hpn": HPNConfig(
        "hpn",
        "gru",
        memory_width=64,
        hyper_width=64,
        n_head=1,
        pool="sum",
        agent_id=False,
    ),
    "hpn_with_id": HPNConfig(
        "hpn",
        "gru",
        memory_width=64,
        hyper_width=64,
        n_head=1,
        pool="sum",
        agent_id=True,
    ),
    "updet": UPDeTConfig("updet", embed_dim=32, n_head=3, n_block=2, mlp_width=128),
    "saqa": SAQAConfig("saqa", "gru", embed_dim=64, n_head=4),
}


def smac(n_agents, own, row):
    """The widths of SMACv2's observations, as the released checkpoints of SPECTra and HPN have them."""
    return battle(n_agents, n_agents, row=row, own=own, n_own=6)


GRU_OF_PYTORCH = 2 * 64
"""PyTorch's GRU has a second bias for the gates r and z, which is redundant; Flax's and ours have none."""
KEY_BIAS = 64
"""Of the attention. A softmax is blind to it; the key of the action head keeps its bias."""
COUNTS = [
    ("hpn", battle(5, 5, row=13), 140_038),
    ("hpn", battle(5, 5, row=12), 131_590),
    ("hpn_with_id", smac(5, 11, 9), 106_823 - GRU_OF_PYTORCH),
    ("hpn_with_id", smac(10, 10, 8), 98_631 - GRU_OF_PYTORCH),
    ("updet", smac(5, 11, 9), 43_238),
    ("updet", smac(20, 10, 8), 43_206),
    ("saqa", battle(5, 5, row=13), 48_581 - KEY_BIAS),
    ("saqa", battle(20, 20, row=12), 48_453 - KEY_BIAS),
    ("saqa", smac(5, 11, 9), 48_326 - GRU_OF_PYTORCH - KEY_BIAS),
    ("saqa", smac(10, 10, 8), 48_134 - GRU_OF_PYTORCH - KEY_BIAS),
]


@pytest.mark.parametrize(("kind", "spec", "count"), COUNTS)
def test_parameters_are_as_many_as_in_the_published_agents(kind, spec, count):
    net = make_agent(spec, STANDARD[kind])
    obs = jax.eval_shape(lambda: empty_obs(spec, 1, 1))
    params = jax.eval_shape(
        net.init, jax.random.key(0), net.initial(1), obs, jnp.zeros((1, 1), bool)
    )
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ("name", "kind"), [("hpn", HPN), ("updet", UPDeT), ("saqa", SAQA)]
)
def test_a_yaml_names_its_agent(name, kind):
    tree = yaml.safe_load((configs_dir() / "network" / f"{name}.yaml").read_text())
    config = build(AgentConfig, tree, "network")
    assert config == STANDARD[name]
    assert isinstance(make_agent(battle(2, 2), config), kind)


@pytest.mark.parametrize("name", ["mlp", "gru", "ssm"])
def test_the_networks_of_ippo_are_agents_too(name):
    network = load_config("ippo", ["env=smax_3m", f"network={name}"]).network
    config = build(AgentConfig, dataclasses.asdict(network), "network")
    assert config == network
    assert isinstance(make_agent(battle(2, 2), config), AgentNet)


def test_an_agent_of_no_known_name_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"network\.name='sqaa': must be one of flat, hpn, updet, saqa",
    ):
        build(AgentConfig, {"name": "sqaa"}, "network")


def test_heads_divide_an_embedding():
    with pytest.raises(ConfigError, match=r"network\.embed_dim=64"):
        SAQAConfig("saqa", "gru", embed_dim=64, n_head=5)
