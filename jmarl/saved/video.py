"""Files of episodes: draw scenes and write them as GIF, MP4, or an HTML page."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Sequence
from fractions import Fraction

from jmarl.config import ConfigError
from jmarl.envs.scene import Scene
from jmarl.results.files import replace_file
from jmarl.runs.exit_codes import ResourceError, full_disk_reason
from jmarl.saved.frame import Image, draw_frame, view
from jmarl.saved.page import encode_html


SUFFIXES = (".gif", ".mp4", ".html")
FRAME_MS = 160
"""Milliseconds for which a frame is shown; GIF counts in hundredths of a second."""
LAST_FRAMES = 10
"""Number of frames for which the last one is held."""


def check_file(file: pathlib.Path) -> None:
    """Raise ``ConfigError`` if a video cannot be written to this path."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"file={file}: must end in .gif, .mp4 or .html")
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


def write_video(scenes: Sequence[Scene], file: pathlib.Path, title: str = "") -> None:
    """Write an episode as GIF, MP4 or HTML, by the suffix of ``file``.

    A file with this name is replaced only when the new one is complete.

    Args:
        scenes: Scenes of the same size, one for each frame; a video holds the last one.
        file: Path that ends in ``.gif``, ``.mp4`` or ``.html``.
        title: Title of a page.

    Raises:
        ConfigError: If the scenes are invalid or the file cannot be written.
        ResourceError: If the disk is full.
    """
    check_file(file)
    _check_scenes(scenes)
    if file.suffix == ".html":
        content = encode_html(scenes, title, FRAME_MS)
    else:
        content = _encode_video(scenes, file.suffix)
    try:
        replace_file(file, content)
    except OSError as error:
        raise _write_error(file, error) from None


def _encode_video(scenes: Sequence[Scene], suffix: str) -> bytes:
    part = view(scenes)
    frames = [draw_frame(scene, part=part) for scene in scenes]
    return encode_gif(frames) if suffix == ".gif" else encode_mp4(frames)


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


def encode_png(frame: Image) -> bytes:
    """Return a frame as PNG."""
    from PIL.Image import fromarray

    file = io.BytesIO()
    fromarray(frame).save(file, "PNG")
    return file.getvalue()


def encode_gif(frames: Sequence[Image]) -> bytes:
    """Return the frames as an animated GIF that repeats."""
    from PIL.Image import fromarray

    first, *others = map(fromarray, frames)
    durations = [FRAME_MS] * len(others) + [FRAME_MS * LAST_FRAMES]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=others, duration=durations, loop=0
    )
    return file.getvalue()


def encode_mp4(frames: Sequence[Image]) -> bytes:
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
