"""Tests that entities hold the numbers of a raw observation, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import football_twin as twin
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from football_twin import Raw, each, each_agent, in_meters
from football_worlds import (
    BATCH,
    ELEVEN,
    THREE,
    assert_close,
    assert_same,
    make_setup,
    observe,
    observe_fn,
    player_fields,
    random_world,
    start,
)

from jmarl.config.errors import ConfigError
from jmarl.envs.batched import batch_first
from jmarl.envs.football.core.setup import Setup
from jmarl.envs.football.core.world import Observable, observable
from jmarl.envs.football.views.entity_view import spec
from jmarl.networks.flatten import empty_obs


FLAT = ("simple115", "spectra", "cds")
VIEWS = ("entity", *FLAT)
UP = 20 / 54.4
"""Scale of the vertical velocity of the ball."""
DISTANCE = (4, 4, 15)
"""Column of the distance in the rows of each group."""


@pytest.mark.parametrize("name", [THREE, ELEVEN, "empty_goal"])
@pytest.mark.parametrize("obs", VIEWS)
def test_shapes_are_those_of_the_spec(name, obs):
    setup = make_setup(name, obs=obs)
    view = jax.eval_shape(lambda: observable(start(setup)))
    ours = jax.eval_shape(observe_fn(setup), view)
    expected = jax.eval_shape(lambda: empty_obs(spec(setup), BATCH))
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    assert jax.tree.leaves(ours) == jax.tree.leaves(expected)


def test_spec():
    setup = make_setup(passes="aimed")
    entity = spec(setup)
    allies, enemies, ball = entity.groups
    assert allies[0::2] == ("allies", 18, 22)
    assert (allies.size, allies.state_size) == (3, 4)
    assert (enemies.size, enemies.state_size) == (2, 2)
    assert (ball.size, ball.state_size) == (1, 1)
    assert entity.action_target[:16] == (-1,) * 16
    assert entity.action_target[16:] == (
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        2,
    )
    assert entity.outcomes == ("won", "conceded")
    assert entity.fixed_team
    assert hash(entity) == hash(spec(setup))


@pytest.mark.parametrize("obs", FLAT)
def test_passes_need_entities(obs):
    with pytest.raises(ConfigError) as error:
        spec(make_setup(obs=obs, passes="aimed"))
    fix = "has no entities to aim at; use env.obs=entity"
    assert str(error.value) == f"env.passes='aimed': env.obs={obs} {fix}"


def test_entities_of_an_agent():
    """Compare the own features and the rows of every slot with a slow twin."""
    setup = make_setup(mask="none")
    n = setup.scenario.n_agents
    world = random_world(setup, n_sent_off=0)
    obs = observe(setup, world)
    for b, i, p, raw in each_agent(setup, world):
        direction = twin.sticky(raw.world.direction[p])
        extra = [raw.owner == p, *direction]
        own = twin.own_features(
            raw,
            p,
            in_meters,
            2.5 / 54.4,
            extra,
        )
        rows = [
            twin.row_features(
                raw,
                p,
                q,
                in_meters,
                100,
                [raw.owner == q, True],
            )
            for q in raw.slots(p)
        ]
        ball = twin.ball_features(raw, p, in_meters, UP)
        assert_close(obs.own[b, i], own)
        assert_close(
            obs.rows[0][b, i],
            rows[:n],
        )
        assert_close(
            obs.rows[1][b, i],
            rows[n:],
        )
        assert_close(
            obs.rows[2][b, i],
            [ball],
        )


def player_features(raw, p):
    """Return the features of a player in the central state."""
    to_ball = raw.ball[:2] - raw.position[p]
    return [
        *raw.position[p],
        *(100 * raw.direction[p]),
        100 * in_meters(raw.direction[p]),
        raw.world.tired[p],
        in_meters(to_ball),
        raw.owner == p,
        *raw.role[p],
        *twin.button_features(raw, p),
    ]


def test_central_state():
    """Compare with a slow twin: the left team with the agents first, and the right team."""
    setup = make_setup(ELEVEN)
    n = setup.n_left
    world = random_world(setup, n_sent_off=3)
    state = observe(setup, world).state
    order = [
        *range(1, n),
        0,
        *range(n, setup.n_players),
    ]
    for b, raw in each(setup, world):
        rows = np.array([player_features(raw, p) for p in order])
        active = raw.world.active[order]
        rows[~active] = 0.0
        ball = twin.ball_features(raw, None, in_meters, UP)
        assert_close(
            state.rows[0][b],
            rows[:n],
        )
        assert_close(
            state.rows[1][b],
            rows[n:, :-4],
        )
        assert_close(state.rows[2][b], [ball])
        assert_same(
            state.mask[0][b],
            active[:n],
        )
        assert_same(
            state.mask[1][b],
            active[n:],
        )


def test_global_features():
    setup = make_setup()
    world = random_world(setup)
    state = observe(setup, world).state
    for b, raw in each(setup, world):
        features = [
            *raw.world.score,
            raw.world.steps / setup.episode_limit,
            *np.eye(3)[raw.team + 1],
            *np.eye(7)[raw.world.mode],
        ]
        assert_close(state.features[b], features)


@pytest.mark.parametrize("obs", VIEWS)
def test_codec_gives_the_same_observations(obs):
    setup = make_setup(ELEVEN, obs=obs)
    world = random_world(setup)
    codec = spec(setup).obs_codec
    encoded = codec.encode(batch_first(world))
    decoded = jax.jit(codec.decode)(encoded)
    assert_same(decoded, observe(setup, world))
    empty = codec.empty(3, BATCH)
    like = jax.tree.map(
        lambda x: jnp.zeros((3, *x.shape), x.dtype),
        encoded,
    )
    assert_same(empty, like)
    size = sum(x.nbytes for x in jax.tree.leaves(encoded))
    assert size <= 600 * BATCH


@pytest.mark.parametrize("obs", VIEWS)
def test_hidden_state_moves_no_feature(obs):
    setup = make_setup(obs=obs)
    world = random_world(setup)
    hidden = world.__dataclass_fields__.keys() - Observable.__dataclass_fields__
    assert {"kick", "busy", "face_x", "receiver"} <= hidden

    def spoil(name):
        x = getattr(world, name)
        return ~x if x.dtype == bool else jnp.full_like(x, 7)

    spoiled = world.replace(**{name: spoil(name) for name in hidden})
    fn = observe_fn(setup)
    assert_same(fn(spoiled), fn(world))


@pytest.mark.parametrize("obs", VIEWS)
def test_one_environment_and_a_batch(obs):
    setup = make_setup(obs=obs)
    world = random_world(setup)
    one = jax.tree.map(
        lambda x: x[..., 5],
        world,
    )
    batch = jax.tree.map(
        lambda x: x[5],
        observe(setup, world),
    )
    jax.tree.map(assert_close, observe(setup, one), batch)


def test_order_of_agents():
    """Agents in another order observe the same, with the rows of their mates reordered."""
    setup = make_setup(ELEVEN, passes="aimed")
    n = setup.scenario.n_agents
    order = np.random.default_rng(0).permutation(n)
    world = random_world(setup)
    here = observe(setup, world)
    there = observe(*reordered(setup, world, order))
    assert_close(there.own, here.own[:, order])
    assert_close(
        there.rows[1],
        here.rows[1][:, order],
    )
    agents = here.state.rows[0][:, order]
    assert_close(
        there.state.rows[0][:, :n],
        agents,
    )
    avail = here.avail[:, order]
    assert_same(
        there.avail[..., :16],
        avail[..., :16],
    )
    for i in range(n):
        columns = slots_of_mates(order, i)
        rows = here.rows[0][:, order[i]]
        assert_close(
            there.rows[0][:, i],
            rows[:, columns],
        )
        passes = avail[:, i, 16:].reshape(BATCH, n, 3)
        passes = passes[:, columns].reshape(BATCH, -1)
        assert_same(there.avail[:, i, 16:], passes)


def reordered(setup, world, order):
    """Return a scenario and its states with the agents in another order."""
    keeper, *agents = setup.scenario.left
    left = (keeper, *[agents[i] for i in order])
    scenario = replace(setup.scenario, left=left)
    rest = np.arange(setup.n_left, setup.n_players)
    players = np.concatenate([[0], order + 1, rest])
    names = player_fields(world, setup.n_players)
    moved = {name: getattr(world, name)[players] for name in names}
    new_index = np.append(np.argsort(players), -1)
    owner = new_index[np.asarray(world.owner)]
    moved["owner"] = jnp.asarray(owner, jnp.int8)
    return Setup(scenario, setup.config), world.replace(**moved)


def slots_of_mates(order, i):
    """Return the slot that agent ``order[i]`` had for each ally of agent i of the new order."""
    mates = [agent for agent in order if agent != order[i]]
    slots = [agent - (agent > order[i]) for agent in mates]
    keeper = len(order) - 1
    return [*slots, keeper]


def test_absent_players_change_nothing():
    setup = make_setup(passes="aimed")
    world = random_world(setup, n_sent_off=0)
    large, large_world = padded(setup, world)
    assert not spec(large).fixed_team
    here = observe(setup, world)
    there = observe(large, large_world)
    assert_close(there.own[:, :3], here.own)
    assert_close(
        there.rows[0][:, :3, [0, 1, 4]],
        here.rows[0],
    )
    assert_close(
        there.rows[1][:, :3, :2],
        here.rows[1],
    )
    assert_close(
        there.rows[2][:, :3],
        here.rows[2],
    )
    assert_close(
        there.state.rows[0][:, [0, 1, 2, 5]],
        here.state.rows[0],
    )
    assert_same(
        there.avail[:, :3, :16],
        here.avail[..., :16],
    )
    assert not there.mask[0][..., 2:4].any()
    assert not there.mask[1][..., 2:].any()
    assert not there.mask[2][:, 3:].any()
    assert not there.state.mask[0][:, 3:5].any()
    assert not there.present[:, 3:].any()


def padded(setup, world):
    """Add two players of the left team and three of the right, all of them absent."""
    left = setup.scenario.left
    right = setup.scenario.right
    absent = left[-1]._replace(present=False)
    scenario = replace(
        setup.scenario,
        left=(*left, absent, absent),
        right=(*right, absent, absent, absent),
    )
    large = Setup(scenario, setup.config)
    players = np.array([0, 1, 2, 3, 6, 7])
    values = start(large)
    for name in world.__dataclass_fields__:
        value = getattr(world, name)
        if name in player_fields(world, setup.n_players):
            wide = jnp.full_like(getattr(values, name), 3)
            value = wide.at[players].set(value)
        values = values.replace(**{name: value})
    owner = jnp.append(players, -1)[world.owner]
    active = values.active.at[jnp.array([4, 5, 8, 9, 10])].set(False)
    return large, values.replace(owner=owner, active=active)


@pytest.mark.parametrize("obs", VIEWS)
def test_masked_rows_are_zero(obs):
    setup = make_setup(ELEVEN, obs=obs, view_radius=20.0)
    seen = observe(setup, random_world(setup, n_sent_off=4))
    assert not seen.own[~seen.alive].any()
    for entities in (seen, seen.state):
        for rows, mask in zip(
            entities.rows,
            entities.mask,
            strict=True,
        ):
            assert not rows[~mask].any()


def test_view_radius():
    near = make_setup(ELEVEN, view_radius=20.0)
    world = random_world(near, n_sent_off=2)
    limited = observe(near, world)
    everything = observe(make_setup(ELEVEN), world)
    assert_same(limited.state, everything.state)
    assert_same(limited.own, everything.own)
    for group, column in enumerate(DISTANCE):
        rows = everything.rows[group]
        is_near = 54.4 * rows[..., column] <= 20
        seen = everything.mask[group] & is_near
        assert_same(limited.mask[group], seen)
        shown = np.where(seen[..., None], rows, 0)
        assert_same(limited.rows[group], shown)


@pytest.mark.parametrize("obs", FLAT)
def test_flat_vectors_show_nothing_out_of_sight(obs):
    """Within a radius of 20 m, features do not move with what is farther away."""
    setup = make_setup(ELEVEN, obs=obs, view_radius=20.0)
    world = random_world(setup)
    p = 1
    is_far = np.hypot(world.x - world.x[p], world.y - world.y[p]) > 20
    ball_x, ball_y, _ = world.ball
    ball_far = np.hypot(ball_x - world.x[p], ball_y - world.y[p]) > 20
    moved = world.replace(
        x=jnp.where(
            is_far,
            world.x + 200,
            world.x,
        ),
        vx=jnp.where(is_far, 1.0, world.vx),
        tired=jnp.where(is_far, 0.3, world.tired),
        ball=jnp.where(
            ball_far,
            world.ball + 200,
            world.ball,
        ),
        ball_v=jnp.where(ball_far, 3.0, world.ball_v),
        owner=jnp.where(ball_far, -1, world.owner),
    )
    before = observe(setup, world).own
    after = observe(setup, moved).own
    assert_same(
        before[:, p - 1],
        after[:, p - 1],
    )
    assert (before[:, p] != after[:, p]).any()


def test_raw_observation():
    """Check the twin itself: meters per unit, and players of both teams."""
    setup = make_setup()
    raw = Raw(setup, start(setup), 0)
    assert_close(
        raw.position[1],
        [0.6 * 55 / 54.4, 0],
    )
    assert_close(raw.ball, [0.62, 0, 0.11])
    assert raw.slots(2) == [1, 3, 0, 4, 5]
