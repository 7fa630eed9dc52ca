"""Videos of episodes: playing, drawing scenes, and writing files."""

import functools
import io
import os
import pathlib
import resource
import subprocess
import sys
import weakref

import av
import jax
import numpy as np
import packages
import pytest
from PIL import Image

import jmarl
from jmarl.cli.commands import dispatch
from jmarl.config import ConfigError
from jmarl.envs.scene import Disc, Line, Scene
from jmarl.runs.exit_codes import ResourceError
from jmarl.runs.folder import write_config
from jmarl.saved import video
from jmarl.saved.frame import CAPTION_HEIGHT, draw_frame, view
from jmarl.saved.render import play_episode
from jmarl.training.build import build_run


EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"
THREE_SCENES = [
    Scene(16, 16, (Disc(x, 8.0, 1.0, "blue", "m", 1.0),), (), str(x))
    for x in (2.0, 8.0, 14.0)
]


# Episodes and scenes.


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
    start, *_, end = map(env.scene, states)
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
        lines = env.scene(state).lines
        assert len(lines) == who.sum()
        for line, unit in zip(lines, np.flatnonzero(who), strict=True):
            np.testing.assert_allclose(
                [line.x0, line.y0], state.position[unit], rtol=1e-6
            )
            targets = state.position[3:] if unit < 3 else state.position[:3]
            assert np.isclose(targets, [line.x1, line.y1]).all(1).any()


# Frames and files.


def test_a_frame_has_the_colors_at_the_right_pixels():
    disc = Disc(8.0, 4.0, 1.0, "#0000ff", "", 1.0)
    image = draw_frame(
        Scene(16, 8, (disc,), (Line(0, 0, 4, 0.5, "#ff0000"),), "caption"), pixels=160
    )
    assert image.shape == (112, 160, 3)
    assert tuple(image[32 + 42, 78]) == (0, 0, 255)
    empty = draw_frame(Scene(16, 8, (disc._replace(fill=0.0),), (), ""), pixels=160)
    assert tuple(empty[32 + 42, 78]) != (0, 0, 255)


def test_a_frame_does_not_depend_on_the_unit_of_length():
    def frame(unit):
        disc = Disc(8 * unit, 4 * unit, unit, "blue", "m", 0.5)
        line = Line(0, 0, 4 * unit, unit, "red")
        return draw_frame(Scene(16 * unit, 8 * unit, (disc,), (line,), ""), 160)

    np.testing.assert_array_equal(frame(1), frame(1 / 8))


def test_a_bar_is_drawn_only_for_a_disc_with_fill():
    disc = Disc(8.0, 4.0, 1.0, "blue", "")

    def green(fill):
        scene = Scene(16, 8, (disc._replace(fill=fill),), (), "")
        return (draw_frame(scene) == (44, 160, 44)).all(-1).any()

    assert green(0.5) and not green(None)


@pytest.mark.parametrize("height", (3, 97, 239))
def test_a_frame_of_any_shape_has_even_sides(height):
    frame = draw_frame(Scene(240, height, (), (), ""), pixels=240)
    expected = 2 * round(height / 2) + CAPTION_HEIGHT
    assert frame.shape == (expected, 240, 3)


def decoded(file):
    """Return the frames of an MP4 as arrays, and their times in milliseconds."""
    with av.open(file) as container:
        frames = list(container.decode(video=0))
    times = [round(1000 * float(frame.time)) for frame in frames]
    return [frame.to_ndarray(format="rgb24") for frame in frames], times


def test_an_mp4_decodes_to_the_drawn_frames(tmp_path):
    file = tmp_path / "episode.mp4"
    video.write_video(THREE_SCENES, file)
    frames, times = decoded(file)
    assert times == [160 * i for i in range(2 + 10)]
    drawn = [draw_frame(scene) for scene in THREE_SCENES]
    for shown, expected in zip(frames, [*drawn, *[drawn[-1]] * 9], strict=True):
        assert shown.shape == expected.shape == (672, 640, 3)
        assert np.abs(shown.astype(float) - expected).mean() < 2


def test_an_mp4_is_one_that_browsers_play(tmp_path):
    file = tmp_path / "episode.mp4"
    video.write_video(THREE_SCENES, file)
    with av.open(file) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    content = file.read_bytes()
    assert content[4:8] == b"ftyp"
    assert content.index(b"moov") < content.index(b"mdat")


def test_an_mp4_is_written_without_another_process(tmp_path, monkeypatch):
    def started(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(os, "fork", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    video.write_video(THREE_SCENES, tmp_path / "episode.mp4")


def test_a_gif_shows_each_frame_as_long_as_an_mp4(tmp_path):
    file = tmp_path / "episode.gif"
    video.write_video([*THREE_SCENES[:2], *THREE_SCENES[1:]], file)
    durations = [duration for _, duration in shown_frames(file)]
    assert durations == [160, 320, 1600]  # equal frames are merged


def test_an_episode_is_as_fast_as_its_environment(tmp_path):
    gif, mp4 = tmp_path / "a.gif", tmp_path / "a.mp4"
    scenes = [scene._replace(frame_ms=40) for scene in THREE_SCENES]
    for file in (gif, mp4):
        video.write_video(scenes, file)
    assert [duration for _, duration in shown_frames(gif)] == [40, 40, 400]
    assert decoded(mp4)[1] == [40 * i for i in range(2 + 10)]


def shown_frames(file):
    """Return the frames of a GIF as arrays, each with its time in milliseconds."""
    with Image.open(file) as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            yield np.asarray(gif.convert("RGB"), float), gif.info["duration"]


def test_a_gif_shows_the_drawn_frames(tmp_path):
    file = tmp_path / "episode.gif"
    video.write_video(THREE_SCENES, file)
    frames = shown_frames(file)
    for (shown, _), scene in zip(frames, THREE_SCENES, strict=True):
        error = np.abs(shown - draw_frame(scene))
        assert error.mean() < 0.1 and error.max() < 80


@pytest.mark.parametrize("step", range(3))
def test_a_png_is_the_frame_of_a_video(tmp_path, step):
    file = tmp_path / "step.png"
    scenes = [scene._replace(zoom=True, width=40) for scene in THREE_SCENES]
    video.write_video(scenes, file, step=step)
    with Image.open(file) as png:
        shown = np.asarray(png.convert("RGB"))
    expected = draw_frame(scenes[step], part=view(scenes))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(
    "encode",
    [
        lambda frames: video.encode_gif(frames, 100),
        lambda frames: video.encode_mp4(frames, 20, 100),
    ],
)
def test_a_video_holds_one_frame_while_the_next_is_drawn(encode):
    drawn = []

    def draw(index):
        held = sum(frame() is not None for frame in drawn)
        assert held <= 1, f"{held} frames are held"
        frame = np.full((64, 64, 3), 10 * index, np.uint8)
        drawn.append(weakref.ref(frame))
        return frame

    assert encode(map(draw, range(20)))
    assert len(drawn) == 20


def test_the_error_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ConfigError, match=r"mp4 needs PyAV; pip install 'jmarl\[video]"
    ):
        video.check_file(tmp_path / "episode.mp4")
    video.check_file(tmp_path / "episode.gif")


@pytest.mark.parametrize("suffix", ["gif", "mp4", "html"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, suffix):
    file = tmp_path / f"episode.{suffix}"
    file.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(ResourceError) as error:
            video.write_video(THREE_SCENES, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).startswith(f"file={file}: File too large; free space")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        (
            [*THREE_SCENES, None],
            "scene: must return a jmarl.envs.scene.Scene, got NoneType",
        ),
        ([*THREE_SCENES, Scene(8, 16, (), (), "")], "must have the same size"),
        (
            [*THREE_SCENES, THREE_SCENES[0]._replace(frame_ms=100)],
            "must have the same size, frame time and background",
        ),
        ([THREE_SCENES[0]._replace(frame_ms=0)], "frame_ms=0: must be at least 10"),
    ],
)
def test_invalid_scenes_are_named(tmp_path, scenes, says):
    with pytest.raises(ConfigError, match=says):
        video.write_video(scenes, tmp_path / "episode.gif")


# The command.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["file=a.jpg"], "file=a.jpg: must end in .gif, .mp4, .html or .png"),
        (["file=a.png", "step=-1"], "step=-1: must be at least 0"),
        (["step=3"], "step=3: selects the frame of a picture; name file=<name>.png"),
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
    run = folder / "run"
    run.mkdir(exist_ok=True)
    write_config(run, jmarl.load_config("ippo", [f"env={env}"]))
    return run


def test_the_error_without_a_scene_says_what_to_add(tmp_path):
    says = (
        r"env=probe_cue: has no scene to draw; pass a function scene\(state\) -> Scene"
    )
    with pytest.raises(ConfigError, match=says):
        dispatch(["render", f"run={write_run(tmp_path, 'probe_cue')}"])


@pytest.fixture
def _rendezvous(tmp_path, monkeypatch):
    """Install the package of docs/how-to/environment.md."""
    source = (EXAMPLES / "rendezvous.py").read_text()
    (tmp_path / "rendezvous.py").write_text(source)
    packages.install(monkeypatch, tmp_path, (EXAMPLES / "rendezvous.toml").read_text())
    yield
    sys.modules.pop("rendezvous", None)


@pytest.mark.usefixtures("_rendezvous")
def test_an_environment_of_an_installed_package_is_trained_and_drawn(tmp_path, capsys):
    words = [
        "env=rendezvous",
        "env.size=9",
        "num_envs=8",
        "rollout_length=4",
        "total_timesteps=32",
        "system.minibatches=1",
        "network.torso=[4]",
        "eval.episodes=8",
        "eval.every=32",
        "eval.absolute_factor=0",
    ]
    assert dispatch(["envs"]) == 0
    assert "Agents on a line must meet (rendezvous 0.1)" in capsys.readouterr().out
    run = tmp_path / "run"
    assert dispatch(["train", "ippo", *words, f"run_dir={run}"]) == 0
    assert dispatch(["render", f"run={run}"]) == 0
    assert dispatch(["render", f"run={run}", f"file={tmp_path / 'a.mp4'}"]) == 0
    assert dispatch(["render", f"run={run}", f"file={tmp_path / 'a.html'}"]) == 0
    assert '"title":"rendezvous: return' in (tmp_path / "a.html").read_text("utf-8")
    assert f"wrote {run / 'episode.gif'}" in capsys.readouterr().out
    png = f"file={tmp_path / 'a.png'}"
    assert dispatch(["render", f"run={run}", png]) == 0
    with pytest.raises(
        ConfigError, match=r"^step=99: the episode ends at step \d+; name"
    ):
        dispatch(["render", f"run={run}", png, "step=99"])
    frames, _ = decoded(tmp_path / "a.mp4")
    with Image.open(io.BytesIO((run / "episode.gif").read_bytes())) as gif:
        first = np.asarray(gif.convert("RGB"), float)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.abs(first - np.asarray(picture.convert("RGB"))).mean() < 1
    assert (
        first.shape == frames[0].shape == (32 + 214, 640, 3)
    )  # a line of 9 x 3 places
    assert np.abs(first - frames[0]).mean() < 4
