"""Files of episodes: draw scenes and write them as GIF, MP4, or an HTML page, or one as PNG.

Frames are encoded as they are drawn, so that memory does not grow with the number of pixels times
the length of an episode.
"""

from __future__ import annotations

import io
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jmarl.config import ConfigError, check, check_range
from jmarl.envs.scene import Scene
from jmarl.results.files import replace_file
from jmarl.runs.exit_codes import ResourceError, full_disk_reason
from jmarl.saved.frame import Image, draw_frame, view
from jmarl.saved.page import encode_html


SUFFIXES = (".gif", ".mp4", ".html", ".png")
LAST_FRAMES = 10
"""Number of frames for which the last one is held."""
TRANSPARENT = 255
"""Index of the color that leaves a pixel of a GIF as it was."""
REPEAT = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
"""Block of a GIF that repeats."""


def check_file(file: pathlib.Path, step: int = 0) -> None:
    """Raise ``ConfigError`` if an episode, or this step of it, cannot be written to this path."""
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"file={file}: must end in .gif, .mp4, .html or .png")
    check_range("step", step, 0)
    rule = "selects the frame of a picture; name file=<name>.png, or omit step"
    check(step == 0 or file.suffix == ".png", "step", step, rule)
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


def write_video(
    scenes: Sequence[Scene], file: pathlib.Path, title: str = "", step: int = 0
) -> None:
    """Write an episode as GIF, MP4 or HTML, or one frame as PNG, by the suffix of ``file``.

    A file with this name is replaced only when the new one is complete.

    Args:
        scenes: Scenes of one episode, one for each frame; a video holds the last one.
        file: Path that ends in ``.gif``, ``.mp4``, ``.html`` or ``.png``.
        title: Title of a page.
        step: Index of the scene that a PNG shows.

    Raises:
        ConfigError: If the scenes or the step are invalid or the file cannot be written.
        ResourceError: If the disk is full.
    """
    check_file(file, step)
    _check_scenes(scenes)
    content = _encode(scenes, file.suffix, title, step)
    try:
        replace_file(file, content)
    except OSError as error:
        raise _write_error(file, error) from None


def _encode(scenes: Sequence[Scene], suffix: str, title: str, step: int) -> bytes:
    frame_ms = scenes[0].frame_ms
    if suffix == ".html":
        return encode_html(scenes, title, frame_ms)
    draw = partial(draw_frame, part=view(scenes))
    if suffix == ".png":
        last = len(scenes) - 1
        rule = f"the episode ends at step {last}; name a step from 0 to {last}"
        check(step <= last, "step", step, rule)
        return encode_png(draw(scenes[step]))
    frames = map(draw, scenes)
    if suffix == ".gif":
        return encode_gif(frames, frame_ms)
    return encode_mp4(frames, len(scenes), frame_ms)


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
    shared = [(s.width, s.height, s.frame_ms, s.background) for s in scenes]
    if any(values != shared[0] for values in shared):
        raise ConfigError(
            "scene: all states of an episode must have the same size, frame time and "
            "background"
        )
    check_range("scene: frame_ms", scenes[0].frame_ms, 10)


def encode_png(frame: Image) -> bytes:
    """Return a frame as PNG."""
    from PIL.Image import fromarray

    file = io.BytesIO()
    fromarray(frame).save(file, "PNG")
    return file.getvalue()


def encode_gif(frames: Iterable[Image], frame_ms: int) -> bytes:
    """Return the frames as an animated GIF that repeats. Equal frames are merged.

    Args:
        frames: Frames of the same size.
        frame_ms: Milliseconds for which a frame is shown.
    """
    return b"".join(_gif_blocks(frames, frame_ms)) + b";"


class _Change(NamedTuple):
    """Rectangle with the pixels of a frame that differ from the frame before."""

    image: Any
    offset: tuple[int, int]

    def encode(self, duration: int) -> bytes:
        from PIL.GifImagePlugin import getdata

        style = {"transparency": TRANSPARENT, "include_color_table": True}
        return b"".join(getdata(self.image, self.offset, duration=duration, **style))


def _gif_blocks(frames: Iterable[Image], frame_ms: int) -> Iterator[bytes]:
    """Yield the blocks of a GIF.

    Pillow's own writer collects all frames, so it is used only to compress each of them.
    """
    shown, change, duration = None, None, 0
    for frame in frames:
        if shown is None:
            height, width, _ = frame.shape
            yield b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + REPEAT
        if (new := _change(shown, frame)) is not None:
            if change is not None:
                yield change.encode(duration)
            change, duration = new, 0
        shown = frame
        duration += frame_ms
    assert change is not None
    yield change.encode(duration + frame_ms * (LAST_FRAMES - 1))


def _change(before: Image | None, frame: Image) -> _Change | None:
    """Return the pixels that changed, with the colors that suit them; None if none did."""
    from PIL.Image import fromarray

    changed = np.full(frame.shape[:2], before is None)
    if before is not None:
        changed = (frame != before).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    if not len(rows):
        return None
    colors = fromarray(frame[changed][None]).quantize(TRANSPARENT)
    indices = np.full_like(changed, TRANSPARENT, np.uint8)
    indices[changed] = np.asarray(colors)[0]
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = fromarray(indices[box])
    image.putpalette(colors.getpalette() or [])
    return _Change(image, (int(columns[0]), int(rows[0])))


def encode_mp4(frames: Iterable[Image], n_frames: int, frame_ms: int) -> bytes:
    """Return the frames as an MP4 (H.264, 4:2:0) with a constant frame rate.

    PyAV encodes in this process. A process that runs JAX must not fork.

    Args:
        frames: Frames with even height and width.
        n_frames: Number of frames.
        frame_ms: Milliseconds for which a frame is shown.
    """
    import av

    file = io.BytesIO()
    # The index goes before the frames, so that a browser plays the file while it loads.
    index_bytes = 4096 + 64 * (n_frames + LAST_FRAMES)
    options = {"moov_size": str(index_bytes)}
    with av.open(file, "w", format="mp4", options=options) as container:
        rate = Fraction(1000, frame_ms)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in _hold_last(frames):
            if not stream.codec_context.is_open:
                stream.height, stream.width, _ = image.shape
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _hold_last(frames: Iterable[Image]) -> Iterator[Image]:
    """Yield the frames, and the last one repeatedly."""
    frame = None
    for frame in frames:
        yield frame
    for _ in range(LAST_FRAMES - 1):
        assert frame is not None
        yield frame
