"""Reference of the configuration: every key of a system with its default and its meaning.

Defaults are those of the YAML files. The meaning of a key is the comment beside it in a file. If
several files have a comment, the file that is merged last takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml

from jmarl.config.choices import GROUPS, check_system
from jmarl.config.parsing import flatten, read_value
from jmarl.config.yaml_files import PRIMARY, File, files_of, merge


_KEY = re.compile(r"^( *)(\w+):[^#\n]*(?:# (.*))?$", re.MULTILINE)


class KeyDoc(NamedTuple):
    """Default (as YAML text) and meaning of a configuration key."""

    default: str
    meaning: str


def documented_keys(system: str, overrides: Iterable[str] = ()) -> dict[str, KeyDoc]:
    """Return the documentation of every key of a system, in reading order.

    Args:
        system: Name of a system.
        overrides: Overrides such as ``network=hpn``, which change keys and defaults.
    """
    return read_reference(system, overrides)[1]


def read_reference(
    system: str, overrides: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, KeyDoc]]:
    """Return the default choice of each group (empty for none), and ``documented_keys``."""
    check_system(system, f"system={system}")
    given = dict(override.split("=", 1) for override in overrides)
    choices = {key: value for key, value in given.items() if key in GROUPS}
    chosen: dict[str, str | None] = {"system": system, **choices}
    files = files_of(PRIMARY, chosen)
    tree = merge(files)
    for name in ("hydra", "algorithm"):
        tree.pop(name, None)
    meanings: dict[str, str] = {}
    for file in files:
        meanings |= _comments(file)
    values = flatten(tree)
    values |= {k: read_value(k, v) for k, v in given.items() if k not in GROUPS}
    keys = {k: KeyDoc(_text(v), meanings.get(k, "")) for k, v in values.items()}
    return {group: chosen.get(group) or "" for group in GROUPS}, keys


def _comments(file: File) -> dict[str, str]:
    """Return the comments beside the keys of a YAML file, by dotted key."""
    comments, keys = {}, []
    for indent, key, comment in _KEY.findall(file.text):
        keys[len(indent) // 2 :] = [key]
        if comment:
            comments[".".join([file.package, *keys]).lstrip(".")] = comment
    return comments


def _text(value: Any) -> str:
    if type(value) is int:
        return f"{value:_}"
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
