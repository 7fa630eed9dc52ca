"""YAML files of a run, merged in the order of Hydra's defaults lists.

Help texts and the check of ``network=<choice>`` use this module, because importing Hydra takes
longer than reading the files. It supports the entries that jmarl's files have: ``_self_``,
``<file of the same group>``, ``<group>: <choice>`` and ``override /<group>: <choice>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from jmarl.config.choices import configs_dir


PRIMARY = "run"
GLOBAL_PACKAGE = "# @package _global_"


class File(NamedTuple):
    """A YAML file below ``configs``."""

    path: str
    """Path without suffix, such as ``network/gru``."""
    package: str
    """Dotted key of its content; empty for the root."""
    text: str
    """Content with comments."""
    defaults: tuple[Any, ...]
    """Defaults list; only ``_self_`` if the file has none."""
    tree: dict[str, Any]
    """Content without the defaults list."""


def read_file(path: str) -> File:
    """Read a YAML file below ``configs``."""
    text = (configs_dir() / f"{path}.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text) or {}
    defaults = tree.pop("defaults", ["_self_"])
    is_global = path == PRIMARY or text.startswith(GLOBAL_PACKAGE)
    package = "" if is_global else path.rpartition("/")[0].replace("/", ".")
    return File(path, package, text, tuple(defaults), tree)


def files_of(path: str, choices: dict[str, str | None]) -> list[File]:
    """List a file and those of its defaults lists, in the order in which they are merged.

    Args:
        path: Path of the file without suffix.
        choices: Choice of each group. Choices that are missing are added. As in Hydra,
            later entries of a list take precedence, and outer files over inner ones.
    """
    file = read_file(path)
    entries = [e if isinstance(e, Mapping) else {"": e} for e in file.defaults]
    pairs = [pair for entry in reversed(entries) for pair in entry.items()]
    for key, choice in pairs:
        if key.startswith("override "):
            choices.setdefault(key.removeprefix("override ").lstrip("/"), choice)
    found: list[File] = []
    for key, choice in pairs:
        if choice == "_self_":
            found = [file, *found]
        elif not key.startswith("override "):
            group = key or path.rpartition("/")[0]
            name = choices.setdefault(key, choice) if key else choice
            found = [*(files_of(f"{group}/{name}", choices) if name else []), *found]
    return found


def merge(files: Iterable[File]) -> dict[str, Any]:
    """Return the content of files, each merged into those before it."""
    merged: dict[str, Any] = {}
    for file in files:
        tree: dict[str, Any] = file.tree
        for part in reversed(file.package.split(".") if file.package else []):
            tree = {part: tree}
        _merge_into(merged, tree)
    return merged


def _merge_into(merged: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            branch = merged.get(key)
            merged[key] = branch = branch if isinstance(branch, dict) else {}
            _merge_into(branch, value)
        else:
            merged[key] = value
