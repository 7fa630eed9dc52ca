"""Mixers: individual-global-max; invariance to dead and absent agents and to entity order."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perturb import perturb

from benchmarks import matrix_game
from benchmarks.matrix_game import fit_game
from jmarl.config import ConfigError, build
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import (
    MixerConfig,
    QMIXConfig,
    QPLEXConfig,
    STHyperNetConfig,
    SumConfig,
    make_mixer,
    q_of_actions,
)
from jmarl.types import Group, Spec


B, N, M, A = 16, 3, 4, 4


SUM = SumConfig("sum", mask_dead=True)
QMIX = QMIXConfig("qmix", mask_dead=True, embed=32, hypernet=64)
QPLEX = QPLEXConfig("qplex", mask_dead=True, weighted=True, kernels=4, hypernet=64)
ST = STHyperNetConfig(
    "st_hypernet", mask_dead=True, embed=32, heads=4, form="residual", norm="mean"
)
PUBLISHED = dataclasses.replace(ST, form="relu", norm="none")
UNWEIGHTED = dataclasses.replace(QPLEX, weighted=False)
MIXERS = (SUM, QMIX, QPLEX, UNWEIGHTED, ST, PUBLISHED)
KINDS = pytest.mark.parametrize(
    "cfg", MIXERS, ids=["sum", "qmix", "qplex", "unweighted", "st", "st_published"]
)
HYPERNETS = pytest.mark.parametrize("cfg", [ST, PUBLISHED], ids=["st", "st_published"])


def make_spec(n=N, m=M, n_actions=A, ally_width=6, enemy_width=5, global_width=2):
    """Build a spec in which the agents are not the first group and a group has one entity."""
    groups = (
        Group("enemies", m, 3, m, enemy_width),
        Group("allies", n - 1, 3, n, ally_width),
        Group("ball", 1, 3, 1, 3),
    )
    return Spec(
        n_agents=n,
        n_actions=n_actions,
        own_width=4,
        groups=groups,
        global_width=global_width,
        episode_limit=9,
        action_target=(-1,) * n_actions,
    )


ENEMIES, ALLIES = 0, 1
SPEC = make_spec()


@partial(jax.jit, static_argnames=("spec", "seed", "batch", "deaths"))
def random_batch(spec, seed=0, batch=B, deaths=0.3):
    """Draw Q-values, actions and observations; only action 0 is available to the dead."""
    keys = iter(jax.random.split(jax.random.key(seed), 20))

    def normal(x):
        return jax.random.normal(next(keys), x.shape)

    def bernoulli(p, x):
        return jax.random.bernoulli(next(keys), p, x.shape)

    obs = empty_obs(spec, 1, batch)
    mask = tuple([bernoulli(1 - deaths, x) for x in obs.state.mask])
    alive = mask[ALLIES]
    features = normal(obs.state.features)
    pairs = zip(mask, obs.state.rows, strict=True)
    rows = [jnp.where(m[..., None], normal(x), 0) for m, x in pairs]
    state = obs.state.replace(features=features, rows=tuple(rows), mask=mask)
    avail = bernoulli(0.6, obs.avail) & alive[..., None]
    avail = avail.at[..., 0].set(True)
    own = jnp.where(alive[..., None], normal(obs.own), 0)
    q = 2 * normal(obs.avail)
    action = jax.random.categorical(next(keys), jnp.where(avail, 0.0, -jnp.inf))
    return q, action, obs.replace(own=own, avail=avail, alive=alive, state=state)


def initial_params(spec, cfg):
    obs = empty_obs(spec, 1, 1)
    q = jnp.zeros(obs.avail.shape)
    action = jnp.zeros(obs.alive.shape, int)
    init = jax.jit(make_mixer(spec, cfg).init)
    return init(jax.random.key(0), q, action, obs)


def perturbed_params(spec, cfg):
    return perturb(initial_params(spec, cfg), scale=0.2, period=997)


def compiled_mixer(spec, cfg):
    """Compile ``(params, q, action, obs) -> q_tot[1, B]``."""
    return jax.jit(make_mixer(spec, cfg).apply)


def test_sum_adds_the_values_of_alive_agents():
    q, action, obs = random_batch(SPEC)
    taken = np.take_along_axis(np.asarray(q), np.asarray(action)[..., None], -1)[..., 0]
    np.testing.assert_array_equal(q_of_actions(q, action), taken)
    q_tot = compiled_mixer(SPEC, SUM)({}, q, action, obs)
    np.testing.assert_allclose(q_tot, (taken * obs.alive).sum(-1), rtol=1e-5)


@KINDS
def test_team_value_does_not_decrease_in_any_agents_value(cfg):
    """Check the gradient, which for QPLEX has one path; values of other actions have none."""
    q, action, obs = random_batch(SPEC, batch=64)
    params, apply = perturbed_params(SPEC, cfg), make_mixer(SPEC, cfg).apply
    grad = jax.jit(jax.grad(lambda q: apply(params, q, action, obs).sum()))(q)
    share = q_of_actions(grad, action)
    assert (share >= 0).all()
    # not all shares are positive, because elu is flat in float32 far below zero
    assert (share > 0).sum() > 0.8 * obs.alive.sum()
    assert (jnp.count_nonzero(grad, axis=-1) <= 1).all()


def unchanged(obs):
    return obs


def all_available(obs):
    """Make all actions available, so that the maximum includes impossible ones: a defect."""
    return obs.replace(avail=jnp.ones_like(obs.avail))


TWIN = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: a maximum over all actions",
)


def mask_dead_on(cfg):
    return cfg


def mask_dead_off(cfg):
    return dataclasses.replace(cfg, mask_dead=False)


TABLE = [
    (change(cfg), unchanged)
    for cfg in MIXERS
    for change in (mask_dead_on, mask_dead_off)
]
TABLE += [pytest.param(QPLEX, all_available, marks=TWIN)]


@pytest.mark.parametrize(("cfg", "change_obs"), TABLE)
def test_greedy_actions_of_agents_are_the_greedy_joint_action(cfg, change_obs):
    """Check individual-global-max by enumeration of the available joint actions."""
    joint = jnp.array(list(itertools.product(range(A), repeat=N)))
    batch = random_batch(SPEC)
    q, _, obs = jax.tree.map(lambda x: jnp.repeat(x, len(joint), axis=1), batch)
    action = jnp.tile(joint, (B, 1))[None]
    params, apply = perturbed_params(SPEC, cfg), compiled_mixer(SPEC, cfg)
    q_tot = apply(params, q, action, change_obs(obs))
    possible = q_of_actions(obs.avail, action).all(-1)
    best = jnp.where(possible, q_tot, -jnp.inf).reshape(B, -1).argmax(-1)
    greedy = jnp.where(obs.avail, q, -jnp.inf).argmax(-1)
    greedy = greedy.reshape(B, len(joint), N)[:, 0]
    np.testing.assert_array_equal(joint[best], greedy)


def permuted(obs, group, order):
    """Permute the rows of a group of the state, and for the agents their observations too."""
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
def test_order_of_entities_changes_nothing(cfg):
    q, action, obs = random_batch(SPEC, deaths=0.1)
    params, apply = perturbed_params(SPEC, cfg), compiled_mixer(SPEC, cfg)
    expected = apply(params, q, action, obs)
    allies, enemies = jnp.array([2, 0, 1]), jnp.array([3, 1, 0, 2])
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    q_permuted, action_permuted = q[:, :, allies], action[:, :, allies]
    permuted_allies = permuted(obs, ALLIES, allies)
    close(apply(params, q_permuted, action_permuted, permuted_allies), expected)
    close(apply(params, q, action, permuted(obs, ENEMIES, enemies)), expected)
    only_values = apply(params, q_permuted, action_permuted, obs)
    assert float(jnp.abs(only_values - expected).max()) > 0.01


def padded(arrays, fill):
    """Add two absent agents without actions and two absent enemies, with entries ``fill``."""

    def pad(x):
        widths = [(0, 0)] * x.ndim
        widths[2] = (0, 2)
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.pad(x, widths, constant_values=fill if is_float else 0)

    q, action, obs = arrays
    enemies, allies, ball = obs.state.rows
    enemy_mask, ally_mask, ball_mask = obs.state.mask
    state = obs.state.replace(
        rows=(pad(enemies), pad(allies), ball),
        mask=(pad(enemy_mask), pad(ally_mask), ball_mask),
    )
    obs = obs.replace(
        alive=pad(obs.alive), avail=pad(obs.avail), own=pad(obs.own), state=state
    )
    return pad(q), pad(action), obs


def unmasked(obs):
    """Unmask all rows, as SPECTra's mixer for SMACv2 does: absent rows are queries and keys."""
    everything = jax.tree.map(jnp.ones_like, obs.state.mask)
    state = obs.state.replace(mask=everything)
    return obs.replace(alive=jnp.ones_like(obs.alive), state=state)


UNMASKED = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="defective twin: no mask in the mixer"
)


@pytest.mark.parametrize("mask_dead", [True, False])
@pytest.mark.parametrize(
    ("change_obs", "fill"),
    [(unchanged, jnp.nan), pytest.param(unmasked, 0.0, marks=UNMASKED)],
)
@HYPERNETS
def test_absent_entities_change_nothing(cfg, change_obs, fill, mask_dead):
    cfg = dataclasses.replace(cfg, mask_dead=mask_dead)
    q, action, obs = random_batch(SPEC)
    params = perturbed_params(SPEC, cfg)
    alone = compiled_mixer(SPEC, cfg)(params, q, action, change_obs(obs))
    q, action, obs = padded((q, action, obs), fill)
    larger = compiled_mixer(make_spec(N + 2, M + 2), cfg)(
        params, q, action, change_obs(obs)
    )
    np.testing.assert_allclose(larger, alone, rtol=1e-4, atol=1e-4)


DEAD = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="defective twin: values of the dead are mixed",
)


@pytest.mark.parametrize(
    "change", [mask_dead_on, pytest.param(mask_dead_off, marks=DEAD)]
)
@KINDS
def test_values_of_dead_agents_change_nothing(cfg, change):
    cfg = change(cfg)
    q, action, obs = random_batch(SPEC)
    dead = ~obs.alive
    other = jnp.where(dead[..., None], 100.0 + q, q)
    params, apply = perturbed_params(SPEC, cfg), compiled_mixer(SPEC, cfg)
    expected = apply(params, q, action, obs)
    q_tot = apply(params, other, jnp.where(dead, 3, action), obs)
    np.testing.assert_array_equal(q_tot, expected)


@KINDS
def test_absent_agents_are_never_mixed(cfg):
    """Mask agents that are not alive and have no available action; dead agents have one."""
    cfg = mask_dead_off(cfg)
    q, action, obs = random_batch(SPEC)
    absent = ~obs.alive[..., None]
    obs = obs.replace(avail=obs.avail & ~absent)
    params, apply = perturbed_params(SPEC, cfg), make_mixer(SPEC, cfg).apply

    def total(params, q, action):
        return apply(params, q, action, obs).sum()

    run = jax.jit(jax.value_and_grad(total))
    expected = run(params, q, action)
    q, action = jnp.where(absent, jnp.nan, q), jnp.where(absent[..., 0], 3, action)
    jax.tree.map(np.testing.assert_array_equal, run(params, q, action), expected)


@KINDS
def test_team_of_dead_agents_has_a_finite_value_and_gradient(cfg):
    q, action, obs = random_batch(SPEC, deaths=1.0, batch=2)
    params, apply = perturbed_params(SPEC, cfg), make_mixer(SPEC, cfg).apply

    def total(params, q):
        return apply(params, q, action, obs).sum()

    run = jax.jit(jax.value_and_grad(total, (0, 1)))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(run(params, q)))


def abstract_params(spec, cfg):
    return jax.eval_shape(lambda: initial_params(spec, cfg))


def param_shapes(spec, cfg):
    return jax.tree.map(jnp.shape, abstract_params(spec, cfg))


def count_params(spec, cfg):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract_params(spec, cfg)))


@HYPERNETS
def test_parameters_fit_every_team_size(cfg):
    params = abstract_params(SPEC, cfg)
    for n, m in ((5, 5), (5, 6), (10, 10), (20, 20)):
        spec = make_spec(n, m)
        assert param_shapes(spec, cfg) == param_shapes(SPEC, cfg)
        arrays = jax.eval_shape(lambda spec=spec: random_batch(spec, batch=2))
        q_tot = jax.eval_shape(make_mixer(spec, cfg).apply, params, *arrays)
        assert q_tot.shape == (1, 2)


@pytest.mark.parametrize("cfg", [QMIX, QPLEX], ids=["qmix", "qplex"])
def test_parameters_of_flat_mixers_depend_on_the_team_size(cfg):
    five, six = make_spec(5, 5), make_spec(5, 6)
    assert param_shapes(five, cfg) != param_shapes(six, cfg)


def smac_spec(n, m, ally_width, enemy_width, last_action=True):
    """Build a spec with SMACv2's state: one row per unit, and for flat mixers all last actions."""
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
    (QMIX, smac_spec(5, 5, 8, 7), 37_665),
    (QMIX, smac_spec(10, 11, 8, 7), 85_889),
    (QMIX, smac_spec(20, 20, 8, 7), 201_345),
    (QMIX, smac_spec(5, 5, 7, 6), 35_745),
    (QMIX, smac_spec(10, 10, 7, 6), 78_785),
    (QPLEX, smac_spec(5, 5, 8, 7), 134_966),
    (QPLEX, smac_spec(20, 20, 8, 7), 881_996),
    (QPLEX, smac_spec(10, 10, 7, 6), 308_456),
]
"""Counts of PyMARL's and the authors' code, for protoss (8, 7) and terran or zerg (7, 6)."""


@pytest.mark.parametrize(("cfg", "spec", "expected"), COUNTS)
def test_parameter_counts_match_the_published_flat_mixers(cfg, spec, expected):
    assert count_params(spec, cfg) == expected


@pytest.mark.parametrize(
    ("widths", "published"), [((9, 7), 24_576), ((8, 6), 24_448), ((10, 10), 24_832)]
)
@pytest.mark.parametrize("n", [5, 20])
@HYPERNETS
def test_parameter_counts_match_the_published_st_hypernet(cfg, n, widths, published):
    """Check protoss, terran and SMAX.

    The published ally rows also have the last action (8 + 1, 7 + 1). The keys of the two
    hypernetworks lack the published bias of 32 parameters each.
    """
    spec = smac_spec(n, n, *widths, last_action=False)
    assert count_params(spec, cfg) == published - 2 * 32


@pytest.mark.parametrize(
    "cfg", [QMIX, QPLEX, ST, PUBLISHED], ids=["qmix", "qplex", "st", "st_published"]
)
def test_every_parameter_has_a_gradient(cfg):
    """Biases of ST-HyperNet start at zero, and so do the gradients of what makes them."""
    arrays = random_batch(SPEC)
    mixer = make_mixer(SPEC, cfg)

    def loss(params):
        return (mixer.apply(params, *arrays) ** 2).mean()

    grads = jax.jit(jax.grad(loss))(perturbed_params(SPEC, cfg))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(grad).all(), path
        assert (jnp.abs(grad) > 0).any(), path


@HYPERNETS
def test_team_value_of_zeros_is_zero_before_learning(cfg):
    """A random bias would be noise in every target."""
    q, action, obs = random_batch(SPEC)
    mix = compiled_mixer(SPEC, cfg)
    params = initial_params(SPEC, cfg)
    np.testing.assert_array_equal(mix(params, jnp.zeros_like(q), action, obs), 0)
    assert (jnp.abs(mix(params, q, action, obs)) > 1e-3).any()


@pytest.mark.parametrize("cfg", [SUM, QMIX, ST], ids=["sum", "qmix", "st"])
def test_monotone_mixers_cannot_represent_a_nonmonotonic_game(cfg):
    """Fit the game of QTRAN (Son et al. 2019, arXiv:1905.05408), table 1.

    If q_0(0) >= q_0(1), then Q(0, 1) >= Q(1, 1). Their payoffs are -12 and 0, so one error is at
    least 6. Otherwise Q(1, 0) >= Q(0, 0). Their payoffs are -12 and 8, so one error is at least 10.
    """
    _, error = fit_game(cfg, starts=2, steps=200, deviation=5.0)
    assert (error > 5.999).all()


def test_a_constant_w_lets_qplex_solve_a_nonmonotonic_game_from_more_starts():
    """With a learned w, most starts end at the mean payoff (``benchmarks.matrix_game``)."""
    counts = {}
    for cfg in (matrix_game.DEFAULT, matrix_game.LEARNED):
        cfg = dataclasses.replace(cfg, hypernet=32)
        best, error = fit_game(cfg, starts=20, steps=1000, deviation=5.0)
        solved = error < 0.1
        assert best[solved].all()
        counts[cfg.weighted] = int(solved.sum())
    assert counts[False] >= 12
    assert 0 < 2 * counts[True] < counts[False]


def test_an_agents_share_grows_with_the_team_unless_weights_are_means():
    def share(n, norm):
        spec, cfg = make_spec(n, n), dataclasses.replace(ST, norm=norm)
        q, action, obs = random_batch(spec, deaths=0.0)
        apply = make_mixer(spec, cfg).apply
        params = initial_params(SPEC, cfg)
        grad = jax.jit(jax.grad(lambda q: apply(params, q, action, obs).sum()))(q)
        return float(q_of_actions(grad, action).mean())

    raw, mean = ([share(n, norm) for n in (5, 20)] for norm in ("none", "mean"))
    assert raw[1] > 8 * raw[0]
    assert 0.5 < mean[1] / mean[0] < 2


def test_an_uncontrolled_teammate_affects_the_weights_but_has_no_value():
    """Add a keeper to the rows after the agents': its row affects the weights if it is present."""
    groups = tuple(
        g._replace(state_size=N + 1) if g.name == "allies" else g for g in SPEC.groups
    )
    spec = SPEC._replace(groups=groups)
    q, action, obs = random_batch(SPEC)

    def with_keeper(row, present):
        rows, mask = list(obs.state.rows), list(obs.state.mask)
        widths = ((0, 0), (0, 0), (0, 1))
        rows[ALLIES] = jnp.pad(rows[ALLIES], (*widths, (0, 0)), constant_values=row)
        mask[ALLIES] = jnp.pad(mask[ALLIES], widths, constant_values=present)
        return obs.replace(state=obs.state.replace(rows=tuple(rows), mask=tuple(mask)))

    params, apply = perturbed_params(SPEC, ST), compiled_mixer(spec, ST)
    expected = compiled_mixer(SPEC, ST)(params, q, action, obs)
    absent = apply(params, q, action, with_keeper(jnp.nan, False))
    present = apply(params, q, action, with_keeper(1.0, True))
    np.testing.assert_allclose(absent, expected, rtol=1e-4, atol=1e-4)
    assert (jnp.abs(present - expected) > 1e-3).any()


@KINDS
def test_config_name_selects_the_mixer(cfg):
    assert build(MixerConfig, dataclasses.asdict(cfg), "system.mixer") == cfg


def test_embed_must_be_a_multiple_of_heads():
    rule = r"system\.mixer\.embed=30: must be a multiple of system\.mixer\.heads=4"
    tree = dataclasses.asdict(ST) | {"embed": 30}
    with pytest.raises(ConfigError, match=rule):
        build(MixerConfig, tree, "system.mixer")
