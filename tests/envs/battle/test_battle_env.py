"""Laws of the battle environment: next-step reset, pool, verdicts, masks, options."""

from __future__ import annotations

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.config import ConfigError
from jmarl.envs import make
from jmarl.envs.battle import env as battle_env
from jmarl.envs.battle import physics, spawn
from jmarl.envs.battle.observe import observe
from jmarl.envs.battle.rules import (
    DT,
    SUBSTEPS,
    UNITS,
    BattleConfig,
    Scenario,
    scenario,
)


SHORT = Scenario(allies=(0, 0), enemies=(0, 0), limit=2)
BATCH = 6


@cache
def short(**options):
    """Two against two, three steps long; compiled once for each set of options."""
    env = battle_env.build("short", SHORT, BattleConfig(**options))
    return env._replace(
        reset=jax.jit(env.reset, static_argnums=1),
        step=jax.jit(env.step),
        refresh=jax.jit(env.refresh),
    )


def play(env, length: int, batch: int = BATCH, action: int = 4):
    """Every unit takes the same action; the states and time steps, reset first."""
    state, timestep = env.reset(jax.random.key(0), batch)
    trace = [(state, timestep)]
    for t in range(length):
        actions = jnp.full((batch, env.spec.n_agents), action)
        trace.append(env.step(jax.random.key(t + 1), trace[-1][0], actions))
    return trace


def twin(defect: str):
    """The mark of a defective twin."""
    return pytest.mark.xfail(
        strict=True, raises=AssertionError, reason=f"defective twin: {defect}"
    )


_advance = jax.jit(battle_env.advance, static_argnums=(0, 1))


def stage(positions, health, kinds=None, scenario_: Scenario = SHORT):
    """One world with units at given places and healths, all weapons ready."""
    kinds = jnp.asarray(
        kinds if kinds is not None else scenario_.allies + scenario_.enemies
    )[None]
    start = spawn.Spawn(jnp.asarray(positions, jnp.float32)[None], kinds)
    return battle_env._fresh(scenario_, start).replace(
        health=jnp.asarray(health, jnp.float32)[None]
    )


def advance(state, action, scenario_: Scenario = SHORT):
    key = jax.random.split(jax.random.key(0), 1)
    return _advance(scenario_, BattleConfig(), key, state, jnp.asarray(action)[None])


def test_first_rows_and_ended_rows_alternate_with_the_limit():
    trace = play(short(exact_limit=True), 7)
    assert [bool(step.first.all()) for _, step in trace] == [True, False, False] * 2 + [
        True,
        False,
    ]
    assert [bool(step.truncated.all()) for _, step in trace] == [
        False,
        False,
        True,
    ] * 2 + [
        False,
        False,
    ]


def test_the_limit_of_smax_is_one_step_more():
    assert battle_env.spec(SHORT, BattleConfig()).episode_limit == 3
    assert battle_env.spec(SHORT, BattleConfig(exact_limit=True)).episode_limit == 2


def test_a_begun_episode_pays_nothing_ignores_the_action_and_is_new():
    env = short(exact_limit=True)
    (before, _), (state, step) = play(env, 3)[-2:]
    other, _ = env.step(jax.random.key(3), before, jnp.zeros((BATCH, 2), int))
    assert not step.reward.any() and not step.last.any() and not state.steps.any()
    assert jnp.array_equal(state.position, other.position)
    assert not jnp.any(state.position == before.position)


def test_only_ended_worlds_begin_anew():
    env = short(exact_limit=True)
    state, _ = env.reset(jax.random.key(0), BATCH)
    state = state.replace(ended=jnp.arange(BATCH) % 2 == 0)
    after, step = env.step(jax.random.key(1), state, jnp.full((BATCH, 2), 4))
    assert jnp.array_equal(step.first, state.ended)
    assert jnp.array_equal(after.steps, jnp.where(state.ended, 0, 1))


def test_pool_starts_are_those_drawn_in_order_and_wrap():
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), BATCH)
    drawn = state.pool.spawn.position
    trace = play(env, 6)
    begun = [state.position for state, step in trace[1:] if bool(step.first.all())]
    assert len(begun) == 2
    for place, number in zip(begun, (0, 1), strict=True):
        assert jnp.array_equal(place, drawn[:, number])
    worn = state.replace(
        ended=~state.ended, pool=state.pool.replace(used=jnp.full(BATCH, 64 + 5))
    )
    again, _ = env.step(jax.random.key(1), worn, jnp.zeros((BATCH, 2), int))
    assert jnp.array_equal(again.position, drawn[:, 5])


def test_refresh_draws_the_pool_anew_by_the_law_of_reset():
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), BATCH)
    again = env.refresh(jax.random.key(1), state)
    assert not again.pool.used.any()
    assert not jnp.any(again.pool.spawn.position == state.pool.spawn.position)
    keys = jax.random.split(jax.random.key(2), BATCH * 64)
    plain = jax.jit(battle_env.begin, static_argnums=(0, 1))(
        SHORT, BattleConfig(), keys
    )
    pooled = again.pool.spawn.position.reshape(-1, 4, 2)
    assert jnp.allclose(pooled.mean(0), plain.position.mean(0), atol=0.3)
    assert jnp.allclose(pooled.std(0), plain.position.std(0), atol=0.2)
    assert (
        float(
            jnp.abs(pooled - jnp.asarray([[8, 16], [8, 16], [24, 16], [24, 16]])).max()
        )
        < 2.5
    )


def test_refresh_without_a_pool_changes_nothing():
    state = stage([[8, 8]] * 4, [45] * 4)
    assert battle_env.refresh(SHORT, BattleConfig(), jax.random.key(1), state) is state


def test_all_enemies_dead_with_an_ally_alive_is_a_win():
    state = stage([[8, 8], [9, 12], [10, 8], [20, 20]], [45, 45, 5, 0])
    after, (reward, terminated, truncated) = advance(state, [5, 4])
    assert (
        bool(battle_env.won(SHORT, after)[0])
        and bool(terminated[0])
        and not bool(truncated[0])
    )
    assert np.isclose(float(reward[0]), 5 / 45 / 2 + 1)


def test_a_draw_is_no_win_and_pays_no_bonus():
    state = stage([[8, 8], [9, 9], [10, 8], [20, 20]], [5, 0, 5, 0])
    after, (reward, terminated, _) = advance(state, [5, 4])
    assert (
        not after.alive.any()
        and bool(terminated[0])
        and not bool(battle_env.won(SHORT, after)[0])
    )
    assert np.isclose(float(reward[0]), 5 / 45 / 2)


def won_as_rewarded(state, reward):
    """The defect: a victory is read off a reward of at least 1."""
    return reward >= 1.0


@pytest.mark.parametrize(
    "judge",
    [
        lambda state, reward: battle_env.won(SHORT, state),
        pytest.param(won_as_rewarded, marks=twin("a win inferred from the reward")),
    ],
)
def test_a_win_is_read_from_the_world_whatever_it_pays(judge):
    """The peers' runs rescale the reward, and its bonus with it."""
    lost = stage([[8, 8], [9, 9], [10, 8], [20, 20]], [5, 0, 5, 0])
    won = stage([[8, 8], [9, 12], [10, 8], [20, 20]], [45, 45, 5, 0])
    for state, verdict in ((lost, False), (won, True)):
        after, (reward, _, _) = advance(state, [5, 4])
        assert [
            bool(judge(after, scale * reward)[0]) for scale in (0.5, 1.0, 40.0)
        ] == [verdict] * 3


def blind_after_death(before, timestep):
    """The defect: what the dead see is masked by who was alive before the new episode began."""
    own = jnp.where(before.alive[:, : SHORT.n_allies, None], timestep.obs.own, 0.0)
    return timestep.replace(obs=timestep.obs.replace(own=own))


@pytest.mark.parametrize(
    "seen",
    [
        lambda before, timestep: timestep,
        pytest.param(
            blind_after_death,
            marks=twin("the first observation of a unit that died is zero"),
        ),
    ],
)
def test_a_unit_that_died_sees_when_the_next_episode_begins(seen):
    env = short(exact_limit=True)
    state, _ = env.reset(jax.random.key(0), BATCH)
    state = state.replace(
        ended=jnp.ones(BATCH, bool), health=state.health.at[:, 0].set(0.0)
    )
    _, timestep = env.step(jax.random.key(1), state, jnp.full((BATCH, 2), 4))
    timestep = seen(state, timestep)
    assert timestep.first.all() and timestep.obs.alive.all()
    assert timestep.obs.own.any(axis=-1).all()


def test_enemies_count_allies_from_the_last_one_backwards():
    state = stage([[8, 8], [12, 8], [10, 8], [25, 25]], [45, 45, 45, 45])
    after, _ = advance(state, [4, 4])
    assert int(after.attack[0, 2]) == 5 and float(after.health[0, 1]) < 45 == float(
        after.health[0, 0]
    )


def test_a_unit_on_the_border_dies():
    state = stage([[0.05, 8], [8, 8], [30, 8], [30, 20]], [45, 45, 45, 45])
    after, _ = advance(state, [3, 4])
    assert list(np.asarray(after.alive[0])) == [False, True, True, True]


def test_no_weapon_fires_twice_in_one_step():
    """The physics makes one draw of the cooldown for each unit and step, which rests on this."""
    assert UNITS.cooldown.min() - DT > (SUBSTEPS - 2) * DT


def test_bodies_are_pushed_alike_one_by_one_and_all_at_once():
    """A CPU takes the first way, an accelerator the second."""
    x, y = jax.random.uniform(jax.random.key(0), (2, 7, 3), maxval=2.0)
    radius = jnp.where(jnp.arange(7)[:, None] == 2, -64.0, 0.5) * jnp.ones((1, 3))
    in_turn, at_once = (
        physics._pushes_in_turn(x, y, radius),
        physics._pushes_at_once(x, y, radius),
    )
    assert np.allclose(in_turn, at_once, atol=1e-5)
    assert not in_turn[0][2].any() and in_turn[0].any()


def test_masks_come_from_the_state_and_the_dead_see_nothing():
    state = stage([[8, 8], [9, 8], [12, 8], [25, 25]], [45, 0, 45, 45])
    obs = observe(SHORT, BattleConfig(), state)
    assert list(np.asarray(obs.alive[0])) == [True, False]
    assert np.asarray(obs.mask[0][0]).tolist() == [[False], [False]]
    assert np.asarray(obs.mask[1][0]).tolist() == [[True, False], [False, False]]
    assert np.asarray(obs.avail[0]).tolist() == [
        [True] * 6 + [False],
        [False] * 4 + [True, False, False],
    ]
    for rows, mask in zip(obs.rows, obs.mask, strict=True):
        assert not jnp.any(rows * ~mask[..., None])
    assert not obs.own[0, 1].any()
    assert np.allclose(obs.rows[1][0, 0, 0, :5], [1, 4 / 9, 0, 0, 0])


def test_action_targets_are_the_enemy_slots():
    env = make("smax_5m_vs_6m")
    assert env.spec.action_target == (-1,) * 5 + tuple(range(4, 10))
    assert [group.size for group in env.spec.groups] == [4, 6]
    assert [group.state_size for group in env.spec.groups] == [5, 6]


def test_central_state_is_bounded_and_has_no_ids():
    env = short(exact_limit=True)
    _, step = env.reset(jax.random.key(0), BATCH)
    rows = jnp.concatenate([r.reshape(-1, r.shape[-1]) for r in step.obs.state.rows])
    assert float(rows.min()) >= 0 and float(rows.max()) <= 1
    assert rows.shape[-1] == env.spec.groups[0].state_width == 10


def test_last_targeted_is_an_option():
    plain, shown = (
        battle_env.spec(SHORT, BattleConfig()),
        battle_env.spec(SHORT, BattleConfig(last_targeted=True)),
    )
    assert shown.groups[0].width == plain.groups[0].width + 1 == 13
    state = stage([[8, 8], [9, 8], [12, 8], [25, 25]], [45] * 4)
    after, _ = advance(state, [5, 4])
    obs = observe(SHORT, BattleConfig(last_targeted=True), after)
    assert float(obs.rows[0][0, 1, 0, 5]) == np.float32(5 / 6)


@cache
def starts(**options):
    """512 starts of 2 against 4 of drawn types."""
    keys = jax.random.split(jax.random.key(0), 512)
    return jax.jit(
        lambda keys: spawn.draw(scenario("2v4"), BattleConfig(**options), keys)
    )(keys)


@cache
def mended():
    return starts(clip_spawns=True, draw_extra_enemies=True, smacv2_surround=True)


def test_off_map_spawns_are_kept_by_default_and_clipped_by_option():
    position = starts().position
    assert 0.001 < float(jnp.mean((position <= 0) | (position >= 32))) < 0.05
    radius = jnp.asarray(UNITS.radius)[mended().kind][..., None]
    assert bool(
        jnp.all((mended().position >= radius) & (mended().position <= 32 - radius))
    )


def test_extra_enemies_are_marines_by_default_and_drawn_by_option():
    assert not starts().kind[:, -2:].any()
    drawn = np.asarray(mended().kind[:, -2:])
    assert np.allclose(
        np.bincount(drawn.ravel(), minlength=6) / drawn.size, 1 / 6, atol=0.05
    )


def test_enemies_have_the_types_of_the_allies():
    kind = starts().kind
    assert jnp.array_equal(kind[:, :2], kind[:, 2:4])
    assert np.allclose(
        np.bincount(np.asarray(kind[:, :2]).ravel(), minlength=6) / kind[:, :2].size,
        1 / 6,
        atol=0.05,
    )


def in_the_centre(position):
    return float(jnp.mean(jnp.all(jnp.abs(position - 16) < 2.7, axis=(1, 2))))


def test_either_team_is_surrounded_by_default_and_the_allies_by_option():
    assert 0.2 < in_the_centre(starts().position[:, :2]) < 0.35
    assert 0.2 < in_the_centre(starts().position[:, 2:]) < 0.35
    assert 0.4 < in_the_centre(mended().position[:, :2]) < 0.6
    assert in_the_centre(mended().position[:, 2:]) < 0.05


def test_limits_of_smac():
    assert make("smax_3m", smac_limit=True, exact_limit=True).spec.episode_limit == 60
    assert make("smax_3m").spec.episode_limit == 101


@pytest.mark.parametrize("size", [1, 2, 40, 1280])
def test_any_team_size_has_a_spec(size):
    spec = make(f"smax_{size}v{size}").spec
    assert (
        spec.n_agents == size
        and spec.n_actions == 5 + size
        and len(spec.action_target) == spec.n_actions
    )
    assert hash(spec) == hash(make(f"smax_{size}v{size}").spec)


@pytest.mark.parametrize(
    "option",
    [
        dict(exact_limit="yes"),
        dict(exact_limit=1),
        dict(reset_pool=1.5),
        dict(reset_pool=True),
    ],
)
def test_options_have_one_type(option):
    with pytest.raises(
        ConfigError, match=f"^env.{next(iter(option))}=.*: expected (bool|int)$"
    ):
        make("smax_3m", **option)


def test_wrong_names_and_options_are_told():
    with pytest.raises(ValueError, match="at most 1280"):
        make("smax_1281v1281")
    with pytest.raises(ValueError, match="clip_spawns"):
        make("smax_3m", clip_spawn=True)
    with pytest.raises(ValueError, match="reset_pool"):
        make("smax_3m", reset_pool=-1)


def absolute_reward(before, after, full, count):
    """The defect: SMAX's and SMAC's absolute value."""
    return jnp.abs(jnp.sum((before - after) / full, axis=0)) / count


@pytest.mark.parametrize(
    "reward",
    [
        battle_env.damage_reward,
        pytest.param(absolute_reward, marks=twin("pays for the enemy's healing")),
    ],
)
def test_healing_the_enemy_pays_nothing(reward):
    full = jnp.full((2, 3), 100.0)
    before = jnp.asarray([[50.0, 50.0, 50.0], [100.0, 100.0, 100.0]])
    after = jnp.asarray([[80.0, 50.0, 40.0], [100.0, 100.0, 80.0]])
    assert jnp.allclose(reward(before, after, full, 2), jnp.asarray([0.0, 0.0, 0.15]))


def test_the_program_does_not_grow_with_the_teams():
    def lines(size):
        env = make(f"smax_{size}v{size}")
        state, _ = jax.eval_shape(lambda key: env.reset(key, 2), jax.random.key(0))
        action = jax.ShapeDtypeStruct((2, size), jnp.int32)
        return (
            jax.jit(env.step)
            .lower(jax.random.key(0), state, action)
            .as_text()
            .count("\n")
        )

    assert lines(40) <= lines(6)


def test_worlds_on_several_devices_do_not_talk():
    mesh = jax.make_mesh(
        (2,),
        ("env",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:2],
    )
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("env"))
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), 8)
    program = env.step.lower(
        jax.random.key(0), *jax.device_put((state, jnp.zeros((8, 2), int)), sharding)
    )
    assert not re.search(
        "all-gather|all-reduce|all-to-all|collective-permute",
        program.compile().as_text(),
    )


def test_seeds_may_be_vmapped():
    env = short(exact_limit=True, reset_pool=64)
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = env.reset(keys[0], BATCH)
    other = state.replace(position=state.position + 0.5, ended=~state.ended)
    states = jax.tree.map(lambda *x: jnp.stack(x), state, other)
    actions = jnp.zeros((2, BATCH, 2), int)
    both = jax.jit(jax.vmap(env.step))(keys, states, actions)
    for seed in range(2):
        one = env.step(
            keys[seed], jax.tree.map(lambda x: x[seed], states), actions[seed]
        )
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
            assert jnp.allclose(a[seed], b, atol=1e-6)
