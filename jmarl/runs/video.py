"""Episodes to look at: GIF or MP4 from the scenes of a world."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from jmarl.config import ConfigError
from jmarl.envs.scene import Scene


SUFFIXES = (".gif", ".mp4")


def check_file(file: pathlib.Path) -> None:
    """Raise ``ConfigError`` unless an episode can be written there, in a format that is installed."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"file={file}: must end in {' or '.join(SUFFIXES)}")
    if not file.parent.is_dir() or file.is_dir():
        raise ConfigError(
            f"file={file}: cannot be written; name a file in a folder that exists"
        )
    if file.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise ConfigError(
                f"file={file}: mp4 needs ffmpeg; pip install 'jmarl[video]', or write a .gif"
            ) from None


def frame(scene: Scene, pixels: int = 480) -> UInt8[np.ndarray, "H W 3"]:
    """A scene as an image of ``pixels`` on its longer side, a strip for the caption added."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Rectangle

    unit = pixels / max(scene.width, scene.height)
    # even numbers of pixels, which video formats ask for
    width, height = (2 * round(side * unit / 2) for side in (scene.width, scene.height))
    strip = 32
    figure = Figure(figsize=(width / 100, (height + strip) / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, height / (height + strip)))
    axes.set(
        xlim=(0, scene.width),
        ylim=(0, scene.height),
        xticks=[],
        yticks=[],
        facecolor="#f6f6f2",
    )
    for line in scene.lines:
        axes.plot(
            (line.x0, line.x1),
            (line.y0, line.y1),
            color=line.color,
            linewidth=1.2,
            alpha=0.6,
        )
    for disc in scene.discs:
        there = disc.left > 0
        filled = (
            {"facecolor": disc.color, "alpha": 0.35 + 0.65 * disc.left}
            if there
            else {"facecolor": "none"}
        )
        axes.add_patch(
            Circle(
                (disc.x, disc.y),
                disc.radius,
                edgecolor=disc.color,
                linewidth=1,
                **filled,
            )
        )
        if there:
            axes.text(
                disc.x,
                disc.y,
                disc.label,
                ha="center",
                va="center",
                fontsize=7,
                color="white",
            )
            at, wide = (
                (disc.x - disc.radius, disc.y + 1.2 * disc.radius),
                2 * disc.radius,
            )
            axes.add_patch(Rectangle(at, wide, 0.25, facecolor="#c8c8c8"))
            axes.add_patch(Rectangle(at, wide * disc.left, 0.25, facecolor="tab:green"))
    figure.text(
        0.5,
        (height + strip / 2) / (height + strip),
        scene.caption,
        ha="center",
        va="center",
        fontsize=10,
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write(scenes: Sequence[Scene], file: pathlib.Path, fps: int = 6) -> None:
    """Write an episode, its last scene for 1.5 seconds. Raises ``ConfigError`` as ``check_file`` does."""
    check_file(file)
    images = [frame(scene) for scene in scenes]
    if file.suffix == ".gif":
        from PIL import Image

        first, *others = map(Image.fromarray, images)
        durations = [1000 / fps] * len(others) + [1500.0]
        first.save(
            file, save_all=True, append_images=others, duration=durations, loop=0
        )
        return
    import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

    height, width, _ = images[0].shape
    writer = imageio_ffmpeg.write_frames(
        str(file), (width, height), fps=fps, macro_block_size=2
    )
    writer.send(None)
    for image in images + [images[-1]] * round(1.5 * fps):
        writer.send(np.ascontiguousarray(image))
    writer.close()
