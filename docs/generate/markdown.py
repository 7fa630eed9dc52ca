"""Markdown text from plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


NOT_RECORDED = "not recorded"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; numbers become short text and pipes are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value: Any) -> str:
    """Return the text of one table cell."""
    if value is None or value == "":
        return NOT_RECORDED
    text = number(value) if isinstance(value, int | float) else str(value)
    return escape_tags(text).replace("|", "\\|")


def escape_tags(text: str) -> str:
    """Return text in which ``<name>`` outside of code is not an HTML tag."""
    parts = text.split("`")
    return "`".join(x if i % 2 else x.replace("<", "&lt;") for i, x in enumerate(parts))


def number(value: float) -> str:
    """Return a number with three significant digits; counts and booleans stay whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e9 else f"{value:.2e}"


def percent(share: float) -> str:
    """Return a share of one as a percentage."""
    return f"{100 * share:.1f} %"


def code(text: Any) -> str:
    """Return inline code."""
    return f"`{text}`"


def fence(text: str, language: str = "text") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def details(summary: str, body: str) -> str:
    """Return a block that opens on a click."""
    inside = "\n".join(f"    {line}".rstrip() for line in body.splitlines())
    return f'??? note "{summary}"\n\n{inside}'


def join(*blocks: str) -> str:
    """Return blocks with an empty line between two; empty blocks are left out."""
    return "\n\n".join(block for block in blocks if block)
