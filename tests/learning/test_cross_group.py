"""CGI: the error equals a loop over pairs, and only living agents of other groups count."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.learning.cross_group import (
    cross_group_error,
    group_errors,
    group_members,
)
from jmarl.learning.parallel import mean_weights, weighted_sum
from jmarl.networks.agents.predictor import Prediction
from jmarl.networks.flatten import empty_obs
from jmarl.systems.kits import cgi as kit
from jmarl.types import Group, Spec


T, B = 3, 4
N_OWN = 3
CGI = kit.CGIConfig(
    weight=0.5, width=8, space="q", conditioned=True, sg_target=True, grad_to_trunk=True
)


def make_spec(groups: int, n_agents: int) -> Spec:
    """Return a spec with shared own actions and a block of two further actions per group."""
    n_actions = N_OWN + 2 * groups
    rows = np.zeros((groups, n_actions), bool)
    rows[:, :N_OWN] = True
    for k in range(groups):
        rows[k, N_OWN + 2 * k : N_OWN + 2 * k + 2] = True
    allies = Group("allies", n_agents - 1, 2, n_agents, 2)
    return Spec(
        n_agents,
        n_actions,
        4,
        (allies,),
        global_width=1,
        episode_limit=9,
        action_target=(-1,) * n_actions,
        # the last class has the actions of the first one, and is in its group
        n_unit_classes=groups + 1,
        class_actions=tuple(map(tuple, [*rows.tolist(), rows[0].tolist()])),
    )


def make_case(groups: int, n_agents: int = 6, seed: int = 0):
    """Return a spec, observations, and random outputs with predictions."""
    spec = make_spec(groups, n_agents)
    rng = np.random.default_rng(seed)
    unit_class = rng.integers(0, groups + 1, (T, B, n_agents))
    alive = rng.random((T, B, n_agents)) < 0.7
    alive[0, 0] = False
    avail = np.asarray(spec.class_actions)[unit_class]
    avail &= rng.random(avail.shape) < 0.8
    avail[..., 0] = True
    obs = empty_obs(spec, T, B).replace(
        unit_class=jnp.asarray(unit_class),
        alive=jnp.asarray(alive),
        avail=jnp.asarray(avail),
    )
    out = rng.normal(size=(T, B, n_agents, spec.n_actions))
    predicted = rng.normal(size=(T, B, n_agents, groups, spec.n_actions))
    return (
        spec,
        obs,
        Prediction(jnp.asarray(out, jnp.float32), jnp.asarray(predicted, jnp.float32)),
    )


def loss_of(form, spec, cgi, obs, valid, aux):
    """Return the loss of a form, without its weight."""
    if form == "policy":
        errors = kit.policy_errors(spec, cgi, aux, obs)
    else:
        cgi = dataclasses.replace(cgi, space=form)
        errors = kit.value_errors(spec, cgi, aux, obs)
    return weighted_sum(cross_group_error(errors), mean_weights(valid))


def softmax_over(x, able):
    weights = jnp.where(able, jnp.exp(x - x.max()), 0.0)
    return weights / weights.sum()


def pairwise_loss(form, spec, obs, valid, aux):
    """Compute the loss by a loop over rows, agents and groups."""
    able = np.asarray(spec.group_actions)
    group = np.asarray(spec.action_group)[np.asarray(obs.unit_class)]
    rows = []
    for t, b in np.argwhere(np.asarray(valid)):
        living = [j for j in range(spec.n_agents) if obs.alive[t, b, j]]
        errors = []
        for i in living:
            for k in set(group[t, b, living]) - {group[t, b, i]}:
                targets = []
                for j in living:
                    if group[t, b, j] == k:
                        x = aux.out[t, b, j]
                        mask = {"policy": obs.avail[t, b, j], "softmax_q": able[k]}
                        targets.append(
                            x if form == "q" else softmax_over(x, mask[form])
                        )
                target = jax.lax.stop_gradient(sum(targets) / len(targets))
                x = aux.predicted[t, b, i, k]
                if form == "q":
                    errors.append(((x - target) ** 2)[able[k]].mean())
                else:
                    errors.append(((softmax_over(x, able[k]) - target) ** 2).sum())
        rows.append(sum(errors) / len(errors) if errors else 0.0)
    return sum(rows) / len(rows)


FORMS = pytest.mark.parametrize("form", ["policy", "q", "softmax_q"])


def valid_rows():
    return jnp.ones((T, B), bool).at[1, 2].set(False)


@FORMS
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_loss_and_gradient_equal_a_loop_over_pairs(form, groups):
    spec, obs, aux = make_case(groups)

    def fast(aux):
        return loss_of(form, spec, CGI, obs, valid_rows(), aux)

    def slow(aux):
        return pairwise_loss(form, spec, obs, valid_rows(), aux)

    loss, grads = jax.value_and_grad(fast)(aux)
    expected, expected_grads = jax.value_and_grad(slow)(aux)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert loss > 0
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(jnp.abs(grads.predicted).max()) > 0
    assert float(jnp.abs(grads.out).max()) == 0


@FORMS
def test_without_stop_gradient_the_target_has_a_gradient(form):
    spec, obs, aux = make_case(2)
    open_target = dataclasses.replace(CGI, sg_target=False)

    def loss(aux):
        return loss_of(form, spec, open_target, obs, valid_rows(), aux)

    grads = jax.grad(loss)(aux)
    assert float(jnp.abs(grads.out).max()) > 0


@FORMS
def test_the_error_of_a_perfect_prediction_is_zero(form):
    """Every agent of a group has the same output, which all agents predict."""
    spec, obs, aux = make_case(3)
    obs = obs.replace(avail=jnp.asarray(spec.class_actions)[obs.unit_class])
    values = jax.random.normal(jax.random.key(0), (3, spec.n_actions))
    group = jnp.asarray(spec.action_group)[obs.unit_class]
    aux = Prediction(values[group], jnp.broadcast_to(values, aux.predicted.shape))
    np.testing.assert_allclose(
        loss_of(form, spec, CGI, obs, valid_rows(), aux), 0.0, atol=1e-10
    )


@FORMS
def test_dead_agents_and_the_order_of_agents_change_nothing(form):
    spec, obs, aux = make_case(3)
    expected = loss_of(form, spec, CGI, obs, valid_rows(), aux)
    dead = ~obs.alive[..., None]
    other = Prediction(
        jnp.where(dead, 1e3, aux.out), jnp.where(dead[..., None], -1e3, aux.predicted)
    )
    got = loss_of(form, spec, CGI, obs, valid_rows(), other)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    order = np.random.default_rng(1).permutation(spec.n_agents)
    moved = jax.tree.map(lambda x: x[:, :, order], (obs.replace(state=()), aux))
    got = loss_of(form, spec, CGI, *moved[:1], valid_rows(), moved[1])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@FORMS
def test_rows_without_two_living_groups_have_no_error(form):
    spec, obs, aux = make_case(2)
    obs = obs.replace(unit_class=jnp.zeros_like(obs.unit_class))

    def loss(aux):
        return loss_of(form, spec, CGI, obs, valid_rows(), aux)

    value, grads = jax.value_and_grad(loss)(aux)
    assert value == 0
    assert all((g == 0).all() for g in grads)


def test_errors_of_pairs_of_groups_equal_a_loop_over_agents():
    spec, obs, aux = make_case(3)
    rows = valid_rows()
    errors = kit.policy_errors(spec, CGI, aux, obs)
    got = group_errors(errors, group_members(obs, spec), rows)
    able = np.asarray(spec.group_actions)
    group = np.asarray(spec.action_group)[np.asarray(obs.unit_class)]
    found = {(g, k): [] for g in range(3) for k in range(3)}
    for t, b in np.argwhere(np.asarray(rows)):
        living = [j for j in range(spec.n_agents) if obs.alive[t, b, j]]
        for i in living:
            for k in set(group[t, b, living]) - {group[t, b, i]}:
                members = [j for j in living if group[t, b, j] == k]
                targets = [
                    softmax_over(aux.out[t, b, j], obs.avail[t, b, j]) for j in members
                ]
                x = softmax_over(aux.predicted[t, b, i, k], able[k])
                error = ((x - sum(targets) / len(targets)) ** 2).sum()
                found[int(group[t, b, i]), int(k)].append(float(error))
    for (g, k), errors_of_pair in found.items():
        assert bool(errors_of_pair) == (g != k)
        mean = np.mean(errors_of_pair) if errors_of_pair else np.nan
        np.testing.assert_allclose(got[g, k], mean, rtol=1e-5)
