"""YAML files of a run, merged in the order of Hydra's defaults lists.

Help texts and the check of ``network=<choice>`` use this module, because importing Hydra takes
longer than reading the files. It supports the entries that jmarl's files have: ``_self_``,
``<file of the same group>``, ``<group>: <choice>`` and ``override /<group>: <choice>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jmarl.config.choices import ENDINGS, configs_dir
from jmarl.config.errors import ConfigError, check
from jmarl.config.parsing import flatten


PRIMARY = "run"
PRESETS = "experiment"
"""Group whose files are presets. A user's own preset is given by its path."""
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


def ancestors(group: str, name: str) -> list[str]:
    """List a file of a group and the files of the group that it builds on, the nearest first."""
    found = [name]
    for entry in read_file(f"{group}/{name}").defaults:
        if isinstance(entry, str) and entry != "_self_":
            found += ancestors(group, entry)
    return found


def expand_presets(arguments: Iterable[str]) -> list[str]:
    """Replace ``experiment=<path of a YAML file>`` by the overrides that the file stands for.

    Other arguments take precedence over them. ``experiment=<name>`` is left to Hydra.

    Raises:
        ConfigError: If a file cannot be read.
    """
    given = list(arguments)
    start = f"{PRESETS}="
    files = [a for a in given if a.startswith(start) and a.endswith(ENDINGS)]
    others = [a for a in given if a not in files]
    keys = set(map(_key_of, others))
    words: list[str] = []
    for file in files:
        path = file.removeprefix(start)
        words += preset_words(path)
    kept = [word for word in words if _key_of(word) not in keys]
    return kept + others


def _key_of(argument: str) -> str:
    return argument.partition("=")[0]


def preset_words(path: str) -> list[str]:
    """Return a preset file as arguments of the command line: choices of groups, then keys.

    Args:
        path: Path of a YAML file like those of ``configs/experiment``.

    Raises:
        ConfigError: If the file cannot be read, or names an unknown preset.
    """
    tree = _read_preset(path)
    defaults = tree.pop("defaults", [])
    choices: dict[str, str | None] = {}
    for entry in defaults:
        if isinstance(entry, Mapping):
            for key, choice in entry.items():
                group = key.removeprefix("override ")
                choices[group.lstrip("/")] = choice
    merged: dict[str, Any] = {}
    for name in defaults:
        if isinstance(name, str) and name != "_self_":
            _merge_into(merged, _named_preset(path, name, choices))
    _merge_into(merged, tree)
    words = [f"{group}={choice}" for group, choice in choices.items()]
    for key, value in flatten(merged).items():
        words.append(f"{key}={hydra_text(value)}")
    return words


def _named_preset(
    path: str,
    name: str,
    choices: dict[str, str | None],
) -> dict[str, Any]:
    """Return the keys of a preset in ``configs``, and add its choices of groups."""
    file = f"{PRESETS}/{name}"
    exists = (configs_dir() / f"{file}.yaml").exists()
    check(exists, f"{PRESETS}={path}: defaults", name, "unknown preset")
    return merge(files_of(file, choices))


def _read_preset(path: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        fix = "give the path of a YAML file"
        raise ConfigError(
            f"{PRESETS}={path}: cannot be read ({reason}); {fix}"
        ) from None
    rule = "holds no preset; expected keys and values"
    check(isinstance(tree, dict), PRESETS, path, rule)
    return tree


def hydra_text(value: Any) -> str:
    """Return plain data in the grammar of Hydra's overrides."""
    if isinstance(value, Mapping):
        pairs = [f"{key}:{hydra_text(item)}" for key, item in value.items()]
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        items = map(hydra_text, value)
        return f"[{','.join(items)}]"
    return json.dumps(value)
