"""Tests of teams of several sizes in one batch: one program, with the result of each size alone."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.support.smax_reference import advance, initial_state
from jmarl import load_config
from jmarl.envs import make
from jmarl.envs.battle.drawing import ALLY_COLOR, ENEMY_COLOR
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenario import BattleConfig, get_scenario
from jmarl.envs.battle.smax import smax_battle
from jmarl.envs.battle.state import ABSENT
from jmarl.networks.agents import HPNConfig, SAQAConfig, UPDeTConfig, make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.networks.mixers import STHyperNetConfig, SumConfig, make_mixer


SIZES = ((5, 5), (5, 6), (10, 10), (20, 20))
MOST = (20, 20)
AGENTS = {
    "hpn": HPNConfig(
        "hpn",
        "gru",
        memory_width=8,
        hyper_width=6,
        n_head=1,
        pool="sum",
        agent_id=False,
    ),
    "updet": UPDeTConfig("updet", embed_dim=8, n_head=1, n_block=1, mlp_width=8),
    "saqa": SAQAConfig("saqa", "gru", embed_dim=8, n_head=2),
}
MIXERS = {
    "sum": SumConfig("sum", mask_dead=True),
    "sum_of_all": SumConfig("sum", mask_dead=False),
    "st": STHyperNetConfig(
        "st_hypernet", mask_dead=True, embed=8, heads=2, form="residual", norm="mean"
    ),
}
T = 2


@functools.cache
def spec(n, m):
    return smax_battle.spec(get_scenario(f"{n}v{m}"), BattleConfig())


@functools.cache
def battle(n, m):
    """Return T rows of random observations in one environment.

    Some units are dead, some are unseen, and some actions are not available.
    """
    rng = np.random.default_rng(n + m)
    obs = jax.eval_shape(lambda: empty_obs(spec(n, m), T, 1))

    def noise(x):
        return rng.normal(size=x.shape).astype(np.float32)

    def masked_noise(arrays, masks):
        pairs = zip(arrays, masks, strict=True)
        return tuple(noise(x) * mask[..., None] for x, mask in pairs)

    alive = tuple(rng.random((T, 1, count)) < 0.8 for count in (n, m))
    seen = tuple(rng.random(x.shape) < 0.7 for x in obs.mask)
    avail = (rng.random(obs.avail.shape) < 0.6) & alive[0][..., None]
    avail[..., SMAX.own_action("stop")] = True
    state_rows = masked_noise(obs.state.rows, alive)
    return obs.replace(
        own=noise(obs.own) * alive[0][..., None],
        rows=masked_noise(obs.rows, seen),
        mask=seen,
        avail=avail,
        alive=alive[0],
        joined=np.zeros(alive[0].shape, bool),
        unit_class=np.zeros(alive[0].shape, np.int32),
        state=obs.state.replace(
            features=noise(obs.state.features), rows=state_rows, mask=alive
        ),
    )


def padded(obs, n, m):
    """Pad the observations of a battle to teams of n and m units."""

    def pad(x, *sizes):
        """Pad the axes after time and environment."""
        widths = [(0, 0)] * x.ndim
        for axis, size in enumerate(sizes, start=2):
            widths[axis] = (0, size - x.shape[axis])
        return np.pad(x, widths)

    def pad_groups(arrays):
        allies, enemies = arrays
        return pad(allies, n, n - 1), pad(enemies, n, m)

    def pad_teams(arrays):
        allies, enemies = arrays
        return pad(allies, n), pad(enemies, m)

    state = obs.state.replace(
        rows=pad_teams(obs.state.rows), mask=pad_teams(obs.state.mask)
    )
    return obs.replace(
        own=pad(obs.own, n),
        rows=pad_groups(obs.rows),
        mask=pad_groups(obs.mask),
        avail=pad(obs.avail, n, 5 + m),
        alive=pad(obs.alive, n),
        joined=pad(obs.joined, n),
        unit_class=pad(obs.unit_class, n),
        state=state,
    )


def program(kind, env_spec):
    """Return ``run(agent_params, mixer_params, obs, action) -> (q, {mixer: q_tot})``."""
    agent = make_agent(env_spec, AGENTS[kind])
    mixers = {name: make_mixer(env_spec, cfg) for name, cfg in MIXERS.items()}

    def run(params, mixer_params, obs, action):
        batch = obs.alive.shape[1]
        _, q, _ = agent.apply(
            params, agent.initial(batch), obs, jnp.zeros((T, batch), bool)
        )
        q_tot = {
            name: mixer.apply(mixer_params[name], q, action, obs)
            for name, mixer in mixers.items()
        }
        return q, q_tot

    return run


@functools.cache
def parameters(kind):
    """Return parameters of an agent and of all mixers, initialized for 5 v 5 and perturbed."""
    obs = battle(5, 5)
    agent = make_agent(spec(5, 5), AGENTS[kind])
    keys = iter(jax.random.split(jax.random.key(0), 9))
    params = jax.jit(agent.init)(
        next(keys), agent.initial(1), obs, jnp.zeros((T, 1), bool)
    )
    inputs = (jnp.zeros(obs.avail.shape), jnp.zeros(obs.alive.shape, int), obs)
    mixer_params = {}
    for name, cfg in MIXERS.items():
        mixer = make_mixer(spec(5, 5), cfg)
        mixer_params[name] = jax.jit(mixer.init)(next(keys), *inputs)
    noise = np.random.default_rng(0).normal(size=257)

    def perturb(p):
        return p + 0.2 * np.resize(noise, p.shape).astype(np.float32)

    return jax.tree.map(perturb, (params, mixer_params))


@pytest.mark.parametrize(
    "kind", ["hpn", "saqa", pytest.param("updet", marks=pytest.mark.slow)]
)
def test_one_program_gives_every_env_of_a_mixed_batch_its_own_result(kind):
    traces = []
    padded_program = program(kind, spec(*MOST))

    @jax.jit
    def together(*args):
        traces.append(args)
        return padded_program(*args)

    envs = [battle(*size) for size in SIZES]
    actions = [env.avail.argmax(-1) for env in envs]

    def join(*arrays):
        return np.concatenate(arrays, axis=1)

    def mixed(order):
        obs = [padded(envs[i], *MOST) for i in order]
        action = []
        for i in order:
            absent = MOST[0] - SIZES[i][0]
            action.append(np.pad(actions[i], ((0, 0), (0, 0), (0, absent))))
        return together(*parameters(kind), jax.tree.map(join, *obs), join(*action))

    q, q_tot = mixed([0, 1, 2, 3])
    mixed([3, 3, 1, 2])
    assert len(traces) == 1
    programs = [program(kind, spec(*size)) for size in SIZES]

    @jax.jit
    def separately(params, inputs):
        pairs = zip(programs, inputs, strict=True)
        return [run(*params, obs, action) for run, (obs, action) in pairs]

    inputs = list(zip(envs, actions, strict=True))
    expected = separately(parameters(kind), inputs)
    for i, (n, m) in enumerate(SIZES):
        q_alone, q_tot_alone = expected[i]
        np.testing.assert_allclose(q[:, i : i + 1, :n, : 5 + m], q_alone, atol=1e-5)
        for name in MIXERS:
            np.testing.assert_allclose(
                q_tot[name][:, i : i + 1], q_tot_alone[name], rtol=1e-5, atol=1e-5
            )


MIX = get_scenario("1v2+2v1+2v3")
KEYS = 64


@functools.cache
def initial_states():
    """Return initial states of the mix, and of each of its choices from the same keys."""
    keys = jax.random.split(jax.random.key(0), KEYS)

    def draw(scenario):
        return initial_state(scenario, BattleConfig(), keys)

    return jax.jit(lambda: (draw(MIX), [draw(choice) for choice in MIX.choices]))()


def team_sizes(state):
    exists = np.asarray(state.kind) != ABSENT
    return exists[:, : MIX.n_allies].sum(1), exists[:, MIX.n_allies :].sum(1)


def test_each_episode_of_a_mix_starts_as_one_of_the_choices():
    state, choices = initial_states()
    allies, enemies = team_sizes(state)
    for scenario, alone in zip(MIX.choices, choices, strict=True):
        n = scenario.n_allies
        m = scenario.n_enemies
        drawn = (allies == n) & (enemies == m)
        assert KEYS / 5 < drawn.sum() < KEYS / 2
        units = [*range(n), *range(MIX.n_allies, MIX.n_allies + m)]
        for field in ("position", "kind", "health"):
            mixed_values = getattr(state, field)[:, units][drawn]
            np.testing.assert_array_equal(mixed_values, getattr(alone, field)[drawn])
        n_alive = np.asarray(state.alive).sum(1)
        assert n_alive[drawn].tolist() == [n + m] * drawn.sum()


class Battle(NamedTuple):
    """Results of all steps of a battle."""

    outcome: smax_battle.Outcome
    won: jax.Array
    allies: jax.Array
    """Health of the allies."""
    enemies: jax.Array
    """Health of the enemies."""


def simulate(scenario, state, steps=12):
    """Play a battle in which the allies walk east and attack."""
    config = BattleConfig()

    def step(state, keys):
        obs = smax_battle.observe(scenario, config, state)
        attacks = obs.avail[..., 5:]
        attack = jnp.argmax(attacks, axis=-1) + 5
        walk = jnp.where(obs.alive, 1, SMAX.own_action("stop"))
        action = jnp.where(attacks.any(-1), attack, walk)
        state, outcome = advance(scenario, config, keys, state, action)
        won = smax_battle.allies_won(scenario, state)
        allies = state.health[:, : scenario.n_allies]
        enemies = state.health[:, scenario.n_allies :]
        return state, Battle(outcome, won, allies, enemies)

    keys = jax.random.split(jax.random.key(1), (steps, KEYS))
    _, battle = jax.lax.scan(step, state, keys)
    return battle


@pytest.mark.parametrize("choice", [0, 1])
def test_a_smaller_team_fights_as_in_its_own_scenario(choice):
    """With fewer allies than the mix this holds until an enemy fires.

    Then the weapons draw from other keys.
    """
    state, choices = initial_states()
    scenario = MIX.choices[choice]
    n = scenario.n_allies
    m = scenario.n_enemies
    allies, enemies = team_sizes(state)
    drawn = (allies == n) & (enemies == m)

    @jax.jit
    def both(mixed_state, alone_state):
        return simulate(MIX, mixed_state), simulate(scenario, alone_state)

    mixed, alone = both(state, choices[choice])
    same = drawn & np.ones(len(alone.allies), bool)[:, None]
    if n < MIX.n_allies:
        start = choices[choice].health[None, :, :n]
        health = jnp.concatenate([start, alone.allies])
        same &= np.asarray((health[:-1] == health[0]).all(-1))
    outcome = mixed.outcome._replace(reward=mixed.outcome.reward[..., :n])
    present = Battle(outcome, mixed.won, mixed.allies[..., :n], mixed.enemies[..., :m])
    for a, b in zip(jax.tree.leaves(present), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(np.asarray(a)[same], np.asarray(b)[same], atol=1e-6)
    assert np.asarray(alone.outcome.reward)[same].any()


def test_absent_units_are_masked_and_have_no_action():
    state, _ = initial_states()
    obs = jax.jit(lambda state: smax_battle.observe(MIX, BattleConfig(), state))(state)
    exists = np.asarray(state.kind) != ABSENT
    agents = exists[:, : MIX.n_allies]
    enemies = exists[:, MIX.n_allies :]
    np.testing.assert_array_equal(obs.avail.any(-1), agents)
    np.testing.assert_array_equal(obs.alive, agents)
    np.testing.assert_array_equal(obs.state.mask[0], agents)
    np.testing.assert_array_equal(obs.state.mask[1], enemies)
    assert not (np.asarray(obs.mask[1]) & ~enemies[:, None]).any()
    assert not np.asarray(obs.mask[1])[~agents].any()
    assert not np.asarray(obs.own)[~agents].any()


def test_names_of_several_sizes_are_parsed_and_checked():
    env = make("smax_3m+8m+5v6")
    assert env.spec.n_agents == 8
    assert env.spec.n_actions == 5 + 8
    limited = make("smax_3m+8m", smac_limit=True, exact_limit=True)
    assert limited.spec.episode_limit == 120
    assert load_config("vdn", ["env=smax_3m+8m"]).env == {"name": "smax_3m+8m"}
    with pytest.raises(ValueError, match="smax_3m\\+oops"):
        make("smax_3m+oops")


def test_absent_units_are_not_drawn():
    state, _ = initial_states()
    for i, (n, m) in enumerate(zip(*team_sizes(state), strict=True)):
        env_state = jax.tree.map(lambda x, i=i: np.asarray(x)[i], state)
        discs = make("smax_1v2+2v1+2v3").scene(env_state).discs
        colors = [disc.color for disc in discs]
        assert colors == [ALLY_COLOR] * n + [ENEMY_COLOR] * m
