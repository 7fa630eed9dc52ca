"""Videos of episodes: play one episode of a run, draw its scenes, write GIF or MP4."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jmarl.config import ConfigError, check, check_range
from jmarl.envs import registry
from jmarl.envs.scene import Disc, Scene
from jmarl.runs import folder as run_folder
from jmarl.runs.evaluate_saved import PARAMETERS
from jmarl.runs.warm_start import restore_params
from jmarl.system import System
from jmarl.training.anakin import Actor, act_and_step
from jmarl.training.build import build_run
from jmarl.training.evaluation import MODES, exploration_rates
from jmarl.types import Env, Key, Params


SUFFIXES = (".gif", ".mp4")
CAPTION_HEIGHT = 32
"""Height of the strip with the caption, in pixels."""
LAST_FRAME_S = 1.5
"""Seconds for which the last frame is shown."""


def render_run(
    run: str,
    *,
    file: str = "",
    parameters: str = "best",
    learner: int = 0,
    seed: int = 0,
    greedy: bool = True,
) -> int:
    """Play one episode with the parameters of a run and write it as GIF or MP4.

    Args:
        run: Path of the run folder.
        file: Path of the video; by default ``episode.gif`` in the run folder.
        parameters: ``best`` for those of the best evaluation, or ``latest``.
        learner: Index of the seed of the run, from 0.
        seed: Seed of the episode.
        greedy: Act greedily instead of sampling.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: If an argument is invalid, the run has no checkpoint, or the
            environment cannot be drawn.
    """
    choices = ", ".join(PARAMETERS)
    check(
        parameters in PARAMETERS, "parameters", parameters, f"must be one of {choices}"
    )
    check_range("seed", seed, 0, 2**32 - 1)
    folder = run_folder.find_folder("run", run)
    config = run_folder.read_config(folder)
    check_range("learner", learner, 0, config.num_seeds - 1)
    path = pathlib.Path(file) if file else folder / "episode.gif"
    draw = scene_function(str(config.env["name"]))
    check_file(path)
    _, env, system = build_run(config)
    params, _ = restore_params(config, folder, parameters)
    params = jax.tree.map(lambda x: x[learner], params)
    key = jax.random.key(seed)
    states, result = play_episode(env, system, params, key, greedy=greedy)
    write_video([draw(state) for state in states], path)
    text = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    print(f"{len(states) - 1} steps, {text}; wrote {path}", flush=True)
    return 0


def scene_function(name: str) -> Callable[[Any], Scene]:
    """Return the function from a state of an environment to its scene.

    Raises:
        ConfigError: If the environment has none.
    """
    scene = registry.scene_of(name)
    if scene is None:
        raise ConfigError(
            f"env={name}: has no scene to draw; "
            "register one as in docs/how-to/environment.md, or render another environment"
        )
    return partial(scene, name)


def play_episode(
    env: Env, system: System, params: Params, key: Key, *, greedy: bool = True
) -> tuple[list[Any], dict[str, float]]:
    """Play one episode in one environment.

    Args:
        env: Environment of the episode.
        system: Provides ``act`` and the exploration rate of sampled episodes.
        params: Parameters of one seed.
        key: Random key.
        greedy: Act greedily instead of sampling.

    Returns:
        The environment states from start to end, as NumPy arrays without a batch axis,
        and the return and outcomes.
    """
    mode = MODES.index("greedy" if greedy else "sampled")

    def play(params: Params, key: Key) -> Any:
        k_reset, k_steps = jax.random.split(key)
        start, timestep = env.reset(k_reset, 1)
        explore = exploration_rates(system)[mode]

        def step(actor: Actor, key: Key) -> Any:
            keys = jax.random.split(key)
            actor, _, _ = act_and_step(env, system, params, actor, keys, explore)
            after = actor.timestep
            reward = after.obs.team_mean(after.reward)
            return actor, (actor.env_state, reward, after.last, after.info)

        actor = Actor(start, timestep, system.carry(1))
        keys = jax.random.split(k_steps, env.spec.episode_limit + 1)
        _, trace = jax.lax.scan(step, actor, keys)
        return start, trace

    start, trace = jax.device_get(jax.jit(play)(params, key))
    states, reward, last, info = trace  # [T, 1, ...]
    length = int(np.argmax(last[:, 0])) + 1
    result = {"return": float(reward[:length].sum())}
    result |= {name: float(info[name][length - 1, 0]) for name in env.spec.outcomes}
    first = jax.tree.map(lambda x: x[0], start)
    others = [jax.tree.map(lambda x, t=t: x[t, 0], states) for t in range(length)]
    return [first, *others], result


def check_file(file: pathlib.Path) -> None:
    """Raise ``ConfigError`` if a video cannot be written to this path."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"file={file}: must end in {' or '.join(SUFFIXES)}")
    if not file.parent.is_dir() or file.is_dir():
        raise ConfigError(
            f"file={file}: cannot be written; name a file in an existing folder"
        )
    if file.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise ConfigError(
                f"file={file}: mp4 needs ffmpeg; "
                "pip install 'jmarl[video]', or write a .gif"
            ) from None


def draw_frame(scene: Scene, pixels: int = 480) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a scene, with a strip for the caption above it.

    Args:
        scene: Scene to draw.
        pixels: Length of the longer side without the caption.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    unit = pixels / max(scene.width, scene.height)
    # video formats require even numbers of pixels
    width = 2 * round(scene.width * unit / 2)
    height = 2 * round(scene.height * unit / 2)
    total = height + CAPTION_HEIGHT
    figure = Figure(figsize=(width / 100, total / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, height / total))
    axes.set(
        xlim=(0, scene.width),
        ylim=(0, scene.height),
        xticks=[],
        yticks=[],
        facecolor="#f6f6f2",
    )
    for line in scene.lines:
        x = (line.x0, line.x1)
        y = (line.y0, line.y1)
        axes.plot(x, y, color=line.color, linewidth=1.2, alpha=0.6)
    for disc in scene.discs:
        _draw_disc(axes, disc)
    middle = (height + CAPTION_HEIGHT / 2) / total
    figure.text(0.5, middle, scene.caption, ha="center", va="center", fontsize=10)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_disc(axes: Any, disc: Disc) -> None:
    """Draw a disc with its label and bar; an empty one is a ring."""
    from matplotlib.patches import Circle, Rectangle

    center = (disc.x, disc.y)
    ring = partial(Circle, center, disc.radius, edgecolor=disc.color, linewidth=1)
    if disc.fill <= 0:
        axes.add_patch(ring(facecolor="none"))
        return
    axes.add_patch(ring(facecolor=disc.color, alpha=0.35 + 0.65 * disc.fill))
    axes.text(*center, disc.label, ha="center", va="center", fontsize=7, color="white")
    corner = (disc.x - disc.radius, disc.y + 1.2 * disc.radius)
    length = 2 * disc.radius
    axes.add_patch(Rectangle(corner, length, 0.25, facecolor="#c8c8c8"))
    axes.add_patch(Rectangle(corner, length * disc.fill, 0.25, facecolor="tab:green"))


def write_video(scenes: Sequence[Scene], file: pathlib.Path, fps: int = 6) -> None:
    """Draw scenes and write them as GIF or MP4, by the suffix of ``file``.

    The last frame is shown for ``LAST_FRAME_S`` seconds.

    Raises:
        ConfigError: If the file cannot be written.
    """
    check_file(file)
    frames = [draw_frame(scene) for scene in scenes]
    if file.suffix == ".gif":
        _write_gif(frames, file, fps)
    else:
        _write_mp4(frames, file, fps)


def _write_gif(frames: list[np.ndarray], file: pathlib.Path, fps: int) -> None:
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    durations_ms = [1000 / fps] * len(others) + [1000 * LAST_FRAME_S]
    first.save(file, save_all=True, append_images=others, duration=durations_ms, loop=0)


def _write_mp4(frames: list[np.ndarray], file: pathlib.Path, fps: int) -> None:
    import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

    height, width, _ = frames[0].shape
    size = (width, height)
    writer = imageio_ffmpeg.write_frames(str(file), size, fps=fps, macro_block_size=2)
    writer.send(None)
    for frame in frames + [frames[-1]] * round(LAST_FRAME_S * fps):
        writer.send(np.ascontiguousarray(frame))
    writer.close()
