"""Figures with their captions, and as text in SVG. Matplotlib is imported on first use."""

from __future__ import annotations

import io
from typing import Any, NamedTuple


ANONYMOUS = dict.fromkeys(("Creator", "Date", "Format", "Type"))
"""Metadata without any entry, so that the file names no tool, time or address."""


class Drawing(NamedTuple):
    """A figure, and the text around it."""

    title: str
    caption: str
    figure: Any
    """A ``matplotlib.figure.Figure`` without title and caption."""


def svg_text(figure: Any) -> str:
    """Return a figure as SVG, in which text stays text. The same figure gives the same SVG.

    Args:
        figure: A ``matplotlib.figure.Figure``.
    """
    import matplotlib as mpl  # slow to import

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jmarl"}):
        figure.savefig(file, format="svg", metadata=ANONYMOUS)
    return file.getvalue()
