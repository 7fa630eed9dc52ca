"""Lambda-returns: recursion, both kinds of episode ends, and two known defects of peers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.learning import returns
from jmarl.learning.returns import align, lambda_return
from jmarl.platforms import tracing_for


def brute_force(reward, terminated, valid, value, gamma, lam):
    """Compute the weighted sum of n-step returns of each row (Sutton and Barto, eq. 12.19)."""
    T = len(reward)
    out = np.array(value[:T], np.float64)
    for t in range(T):
        if not valid[t]:
            continue
        total, weight, so_far = 0.0, 1.0, 0.0
        for n in range(1, T - t + 1):
            row = t + n - 1
            so_far += gamma ** (n - 1) * reward[row]
            ends = terminated[row] or not valid[row + 1] or row + 1 == T
            nstep = so_far + gamma**n * (0.0 if terminated[row] else value[row + 1])
            if ends:
                total += weight * nstep
                break
            total += weight * (1 - lam) * nstep
            weight *= lam
        out[t] = total
    return out


def episodes(rng, T):
    """Return random flags of next-step reset: one invalid row follows each episode."""
    terminated, valid = np.zeros(T, bool), np.ones(T + 1, bool)
    for t in range(T):
        if valid[t] and rng.random() < 0.4:
            valid[t + 1] = False
            terminated[t] = rng.random() < 0.5
    return terminated, valid


@pytest.mark.fault(20)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_equals_the_sum_of_n_step_returns(lam):
    rng = np.random.default_rng(0)
    T, B, N = 12, 16, 3
    flags = [episodes(rng, T) for _ in range(B)]
    terminated, valid = (np.stack(x, axis=1) for x in zip(*flags, strict=True))
    reward, value = rng.normal(size=(T, B, N)), rng.normal(size=(T + 1, B, N))
    got = lambda_return(
        *map(jnp.asarray, (reward, terminated, valid, value)), gamma=0.9, lam=lam
    )
    for b in range(B):
        for n in range(N):
            args = reward[:, b, n], terminated[:, b], valid[:, b], value[:, b, n]
            np.testing.assert_allclose(
                got[:, b, n], brute_force(*args, 0.9, lam), rtol=2e-5, atol=2e-5
            )


@pytest.mark.parametrize("unrolled", [12, 5])
def test_the_form_for_accelerators_has_the_same_returns(unrolled, monkeypatch):
    monkeypatch.setattr(returns, "UNROLLED", unrolled)
    rng = np.random.default_rng(2)
    flags = [episodes(rng, 12) for _ in range(4)]
    terminated, valid = (np.stack(x, axis=1) for x in zip(*flags, strict=True))
    reward, value = rng.normal(size=(12, 4)), rng.normal(size=(13, 4))
    rows = [jnp.asarray(x) for x in (reward, terminated, valid, value)]

    def compiled():
        function = jax.jit(lambda *rows: lambda_return(*rows, gamma=0.9, lam=0.7))
        text = function.lower(*rows).as_text()
        return function(*rows), "stablehlo.while" in text

    plain, is_loop = compiled()
    with tracing_for("gpu"):
        got, has_loop = compiled()
    assert is_loop
    assert has_loop == (unrolled < 12)
    np.testing.assert_allclose(got, plain, rtol=1e-6, atol=1e-6)


def test_gae_is_the_return_minus_the_value():
    """Schulman et al. 2016, eq. 16, on one unbroken episode."""
    rng = np.random.default_rng(1)
    reward, value = rng.normal(size=5), rng.normal(size=6)
    delta = reward + 0.9 * value[1:] - value[:-1]
    gae = [sum((0.9 * 0.8) ** k * delta[t + k] for k in range(5 - t)) for t in range(5)]
    never = jnp.zeros(5, bool)
    got = lambda_return(
        jnp.asarray(reward),
        never,
        jnp.ones(6, bool),
        jnp.asarray(value),
        gamma=0.9,
        lam=0.8,
    )
    np.testing.assert_allclose(got - value[:-1], gae, rtol=1e-5)


def test_an_invalid_row_returns_its_value_and_cuts_the_trace():
    reward, value = jnp.array([1.0, 77.0, 5.0]), jnp.array([0.0, 3.0, 0.0, 9.0])
    valid = jnp.array([True, False, True, True])
    limit = lambda_return(
        reward, jnp.array([False, False, False]), valid, value, gamma=0.5, lam=1.0
    )
    np.testing.assert_allclose(limit, [1.0 + 0.5 * 3.0, 3.0, 5.0 + 0.5 * 9.0])
    ended = lambda_return(
        reward, jnp.array([True, False, False]), valid, value, gamma=0.5, lam=1.0
    )
    np.testing.assert_allclose(ended, [1.0, 3.0, 5.0 + 0.5 * 9.0])


def test_flags_broadcast_over_agents():
    assert align(jnp.ones((4, 2), bool), jnp.ones((4, 2, 3))).shape == (4, 2, 1)
    assert align(jnp.ones((4, 2)), jnp.ones((4, 2))).shape == (4, 2)


# The two-phase probe as rows of next-step reset: observations 0, 1, end, 0, 1, end, ...
PHASE = jnp.array([0, 1, 0] * 4)
ENDED = jnp.array([False, False, True] * 4)
REWARD = jnp.where(ENDED, 0.0, 1.0)


def one_step_late(reward, terminated, valid, value, *, gamma, lam):
    """Mask each target by the flag of the previous row, as JaxMARL's Q-learners do (defective)."""
    late = jnp.concatenate([jnp.zeros(1, bool), terminated[:-1]])
    return lambda_return(reward, late, valid, value, gamma=gamma, lam=lam)


def limit_as_end(reward, terminated, valid, value, *, gamma, lam):
    """Treat every end as a termination, as Mava's MAT and JaxMARL's SMAX do (defective)."""
    return lambda_return(reward, ~valid[1:], valid, value, gamma=gamma, lam=lam)


def fixed_point(fn, terminated, gamma=0.9):
    """Return the values of the two phases that equal their own returns."""
    valid = jnp.concatenate([~ENDED, jnp.array([True])])
    phases = jnp.concatenate([PHASE, jnp.array([0])])

    def improve(table, _):
        target = fn(REWARD, terminated, valid, table[phases], gamma=gamma, lam=0.5)
        return jnp.stack(
            [jnp.mean(target, where=~ENDED & (p == PHASE)) for p in range(2)]
        ), None

    return jax.lax.scan(improve, jnp.zeros(2), None, length=300)[0]


TWIN = pytest.mark.xfail(strict=True, raises=AssertionError, reason="defective twin")


@pytest.mark.parametrize("fn", [lambda_return, pytest.param(one_step_late, marks=TWIN)])
def test_two_phases_that_terminate_have_values_1_9_and_1(fn):
    np.testing.assert_allclose(
        fixed_point(fn, (PHASE == 1) & ~ENDED), [1.9, 1.0], atol=1e-4
    )


@pytest.mark.parametrize("fn", [lambda_return, pytest.param(limit_as_end, marks=TWIN)])
def test_two_phases_cut_by_a_time_limit_have_the_values_of_an_endless_episode(fn):
    np.testing.assert_allclose(
        fixed_point(fn, jnp.zeros_like(ENDED)), [10.0, 10.0], atol=1e-3
    )
