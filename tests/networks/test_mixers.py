"""Mixers: best for each is best for all; the dead, the absent and the order of entities change nothing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmarl.config import ConfigError, build
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import (
    MixerConfig,
    QMIXConfig,
    QPLEXConfig,
    STHyperNetConfig,
    SumConfig,
    chosen,
    make_mixer,
)
from jmarl.types import Group, Spec


B, N, M, A = 16, 3, 4, 4


SUM = SumConfig("sum", mask_dead=True)
QMIX = QMIXConfig("qmix", mask_dead=True, embed=32, hypernet=64)
QPLEX = QPLEXConfig("qplex", mask_dead=True, kernels=4, hypernet=64)
ST = STHyperNetConfig(
    "st_hypernet", mask_dead=True, embed=32, heads=4, form="residual", norm="mean"
)
PUBLISHED = dataclasses.replace(ST, form="relu", norm="none")
MIXERS = (SUM, QMIX, QPLEX, ST, PUBLISHED)
KINDS = pytest.mark.parametrize(
    "cfg", MIXERS, ids=["sum", "qmix", "qplex", "st", "st_published"]
)
HYPERNETS = pytest.mark.parametrize("cfg", [ST, PUBLISHED], ids=["st", "st_published"])


def world(n=N, m=M, n_actions=A, ally_width=6, enemy_width=5, global_width=2):
    """Agents that are not the first group of the state, and a group of one."""
    groups = (
        Group("enemies", m, 3, m, enemy_width),
        Group("allies", n - 1, 3, n, ally_width),
        Group("ball", 1, 3, 1, 3),
    )
    return Spec(
        n,
        n_actions,
        4,
        groups,
        global_width,
        episode_limit=9,
        action_target=(-1,) * n_actions,
    )


ENEMIES, ALLIES = 0, 1
SPEC = world()


@partial(jax.jit, static_argnames=("spec", "seed", "batch", "deaths"))
def scene(spec, seed=0, batch=B, deaths=0.3):
    """Random values, actions and states; action 0 is there for all, the dead have no other."""
    keys = iter(jax.random.split(jax.random.key(seed), 20))
    draw = lambda shape: jax.random.normal(next(keys), shape)  # noqa: E731
    obs = empty_obs(spec, 1, batch)
    living = lambda mask: jax.random.bernoulli(next(keys), 1 - deaths, mask.shape)  # noqa: E731
    masks = [living(mask) for mask in obs.state.mask]
    alive = masks[ALLIES]
    rows = (
        jnp.where(mask[..., None], draw(rows.shape), 0)
        for rows, mask in zip(obs.state.rows, masks, strict=True)
    )
    state = obs.state.replace(
        features=draw(obs.state.features.shape), rows=tuple(rows), mask=tuple(masks)
    )
    avail = (
        (jax.random.bernoulli(next(keys), 0.6, obs.avail.shape) & alive[..., None])
        .at[..., 0]
        .set(True)
    )
    own = jnp.where(alive[..., None], draw(obs.own.shape), 0)
    q = 2 * draw(obs.avail.shape)
    action = jax.random.categorical(next(keys), jnp.where(avail, 0.0, -jnp.inf))
    return q, action, obs.replace(own=own, avail=avail, alive=alive, state=state)


def initial(spec, cfg):
    blank = empty_obs(spec, 1, 1)
    return jax.jit(make_mixer(spec, cfg).init)(
        jax.random.key(0),
        jnp.zeros(blank.avail.shape),
        jnp.zeros(blank.alive.shape, int),
        blank,
    )


def parameters(spec, cfg):
    """Initial ones, shaken, so that no bias is zero."""
    params = initial(spec, cfg)
    noise = np.random.default_rng(0).normal(size=997)
    return jax.tree.map(
        lambda p: p + 0.2 * np.resize(noise, p.shape).astype(np.float32), params
    )


def mixed(spec, cfg):
    """``(params, q, action, obs) -> q_tot[1, B]``, compiled."""
    return jax.jit(make_mixer(spec, cfg).apply)


def test_the_sum_is_the_sum_of_the_living():
    q, action, obs = scene(SPEC)
    taken = np.take_along_axis(np.asarray(q), np.asarray(action)[..., None], -1)[..., 0]
    np.testing.assert_array_equal(chosen(q, action), taken)
    np.testing.assert_allclose(
        mixed(SPEC, SUM)({}, q, action, obs), (taken * obs.alive).sum(-1), rtol=1e-5
    )


@KINDS
def test_no_agent_loses_what_the_team_gains(cfg):
    """QPLEX too, by the path that carries its gradient; the values of other actions carry none."""
    q, action, obs = scene(SPEC, batch=64)
    params, apply = parameters(SPEC, cfg), make_mixer(SPEC, cfg).apply
    grad = jax.jit(jax.grad(lambda q: apply(params, q, action, obs).sum()))(q)
    share = chosen(grad, action)
    assert (share >= 0).all()
    assert (
        share > 0
    ).sum() > 0.8 * obs.alive.sum()  # elu is flat in float32 far below zero
    assert (jnp.count_nonzero(grad, axis=-1) <= 1).all()


def as_it_is(obs):
    return obs


def all_available(obs):
    """The defect: a maximum over actions that cannot be taken."""
    return obs.replace(avail=jnp.ones_like(obs.avail))


TWIN = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: a maximum over all actions",
)


def masking_the_dead(cfg):
    return cfg


def mixing_the_dead(cfg):
    return dataclasses.replace(cfg, mask_dead=False)


TABLE = [
    (change(cfg), as_it_is)
    for cfg in MIXERS
    for change in (masking_the_dead, mixing_the_dead)
]
TABLE += [pytest.param(QPLEX, all_available, marks=TWIN)]


@pytest.mark.parametrize(("cfg", "see"), TABLE)
def test_what_is_best_for_each_is_best_for_all(cfg, see):
    """Individual-global-max, by enumeration: the best available joint action is made of everyone's best."""
    joint = jnp.array(list(itertools.product(range(A), repeat=N)))
    q, _, obs = jax.tree.map(lambda x: jnp.repeat(x, len(joint), axis=1), scene(SPEC))
    action = jnp.tile(joint, (B, 1))[None]
    q_tot = mixed(SPEC, cfg)(parameters(SPEC, cfg), q, action, see(obs))
    possible = jnp.take_along_axis(obs.avail, action[..., None], axis=-1)[..., 0].all(
        -1
    )
    best = jnp.where(possible, q_tot, -jnp.inf).reshape(B, -1).argmax(-1)
    greedy = (
        jnp.where(obs.avail, q, -jnp.inf).argmax(-1).reshape(B, len(joint), N)[:, 0]
    )
    np.testing.assert_array_equal(joint[best], greedy)


def permuted(obs, group, order):
    """The rows of a group of the state in another order."""
    rows, mask = list(obs.state.rows), list(obs.state.mask)
    rows[group], mask[group] = rows[group][:, :, order], mask[group][:, :, order]
    obs = obs.replace(state=obs.state.replace(rows=tuple(rows), mask=tuple(mask)))
    if group != ALLIES:
        return obs
    return obs.replace(
        alive=obs.alive[:, :, order],
        avail=obs.avail[:, :, order],
        own=obs.own[:, :, order],
    )


@HYPERNETS
def test_the_order_of_entities_changes_nothing(cfg):
    q, action, obs = scene(SPEC, deaths=0.1)
    params, apply = parameters(SPEC, cfg), mixed(SPEC, cfg)
    usual = apply(params, q, action, obs)
    team, foes = jnp.array([2, 0, 1]), jnp.array([3, 1, 0, 2])
    together = apply(
        params, q[:, :, team], action[:, :, team], permuted(obs, ALLIES, team)
    )
    np.testing.assert_allclose(together, usual, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        apply(params, q, action, permuted(obs, ENEMIES, foes)),
        usual,
        rtol=1e-4,
        atol=1e-4,
    )
    values_alone = apply(params, q[:, :, team], action[:, :, team], obs)
    assert float(jnp.abs(values_alone - usual).max()) > 0.01


def padded(arrays, fill):
    """Two absent agents and two absent enemies more, their entries ``fill``; they have no available action."""

    def more(x, axis=2, value=fill):
        widths = [(0, 2 if i == axis else 0) for i in range(x.ndim)]
        return jnp.pad(
            x,
            widths,
            constant_values=value if jnp.issubdtype(x.dtype, jnp.floating) else 0,
        )

    q, action, obs = arrays
    (foes, team, ball), (seen, living, one) = obs.state.rows, obs.state.mask
    state = obs.state.replace(
        rows=(more(foes), more(team), ball), mask=(more(seen), more(living), one)
    )
    obs = obs.replace(
        alive=more(obs.alive), avail=more(obs.avail), own=more(obs.own), state=state
    )
    return more(q), more(action), obs


def unmasked(obs):
    """The defect of SPECTra's mixer for SMACv2: what is not there is a row of zeros that answers and asks."""
    everything = jax.tree.map(jnp.ones_like, obs.state.mask)
    return obs.replace(
        alive=jnp.ones_like(obs.alive), state=obs.state.replace(mask=everything)
    )


UNMASKED = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: no mask in the mixer"
)


@pytest.mark.parametrize("mask_dead", [True, False])
@pytest.mark.parametrize(
    ("see", "fill"), [(as_it_is, jnp.nan), pytest.param(unmasked, 0.0, marks=UNMASKED)]
)
@HYPERNETS
def test_what_is_absent_changes_nothing(cfg, see, fill, mask_dead):
    cfg = dataclasses.replace(cfg, mask_dead=mask_dead)
    q, action, obs = scene(SPEC)
    params = parameters(SPEC, cfg)
    alone = mixed(SPEC, cfg)(params, q, action, see(obs))
    q, action, obs = padded((q, action, obs), fill)
    larger = mixed(world(N + 2, M + 2), cfg)(params, q, action, see(obs))
    np.testing.assert_allclose(larger, alone, rtol=1e-4, atol=1e-4)


DEAD = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: values of the dead are mixed",
)


@pytest.mark.parametrize(
    "change", [masking_the_dead, pytest.param(mixing_the_dead, marks=DEAD)]
)
@KINDS
def test_the_values_of_the_dead_change_nothing(cfg, change):
    cfg = change(cfg)
    q, action, obs = scene(SPEC)
    dead = ~obs.alive
    other = jnp.where(dead[..., None], 100.0 + q, q)
    params, apply = parameters(SPEC, cfg), mixed(SPEC, cfg)
    np.testing.assert_array_equal(
        apply(params, other, jnp.where(dead, 3, action), obs),
        apply(params, q, action, obs),
    )


@KINDS
def test_an_agent_that_is_absent_never_counts(cfg):
    """It is not alive and has no action, where the dead have one; whatever its entries are."""
    cfg = mixing_the_dead(cfg)
    q, action, obs = scene(SPEC)
    absent = ~obs.alive[..., None]
    obs = obs.replace(avail=obs.avail & ~absent)
    params, apply = parameters(SPEC, cfg), make_mixer(SPEC, cfg).apply
    mix = jax.jit(
        jax.value_and_grad(lambda p, q, action: apply(p, q, action, obs).sum())
    )
    usual = mix(params, q, action)
    other = mix(
        params, jnp.where(absent, jnp.nan, q), jnp.where(absent[..., 0], 3, action)
    )
    jax.tree.map(np.testing.assert_array_equal, other, usual)


@KINDS
def test_a_team_without_anyone_has_a_finite_value_and_gradient(cfg):
    q, action, obs = scene(SPEC, deaths=1.0, batch=2)
    params, apply = parameters(SPEC, cfg), make_mixer(SPEC, cfg).apply
    value, grads = jax.jit(
        jax.value_and_grad(lambda p, q: apply(p, q, action, obs).sum(), (0, 1))
    )(params, q)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((value, grads)))


def shapes(spec, cfg):
    return jax.eval_shape(lambda: initial(spec, cfg))


@HYPERNETS
def test_the_same_parameters_serve_teams_of_any_size(cfg):
    params = shapes(SPEC, cfg)
    for n, m in ((5, 5), (5, 6), (10, 10), (20, 20)):
        spec = world(n, m)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(
            jnp.shape, shapes(spec, cfg)
        )
        arrays = jax.eval_shape(lambda spec=spec: scene(spec, batch=2))
        assert jax.eval_shape(make_mixer(spec, cfg).apply, params, *arrays).shape == (
            1,
            2,
        )


@pytest.mark.parametrize("cfg", [QMIX, QPLEX], ids=["qmix", "qplex"])
def test_a_flat_state_binds_the_parameters_to_one_size(cfg):
    assert jax.tree.map(jnp.shape, shapes(world(5, 5), cfg)) != jax.tree.map(
        jnp.shape, shapes(world(5, 6), cfg)
    )


def battle(n, m, ally_width, enemy_width, last_action=True):
    """SMACv2's state: a row for each unit, and for the flat mixers all the last actions as one-hots."""
    groups = (
        Group("enemies", m, 9, m, enemy_width),
        Group("allies", n - 1, 9, n, ally_width),
    )
    actions = 6 + m
    width = n * actions if last_action else 1
    return Spec(
        n, actions, 11, groups, width, episode_limit=9, action_target=(-1,) * actions
    )


COUNTS = [
    (QMIX, battle(5, 5, 8, 7), 37_665),
    (QMIX, battle(10, 11, 8, 7), 85_889),
    (QMIX, battle(20, 20, 8, 7), 201_345),
    (QMIX, battle(5, 5, 7, 6), 35_745),
    (QMIX, battle(10, 10, 7, 6), 78_785),
    (QPLEX, battle(5, 5, 8, 7), 134_966),
    (QPLEX, battle(20, 20, 8, 7), 881_996),
    (QPLEX, battle(10, 10, 7, 6), 308_456),
]
"""Protoss (8, 7) and terran or zerg (7, 6), as PyMARL's and the authors' code have them."""


@pytest.mark.parametrize(("cfg", "spec", "expected"), COUNTS)
def test_flat_mixers_have_as_many_parameters_as_published(cfg, spec, expected):
    assert (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(spec, cfg)))
        == expected
    )


@pytest.mark.parametrize(
    ("widths", "published"), [((9, 7), 24_576), ((8, 6), 24_448), ((10, 10), 24_832)]
)
@pytest.mark.parametrize("n", [5, 20])
@HYPERNETS
def test_st_hypernet_has_the_published_parameters_but_for_the_bias_of_its_keys(
    cfg, n, widths, published
):
    """Protoss, terran, SMAX. The published ally rows have the last action besides (8 + 1, 7 + 1); there are two
    hypernetworks, whose attention keys have no bias of 32 here."""
    tree = shapes(battle(n, n, *widths, last_action=False), cfg)
    assert (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        == published - 2 * 32
    )


@pytest.mark.parametrize(
    "cfg", [QMIX, QPLEX, ST, PUBLISHED], ids=["qmix", "qplex", "st", "st_published"]
)
def test_every_parameter_has_a_gradient(cfg):
    arrays = scene(SPEC)
    loss = lambda p: (make_mixer(SPEC, cfg).apply(p, *arrays) ** 2).mean()  # noqa: E731
    for path, grad in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(initial(SPEC, cfg))
    ):
        assert jnp.isfinite(grad).all(), path
        assert (jnp.abs(grad) > 0).any(), path


PAYOFF = jnp.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]])
GAME = Spec(2, 3, 2, (), global_width=2, episode_limit=1, action_target=(-1,) * 3)


def fitted(cfg, steps, starts):
    """Values of two agents and a mixer, fitted to all nine payoffs: greedy joint action and largest error, by start."""
    action = jnp.array(list(itertools.product(range(3), repeat=2)))[None]
    obs = empty_obs(GAME, 1, 9)
    obs = obs.replace(
        own=jnp.ones_like(obs.own),
        state=obs.state.replace(features=jnp.ones((1, 9, 2))),
    )
    mixer, tx = make_mixer(GAME, cfg), optax.adam(0.01)

    def errors(learnt):
        return (
            mixer.apply(
                learnt[1], jnp.broadcast_to(learnt[0], (1, 9, 2, 3)), action, obs
            )[0]
            - PAYOFF.ravel()
        )

    def step(state, _):
        grads = jax.grad(lambda learnt: (errors(learnt) ** 2).mean())(state[0])
        updates, opt = tx.update(grads, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt), None

    def fit(key):
        q_key, key = jax.random.split(key)
        learnt = (
            5 * jax.random.normal(q_key, (2, 3)),
            mixer.init(key, jnp.zeros((1, 9, 2, 3)), action, obs),
        )
        (learnt, _), _ = jax.lax.scan(step, (learnt, tx.init(learnt)), length=steps)
        return learnt[0].argmax(-1), jnp.abs(errors(learnt)).max()

    return jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), starts))


@pytest.mark.parametrize("cfg", [SUM, QMIX, ST], ids=["sum", "qmix", "st"])
def test_a_monotone_mixer_cannot_represent_a_game_that_is_not(cfg):
    """QTRAN (Son et al. 2019, arXiv:1905.05408), table 1.

    If q_0(0) >= q_0(1), then Q(0, 1) >= Q(1, 1), which are paid -12 and 0: one is wrong by 6 or more. Else
    Q(1, 0) >= Q(0, 0), which are paid -12 and 8: one is wrong by 10 or more.
    """
    _, error = fitted(cfg, steps=200, starts=2)
    assert (error > 5.999).all()


def test_qplex_represents_a_game_that_is_not_monotone():
    """From some starts. From most, w falls to 0 before lambda has grown, and Q_tot stays at the mean payoff: the
    gradient that q and w get is that of a sum, and in a sum the optimal action looks worst."""
    best, error = fitted(dataclasses.replace(QPLEX, hypernet=32), steps=1000, starts=16)
    found = error < 0.1
    assert found.any()
    assert (best[found] == 0).all()


def test_the_share_of_an_agent_grows_with_the_team_unless_weights_are_means():
    def share(n, norm):
        spec, cfg = world(n, n), dataclasses.replace(ST, norm=norm)
        q, action, obs = scene(spec, deaths=0.0)
        apply = make_mixer(spec, cfg).apply
        params = initial(SPEC, cfg)
        grad = jax.jit(jax.grad(lambda q: apply(params, q, action, obs).sum()))(q)
        return float(chosen(grad, action).mean())

    raw, mean = ([share(n, norm) for n in (5, 20)] for norm in ("none", "mean"))
    assert raw[1] > 8 * raw[0]
    assert 0.5 < mean[1] / mean[0] < 2


def test_a_team_mate_that_nobody_controls_is_asked_but_has_no_value():
    """A keeper behind the agents: its row matters to the weights, and its absence leaves nothing of it."""
    groups = tuple(
        g._replace(state_size=N + 1) if g.name == "allies" else g for g in SPEC.groups
    )
    spec = SPEC._replace(groups=groups)
    q, action, obs = scene(SPEC)

    def with_keeper(row, there):
        rows, mask = list(obs.state.rows), list(obs.state.mask)
        rows[ALLIES] = jnp.pad(
            rows[ALLIES], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=row
        )
        mask[ALLIES] = jnp.pad(
            mask[ALLIES], ((0, 0), (0, 0), (0, 1)), constant_values=there
        )
        return obs.replace(state=obs.state.replace(rows=tuple(rows), mask=tuple(mask)))

    params, apply = parameters(SPEC, ST), mixed(spec, ST)
    none = mixed(SPEC, ST)(params, q, action, obs)
    np.testing.assert_allclose(
        apply(params, q, action, with_keeper(jnp.nan, False)),
        none,
        rtol=1e-4,
        atol=1e-4,
    )
    assert (
        jnp.abs(apply(params, q, action, with_keeper(1.0, True)) - none) > 1e-3
    ).any()


@KINDS
def test_a_name_chooses_the_mixer(cfg):
    assert build(MixerConfig, dataclasses.asdict(cfg), "system.mixer") == cfg


def test_an_embedding_must_split_into_heads():
    with pytest.raises(
        ConfigError,
        match=r"system\.mixer\.embed=30: must be a multiple of system\.mixer\.heads=4",
    ):
        build(MixerConfig, dataclasses.asdict(ST) | {"embed": 30}, "system.mixer")
