"""Teams of several sizes in one batch: one compiled program, and every world as if it were alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl import load_config
from jmarl.envs import make
from jmarl.envs.battle import env as battle_env
from jmarl.envs.battle.drawing import ALLY, ENEMY, scene
from jmarl.envs.battle.rules import STOP, BattleConfig, scenario
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
    return battle_env.spec(scenario(f"{n}v{m}"), BattleConfig())


@functools.cache
def battle(n, m):
    """T rows of one world: numbers of no meaning, some units dead, some unseen, some actions not available."""
    rng, obs = (
        np.random.default_rng(n + m),
        jax.eval_shape(lambda: empty_obs(spec(n, m), T, 1)),
    )
    noise = lambda x: rng.normal(size=x.shape).astype(np.float32)  # noqa: E731
    living = [rng.random((T, 1, k)) < 0.8 for k in (n, m)]
    seen = [rng.random(x.shape) < 0.7 for x in obs.mask]
    avail = (rng.random(obs.avail.shape) < 0.6) & living[0][..., None]
    avail[..., STOP] = True
    state_rows = [
        noise(x) * mask[..., None]
        for x, mask in zip(obs.state.rows, living, strict=True)
    ]
    return obs.replace(
        own=noise(obs.own) * living[0][..., None],
        rows=tuple(
            noise(x) * mask[..., None] for x, mask in zip(obs.rows, seen, strict=True)
        ),
        mask=tuple(seen),
        avail=avail,
        alive=living[0],
        joined=np.zeros(living[0].shape, bool),
        unit_class=np.zeros(living[0].shape, np.int32),
        state=obs.state.replace(
            features=noise(obs.state.features),
            rows=tuple(state_rows),
            mask=tuple(living),
        ),
    )


def padded(obs, n, m):
    """The same battle among teams of at most n and m."""

    def pad(x, counts, axis):
        widths = [(0, 0)] * x.ndim
        for i, count in zip(range(axis, axis + len(counts)), counts, strict=True):
            widths[i] = (0, count - x.shape[i])
        return np.pad(x, widths)

    rows, mask = (
        [pad(x, (n, k), 2) for x, k in zip(xs, (n - 1, m), strict=True)]
        for xs in (obs.rows, obs.mask)
    )
    state_rows, state_mask = (
        tuple(pad(x, (k,), 2) for x, k in zip(xs, (n, m), strict=True))
        for xs in (obs.state.rows, obs.state.mask)
    )
    return obs.replace(
        own=pad(obs.own, (n,), 2),
        rows=tuple(rows),
        mask=tuple(mask),
        avail=pad(obs.avail, (n, 5 + m), 2),
        alive=pad(obs.alive, (n,), 2),
        joined=pad(obs.joined, (n,), 2),
        unit_class=pad(obs.unit_class, (n,), 2),
        state=obs.state.replace(rows=state_rows, mask=state_mask),
    )


def program(kind, of):
    """``(agent's parameters, mixers' parameters, obs, action) -> (q, {mixer: q_tot})``."""
    agent, mixers = (
        make_agent(of, AGENTS[kind]),
        {name: make_mixer(of, cfg) for name, cfg in MIXERS.items()},
    )

    def run(params, mixing, obs, action):
        batch = obs.alive.shape[1]
        _, q = agent.apply(
            params, agent.initial(batch), obs, jnp.zeros((T, batch), bool)
        )
        return q, {
            name: mixer.apply(mixing[name], q, action, obs)
            for name, mixer in mixers.items()
        }

    return run


@functools.cache
def parameters(kind):
    """Of an agent and of all mixers, made at 5 against 5 and shaken."""
    obs, of = battle(5, 5), spec(5, 5)
    agent, keys = (
        make_agent(of, AGENTS[kind]),
        iter(jax.random.split(jax.random.key(0), 9)),
    )
    params = jax.jit(agent.init)(
        next(keys), agent.initial(1), obs, jnp.zeros((T, 1), bool)
    )
    blank = jnp.zeros(obs.avail.shape), jnp.zeros(obs.alive.shape, int), obs
    mixing = {
        name: jax.jit(make_mixer(of, cfg).init)(next(keys), *blank)
        for name, cfg in MIXERS.items()
    }
    noise = np.random.default_rng(0).normal(size=257)
    return jax.tree.map(
        lambda p: p + 0.2 * np.resize(noise, p.shape).astype(np.float32),
        (params, mixing),
    )


@pytest.mark.parametrize("kind", AGENTS)
def test_one_program_runs_a_batch_of_all_sizes_and_gives_each_world_its_own_result(
    kind,
):
    traces, padded_program = [], program(kind, spec(*MOST))

    @jax.jit
    def together(*args):
        traces.append(args)
        return padded_program(*args)

    worlds = [battle(*size) for size in SIZES]
    actions = [w.avail.argmax(-1) for w in worlds]

    def mixed(order):
        obs = [padded(worlds[i], *MOST) for i in order]
        action = [
            np.pad(actions[i], ((0, 0), (0, 0), (0, MOST[0] - SIZES[i][0])))
            for i in order
        ]
        join = lambda *x: np.concatenate(x, axis=1)  # noqa: E731
        return together(*parameters(kind), jax.tree.map(join, *obs), join(*action))

    q, q_tot = mixed([0, 1, 2, 3])
    mixed([3, 3, 1, 2])
    assert len(traces) == 1
    each = [program(kind, spec(*size)) for size in SIZES]
    alone = jax.jit(
        lambda p, inputs: [run(*p, *x) for run, x in zip(each, inputs, strict=True)]
    )
    expected = alone(parameters(kind), list(zip(worlds, actions, strict=True)))
    for i, ((n, m), (q_alone, tot_alone)) in enumerate(
        zip(SIZES, expected, strict=True)
    ):
        np.testing.assert_allclose(q[:, i : i + 1, :n, : 5 + m], q_alone, atol=1e-5)
        for name in MIXERS:
            np.testing.assert_allclose(
                q_tot[name][:, i : i + 1], tot_alone[name], rtol=1e-5, atol=1e-5
            )


MIX = scenario("1v2+2v1+2v3")
KEYS = 64


@functools.cache
def begun():
    """Starts of the mix, and of each of its choices from the same keys."""
    keys = jax.random.split(jax.random.key(0), KEYS)
    draw = lambda rules: battle_env.begin(rules, BattleConfig(), keys)  # noqa: E731
    return jax.jit(lambda: (draw(MIX), [draw(choice) for choice in MIX.choices]))()


def sizes_of(state):
    there = np.asarray(state.kind) != ABSENT
    return there[:, : MIX.n_allies].sum(1), there[:, MIX.n_allies :].sum(1)


def test_an_episode_of_several_sizes_begins_as_one_of_them():
    state, choices = begun()
    allies, enemies = sizes_of(state)
    for rules, alone in zip(MIX.choices, choices, strict=True):
        n, m = rules.n_allies, rules.n_enemies
        drawn = (allies == n) & (enemies == m)
        assert KEYS / 5 < drawn.sum() < KEYS / 2
        units = [*range(n), *range(MIX.n_allies, MIX.n_allies + m)]
        for field in ("position", "kind", "health"):
            np.testing.assert_array_equal(
                getattr(state, field)[:, units][drawn], getattr(alone, field)[drawn]
            )
        assert np.asarray(state.alive).sum(1)[drawn].tolist() == [n + m] * drawn.sum()


def fought(rules, state, steps=12):
    """Allies march and shoot: (outcome, won, health of allies, of enemies) of every step."""

    def step(state, keys):
        obs = battle_env.observe(rules, BattleConfig(), state)
        first = jnp.argmax(obs.avail[..., 5:], axis=-1) + 5
        action = jnp.where(
            obs.avail[..., 5:].any(-1), first, jnp.where(obs.alive, 1, STOP)
        )
        state, outcome = battle_env.advance(rules, BattleConfig(), keys, state, action)
        n = rules.n_allies
        return state, (
            outcome,
            battle_env.won(rules, state),
            state.health[:, :n],
            state.health[:, n:],
        )

    return jax.lax.scan(
        step, state, jax.random.split(jax.random.key(1), (steps, KEYS))
    )[1]


@pytest.mark.parametrize("choice", [0, 1])
def test_a_smaller_team_fights_as_if_nobody_else_could_be_there(choice):
    """The same all along, or until an enemy fires where there are fewer allies: weapons then draw from other keys."""
    state, choices = begun()
    rules = MIX.choices[choice]
    drawn = (np.asarray(sizes_of(state)) == [[rules.n_allies], [rules.n_enemies]]).all(
        0
    )
    mixed, alone = jax.jit(lambda a, b: (fought(MIX, a), fought(rules, b)))(
        state, choices[choice]
    )
    *verdicts, allies, enemies = alone
    same = drawn & np.ones(len(allies), bool)[:, None]
    if rules.n_allies < MIX.n_allies:
        whole = jnp.concatenate(
            [choices[choice].health[None, :, : rules.n_allies], allies]
        )
        same &= np.asarray((whole[:-1] == whole[0]).all(-1))
    pairs = zip(jax.tree.leaves(mixed[:2]), jax.tree.leaves(verdicts), strict=True)
    for a, b in [
        *pairs,
        (mixed[2][..., : rules.n_allies], allies),
        (mixed[3][..., : rules.n_enemies], enemies),
    ]:
        np.testing.assert_allclose(np.asarray(a)[same], np.asarray(b)[same], atol=1e-6)
    assert np.asarray(verdicts[0][0])[same].any()


def test_absent_units_are_masked_and_have_nothing_to_do():
    state, _ = begun()
    obs = jax.jit(lambda state: battle_env.observe(MIX, BattleConfig(), state))(state)
    there = np.asarray(state.kind) != ABSENT
    agents, enemies = there[:, : MIX.n_allies], there[:, MIX.n_allies :]
    np.testing.assert_array_equal(obs.avail.any(-1), agents)
    np.testing.assert_array_equal(obs.alive, agents)
    np.testing.assert_array_equal(obs.state.mask[0], agents)
    np.testing.assert_array_equal(obs.state.mask[1], enemies)
    assert not (np.asarray(obs.mask[1]) & ~enemies[:, None]).any()
    assert (
        not np.asarray(obs.mask[1])[~agents].any()
        and not np.asarray(obs.own)[~agents].any()
    )


def test_names_of_several_sizes_are_parsed_and_wrong_ones_told():
    env = make("smax_3m+8m+5v6")
    assert (env.spec.n_agents, env.spec.n_actions) == (8, 5 + 8)
    assert (
        make("smax_3m+8m", smac_limit=True, exact_limit=True).spec.episode_limit == 120
    )
    assert load_config("vdn", ["env=smax_3m+8m"]).env == {"name": "smax_3m+8m"}
    with pytest.raises(ValueError, match="smax_3m\\+oops"):
        make("smax_3m+oops")


def test_the_absent_are_not_drawn():
    name, (state, _) = "smax_1v2+2v1+2v3", begun()
    for world, (n, m) in enumerate(zip(*sizes_of(state), strict=True)):
        drawn = scene(
            name, jax.tree.map(lambda x, world=world: np.asarray(x)[world], state)
        ).discs
        assert [disc.color for disc in drawn] == [ALLY] * n + [ENEMY] * m
