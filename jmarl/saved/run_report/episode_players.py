"""Rendered episodes of a run folder, embedded in a page."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from jmarl.saved.run_report.markup import Html, tag


PLAYER = b"<title>Episode</title>"
"""Text near the start of a page of ``jmarl render``."""
GIF = b"GIF8"
START = 2000
"""Bytes of a file in which its kind is looked for."""
MEGABYTE = 2**20


class Episodes(NamedTuple):
    """Episodes of a run for the report."""

    shown: list[pathlib.Path]
    left_out: list[pathlib.Path]
    """Episodes for which the page has no room."""


def share_room(runs: Iterable[pathlib.Path], megabytes: float) -> list[Episodes]:
    """Choose the episodes of each run that a page has room for, in the order of the runs.

    Args:
        runs: Run folders, or files without episodes.
        megabytes: Largest size of all chosen files together.
    """
    room = megabytes * MEGABYTE
    found = []
    for run in runs:
        episodes = Episodes([], [])
        for path in rendered_episodes(run):
            size = path.stat().st_size
            (episodes.shown if size <= room else episodes.left_out).append(path)
            room -= size if size <= room else 0
        found.append(episodes)
    return found


def rendered_episodes(run: pathlib.Path) -> list[pathlib.Path]:
    """Return the episodes in a run folder: pages, and GIF files without a page of that name."""
    if not run.is_dir():
        return []
    pages = [path for path in sorted(run.glob("*.html")) if PLAYER in _start(path)]
    names = {path.stem for path in pages}
    images = [path for path in sorted(run.glob("*.gif")) if path.stem not in names]
    return pages + [path for path in images if _start(path).startswith(GIF)]


def _start(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError:
        return b""


def embed(path: pathlib.Path) -> Html:
    """Return an episode as a figure that needs no other file.

    A page is embedded in a frame that may only run scripts: it has no access to the report, and
    inherits the rule that nothing is loaded.
    """
    title = f"Episode {path.name}"
    caption = tag("figcaption", tag("strong", "Episode."), f" File {path.name}.")
    if path.suffix == ".gif":
        data = base64.b64encode(path.read_bytes()).decode()
        image = tag("img", src=f"data:image/gif;base64,{data}", alt=title)
        return tag("figure", image, caption)
    attributes = f'title="{html.escape(title)}" sandbox="allow-scripts"'
    content = _quoted(path.read_text("utf-8"))
    frame = Html(f"<iframe {attributes} srcdoc='{content}'></iframe>")
    script = tag("noscript", tag("p", "The player of this episode needs JavaScript."))
    return tag("figure", frame, script, caption)


def _quoted(text: str) -> str:
    """Return a text as an attribute in single quotes; JSON has many double ones."""
    return text.replace("&", "&amp;").replace("'", "&#39;")
