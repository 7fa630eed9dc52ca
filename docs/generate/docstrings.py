"""Docstrings as Markdown: a griffe extension for the Python reference."""

from __future__ import annotations

import re
from typing import Any

import griffe


ITEM = re.compile(r"^ *(\*|-|\d+\.) ")
"""First line of a list item."""


class SeparateLists(griffe.Extension):
    """Put an empty line before each list, which Markdown requires."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of one module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = separate_lists(obj.docstring.value)


def separate_lists(text: str) -> str:
    """Return a text with an empty line before each list."""
    lines: list[str] = []
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        continued = ITEM.match(before) or before.startswith("  ")
        if ITEM.match(line) and before and not continued:
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
