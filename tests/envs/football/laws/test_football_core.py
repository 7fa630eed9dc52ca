"""Laws of the core of football that need no measurement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmarl.envs.football.core import ball as free_ball
from jmarl.envs.football.core import game_actions as game
from jmarl.envs.football.core import pitch
from jmarl.envs.football.core.match_step import SCRIPTED, advance, n_draws
from jmarl.envs.football.core.player_commands import decode
from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.football_options import FootballConfig
from jmarl.envs.football.scenarios.football_names import get_scenario
from jmarl.envs.football.scenarios.football_scenario import Player, Scenario


KEEPER = Player("GK", -1, 0)


def start(setup, batch=()):
    noise = jnp.zeros((setup.n_players, 2, *batch))
    return first_world(setup, noise, jnp.zeros(batch, bool))


def play(setup, world, actions, key=0):
    """Return the worlds after each of some actions of all agents."""
    step = jax.jit(lambda world, action, draws: advance(setup, world, action, draws))
    batch = world.steps.shape
    worlds = []
    for t, action in enumerate(actions):
        draws_key = jax.random.fold_in(jax.random.key(key), t)
        draws = jax.random.uniform(draws_key, (n_draws(setup), *batch))
        world = step(world, jnp.full((setup.n_left - 1, *batch), action), draws)
        worlds.append(world)
    return worlds


def test_a_single_match_equals_each_match_of_a_batch():
    setup = Setup(get_scenario("3_vs_1_with_keeper"), FootballConfig())
    actions = [game.SPRINT, 5, 5, game.SHORT_PASS, 3, *[game.SHOT] * 5]
    draws = jax.random.uniform(jax.random.key(0), (len(actions), n_draws(setup), 3))
    step = jax.jit(lambda world, action, draws: advance(setup, world, action, draws))
    batch, single = start(setup, (3,)), start(setup)
    for action, draw in zip(actions, draws, strict=True):
        batch = step(batch, jnp.full((3, 3), action), draw)
        single = step(single, jnp.full((3,), action), draw[:, 1])
    for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(a[..., 1], b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("speed", [8.0, 36.0])
def test_posts_and_the_bar_keep_the_ball_out(speed):
    before = jnp.asarray([[54.9, 3.7, 0.5], [54.9, 0.0, 2.5], [54.9, 0.0, 1.0]]).T
    velocity = jnp.asarray([[speed, 0.0, 0.0]] * 3).T
    after = before + 0.02 * velocity
    ball, turned = free_ball.bounce_off_posts(before, after, velocity)
    crossed = after[0] > pitch.HALF_LENGTH
    assert (ball[0, :2] <= pitch.HALF_LENGTH).all()
    np.testing.assert_allclose(
        turned[0, :2], np.where(crossed, -0.8 * speed, speed)[:2], rtol=1e-6
    )
    np.testing.assert_allclose(ball[:, 2], after[:, 2])  # between the posts


def test_a_scripted_agent_is_scripted_with_either_kind_of_passes():
    scenario = get_scenario("3_vs_1_with_keeper")
    for passes in ("grf", "aimed"):
        setup = Setup(scenario, FootballConfig(passes=passes))
        action, _ = decode(setup, jnp.full((3,), SCRIPTED))
        assert (np.asarray(action) == SCRIPTED).all()


def test_lazy_players_do_not_move():
    lazy = Player("CB", -0.5, 0.1, lazy=True)
    scenario = Scenario(
        "lazy", "", (0.3, 0), (KEEPER, Player("CB", 0.28, 0)), (KEEPER, lazy, lazy)
    )
    setup = Setup(scenario, FootballConfig())
    worlds = play(setup, start(setup), [5] * 10)
    np.testing.assert_allclose(worlds[-1].vx[3:], 0.0, atol=1e-6)


def test_a_scripted_dribbler_does_not_stop_while_the_ball_rolls_away():
    rival = Player("CB", -0.12, 0)
    scenario = Scenario(
        "race", "", (0.03, 0), (KEEPER, Player("CF", 0, 0)), (KEEPER, rival)
    )
    setup = Setup(scenario, FootballConfig())
    world = start(setup).replace(
        vx=jnp.asarray([0.0, 4.0, 0.0, -3.0]),
        ball_v=jnp.asarray([5.0, 0.0, 0.0]),
        last_touch=jnp.int8(1),
        steps=jnp.int16(20),
    )
    worlds = play(setup, world, [SCRIPTED] * 4)
    assert float(worlds[-1].vx[1]) > 5.0


def slide_scenario():
    left = (KEEPER, Player("CB", -0.02, 0))
    return Scenario("slide", "", (-0.005, 0), left, (KEEPER, Player("CB", -0.1, 0)))


def test_a_slide_plays_a_near_ball_away():
    setup = Setup(slide_scenario(), FootballConfig())
    world = start(setup)
    slid = play(setup, world, [game.SLIDING])[-1]
    waited = play(setup, world, [0])[-1]
    speeds = [float(jnp.linalg.norm(w.ball_v[:2])) for w in (slid, waited)]
    assert int(slid.last_touch) == 1
    assert speeds[0] > 3.0 > speeds[1]


def test_a_shot_in_the_hands_of_a_keeper_is_no_goal():
    setup = Setup(slide_scenario(), FootballConfig())
    world = start(setup).replace(
        x=jnp.asarray([-54.0, 0.0, 54.9, 10.0]),
        y=jnp.asarray([0.0, 20.0, 0.0, 30.0]),
        ball=jnp.asarray([50.0, 0.0, 1.0]),
        ball_v=jnp.asarray([20.0, 0.0, 1.0]),
        last_touch=jnp.int8(1),
        luck=jnp.float32(0.0),
    )
    worlds = play(setup, world, [0] * 5)
    assert int(worlds[-1].score[0]) == 0
    assert int(worlds[-1].last_touch) == 2
