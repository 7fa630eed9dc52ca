"""Scripted players of football: their rules, on recordings and in known situations."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recordings import SCENARIOS, load_recordings, split_name

from jmarl.config import ConfigError
from jmarl.envs.football.core.setup import first_world
from jmarl.envs.football.football_env import make_setup
from jmarl.envs.football.football_records import check_frames, restore, sticky_rows
from jmarl.envs.football.football_scripts import (
    SCRIPTS,
    RunShoot,
    Sight,
    look,
    make_player,
    make_script,
    run_shoot,
)
from jmarl.envs.football.views.entity_view import observe, spec
from jmarl.envs.registry import players_of


def frames_of(record):
    """Return the situations in which a recorded player acted."""
    steps = len(record["actions"])
    frames = {name: rows[:steps] for name, rows in record.items() if name != "actions"}
    sticky = sticky_rows(record["actions"])[:steps]
    return frames | {"sticky": sticky, "step": np.arange(steps)}


def observe_frames(setup, frames):
    """Return the observations of recorded situations, all in one batch."""
    step = frames.pop("step")
    frames = check_frames(setup, frames, len(step))
    noise = jnp.zeros((setup.n_players, 2, len(step)))
    world = first_world(
        setup,
        noise,
        jnp.zeros(len(step), bool),
    )
    world = restore(setup, world, frames).replace(steps=jnp.asarray(step))
    return jax.jit(observe, static_argnums=0)(setup, world)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_rules_give_every_action_of_every_recording(scenario):
    records = {
        name: record
        for name, record in load_recordings().items()
        if split_name(name)[0] == scenario and "run_shoot" in name
    }
    assert len(records) == 8  # four scripts, two seeds
    setup = make_setup(scenario, {})
    rows = [frames_of(record) for record in records.values()]
    together = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    obs = observe_frames(setup, together)
    ends = np.cumsum([len(record["actions"]) for record in records.values()])
    actions = {}
    for (name, record), end in zip(
        records.items(),
        ends,
        strict=True,
    ):
        script = split_name(name)[1]
        if script not in actions:
            act = jax.jit(make_script(setup, script))
            actions[script] = np.asarray(act(obs, jax.random.key(0)))
        chosen = actions[script][end - len(record["actions"]) : end]
        assert np.array_equal(chosen, record["actions"]), name


def sight(**facts):
    defaults = {
        "x": 0.5,
        "y": 0.0,
        "owns": False,
        "toward_x": 0.0,
        "toward_y": 0.0,
        "sprints": False,
        "step": 10,
    }
    return Sight(**{k: jnp.asarray([v]) for k, v in (defaults | facts).items()})


RIGHT = {"toward_x": 1.0}
RULE = RunShoot(0.3, passes=False, sprints=True)


@pytest.mark.parametrize(
    ("rule", "facts", "action"),
    [
        (RULE, {}, 5),
        (RULE, RIGHT, 13),
        (RULE, RIGHT | {"sprints": True}, 0),
        (RULE._replace(sprints=False), RIGHT, 0),
        (RULE, {"owns": True}, 5),
        (RULE, {"x": 0.75, "owns": True}, 12),
        (RULE, {"x": 0.75}, 5),
        (RULE, {"x": 0.9, "y": -0.1}, 6),
        (RULE, {"x": 0.9, "y": 0.1}, 4),
        (RULE, {"x": 1.0, "y": 0.1}, 3),
        (RULE, {"x": 1.0, "y": -0.1}, 7),
        (RULE, {"x": 1.01}, 1),
        (
            RULE._replace(passes=True),
            {"owns": True, "step": 2},
            11,
        ),
        (
            RULE._replace(passes=True),
            {"owns": True, "step": 3},
            5,
        ),
        (
            RULE._replace(passes=True),
            {"step": 0},
            5,
        ),
    ],
)
def test_the_first_rule_that_applies_decides(rule, facts, action):
    assert run_shoot(rule, sight(**facts)).tolist() == [action]


def near_goal(setup):
    """Return observations of a state: agent 0 runs right, agent 1 has the ball near the goal."""
    world = first_world(
        setup,
        jnp.zeros((setup.n_players, 2, 1)),
        jnp.zeros(1, bool),
    )
    world = world.replace(
        direction=world.direction.at[1].set(5),
        x=world.x.at[2].set(50.0),
        y=world.y.at[2].set(-5.0),
        sprint=world.sprint.at[2].set(True),
        dribble=world.dribble.at[1].set(True),
        owner=jnp.int8([2]),
        steps=jnp.int32([7]),
    )
    return jax.jit(observe, static_argnums=0)(setup, world)


def test_facts_are_read_from_the_observation():
    setup = make_setup("pass_and_shoot_with_keeper", {})
    seen = jax.tree.map(
        lambda x: x[0],
        look(setup, near_goal(setup)),
    )
    assert jnp.allclose(
        seen.x,
        jnp.asarray([38.5, 50.0]) / 54.4,
    )
    assert jnp.allclose(
        seen.y,
        jnp.asarray([0.0, -5.0]) / 83.6,
    )
    assert seen.owns.tolist() == [False, True]
    assert seen.sprints.tolist() == [False, True]
    toward = jnp.stack([seen.toward_x, seen.toward_y])
    assert toward.tolist() == [
        [1.0, 0.0],
        [0.0, 0.0],
    ]
    assert seen.step.tolist() == [7]


def test_random_draws_all_actions_and_builtin_ai_draws_none():
    setup = make_setup("3_vs_1_with_keeper", {})
    obs = SimpleNamespace(alive=jnp.ones((1000, 3), bool))
    draw = make_script(setup, "random")(obs, jax.random.key(0))
    counts = np.bincount(np.ravel(draw), minlength=19)
    assert counts.sum() == 3000 and len(counts) == 19
    assert abs(counts - 3000 / 19).max() < 4.5 * np.sqrt(3000 / 19)
    scripted = make_script(setup, "builtin_ai")(obs, jax.random.key(0))
    assert scripted.shape == (1000, 3) and (scripted == -1).all()


def test_aimed_passes_have_other_indices():
    setup = make_setup("3_vs_1_with_keeper", {"passes": "aimed"})
    obs = near_goal(setup)
    action = make_script(setup, "run_shoot_0.3")(obs, jax.random.key(0))
    assert action.tolist() == [[10, 9, 6]]  # sprint, shot, bottom_right
    random = make_script(setup, "random")(obs, jax.random.key(0))
    assert random.shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "run_shot_0.3", "script=run_shot_0.3: unknown script; did you mean run_"),
        (
            {},
            "walk",
            r"script=walk: unknown script; expected \[pass_then_\]run_shoot_<R>",
        ),
        ({"obs": "cds"}, "run_shoot_0.3", "env.obs=cds has no entities; use entity"),
        (
            {"passes": "aimed"},
            "pass_then_run_shoot_0.3",
            "needs env.passes=grf, got aimed",
        ),
    ],
)
def test_a_script_that_cannot_act_is_an_error(options, name, message):
    with pytest.raises(ConfigError, match=message):
        make_script(make_setup("3_vs_1_with_keeper", options), name)


def test_jmarl_play_has_the_same_scripts():
    assert players_of("football_corner").names == SCRIPTS
    setup = make_setup("3_vs_1_with_keeper", {})
    obs, key = near_goal(setup), jax.random.key(3)
    for name in (*SCRIPTS, "run_shoot_0.21"):
        act = make_player(name, spec(setup))
        assert jnp.array_equal(
            act(key, obs),
            make_script(setup, name)(obs, key),
        )
    with pytest.raises(ConfigError, match="player=focus: unknown player"):
        make_player("focus", spec(setup))
