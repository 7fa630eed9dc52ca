"""Figures with their captions, and as text in SVG. Matplotlib is imported on first use."""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple


ANONYMOUS = dict.fromkeys(("Creator", "Date", "Format", "Type"))
"""Metadata without any entry, so that the file names no tool, time or address."""


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jmarl",
    "font.sans-serif": ("DejaVu Sans", "Verdana"),
}
"""Text stays text, in fonts of equal width, and the same data give the same file."""
TAG = re.compile("<[^>]*>")
DIGITS = re.compile(r"(\.\d\d)\d+")
"""Digits after a hundredth of a point, which nobody can see but which double the size."""


class Drawing(NamedTuple):
    """A figure, and the text around it."""

    title: str
    caption: str
    figure: Any
    """A ``matplotlib.figure.Figure`` without title and caption."""


def svg_text(figure: Any) -> str:
    """Return a figure as SVG.

    Args:
        figure: A ``matplotlib.figure.Figure``.
    """
    import matplotlib as mpl  # slow to import

    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata=ANONYMOUS)
    lines = (line.strip() for line in file.getvalue().splitlines())
    return TAG.sub(lambda tag: DIGITS.sub(r"\1", tag[0]), "\n".join(lines))
