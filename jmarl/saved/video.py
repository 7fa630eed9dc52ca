"""Frames and videos: draw scenes and write them as GIF or MP4."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jmarl.config import ConfigError
from jmarl.envs.scene import Disc, Scene


SUFFIXES = (".gif", ".mp4")
CAPTION_HEIGHT = 32
"""Height of the strip with the caption, in pixels."""
LAST_FRAME_S = 1.5
"""Seconds for which the last frame is shown."""


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
