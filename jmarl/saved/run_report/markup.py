"""HTML from Python: elements whose texts are escaped, tables, figures and whole pages."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources

from jmarl.results.figures import Drawing, svg_text


POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "script-src 'unsafe-inline'",
    )
)
"""Content security policy: browsers load nothing, and only the players of episodes have scripts."""
VOID = ("meta", "img")
"""Elements without content."""
ID = re.compile(r'(\bid="|xlink:href="#|url\(#)')
"""Definitions of and references to an identifier in an SVG."""


LONGEST = 80
"""Characters of a text that a table shows in full."""
TAG = re.compile("<[^>]*>")
SIZE = re.compile(r'width="([\d.]+)pt" height="[\d.]+pt"')
SCALE = 1.3
"""Size of a figure on the page, as a multiple of that in print."""


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """Return an element. Texts and attributes are escaped, unless a text is ``Html``.

    Args:
        name: Name of the element.
        *children: Texts and elements.
        **attributes: Attributes; ``_`` at the end of a name is dropped, as in ``class_``.
    """
    pairs = (
        f' {key.rstrip("_")}="{html.escape(text)}"' for key, text in attributes.items()
    )
    opening = f"<{name}{''.join(pairs)}>"
    content = "".join(map(escape, children))
    return Html(opening if name in VOID else f"{opening}{content}</{name}>")


def escape(text: str) -> Html:
    """Return a text as HTML; text that is HTML already stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def join(parts: Iterable[str], between: str = "\n") -> Html:
    """Join parts, of which texts are escaped."""
    return Html(between.join(map(escape, parts)))


def section(title: str, anchor: str, *content: str) -> Html:
    """Return a section with a heading that a link can name."""
    heading = tag("h2", title)
    return tag("section", heading, "\n", join(filter(None, content)), id=anchor)


def items(texts: Iterable[str]) -> Html:
    """Return an unordered list."""
    return tag("ul", *(tag("li", text) for text in texts))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> Html:
    """Return a table that scrolls sideways if it is too wide.

    Args:
        header: Texts of the first row.
        rows: Texts of the other rows, of which the first ones are headings.
        note: Text above the table.
    """
    head = tag("tr", *(tag("th", text, scope="col") for text in header))
    body = (_row(list(row)) for row in rows)
    texts = tag("table", tag("thead", head), tag("tbody", join(body)))
    above = [tag("p", note, class_="note")] if note else []
    return tag("div", *above, tag("div", texts, class_="wide"))


def _row(texts: list[str]) -> Html:
    first, *others = texts
    return tag("tr", tag("th", first, scope="row"), *(tag("td", x) for x in others))


def folded(title: str, *content: str) -> Html:
    """Return content that the reader can unfold, without a script."""
    return tag("details", tag("summary", title), *content)


def shortened(text: str) -> str:
    """Return a text; a long one, such as a scenario, as its start and a digest to unfold."""
    if len(text) <= LONGEST and "\n" not in text:
        return text
    start = " ".join(text.split())[: LONGEST // 2]
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return folded(f"{start}… #{digest}", tag("pre", text))


def figure(drawing: Drawing, name: str) -> Html:
    """Return a drawing as inline SVG, with its title and caption below it.

    Args:
        drawing: Drawing.
        name: Prefix of its identifiers, different for each figure of a page.
    """
    text = svg_text(drawing.figure)
    text = text[text.index("<svg") :]
    text = TAG.sub(lambda found: ID.sub(rf"\1{name}-", found[0]), text)
    text = SIZE.sub(_enlarged, text, count=1)
    label = html.escape(f"{drawing.title}. {drawing.caption}")
    text = text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    caption = tag(
        "figcaption", tag("strong", f"{drawing.title}."), " ", drawing.caption
    )
    return tag("figure", Html(text), caption)


def _enlarged(size: re.Match[str]) -> str:
    """Return the width of an SVG, from which browsers derive its height."""
    return f'width="{SCALE * float(size[1]):.0f}pt"'


def page(title: str, *content: str) -> str:
    """Return a page that loads nothing else.

    Args:
        title: Title of the page.
        *content: Elements of its body.
    """
    style = resources.files("jmarl.saved.run_report").joinpath("report.css")
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", title),
        tag("style", Html(style.read_text("utf-8"))),
    )
    body = tag("body", tag("main", join(content)))
    document = tag("html", tag("head", join(head)), "\n", body, lang="en")
    return f"<!DOCTYPE html>\n{document}\n"
