"""Tests of the available actions, by rules that are written out for one agent."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from football_twin import METERS, each_agent
from football_worlds import (
    ELEVEN,
    assert_same,
    make_setup,
    observe,
    random_world,
    start,
)

from jmarl.envs.football.core.game_actions import ACTIONS, IDLE, PASSES
from jmarl.envs.football.core.player_commands import decode
from jmarl.envs.football.core.setup import Setup


MASKS = ("default", "spectra", "none")
KICKS = {"long_pass", "high_pass", "short_pass", "shot"}


def releases(raw, p):
    """Return the buttons that player p cannot release."""
    buttons = {
        "release_direction": raw.world.direction[p],
        "release_sprint": raw.world.sprint[p],
        "release_dribble": raw.world.dribble[p],
    }
    return {name for name, pressed in buttons.items() if not pressed}


def default(raw, p):
    """Return the actions that the default mask forbids player p."""
    to_ball = raw.ball[:2] - raw.position[p]
    near = np.linalg.norm(to_ball * METERS) <= 2.5
    owns = raw.owner == p
    forbidden = releases(raw, p)
    if not owns:
        forbidden |= {"dribble"}
    if not owns and not (near and raw.team == -1):
        forbidden |= KICKS
    if not near or raw.team != 1:
        forbidden |= {"sliding"}
    return forbidden


def spectra(raw, p):
    """Return the actions that SPECTra's mask forbids player p."""
    x, y, _ = raw.ball
    mode = raw.world.mode
    if (mode == 2 and x < -0.7) or (mode == 4 and x > 0.9):
        return {*ACTIONS} - {"idle"} - KICKS | {"shot"}
    if mode == 6 and x > 0.6:
        return {*ACTIONS} - {"idle", "shot"}
    far = np.linalg.norm(raw.ball[:2] - raw.position[p]) > 0.03
    forbidden = releases(raw, p)
    if raw.team == 1 or far:
        forbidden |= KICKS | {"dribble"}
    if raw.team != 1 or far or raw.world.dribble[p]:
        forbidden |= {"sliding"}
    if x < 0.64 or abs(y) > 0.27:
        forbidden |= {"shot"}
    elif x <= 1:
        forbidden |= {"long_pass", "high_pass"}
    return forbidden


@pytest.mark.parametrize("rule", [default, spectra])
def test_rules(rule):
    setup = make_setup(mask=rule.__name__)
    world = random_world(setup, batch=512, n_sent_off=0)
    # In half of the states all are near the goal, where SPECTra's mask is special.
    world = world.replace(
        x=world.x.at[:, ::2].set(0.2 * world.x[:, ::2] + 44),
        y=world.y.at[:, ::2].multiply(0.3),
        ball=world.ball.at[0, ::2].set(0.2 * world.ball[0, ::2] + 44),
    )
    world = world.replace(ball=world.ball.at[1, ::2].multiply(0.3))
    avail = observe(setup, world).avail
    expected = np.ones_like(avail)
    for b, i, p, raw in each_agent(setup, world, every=1):
        forbidden = [ACTIONS.index(name) for name in rule(raw, p)]
        expected[b, i, forbidden] = False
    assert_same(avail, expected)
    assert avail.any((0, 1)).all()
    assert avail[..., IDLE].all()


def test_no_mask():
    setup = make_setup(mask="none", passes="aimed")
    obs = observe(setup, random_world(setup, n_sent_off=2))
    assert obs.avail[obs.alive].all()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("passes", ["grf", "aimed"])
def test_sent_off_and_absent_agents(mask, passes):
    """An agent that was sent off keeps idle, and an absent agent has no action."""
    setup = make_setup(mask=mask, passes=passes)
    left = setup.scenario.left
    absent = left[-1]._replace(present=False)
    scenario = replace(setup.scenario, left=(*left, absent))
    setup = Setup(scenario, setup.config)
    world = start(setup)
    active = world.active.at[1].set(False)
    obs = observe(setup, world.replace(active=active))
    assert np.flatnonzero(obs.avail[0, 0]).tolist() == [IDLE]
    assert obs.avail[0, 1:3, IDLE].all()
    assert obs.alive[0].tolist() == [False, True, True, False]
    assert obs.present[0].tolist() == [True, True, True, False]


@pytest.mark.parametrize("mask", MASKS)
def test_aimed_passes(mask):
    """A pass to a mate is available if that kind of pass is, and if the mate is active."""
    setup = make_setup(ELEVEN, mask=mask)
    aimed = make_setup(ELEVEN, mask=mask, passes="aimed")
    world = random_world(setup, n_sent_off=5)
    plain = observe(setup, world).avail
    avail = observe(aimed, world).avail
    own = [i for i in range(19) if i not in PASSES]
    assert_same(avail[..., :16], plain[..., own])
    n = setup.scenario.n_agents
    active = np.asarray(world.active).T
    assert avail.shape[-1] == 16 + 3 * n
    for action in range(16, avail.shape[-1]):
        kinds, targets = decode(aimed, jnp.full(n, action))
        for i, (kind, target) in enumerate(zip(kinds, targets, strict=True)):
            expected = plain[:, i, kind]
            if mask != "none":
                expected = expected & active[:, target]
            assert_same(avail[:, i, action], expected)


def test_aimed_passes_need_a_visible_mate():
    """The agents start 17 m apart or more, and the keeper is 88 m away."""
    setup = make_setup(passes="aimed", view_radius=15.0)
    world = start(setup)
    world = world.replace(owner=jnp.ones_like(world.owner))
    obs = observe(setup, world)
    assert not obs.mask[0][:, 0].any()
    assert not obs.avail[:, 0, 16:].any()
    unlimited = make_setup(passes="aimed")
    assert observe(unlimited, world).avail[:, 0, 16:].all()
