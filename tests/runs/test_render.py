"""Videos of episodes: playing, drawing scenes, and writing files."""

import functools

import jax
import numpy as np
import pytest

import jmarl
from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.envs import registry
from jmarl.envs.scene import Disc, Line, Scene
from jmarl.runs import render
from jmarl.saved.render import play_episode
from jmarl.training.build import build_run


@functools.cache
def example_episode():
    config = jmarl.load_config("ippo", ["env=smax_3s_vs_5z", "network.torso=[8]"])
    _, env, system = build_run(config)
    params = system.init(jax.random.key(0)).params
    return env, play_episode(env, system, params, jax.random.key(1), greedy=False)


def test_an_episode_runs_from_start_to_end():
    env, (states, result) = example_episode()
    assert not states[0].ended
    assert [bool(s.ended) for s in states[1:]] == [False] * (len(states) - 2) + [True]
    assert [int(s.steps) for s in states] == list(range(len(states)))
    assert set(result) == {"return", *env.spec.outcomes}


def test_a_sampled_episode_uses_the_final_exploration_rate():
    """A value system with a final exploration rate of 0 plays the greedy episode."""
    words = ["env=probe_delayed", "network.memory_width=4", "system.explore_end=0.0"]
    _, env, system = build_run(jmarl.load_config("pqn_vdn", words))
    params = system.init(jax.random.key(0)).params
    for key in map(jax.random.key, range(3)):
        sampled, greedy = (
            play_episode(env, system, params, key, greedy=greedy)
            for greedy in (False, True)
        )
        jax.tree.map(np.testing.assert_array_equal, sampled, greedy)


def test_a_scene_contains_units_health_attacks_and_the_winner():
    env, (states, result) = example_episode()
    scene = functools.partial(registry.scene_of(env.name), env.name)
    start, *_, end = map(scene, states)
    assert [d.label for d in start.discs] == ["s"] * 3 + ["Z"] * 5
    assert (
        len({d.color for d in start.discs[:3]})
        == len({d.color for d in start.discs[3:]})
        == 1
    )
    assert start.discs[0].color != start.discs[3].color
    assert all(d.fill == 1 for d in start.discs)
    dead = [d.fill == 0 for d in end.discs]
    np.testing.assert_array_equal(dead, states[-1].health == 0)
    verdicts = {True: "allies win", False: "enemies win"}
    assert verdicts[bool(result["won"])] in end.caption or "time is up" in end.caption
    attackers = [(s.attack > 0) & (s.health > 0) for s in states]
    assert any(a[:3].any() for a in attackers) and any(a[3:].any() for a in attackers)
    for state, who in zip(states, attackers, strict=True):
        lines = scene(state).lines
        assert len(lines) == who.sum()
        for line, unit in zip(lines, np.flatnonzero(who), strict=True):
            np.testing.assert_allclose(
                [line.x0, line.y0], state.position[unit], rtol=1e-6
            )
            targets = state.position[3:] if unit < 3 else state.position[:3]
            assert np.isclose(targets, [line.x1, line.y1]).all(1).any()


def test_a_frame_has_the_colors_at_the_right_pixels():
    disc = Disc(8.0, 4.0, 1.0, "#0000ff", "", 1.0)
    image = render.draw_frame(
        Scene(16, 8, (disc,), (Line(0, 0, 4, 0.5, "#ff0000"),), "caption"), pixels=160
    )
    assert image.shape == (112, 160, 3)
    assert tuple(image[32 + 42, 78]) == (0, 0, 255)
    empty = render.draw_frame(
        Scene(16, 8, (disc._replace(fill=0.0),), (), ""), pixels=160
    )
    assert tuple(empty[32 + 42, 78]) != (0, 0, 255)


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_scenes_are_written_to_a_file(tmp_path, suffix):
    scenes = [
        Scene(16, 16, (Disc(x, 8.0, 1.0, "blue", "m", 1.0),), (), str(x))
        for x in (2.0, 8.0, 14.0)
    ]
    file = tmp_path / f"episode.{suffix}"
    render.write_video(scenes, file)
    head = file.read_bytes()[:12]
    assert head.startswith(b"GIF89a") if suffix == "gif" else head[4:8] == b"ftyp"
    if suffix == "gif":
        from PIL import Image

        with Image.open(file) as gif:
            assert gif.n_frames == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["file=a.png"], "file=a.png: must end in .gif or .mp4"),
        (["file=nowhere/a.gif"], "file=nowhere/a.gif: cannot be written"),
        (["parameters=worst"], "parameters='worst': must be one of best, latest"),
        (["learner=1"], "learner=1: must"),
    ],
)
def test_invalid_arguments_are_named_in_one_line(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path, "smax_1v1")
    with pytest.raises(ConfigError) as error:
        dispatch(["render", f"run={run}", *words])
    assert str(error.value).startswith(says)


def write_run(folder, env):
    """Create a run folder with a configuration and no checkpoint."""
    from jmarl.runs.folder import write_config

    run = folder / "run"
    run.mkdir(exist_ok=True)
    write_config(run, jmarl.load_config("ippo", [f"env={env}"]))
    return run


def test_an_environment_without_a_scene_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="env=probe_cue: has no scene to draw"):
        dispatch(["render", f"run={write_run(tmp_path, 'probe_cue')}"])


def test_rendering_a_run_writes_a_video(tmp_path, capsys):
    words = [
        "env=smax_1v1",
        "num_envs=8",
        "rollout_length=4",
        "total_timesteps=32",
        "system.minibatches=1",
        "network.torso=[4]",
        "eval.episodes=8",
        "eval.every=32",
        "eval.absolute_factor=0",
    ]
    run = tmp_path / "run"
    assert dispatch(["train", "ippo", *words, f"run_dir={run}"]) == 0
    assert dispatch(["render", f"run={run}"]) == 0
    assert "episode.gif" in capsys.readouterr().out
    assert (run / "episode.gif").read_bytes().startswith(b"GIF89a")
