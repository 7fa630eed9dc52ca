"""Entity agents: invariance to order, padding and team size; cheap forms equal explicit ones."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from perturb import perturb

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


def make_spec(sizes=SIZES, n_agents=N, widths=WIDTHS, target=None):
    """Build a spec with two kinds of action for allies, one for enemies, none for landmarks."""
    if target is None:
        allies = tuple(range(sizes[0]))
        enemies = tuple(range(sizes[0], sizes[0] + sizes[1]))
        target = (-1,) * 4 + enemies + allies + allies
    names = ("allies", "enemies", "landmarks")[: len(sizes)]
    groups = tuple(
        Group(name, size, width, size, 2)
        for name, size, width in zip(names, sizes, widths, strict=True)
    )
    return Spec(n_agents, len(target), 6, groups, 1, 9, tuple(target))


def smax_spec(n_allies, n_enemies, row=12, own=10, n_own=5):
    """Build a spec with the shapes of SMAX: every enemy is the target of one action."""
    groups = tuple(
        Group(k, n, row, n, own)
        for k, n in (("allies", n_allies - 1), ("enemies", n_enemies))
    )
    target = (-1,) * n_own + tuple(range(n_allies - 1, n_allies - 1 + n_enemies))
    return Spec(n_allies, n_own + n_enemies, own, groups, 1, 100, target)


def random_obs(spec, key=1, length=T, seen=0.7):
    """Draw observations of noise; masked rows are noise too, not zero."""
    obs = empty_obs(spec, length, B)
    rng = np.random.default_rng(key)

    def noise(x):
        return jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def random_mask(x):
        return jnp.asarray(rng.random(x.shape) < seen)

    own, rows = jax.tree.map(noise, (obs.own, obs.rows))
    mask = tuple(map(random_mask, obs.mask))
    return obs.replace(own=own, rows=rows, mask=mask)


class Case(NamedTuple):
    net: Any
    params: Any
    obs: EntityObs
    carry: Any
    apply: Any
    """``(params, carry, obs, first) -> (carry, out, features)``, compiled."""


@functools.cache
def case(kind) -> Case:
    """Build a network with perturbed parameters and a random memory."""
    spec = make_spec()
    net = make_agent(spec, CONFIGS[kind])
    obs = random_obs(spec)
    init = jax.jit(net.init)
    params = init(jax.random.key(0), net.initial(B), obs, no_start())

    def random_memory(h):
        return jax.random.normal(jax.random.key(3), h.shape)

    carry = jax.tree.map(random_memory, net.initial(B))
    return Case(net, perturb(params), obs, carry, jax.jit(net.apply))


def no_start(length=T):
    return jnp.zeros((length, B), bool)


def assert_close(actual, expected, atol):
    close = functools.partial(np.testing.assert_allclose, atol=atol)
    jax.tree.map(close, actual, expected)


every = pytest.mark.parametrize("kind", CONFIGS)
each_class = pytest.mark.parametrize("kind", ["hpn", "updet", "saqa"])
attentive = pytest.mark.parametrize("kind", ["updet", "saqa"])


@every
@pytest.mark.parametrize("group", range(3))
def test_permuting_a_group_permutes_only_the_values_aimed_at_it(kind, group):
    net, params, obs, carry, apply = case(kind)
    order = np.roll(np.arange(SIZES[group]), 1)

    def permute(xs):
        return tuple(x[:, :, :, order] if i == group else x for i, x in enumerate(xs))

    permuted = obs.replace(rows=permute(obs.rows), mask=permute(obs.mask))
    start = sum(SIZES[:group])
    came_from = {start + slot: start + old for slot, old in enumerate(order)}
    actions = list(zip(net.spec.action_target, net.spec.action_kind, strict=True))
    columns = [actions.index((came_from.get(t, t), k)) for t, k in actions]
    before, out, _ = apply(params, carry, obs, no_start())
    after, moved, _ = apply(params, carry, permuted, no_start())
    np.testing.assert_allclose(moved, out[..., columns], atol=2e-5)
    assert_close(after, before, atol=2e-5)
    assert columns == sorted(columns) or float(jnp.abs(moved - out).max()) > 1e-2


def masked(obs):
    return obs


def mask_dropped(obs):
    """Drop the mask, as SPECTra's agent for SMACv2 does: it passes None to its attention."""
    return obs.replace(mask=tuple(jnp.ones_like(m) for m in obs.mask))


def mask_inverted(obs):
    """Invert the mask, as JaxMARL's TransfQMIX does: it attends to the rows of zeros."""
    return obs.replace(mask=tuple(~m for m in obs.mask))


def padded(obs, spec, value):
    """Add an absent slot to every group and an absent agent; return also the larger spec."""

    def wider(x, axis, fill):
        widths = [(0, int(i == axis)) for i in range(x.ndim)]
        return jnp.pad(x, widths, constant_values=fill)

    larger = make_spec(tuple(g.size + 1 for g in spec.groups), spec.n_agents + 1)
    more = empty_obs(larger, *obs.alive.shape[:2])
    rows = tuple(wider(wider(x, 3, value), 2, value) for x in obs.rows)
    mask = tuple(wider(wider(x, 3, False), 2, False) for x in obs.mask)
    return more.replace(own=wider(obs.own, 2, value), rows=rows, mask=mask), larger


def columns_in(spec, larger):
    """Return the index of each action of ``spec`` in a spec with one more slot in every group."""
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
    after, out, _ = run(params, wide, reading(more), no_start())
    before, expected, _ = apply(params, carry, reading(obs), no_start())
    gaps = [out[:, :, :N, columns_in(net.spec, larger)] - expected]
    memory_gaps = jax.tree.map(lambda a, b: a[:, :N] - b, after, before)
    gaps += jax.tree.leaves(memory_gaps)
    assert all(bool(jnp.isfinite(x).all()) for x in [out, *jax.tree.leaves(after)])
    return max(float(jnp.abs(gap).max()) for gap in gaps)


@every
def test_content_of_absent_rows_changes_nothing(kind):
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


def test_hpn_needs_no_mask_if_rows_are_zero():
    assert difference_by_padding("hpn", mask_dropped, value=0.0) < 2e-5


@each_class
def test_every_parameter_has_a_gradient_and_blind_agents_stay_finite(kind):
    net, params, obs, carry, _ = case(kind)
    mask = tuple(m.at[:, 0].set(False) for m in obs.mask)
    blind = obs.replace(own=obs.own.at[:, 0].set(0), mask=mask)

    @jax.jit
    def outputs(params):
        after, out, _ = net.apply(params, carry, blind, no_start())
        wave = jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return (out * wave).sum(), (after, out)

    run = jax.jit(jax.value_and_grad(outputs, has_aux=True))
    (_, out), grads = run(params)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((out, grads)))
    sizes = jax.tree.map(lambda g: float(jnp.abs(g).max()), grads)
    paths = jax.tree_util.tree_leaves_with_path(sizes)
    assert not [jax.tree_util.keystr(path) for path, size in paths if size < 1e-6]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((out, params)))


@every
def test_between_changes_what_the_action_heads_read_and_nothing_else(kind):
    net, params, obs, carry, apply = case(kind)
    memory, out, features = apply(params, carry, obs, no_start())
    seen = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(between):
        return net.apply(params, carry, obs, no_start(), between)

    def identity(features, x):
        seen.append((features.shape, x.shape))
        return x

    for x, expected in zip(run(identity), (memory, out, features), strict=True):
        assert_close(x, expected, atol=1e-5)
    shape, read_shape = seen[-1]
    assert shape == features.shape
    assert read_shape[:3] + read_shape[-1:] == shape

    def without_agent_0(features, x):
        return x.at[:, :, 0].set(0.0)

    same_memory, changed, same_features = run(without_agent_0)
    assert_close((same_memory, same_features), (memory, features), atol=1e-5)
    np.testing.assert_allclose(changed[:, :, 1:], out[:, :, 1:], atol=1e-5)
    assert float(jnp.abs(changed - out)[:, :, 0].max()) > 1e-3


@each_class
def test_rollout_equals_its_steps_and_memory_resets_at_first_and_on_joining(kind):
    net, params, obs, carry, apply = case(kind)
    first = no_start().at[1, 0].set(True)
    obs = obs.replace(joined=obs.joined.at[2, 1, 0].set(True))
    end, out, features = apply(params, carry, obs, first)
    reset = first[..., None] | obs.joined
    nobody_joins = obs.replace(joined=jnp.zeros_like(obs.joined))
    state, rows, zero = carry, [], net.initial(B)
    for t in range(T):
        clear = functools.partial(jnp.where, reset[t, ..., None])
        state = jax.tree.map(clear, zero, state)
        row = jax.tree.map(lambda x, t=t: x[t : t + 1], nobody_joins)
        state, *y = apply(params, state, row, no_start(1))
        rows.append(y)
    for i, whole in enumerate((out, features)):
        steps = jnp.concatenate([y[i] for y in rows])
        np.testing.assert_allclose(whole, steps, atol=5e-5)
    assert_close(end, state, atol=5e-5)
    _, without_reset, _ = apply(params, carry, nobody_joins, no_start())
    changed = jnp.abs(without_reset - out).max(-1) > 1e-4
    assert changed[:, 0].tolist() == [[False] * N, [True] * N, [True] * N]
    assert changed[:, 1].tolist() == [[False] * N, [False] * N, [True, False, False]]


@every
def test_parameters_fit_every_team_size(kind):
    def arguments(net):
        obs = jax.eval_shape(lambda: empty_obs(net.spec, T, B))
        return net.initial(B), obs, no_start()

    def shapes(tree):
        return jax.tree.map(jnp.shape, tree)

    small = make_agent(smax_spec(5, 5), CONFIGS[kind])
    params = jax.eval_shape(small.init, jax.random.key(0), *arguments(small))
    for sizes in [(5, 6), (10, 10), (20, 20), (1, 1)]:
        net = make_agent(smax_spec(*sizes), CONFIGS[kind])
        larger = jax.eval_shape(net.init, jax.random.key(0), *arguments(net))
        assert shapes(larger) == shapes(params)
        carry, out, _ = jax.eval_shape(net.apply, params, *arguments(net))
        assert out.shape == (T, B, sizes[0], 5 + sizes[1])
        assert shapes(carry) == shapes(net.initial(B))


ODD = {
    "no_groups": make_spec((), widths=(), target=(-1,) * 3),
    "no_targets": make_spec(target=(-1,) * 3),
    "an_empty_group": make_spec((2, 0, 1), target=(-1, -1, 0, 1, 2)),
    "only_targets": make_spec(
        (2, 3), widths=(5, 4), target=(0, 1, 2, 3, 4, 0, 1, 0, 1)
    ),
    "some_slots_of_a_group": make_spec((2, 3), widths=(5, 4), target=(4, 2, -1, -1, 2)),
}


@every
@pytest.mark.parametrize("odd", ODD)
def test_any_layout_of_groups_and_actions_works(kind, odd):
    net = make_agent(ODD[odd], CONFIGS[kind])
    obs = jax.eval_shape(lambda: empty_obs(net.spec, T, B))
    args = jax.random.key(0), net.initial(B), obs, no_start()
    (_, out, _), _ = jax.eval_shape(net.init_with_output, *args)
    assert out.shape == (T, B, N, net.spec.n_actions)


def test_values_follow_the_order_of_the_spec():
    spec = make_spec((2, 3), widths=(5, 4), target=(4, -1, 0, 2, -1, 0, 2, 2))
    assert slot_kinds(spec) == (2, 3)
    # the digits are group, slot and kind
    allies = 100 + 10 * jnp.arange(2.0)[:, None] + jnp.arange(2.0)
    enemies = 200 + 10 * jnp.arange(3.0)[:, None] + jnp.arange(3.0)
    out = flat_actions(spec, jnp.arange(2.0), [allies, enemies])
    assert out.tolist() == [220, 0, 100, 200, 1, 101, 201, 202]


def test_fully_masked_attention_is_finite():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    mask = jnp.array([[[True, True, False]], [[False, False, False]]])

    def attention(x):
        y = attend(x, x, x, mask)
        return y.sum(), y

    run = jax.jit(jax.value_and_grad(attention, has_aux=True))
    (_, out), grad = run(x)
    assert bool(jnp.isfinite(out).all() & jnp.isfinite(grad).all())
    unmasked = x[0, :2]
    weights = jax.nn.softmax(x[0] @ unmasked.T / 2.0, axis=-1)
    np.testing.assert_allclose(out[0], weights @ unmasked, atol=1e-6)


def explicit_hpn(config, spec, params, own, rows):
    """Compute HPN of one agent without memory by the paper's formulas, one matrix per entity."""
    n, hidden, width = config.n_head, config.hyper_width, config.memory_width
    softmax = functools.partial(jax.nn.softmax, axis=0)
    groups = []
    for group, x in zip(spec.groups, rows, strict=True):
        p = params[f"hyper_{group.name}"]
        u = jax.nn.relu(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
        kernel = p["kernel"].reshape(-1, hidden, n * width)
        w_in = jnp.einsum("ey,fyo->efo", u, kernel) + p["bias"]
        groups.append((x, u, w_in, p))
    pooled = sum(jnp.einsum("ef,efo->eo", x, w).sum(0) for x, _, w, _ in groups)
    merged = (softmax(params["merge"]) * pooled.reshape(n, width)).sum(0)
    h = jax.nn.relu(dense(params["own"], own) + merged)
    aimed = []
    for (_, u, _, p), kinds in zip(groups, slot_kinds(spec), strict=True):
        if kinds:
            u1 = jnp.concatenate([u, jnp.ones((len(u), 1))], -1)
            kernel = p["value"]["kernel"].reshape(width, n * kinds, hidden + 1)
            bias = p["value"]["bias"].reshape(n * kinds, hidden + 1)
            w_out = jnp.einsum("ey,hoy->eho", u1, kernel)
            b_out = jnp.einsum("ey,oy->eo", u1, bias)
            q = jnp.einsum("h,eho->eo", h, w_out) + b_out
            aimed.append((q.reshape(-1, n, kinds) * softmax(p["merge"])).sum(1))
    return flat_actions(spec, dense(params["own_actions"], h), aimed)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def each_agent(function):
    """Map a function of one agent over time steps, environments and agents."""
    return jax.jit(jax.vmap(jax.vmap(jax.vmap(function))))


def test_hpn_equals_the_form_with_one_matrix_per_entity():
    spec, config = make_spec(), dataclasses.replace(HPN_CONFIG, memory="none")
    net = HPN(spec, config)
    _, params, obs, _, _ = case("hpn")
    params = {k: v for k, v in params["params"].items() if k != "memory"}
    agent = functools.partial(explicit_hpn, config, spec, params)
    slow = each_agent(agent)(obs.own, visible_rows(obs))
    _, fast, _ = jax.jit(net.apply)({"params": params}, (), obs, no_start())
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def explicit_saqa(config, spec, params, own, rows, mask):
    """Compute SAQA of one agent without memory, with every embedding, key and value formed."""
    n = config.n_head
    width = config.embed_dim // n

    def heads(x):
        return x.reshape(-1, n, width)

    entities = [
        dense(params[f"embed_{g.name}"], x)
        for g, x in zip(spec.groups, rows, strict=True)
    ]
    own = dense(params["own"], own)
    x, p = jnp.concatenate([own[None], *entities]), params["attention"]
    q = heads(dense(p["query"], own[None]))[0]
    k = heads(x @ p["key"])
    v = heads(x @ p["value"] + p["value_bias"])
    unmasked = jnp.concatenate([jnp.ones(1, bool), *mask])
    scores = (q * k).sum(-1) / width**0.5
    scores = jnp.where(unmasked[:, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=0)[..., None]
    z = own + (weights * v).sum(0).reshape(-1)
    norm = params["norm"]
    h = (z - z.mean()) / jnp.sqrt(z.var() + 1e-6) * norm["scale"] + norm["bias"]
    p, aimed = params["aimed_actions"], []
    queries = heads(dense(p["query"], h))
    for e, kinds in zip(entities, slot_kinds(spec), strict=True):
        if kinds:
            keys = heads(e @ p["key"] + p["key_bias"])
            inner = jnp.einsum("knp,enp->ekn", queries, keys)
            aimed.append(inner.mean(-1)[:, :kinds] / width**0.5)
    return flat_actions(spec, dense(params["own_actions"], h), aimed)


def test_saqa_equals_the_form_with_explicit_keys_and_values():
    spec, config = make_spec(), dataclasses.replace(CONFIGS["saqa"], memory="none")
    _, params, obs, _, _ = case("saqa")
    params = {k: v for k, v in params["params"].items() if k != "memory"}
    agent = functools.partial(explicit_saqa, config, spec, params)
    slow = each_agent(agent)(obs.own, visible_rows(obs), obs.mask)
    net = SAQA(spec, config)
    _, fast, _ = jax.jit(net.apply)({"params": params}, (), obs, no_start())
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_mean_pooling_does_not_depend_on_the_number_of_entities():
    _, params, obs, carry, apply = case("hpn_mean")

    def doubled(xs):
        return tuple(jnp.concatenate([x, x], axis=3) for x in xs)

    twice = make_agent(make_spec(tuple(2 * n for n in SIZES)), CONFIGS["hpn_mean"])
    more = obs.replace(rows=doubled(obs.rows), mask=doubled(obs.mask))
    after, out, _ = jax.jit(twice.apply)(params, carry, more, no_start())
    before, expected, _ = apply(params, carry, obs, no_start())
    np.testing.assert_allclose(out[..., :4], expected[..., :4], atol=2e-5)
    np.testing.assert_allclose(after, before, atol=2e-5)


def count_flops(spec, config):
    """Return the FLOPs of one time step of one environment, as XLA counts them."""
    net = make_agent(spec, config)
    obs = jax.eval_shape(lambda: empty_obs(spec, 1, 1))
    args = net.initial(1), obs, jnp.zeros((1, 1), bool)
    params = jax.eval_shape(net.init, jax.random.key(0), *args)
    program = jax.jit(net.apply).lower(params, *args)
    return program.cost_analysis()["flops"]


@pytest.mark.parametrize("kind", ["hpn", "saqa"])
def test_flops_are_linear_in_entities_and_below_one_matrix_each(kind):
    """Check that the FLOPs of three equally spaced team sizes have no second difference."""

    def flops(n):
        return count_flops(smax_spec(n, n)._replace(n_agents=1), STANDARD[kind])

    few, some, many = map(flops, (10, 20, 30))
    entity, features, width = (some - few) / 20, 12, 64
    assert many - some == pytest.approx(some - few, rel=0.02)
    assert entity < 2 * features * width * 64 / 10


QUADRATIC = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="every entity attends to every other one"
)


@pytest.mark.parametrize("kind", ["saqa", pytest.param("updet", marks=QUADRATIC)])
def test_flops_per_agent_double_with_the_entities(kind):
    """Compare teams of 10, 20 and 40 agents against as many enemies."""

    def flops(n):
        return count_flops(smax_spec(n, n), STANDARD[kind]) / n

    few, some, many = map(flops, (10, 20, 40))
    assert some / few < 2.05
    assert many / some < 2.05


STANDARD_HPN = HPNConfig(
    "hpn",
    "gru",
    memory_width=64,
    hyper_width=64,
    n_head=1,
    pool="sum",
    agent_id=False,
)
STANDARD = {
    "hpn": STANDARD_HPN,
    "hpn_with_id": dataclasses.replace(STANDARD_HPN, agent_id=True),
    "updet": UPDeTConfig("updet", embed_dim=32, n_head=3, n_block=2, mlp_width=128),
    "saqa": SAQAConfig("saqa", "gru", embed_dim=64, n_head=4),
}


def smac(n_agents, own, row):
    """Build a spec with SMACv2's widths, as in the released checkpoints of SPECTra and HPN."""
    return smax_spec(n_agents, n_agents, row=row, own=own, n_own=6)


GRU_OF_PYTORCH = 2 * 64
"""Parameters of the redundant second bias of the gates r and z, which only PyTorch's GRU has."""
KEY_BIAS = 64
"""Parameters of the bias of the attention's key; a softmax does not depend on it."""
COUNTS = [
    ("hpn", smax_spec(5, 5, row=13), 140_038),
    ("hpn", smax_spec(5, 5, row=12), 131_590),
    ("hpn_with_id", smac(5, 11, 9), 106_823 - GRU_OF_PYTORCH),
    ("hpn_with_id", smac(10, 10, 8), 98_631 - GRU_OF_PYTORCH),
    ("updet", smac(5, 11, 9), 43_238),
    ("updet", smac(20, 10, 8), 43_206),
    ("saqa", smax_spec(5, 5, row=13), 48_581 - KEY_BIAS),
    ("saqa", smax_spec(20, 20, row=12), 48_453 - KEY_BIAS),
    ("saqa", smac(5, 11, 9), 48_326 - GRU_OF_PYTORCH - KEY_BIAS),
    ("saqa", smac(10, 10, 8), 48_134 - GRU_OF_PYTORCH - KEY_BIAS),
]


@pytest.mark.parametrize(("kind", "spec", "count"), COUNTS)
def test_parameter_counts_match_the_published_agents(kind, spec, count):
    net = make_agent(spec, STANDARD[kind])
    obs = jax.eval_shape(lambda: empty_obs(spec, 1, 1))
    params = jax.eval_shape(
        net.init, jax.random.key(0), net.initial(1), obs, jnp.zeros((1, 1), bool)
    )
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ("name", "kind"), [("hpn", HPN), ("updet", UPDeT), ("saqa", SAQA)]
)
def test_yaml_selects_its_agent(name, kind):
    tree = yaml.safe_load((configs_dir() / "network" / f"{name}.yaml").read_text())
    config = build(AgentConfig, tree, "network")
    published = {"memory_width": 64} if name == "hpn" else {}
    assert dataclasses.replace(config, **published) == STANDARD[name]
    assert isinstance(make_agent(smax_spec(2, 2), config), kind)


@pytest.mark.parametrize("name", ["mlp", "gru", "ssm"])
def test_networks_of_ippo_are_agents(name):
    network = load_config("ippo", ["env=smax_3m", f"network={name}"]).network
    config = build(AgentConfig, dataclasses.asdict(network), "network")
    assert config == network
    assert isinstance(make_agent(smax_spec(2, 2), config), AgentNet)


def test_unknown_agent_name_is_an_error():
    with pytest.raises(
        ConfigError,
        match=r"network\.name='sqaa': must be one of flat, hpn, updet, saqa",
    ):
        build(AgentConfig, {"name": "sqaa"}, "network")


def test_embed_dim_must_be_a_multiple_of_n_head():
    rule = r"network\.embed_dim=64: must be a multiple of network\.n_head=5"
    with pytest.raises(ConfigError, match=rule):
        SAQAConfig("saqa", "gru", embed_dim=64, n_head=5)
