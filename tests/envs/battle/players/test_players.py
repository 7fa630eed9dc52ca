"""Scripted players: their view of a battle, their moves, and the availability of their actions."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import envs
from jmarl.config import ConfigError
from jmarl.envs.battle.combat.paths import next_cells
from jmarl.envs.battle.players.battlefield import battlefield, view
from jmarl.envs.battle.players.moves import to_actions
from jmarl.envs.battle.players.scripted import PLAYERS, make_player
from jmarl.envs.battle.scenarios.terrain import get_terrain, walkable
from jmarl.envs.battle.situation import Choice
from jmarl.envs.battle.smac.smac_observe import MOVES


HEALERS = "smac_2m1d_vs_2m"
BATCH = 4


def wounded(state):
    """Return a state in which units differ in all that the central state shows."""
    rng = np.random.default_rng(0)
    share = jnp.asarray(rng.uniform(0.2, 1, state.health.shape), jnp.float32)
    share = share.at[0, 0].set(0)
    change = {"health": state.health * share, "cooldown": 0.5 * share}
    if getattr(state, "shield", None) is not None:
        change["shield"] = state.shield * share
    return state.replace(**change)


@pytest.mark.parametrize("name", [HEALERS, "smac_1c1s1Z_vs_2s", "smax_2s3z"])
def test_the_view_of_a_player_is_that_of_the_state(name):
    env = envs.make(name)
    field, codec, n = battlefield(env.spec), env.spec.obs_codec, env.spec.n_agents

    @jax.jit
    def start(key):
        state = wounded(env.reset(key, BATCH)[0])
        s = view(field, codec.decode(codec.encode(state)))
        return state, s._replace(own=None, terrains=None)

    state, s = start(jax.random.key(0))
    alive = np.asarray(state.health > 0).T
    position = np.where(alive[..., None], np.moveaxis(state.position, 0, 1), 0)
    np.testing.assert_array_equal(s.x, position[:n, :, 0])
    np.testing.assert_array_equal((s.y[:, None] + s.dy)[1], position[:, :, 1])
    shield = getattr(state, "shield", None)
    strength = state.health + (0 if shield is None else shield)
    np.testing.assert_allclose(s.strength, strength.T * alive, rtol=1e-5)
    armed = ~np.asarray(s.healer)[:n] & alive[:n]
    waiting = np.asarray(state.cooldown).T[:n]
    np.testing.assert_allclose(s.waiting * armed, waiting * armed, rtol=1e-5)
    assert not s.attackable[:, :n].any() and s.attackable[:, n:].any()
    assert not s.attackable[0, :, 0].any()  # the observer is dead
    assert (s.attackable <= alive).all()


@pytest.fixture(scope="module")
def battle():
    """Return (availability of the action, alive, won) of an episode of every player."""
    env = envs.make(HEALERS)
    players = [make_player(name, env.spec) for name in PLAYERS]

    @jax.jit
    def play(index, key):
        def step(carry, key):
            state, timestep = carry
            action = jax.lax.switch(index, players, key, timestep.obs)
            offered = jnp.take_along_axis(timestep.obs.avail, action[..., None], -1)
            state, after = env.step(key, state, action)
            return (state, after), (offered[..., 0], timestep.obs.alive, action, after)

        start = env.reset(key, 16)
        return jax.lax.scan(step, start, jax.random.split(key, 120))[1]

    return {n: play(i, jax.random.key(1)) for i, n in enumerate(PLAYERS)}


@pytest.mark.parametrize("name", PLAYERS)
def test_a_player_never_takes_an_unavailable_action(battle, name):
    offered, alive, action, after = battle[name]
    assert offered.all()
    assert after.last.any()
    assert name != "random" or not alive.all()
    assert len(np.unique(action)) > 8  # moves, attacks and heals among them


def test_focus_wins_more_often_than_random(battle):
    def wins(name):
        after = battle[name][3]
        return after.info["won"][after.last].mean()

    assert wins("focus") > wins("random") + 0.2


def test_random_draws_each_available_action_equally_often():
    env = envs.make("smax_1v2+2v1")
    act = make_player("random", env.spec)
    _, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), 2)
    keys = jax.random.split(jax.random.key(0), 4000)
    actions = jax.vmap(lambda key: act(key, timestep.obs))(keys)
    share = (actions[..., None] == jnp.arange(env.spec.n_actions)).mean(0)
    avail = np.asarray(timestep.obs.avail)
    present = avail.any(-1)
    expected = avail / np.maximum(avail.sum(-1, keepdims=True), 1)
    np.testing.assert_allclose(share[present], expected[present], atol=0.03)


@pytest.mark.parametrize("terrain", ["ravine", "corridor", "room_b"])
def test_walkers_reach_a_goal_behind_walls_by_available_moves(terrain):
    """Without other units, from anywhere, in steps of 1.125 that end at walls."""
    ground = get_terrain(terrain)
    cells = walkable(ground)
    places = np.argwhere(cells)[::9] + np.float32([0.3, 0.9])
    goal = {"ravine": (16.5, 9.5), "corridor": (4.5, 4.5), "room_b": (14.5, 24.5)}
    env = envs.make("smac_1Z_vs_1Z")
    spec = env.spec._replace(n_agents=len(places))
    field = battlefield(env.spec)
    free = jnp.asarray(cells)

    def is_free(at):
        cell = jnp.clip(jnp.trunc(at).astype(int), 0, 31)
        return free[cell[..., 0], cell[..., 1]]

    moves = jnp.asarray(MOVES)

    @jax.jit
    def walk(at):
        def step(at, _):
            n = len(at)
            rest = jnp.tile(jnp.asarray([False, True]), (n, 1))
            offered = is_free(at[:, None] + moves)
            avail = jnp.concatenate([rest, offered, jnp.zeros((n, 1), bool)], -1)
            s = _situation(env, field, ground, at)
            there = (
                jnp.full((n, 1), goal[terrain][0]),
                jnp.full((n, 1), goal[terrain][1]),
            )
            choice = Choice(jnp.full((n, 1), -1), *there)
            action = to_actions(spec, field, s, choice, avail[None])[0]
            heading = jnp.concatenate([jnp.zeros((2, 2)), moves])[action]
            for _ in range(8):
                after = at + heading * 2.25 / 16
                at = jnp.where(is_free(after)[:, None], after, at)
            return at, None

        return jax.lax.scan(step, at, None, length=90)[0]

    ends = walk(jnp.asarray(places))
    assert next_cells(ground) is not None or terrain == "room_b"
    assert np.abs(ends - np.asarray(goal[terrain])).max() < 1.2


def _situation(env, field, ground, at):
    """Return the situation of zealots at some places, on another terrain."""
    n = len(at)
    _, timestep = env.reset(jax.random.key(0), 1)
    rows = tuple(
        jnp.repeat(rows, k, 1)
        for rows, k in zip(timestep.obs.state.rows, (n, 1), strict=True)
    )
    own = rows[0].at[0, :, field.columns.x].set(at[:, 0] / field.map_size)
    own = own.at[0, :, field.columns.y].set(at[:, 1] / field.map_size)
    central = timestep.obs.state.replace(rows=(own, rows[1]))
    obs = timestep.obs.replace(state=central, alive=jnp.ones((1, n), bool))
    facts = field.facts._replace(terrains=(ground,))
    return view(field._replace(facts=facts), obs)


def test_a_player_of_a_mistaken_name_or_environment_is_an_error():
    battle, game = envs.make("smax_3m").spec, envs.make("probe_bandit").spec
    with pytest.raises(ConfigError, match="did you mean focus"):
        make_player("focsu", battle)
    for name in ("nearest", "focus", "kite"):
        fault = f"player={name} needs actions aimed at enemies: play a battle"
        with pytest.raises(ConfigError, match=fault):
            make_player(name, game)
    with pytest.raises(ConfigError, match=r"without env\.layout=clash"):
        make_player("focus", envs.make("smac_2m1d_vs_3m", layout="clash").spec)
    make_player("focus", envs.make("smac_3m", layout="clash").spec)
    make_player("random", game)
    with pytest.raises(ConfigError, match="needs discrete actions"):
        make_player("random", envs.make("probe_target").spec)


def test_joined_battles_have_no_players_if_their_ways_differ():
    joined = envs.make("smac_3m+corridor").spec
    with pytest.raises(ConfigError, match="need one terrain, not strip, corridor; "):
        make_player("focus", joined)
    make_player("random", joined)
    make_player("focus", envs.make("smac_3m+3s_vs_3z").spec)  # without detours


def test_the_target_of_each_action_is_that_of_the_battle():
    """Actions of ally i at slots: enemies in order, then the other allies in order."""
    from jmarl.envs.battle.players.moves import _aims
    from jmarl.envs.battle.smac.smac_actions import target_index

    env = envs.make("smac_2m2d_vs_3m")
    facts = env.spec.obs_codec.facts
    for agent, action in itertools.product(range(4), range(env.spec.n_actions)):
        actions = jnp.full((1, 4), action)
        index = int(target_index(facts, facts.rows, actions)[0, agent])
        assert _aims(env.spec)[agent, action] == index
