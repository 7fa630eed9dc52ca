"""MkDocs hook: adds the generated pages and the files of the benchmarks to the site.

A navigation entry whose target ends with ``/*`` in ``mkdocs.yml`` becomes the list of the generated
pages in that folder.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from docs.generate import api, benchmarks, commands, configuration, studies
from docs.generate.battles import keys, maps, units


def generated() -> Iterator[tuple[str, str]]:
    """Yield path and text of every generated page, in the order of the navigation."""
    yield from configuration.pages()
    yield "reference/battles/units.md", units.page()
    yield "reference/battles/maps.md", maps.page()
    yield "reference/battles/keys.md", keys.page()
    yield "reference/commands.md", commands.commands_page()
    yield "reference/exit-codes.md", commands.exit_codes_page()
    yield from api.pages()
    yield from studies.pages()
    yield from benchmarks.pages()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the generated entries of the navigation."""
    paths = [path for path, _ in generated()]
    config.nav = [fill(entry, paths) for entry in config.nav or []]
    return config


def fill(entry: Any, paths: list[str]) -> Any:
    """Return a navigation entry with its generated parts filled in."""
    if isinstance(entry, dict):
        return {title: fill(target, paths) for title, target in entry.items()}
    if isinstance(entry, list):
        return [fill(item, paths) for item in entry]
    if not entry.endswith("/*"):
        return entry
    return [path for path in paths if path.startswith(entry[:-1])]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, records and pictures."""
    for path, text in generated():
        files.append(File.generated(config, path, content=text))
    for path, source in benchmarks.assets():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    return files
