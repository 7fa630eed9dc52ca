"""Tests of the flat observations of football against the published layouts."""

from __future__ import annotations

import football_twin as twin
import numpy as np
import pytest
from football_twin import each, each_agent
from football_worlds import THREE, assert_close, make_setup, observe, random_world

from jmarl.envs.football.views.entity_view import spec


norm = np.linalg.norm


def simple115(raw):
    """Return the indices of simple115v2 for three against one, without an active player."""
    vector = np.full(115, -1.0)
    vector[0:8] = raw.position[:4].ravel()
    vector[22:30] = raw.direction[:4].ravel()
    vector[44:48] = raw.position[4:].ravel()
    vector[66:70] = raw.direction[4:].ravel()
    vector[88:91] = raw.ball
    vector[91:94] = raw.ball_direction
    vector[94:97] = np.eye(3)[raw.team + 1]
    vector[97:108] = 0
    vector[108:115] = np.eye(7)[raw.world.mode]
    return vector


def test_simple115():
    setup = make_setup(obs="simple115")
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, i, p, raw in each_agent(setup, world):
        vector = simple115(raw)
        assert_close(obs.state.features[b], vector)
        vector[97 + p] = 1
        assert_close(obs.own[b, i], vector)


def test_simple115_of_a_player_who_was_sent_off():
    setup = make_setup(obs="simple115")
    world = random_world(setup, n_sent_off=0)
    active = world.active.at[2].set(False)
    obs = observe(setup, world.replace(active=active))
    for vector in (
        obs.own[:, 0],
        obs.state.features,
    ):
        assert (vector[:, [4, 5, 26, 27]] == -1).all()
    assert not obs.own[:, 1].any()


@pytest.mark.parametrize(
    ("name", "width", "state_width"),
    [
        (THREE, 119, 121),
        ("pass_and_shoot_with_keeper", 103, 103),
        ("run_pass_and_shoot_with_keeper", 103, 103),
    ],
)
def test_dimensions_of_spectra(name, width, state_width):
    flat = spec(make_setup(name, obs="spectra"))
    assert flat.own_width == width
    assert flat.global_width == state_width
    assert flat.groups == ()


def test_spectra():
    """Compare with a slow twin, which takes distances from the observer."""
    setup = make_setup(obs="spectra")
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, i, p, raw in each_agent(setup, world):
        own = twin.own_features(raw, p, norm, far=0.03)
        ball = twin.ball_features(raw, p, norm, up=20)
        rows = [twin.row_features(raw, p, q, norm, 1) for q in raw.slots(p)]
        assert_close(
            obs.own[b, i],
            np.concatenate([own, ball, *rows]),
        )


def spectra_player(raw, p):
    """Return SPECTra's features of a player in the central state."""
    sprint = [raw.world.sprint[p]] if p < raw.n_left else []
    to_ball = raw.ball[:2] - raw.position[p]
    return [
        *raw.position[p],
        *raw.direction[p],
        norm(raw.direction[p]),
        raw.world.tired[p],
        *sprint,
        norm(to_ball),
        *raw.role[p],
    ]


def test_central_state_of_spectra():
    setup = make_setup(obs="spectra")
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, raw in each(setup, world):
        players = [spectra_player(raw, p) for p in range(setup.n_players)]
        ball = twin.ball_features(raw, None, norm, up=20)
        expected = np.concatenate([*players, ball])
        assert_close(obs.state.features[b], expected)


def test_cds():
    setup = make_setup(obs="cds")
    assert spec(setup).own_width == 26
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, i, p, raw in each_agent(setup, world):
        origin = raw.position[p]
        mates = raw.slots(p)[:2]
        parts = [
            origin,
            raw.position[mates] - origin,
            raw.direction[p],
            raw.direction[mates],
            raw.position[4:] - origin,
            raw.direction[4:],
            raw.ball[:2] - origin,
            raw.ball[2:],
            raw.ball_direction,
        ]
        assert_close(obs.own[b, i], join(parts))


def test_central_state_of_cds():
    setup = make_setup(obs="cds")
    assert spec(setup).global_width == 26
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, raw in each(setup, world):
        parts = [
            raw.position[1:4],
            raw.direction[1:4],
            raw.position[4:],
            raw.direction[4:],
            raw.ball,
            raw.ball_direction,
        ]
        assert_close(obs.state.features[b], join(parts))


def join(parts):
    flat = [part.ravel() for part in parts]
    return np.concatenate(flat)
