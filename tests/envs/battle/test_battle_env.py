"""Tests of the battle environment: next-step reset, pool, outcomes, masks and options."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.support.smax_reference import advance as advance_batch
from benchmarks.support.smax_reference import initial_state
from jmarl.config import ConfigError
from jmarl.envs import make, next_step
from jmarl.envs.battle import unit_pairs
from jmarl.envs.battle.rules import SMAX
from jmarl.envs.battle.scenario import BattleConfig, Scenario, get_scenario
from jmarl.envs.battle.smax import smax_battle, smax_starts
from jmarl.envs.battle.smax.smax_observe import observe
from jmarl.envs.battle.state import Spawn


SHORT = Scenario(allies=(0, 0), enemies=(0, 0), limit=2)
BATCH = 6


@cache
def short(**options):
    """Build 2 against 2 units with a step limit of 2, compiled once for each set of options."""
    env = smax_battle.build("short", SHORT, BattleConfig(**options))
    return env._replace(
        reset=jax.jit(env.reset, static_argnums=1),
        step=jax.jit(env.step),
        refresh=jax.jit(env.refresh),
    )


def play(env, length: int, batch: int = BATCH, action: int = 4):
    """Return the states and time steps of a reset and of steps with one action for all agents."""
    state, timestep = env.reset(jax.random.key(0), batch)
    trace = [(state, timestep)]
    actions = jnp.full((batch, env.spec.n_agents), action)
    for t in range(length):
        state, timestep = env.step(jax.random.key(t + 1), state, actions)
        trace.append((state, timestep))
    return trace


def defective(defect: str):
    """Return the mark of an implementation with a known defect."""
    return pytest.mark.xfail(
        strict=True, raises=AssertionError, reason=f"known defect: {defect}"
    )


_advance_batch = jax.jit(advance_batch, static_argnums=(0, 1))


def one_env(positions, health):
    """Return the state of one environment with given positions and healths, all weapons ready."""
    kinds = jnp.asarray(SHORT.allies + SHORT.enemies)[None]
    start = Spawn(jnp.asarray(positions, jnp.float32)[None], kinds)
    state = smax_battle.state_from_spawn(SHORT, start)
    return state.replace(health=jnp.asarray(health, jnp.float32)[None])


def advance(state, action, scenario=SHORT):
    keys = jax.random.split(jax.random.key(0), 1)
    actions = jnp.asarray(action)[None]
    return _advance_batch(scenario, BattleConfig(), keys, state, actions)


def test_first_and_truncated_rows_alternate_with_the_limit():
    trace = play(short(exact_limit=True), 7)
    first = [bool(timestep.first.all()) for _, timestep in trace]
    truncated = [bool(timestep.truncated.all()) for _, timestep in trace]
    assert first == [True, False, False] * 2 + [True, False]
    assert truncated == [False, False, True] * 2 + [False, False]


def test_smax_limit_is_one_step_longer():
    assert smax_battle.spec(SHORT, BattleConfig()).episode_limit == 3
    assert smax_battle.spec(SHORT, BattleConfig(exact_limit=True)).episode_limit == 2


def test_reset_step_has_no_reward_ignores_the_action_and_draws_a_new_start():
    env = short(exact_limit=True)
    (before, _), (state, timestep) = play(env, 3)[-2:]
    other, _ = env.step(jax.random.key(3), before, jnp.zeros((BATCH, 2), int))
    assert not timestep.reward.any()
    assert not timestep.last.any()
    assert not state.steps.any()
    assert jnp.array_equal(state.position, other.position)
    assert not jnp.any(state.position == before.position)


def test_only_ended_envs_are_reset():
    env = short(exact_limit=True)
    state, _ = env.reset(jax.random.key(0), BATCH)
    state = state.replace(ended=jnp.arange(BATCH) % 2 == 0)
    after, timestep = env.step(jax.random.key(1), state, jnp.full((BATCH, 2), 4))
    assert jnp.array_equal(timestep.first, state.ended)
    assert jnp.array_equal(after.steps, jnp.where(state.ended, 0, 1))


def test_pool_starts_are_used_in_order_and_wrap_around():
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), BATCH)
    drawn = state.pool.starts.position
    starts = [
        state.position
        for state, timestep in play(env, 6)[1:]
        if bool(timestep.first.all())
    ]
    assert len(starts) == 2
    for rank, position in enumerate(starts):
        assert jnp.array_equal(position, drawn[:, rank])
    pool = state.pool.replace(used=jnp.full(BATCH, 64 + 5))
    wrapped = state.replace(ended=~state.ended, pool=pool)
    after, _ = env.step(jax.random.key(1), wrapped, jnp.zeros((BATCH, 2), int))
    assert jnp.array_equal(after.position, drawn[:, 5])


def test_refresh_draws_a_new_pool_with_the_distribution_of_reset():
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), BATCH)
    refreshed = env.refresh(jax.random.key(1), state)
    assert not refreshed.pool.used.any()
    assert not jnp.any(refreshed.pool.starts.position == state.pool.starts.position)
    keys = jax.random.split(jax.random.key(2), BATCH * 64)
    draw = jax.jit(initial_state, static_argnums=(0, 1))
    plain = draw(SHORT, BattleConfig(), keys)
    pooled = refreshed.pool.starts.position.reshape(-1, 4, 2)
    assert jnp.allclose(pooled.mean(0), plain.position.mean(0), atol=0.3)
    assert jnp.allclose(pooled.std(0), plain.position.std(0), atol=0.2)
    centers = jnp.asarray([[8, 16], [8, 16], [24, 16], [24, 16]])
    assert float(jnp.abs(pooled - centers).max()) < 2.5


def test_refresh_without_a_pool_returns_the_state():
    state = one_env([[8, 8]] * 4, [45] * 4)
    battle = smax_battle.make_engine(SHORT, BattleConfig())
    assert next_step.refresh(battle, 0, jax.random.key(1), state) is state


def test_all_enemies_dead_with_an_ally_alive_is_a_win():
    state = one_env([[8, 8], [9, 12], [10, 8], [20, 20]], [45, 45, 5, 0])
    after, (reward, terminated, truncated) = advance(state, [5, 4])
    assert bool(smax_battle.allies_won(SHORT, after)[0])
    assert bool(terminated[0])
    assert not bool(truncated[0])
    assert np.allclose(reward[0], 5 / 45 / 2 + 1)


def test_a_draw_is_not_a_win_and_has_no_bonus():
    state = one_env([[8, 8], [9, 9], [10, 8], [20, 20]], [5, 0, 5, 0])
    after, (reward, terminated, _) = advance(state, [5, 4])
    assert not after.alive.any()
    assert bool(terminated[0])
    assert not bool(smax_battle.allies_won(SHORT, after)[0])
    assert np.allclose(reward[0], 5 / 45 / 2)


def won_by_state(state, reward):
    return smax_battle.allies_won(SHORT, state)


def won_by_reward(state, reward):
    """Infer a win from a reward of at least 1, which is the defect."""
    return reward >= 1.0


@pytest.mark.parametrize(
    "is_win",
    [
        won_by_state,
        pytest.param(won_by_reward, marks=defective("a win inferred from the reward")),
    ],
)
def test_a_win_depends_on_the_state_and_not_on_the_reward(is_win):
    """Other implementations rescale the reward, including its win bonus."""
    lost = one_env([[8, 8], [9, 9], [10, 8], [20, 20]], [5, 0, 5, 0])
    won = one_env([[8, 8], [9, 12], [10, 8], [20, 20]], [45, 45, 5, 0])
    for state, expected in ((lost, False), (won, True)):
        after, outcome = advance(state, [5, 4])
        for scale in (0.5, 1.0, 40.0):
            assert bool(is_win(after, scale * outcome.reward)[0].all()) == expected


def unchanged(before, timestep):
    return timestep


def blind_after_death(before, timestep):
    """Mask observations with the alive flags from before the reset, which is the defect."""
    own = jnp.where(before.alive[:, : SHORT.n_allies, None], timestep.obs.own, 0.0)
    return timestep.replace(obs=timestep.obs.replace(own=own))


@pytest.mark.parametrize(
    "change",
    [
        unchanged,
        pytest.param(
            blind_after_death,
            marks=defective("the first observation of a unit that died is zero"),
        ),
    ],
)
def test_a_dead_unit_observes_again_after_the_reset(change):
    env = short(exact_limit=True)
    state, _ = env.reset(jax.random.key(0), BATCH)
    state = state.replace(
        ended=jnp.ones(BATCH, bool), health=state.health.at[:, 0].set(0.0)
    )
    _, timestep = env.step(jax.random.key(1), state, jnp.full((BATCH, 2), 4))
    timestep = change(state, timestep)
    assert timestep.first.all()
    assert timestep.obs.alive.all()
    assert timestep.obs.own.any(axis=-1).all()


def test_enemies_count_allies_from_the_last_one_backwards():
    state = one_env([[8, 8], [12, 8], [10, 8], [25, 25]], [45, 45, 45, 45])
    after, _ = advance(state, [4, 4])
    assert int(after.attack[0, 2]) == 5
    assert float(after.health[0, 1]) < 45
    assert float(after.health[0, 0]) == 45


def test_a_unit_on_the_border_dies():
    state = one_env([[0.05, 8], [8, 8], [30, 8], [30, 20]], [45, 45, 45, 45])
    after, _ = advance(state, [3, 4])
    assert list(np.asarray(after.alive[0])) == [False, True, True, True]


def test_cooldowns_are_longer_than_an_environment_step():
    """The physics relies on this: it draws one cooldown per unit and environment step."""
    assert min(SMAX.column("cooldown")) > (SMAX.ticks - 1) * SMAX.tick


def test_rules_are_hashable_and_compare_by_value():
    assert hash(SMAX) == hash(dataclasses.replace(SMAX))
    assert dataclasses.replace(SMAX, tick=0.1) != SMAX


def doubled():
    """Return the rules of SMAX with all lengths doubled."""
    lengths = ("speed", "attack_range", "sight_range", "radius")
    units = tuple(
        unit._replace(**{name: 2 * getattr(unit, name) for name in lengths})
        for unit in SMAX.units
    )
    return dataclasses.replace(SMAX, units=units, map_size=2 * SMAX.map_size)


def test_a_battle_with_doubled_lengths_is_the_same_battle():
    """No rule is a constant of the code: each length is read from the rules."""
    big = dataclasses.replace(SHORT, rules=doubled())
    small_state = one_env([[8, 8], [8.5, 9], [12, 8], [12.5, 9]], [45] * 4)
    big_state = small_state.replace(position=2 * small_state.position)
    for action in ([5, 6], [1, 0], [6, 6], [3, 2], [5, 5], [1, 1]):
        small_state, small = advance(small_state, action)
        big_state, large = advance(big_state, action, big)
        halved = big_state.replace(
            position=big_state.position / 2, destination=big_state.destination / 2
        )
        for name in ("position", "destination", "health", "cooldown"):
            expected = getattr(small_state, name)
            assert np.allclose(getattr(halved, name), expected, atol=1e-4), name
        assert np.allclose(large.reward, small.reward, atol=1e-5)
    small_obs = observe(SHORT, BattleConfig(), small_state)
    big_obs = observe(big, BattleConfig(), big_state)
    assert_trees_close(big_obs, small_obs)
    assert float(small_state.health.sum()) < 4 * 45


def assert_trees_close(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    assert all(np.allclose(x, y, atol=1e-4) for x, y in pairs)


def test_both_ways_to_add_damage_agree():
    keys = jax.random.split(jax.random.key(4), 3)
    values = jax.random.uniform(keys[0], (7, 16))
    index = jax.random.randint(keys[1], (7, 16), 0, 7)
    added = jax.random.normal(keys[2], (7, 16))
    in_sequence = unit_pairs.IN_SEQUENCE.add(values, index, added)
    at_once = unit_pairs.AT_ONCE.add(values, index, added)
    np.testing.assert_allclose(at_once, in_sequence, rtol=1e-5, atol=1e-6)
    expected = np.array(values)
    for unit, env in np.ndindex(7, 16):
        expected[index[unit, env], env] += added[unit, env]
    np.testing.assert_allclose(at_once, expected, rtol=1e-5, atol=1e-6)


def test_both_implementations_of_pushes_agree():
    """A CPU adds the pushes one by one, an accelerator all at once."""
    x, y = jax.random.uniform(jax.random.key(0), (2, 7, 3), maxval=2.0)
    radius = jnp.where(jnp.arange(7)[:, None] == 2, -64.0, 0.5) * jnp.ones((1, 3))
    in_sequence = unit_pairs.IN_SEQUENCE.push(x, y, radius)
    at_once = unit_pairs.AT_ONCE.push(x, y, radius)
    assert np.allclose(in_sequence, at_once, atol=1e-5)
    assert not in_sequence[0][2].any()
    assert in_sequence[0].any()


def test_masks_follow_the_state_and_dead_agents_see_nothing():
    state = one_env([[8, 8], [9, 8], [12, 8], [25, 25]], [45, 0, 45, 45])
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
    _, timestep = env.reset(jax.random.key(0), BATCH)
    groups = timestep.obs.state.rows
    rows = jnp.concatenate([rows.reshape(-1, rows.shape[-1]) for rows in groups])
    assert float(rows.min()) >= 0
    assert float(rows.max()) <= 1
    assert rows.shape[-1] == env.spec.groups[0].state_width == 10


def test_last_targeted_adds_a_feature():
    plain = smax_battle.spec(SHORT, BattleConfig())
    shown = smax_battle.spec(SHORT, BattleConfig(last_targeted=True))
    assert shown.groups[0].width == plain.groups[0].width + 1 == 13
    state = one_env([[8, 8], [9, 8], [12, 8], [25, 25]], [45] * 4)
    after, _ = advance(state, [5, 4])
    obs = observe(SHORT, BattleConfig(last_targeted=True), after)
    assert float(obs.rows[0][0, 1, 0, 5]) == np.float32(5 / 6)


@cache
def starts(**options):
    """Draw 512 starts of 2 against 4 units of random types."""
    keys = jax.random.split(jax.random.key(0), 512)
    draw = jax.jit(smax_starts.draw_spawns, static_argnums=(0, 1))
    return draw(get_scenario("2v4"), BattleConfig(**options), keys)


@cache
def corrected_starts():
    return starts(clip_spawns=True, draw_extra_enemies=True, smacv2_surround=True)


def test_spawns_off_the_map_are_clipped_only_by_option():
    position = starts().position
    assert 0.001 < float(jnp.mean((position <= 0) | (position >= 32))) < 0.05
    clipped = corrected_starts().position
    radius = jnp.asarray(SMAX.column("radius"))[corrected_starts().kind][..., None]
    assert bool(jnp.all((clipped >= radius) & (clipped <= 32 - radius)))


def test_extra_enemies_are_marines_unless_drawn_by_option():
    assert not starts().kind[:, -2:].any()
    drawn = np.asarray(corrected_starts().kind[:, -2:])
    assert np.allclose(type_frequencies(drawn), 1 / 6, atol=0.05)


def test_enemies_have_the_types_of_the_allies():
    kind = np.asarray(starts().kind)
    assert np.array_equal(kind[:, :2], kind[:, 2:4])
    assert np.allclose(type_frequencies(kind[:, :2]), 1 / 6, atol=0.05)


def type_frequencies(kind):
    return np.bincount(kind.ravel(), minlength=6) / kind.size


def share_in_center(position):
    """Return the share of environments in which all given units are in the center."""
    return float(jnp.mean(jnp.all(jnp.abs(position - 16) < 2.7, axis=(1, 2))))


def test_only_allies_are_surrounded_with_the_smacv2_option():
    assert 0.2 < share_in_center(starts().position[:, :2]) < 0.35
    assert 0.2 < share_in_center(starts().position[:, 2:]) < 0.35
    assert 0.4 < share_in_center(corrected_starts().position[:, :2]) < 0.6
    assert share_in_center(corrected_starts().position[:, 2:]) < 0.05


def test_smac_limits():
    assert make("smax_3m", smac_limit=True, exact_limit=True).spec.episode_limit == 60
    assert make("smax_3m").spec.episode_limit == 101


@pytest.mark.parametrize("size", [1, 2, 40, 1280])
def test_any_team_size_has_a_spec(size):
    spec = make(f"smax_{size}v{size}").spec
    assert spec.n_agents == size
    assert spec.n_actions == 5 + size
    assert len(spec.action_target) == spec.n_actions
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
def test_options_of_a_wrong_type_are_rejected(option):
    (name,) = option
    with pytest.raises(ConfigError, match=f"^env.{name}=.*: expected (bool|int)$"):
        make("smax_3m", **option)


def test_errors_name_wrong_sizes_and_options():
    with pytest.raises(ValueError, match="at most 1280"):
        make("smax_1281v1281")
    with pytest.raises(ValueError, match="clip_spawns"):
        make("smax_3m", clip_spawn=True)
    with pytest.raises(ValueError, match="reset_pool"):
        make("smax_3m", reset_pool=-1)


def absolute_reward(before, after, full, count):
    """Take the absolute value as SMAX and SMAC do, which is the defect."""
    return jnp.abs(jnp.sum((before - after) / full, axis=0)) / count


@pytest.mark.parametrize(
    "reward",
    [
        smax_battle.damage_reward,
        pytest.param(absolute_reward, marks=defective("pays for the enemy's healing")),
    ],
)
def test_healing_an_enemy_has_no_reward(reward):
    full = jnp.full((2, 3), 100.0)
    before = jnp.asarray([[50.0, 50.0, 50.0], [100.0, 100.0, 100.0]])
    after = jnp.asarray([[80.0, 50.0, 40.0], [100.0, 100.0, 80.0]])
    assert jnp.allclose(reward(before, after, full, 2), jnp.asarray([0.0, 0.0, 0.15]))


def test_program_size_does_not_depend_on_team_size():
    def lines(size):
        env = make(f"smax_{size}v{size}")
        state, _ = jax.eval_shape(lambda key: env.reset(key, 2), jax.random.key(0))
        action = jax.ShapeDtypeStruct((2, size), jnp.int32)
        program = jax.jit(env.step).lower(jax.random.key(0), state, action)
        return program.as_text().count("\n")

    assert lines(40) <= lines(6)


def test_step_on_several_devices_has_no_collectives():
    mesh = jax.make_mesh(
        (2,),
        ("env",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:2],
    )
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("env"))
    env = short(exact_limit=True, reset_pool=64)
    state, _ = env.reset(jax.random.key(0), 8)
    arguments = jax.device_put((state, jnp.zeros((8, 2), int)), sharding)
    program = env.step.lower(jax.random.key(0), *arguments)
    collectives = "all-gather|all-reduce|all-to-all|collective-permute"
    assert not re.search(collectives, program.compile().as_text())


def test_step_can_be_vmapped_over_seeds():
    env = short(exact_limit=True, reset_pool=64)
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = env.reset(keys[0], BATCH)
    other = state.replace(position=state.position + 0.5, ended=~state.ended)
    states = jax.tree.map(lambda *x: jnp.stack(x), state, other)
    actions = jnp.zeros((2, BATCH, 2), int)
    both = jax.jit(jax.vmap(env.step))(keys, states, actions)
    for seed in range(2):
        single = jax.tree.map(lambda x: x[seed], states)
        one = env.step(keys[seed], single, actions[seed])
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
            assert jnp.allclose(a[seed], b, atol=1e-6)
