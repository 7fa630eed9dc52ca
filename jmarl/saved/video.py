"""Frames and videos: draw scenes and write them as GIF or MP4."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jmarl.config import ConfigError
from jmarl.envs.scene import Disc, Scene
from jmarl.results.files import replace_file
from jmarl.runs.exit_codes import ResourceError, full_disk_reason


SUFFIXES = (".gif", ".mp4")
CAPTION_HEIGHT = 32
"""Height of the strip with the caption, in pixels."""
FRAME_MS = 160
"""Milliseconds for which a frame is shown; GIF counts in hundredths of a second."""
LAST_FRAMES = 10
"""Number of frames for which the last one is held."""


def check_file(file: pathlib.Path) -> None:
    """Raise ``ConfigError`` if a video cannot be written to this path."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"file={file}: must end in {' or '.join(SUFFIXES)}")
    writable = file.parent.is_dir() and os.access(file.parent, os.W_OK)
    if not writable or file.is_dir():
        raise ConfigError(
            f"file={file}: cannot be written; name a file in a writable folder"
        )
    if file.suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"file={file}: mp4 needs PyAV; "
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
    from matplotlib.patches import Circle

    center = (disc.x, disc.y)
    ring = partial(Circle, center, disc.radius, edgecolor=disc.color, linewidth=1)
    fill = 1.0 if disc.fill is None else disc.fill
    if fill <= 0:
        axes.add_patch(ring(facecolor="none"))
        return
    axes.add_patch(ring(facecolor=disc.color, alpha=0.35 + 0.65 * fill))
    axes.text(*center, disc.label, ha="center", va="center", fontsize=7, color="white")
    if disc.fill is not None:
        _draw_bar(axes, disc, fill)


def _draw_bar(axes: Any, disc: Disc, fill: float) -> None:
    from matplotlib.patches import Rectangle

    corner = (disc.x - disc.radius, disc.y + 1.2 * disc.radius)
    length, height = 2 * disc.radius, 0.5 * disc.radius
    axes.add_patch(Rectangle(corner, length, height, facecolor="#c8c8c8"))
    axes.add_patch(Rectangle(corner, length * fill, height, facecolor="tab:green"))


def write_video(scenes: Sequence[Scene], file: pathlib.Path) -> None:
    """Draw scenes and write them as GIF or MP4, by the suffix of ``file``.

    A file with this name is replaced only when the new one is complete.

    Args:
        scenes: Scenes of the same size, one for each frame; the last one is held.
        file: Path that ends in ``.gif`` or ``.mp4``.

    Raises:
        ConfigError: If the scenes are invalid or the file cannot be written.
        ResourceError: If the disk is full.
    """
    check_file(file)
    _check_scenes(scenes)
    frames = [draw_frame(scene) for scene in scenes]
    encode = encode_gif if file.suffix == ".gif" else encode_mp4
    content = encode(frames)
    try:
        replace_file(file, content)
    except OSError as error:
        raise _write_error(file, error) from None


def _write_error(file: pathlib.Path, error: OSError) -> Exception:
    """Return the error for a file that cannot be written, as one line."""
    if reason := full_disk_reason(error):
        return ResourceError(f"file={file}: {reason}; free space or name another file")
    return ConfigError(f"file={file}: cannot be written ({error.strerror})")


def _check_scenes(scenes: Sequence[Scene]) -> None:
    for scene in scenes:
        kind = type(scene).__name__
        if not isinstance(scene, Scene):
            raise ConfigError(
                f"scene: must return a jmarl.envs.scene.Scene, got {kind}"
            )
    if len({(scene.width, scene.height) for scene in scenes}) > 1:
        raise ConfigError("scene: all states of an episode must have the same size")


def encode_gif(frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> bytes:
    """Return the frames as an animated GIF that repeats."""
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    durations = [FRAME_MS] * len(others) + [FRAME_MS * LAST_FRAMES]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=others, duration=durations, loop=0
    )
    return file.getvalue()


def encode_mp4(frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> bytes:
    """Return the frames as an MP4 (H.264, 4:2:0) with a constant frame rate.

    PyAV encodes in this process. A process that runs JAX must not fork.

    Args:
        frames: Frames with even height and width.
    """
    import av

    shown = [*frames, *[frames[-1]] * (LAST_FRAMES - 1)]
    height, width, _ = frames[0].shape
    file = io.BytesIO()
    # The index goes before the frames, so that a browser plays the file while it loads.
    index_bytes = 4096 + 64 * len(shown)
    options = {"moov_size": str(index_bytes)}
    with av.open(file, "w", format="mp4", options=options) as container:
        rate = Fraction(1000, FRAME_MS)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in shown:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
