"""Tests of the rewards against rules that are written out for one episode."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from football_worlds import assert_close, make_setup, start

from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.football_rewards import own_half, rewards


GOALS = (
    ((0, 0), (1, 0), 1),
    ((0, 0), (0, 1), -1),
    ((1, 2), (1, 2), 0),
    ((1, 1), (2, 1), 1),
)


def first(setup):
    """Return the start of one episode."""
    return start(setup, batch=1)


def score(world, left, right):
    goals = jnp.array(
        [[left], [right]],
        jnp.int8,
    )
    return world.replace(score=goals)


def put_ball(world, x, owner):
    """Place the ball on the axis, at x in the units of GRF, with an owner."""
    ball = jnp.array([[x * 54.4], [0.0], [0.1]])
    owner = jnp.full_like(world.owner, owner)
    return world.replace(ball=ball, owner=owner)


@pytest.mark.parametrize(("before", "after", "expected"), GOALS)
def test_scoring(before, after, expected):
    setup = make_setup()
    world = first(setup)
    reward, _ = rewards(
        setup,
        score(world, *before),
        score(world, *after),
    )
    assert_close(reward[:, 0], [expected] * 3)


@pytest.mark.parametrize(("before", "after", "expected"), GOALS)
def test_goals_with_checkpoints(before, after, expected):
    """A goal pays all checkpoints; a conceded one, even with the ball near, is -1."""
    setup = make_setup(reward="checkpoints")
    world = put_ball(first(setup), 0.9, owner=1)
    world = world.replace(checkpoints=world.checkpoints.at[2].set(10))
    reward, _ = rewards(
        setup,
        score(world, *before),
        score(world, *after),
    )
    shaping = {
        1: [1, 0, 1],
        0: [1, 0, 0],
        -1: [0, 0, 0],
    }
    assert_close(
        reward[:, 0],
        np.add(shaping[expected], expected),
    )


def test_checkpoints_of_the_owner():
    """Only the owner collects, each checkpoint once; a goal pays the rest: 2 in total."""
    setup = make_setup(reward="checkpoints")
    world = first(setup)
    walk = (
        (0.0, 1, [0.0, 0, 0]),  # the distance is 1
        (0.2, 1, [0.3, 0, 0]),  # 0.99, 0.9011 and 0.8122
        (0.2, 2, [0, 0.3, 0]),
        (0.2, -1, [0, 0, 0]),
        (0.62, 1, [0.4, 0, 0]),  # down to 0.4567
        (0.62, 4, [0, 0, 0]),
        (0.4, 1, [0, 0, 0]),
        (0.9, 1, [0.3, 0, 0]),
    )
    total = np.zeros(3)
    for x, owner, expected in walk:
        after = put_ball(world, x, owner)
        reward, world = rewards(setup, world, after)
        assert_close(reward[:, 0], expected)
        total += reward[:, 0]
    goal = score(
        put_ball(world, 1.02, -1),
        1,
        0,
    )
    reward, world = rewards(setup, world, goal)
    assert_close(
        total + reward[:, 0],
        [2, 2, 2],
    )
    assert world.checkpoints[:, 0].tolist() == [
        0,
        10,
        10,
        10,
        0,
        0,
    ]


def test_thresholds_of_checkpoints():
    """Compare with GRF's rule at all distances: 0.99 - 0.8 / 9 * k."""
    setup = make_setup(reward="checkpoints")
    x = jnp.linspace(0.0, 1.0, 1000)
    world = start(setup, batch=1000)
    zeros = jnp.zeros_like(x)
    ball = jnp.stack([x * 54.4, zeros, zeros])
    owner = jnp.ones_like(world.owner)
    reward, _ = rewards(
        setup,
        world,
        world.replace(ball=ball, owner=owner),
    )
    thresholds = 0.99 - 0.8 / 9 * np.arange(10)
    passed = 1 - np.asarray(x) <= thresholds[:, None]
    assert_close(reward[0], 0.1 * passed.sum(0))


def spectra(before, after):
    """Return SPECTra's reward of a step, without its constant part."""
    setup = make_setup(reward="spectra")
    reward, _ = rewards(setup, before, after)
    assert np.ptp(reward) == 0
    return float(reward[0, 0]) + 0.1 + 0.0001


def near(value):
    return pytest.approx(value, abs=1e-6)


def on_pitch():
    """Return the start of an episode; the keeper starts behind SPECTra's goal line."""
    world = first(make_setup())
    return world.replace(x=world.x.at[0].set(-50.0))


def test_score_of_spectra():
    world = on_pitch()
    assert spectra(world, world) == near(0)
    assert spectra(world, score(world, 1, 0)) == near(10.1)
    assert spectra(world, score(world, 1, 1)) == near(0)
    assert spectra(world, score(world, 0, 1)) == near(0)


def test_players_off_the_pitch_of_spectra():
    world = on_pitch()
    x = world.x.at[:2].set(54.5)
    y = world.y.at[2].set(35.2)
    off = world.replace(x=x, y=y)
    assert spectra(world, off) == near(-0.0003)
    sent_off = off.active.at[1].set(False)
    assert spectra(world, off.replace(active=sent_off)) == near(-0.0002)
    throw_in = off.replace(mode=off.mode + 5)
    assert spectra(world, throw_in) == near(0)
    assert spectra(throw_in, off) == near(0)
    right = world.x.at[4:].set(54.5)
    assert spectra(world, world.replace(x=right)) == near(0)


def test_cards_of_spectra():
    world = on_pitch()
    players = jnp.array([1, 3, 5])  # the last one is of the right team
    yellow = world.yellow.at[players].add(1)
    booked = world.replace(yellow=yellow)
    assert spectra(world, booked) == near(-0.2)
    assert spectra(booked, booked) == near(0)


def test_own_half():
    setup = make_setup()
    world = first(setup)
    assert not own_half(setup, world)
    agent = world.x.at[2].set(-0.1)
    assert own_half(setup, world.replace(x=agent))
    ball = world.ball.at[0].set(-0.1)
    assert own_half(setup, world.replace(ball=ball))
    keepers = world.x.at[jnp.array([0, 5])].set(-30.0)
    assert not own_half(setup, world.replace(x=keepers))
    sent_off = world.active.at[2].set(False)
    assert not own_half(
        setup,
        world.replace(x=agent, active=sent_off),
    )


def test_own_half_of_a_deep_start():
    """An agent that starts in the own half may stay there."""
    setup = make_setup()
    keeper, agent, *rest = setup.scenario.left
    left = (
        keeper,
        agent._replace(x=-0.5),
        *rest,
    )
    deep = Setup(
        replace(setup.scenario, left=left),
        setup.config,
    )
    assert not own_half(deep, first(deep))
