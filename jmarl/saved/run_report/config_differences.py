"""Differences between trees of settings, such as the configurations of runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


ABSENT = "–"
"""Text of a setting that a tree does not have."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the leaves of a tree as texts, by dotted key.

    Args:
        tree: Nested mappings. Lists are leaves.
        prefix: Key of the tree, with a dot.
    """
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = _text(value)
    return leaves


def _text(value: Any) -> str:
    """Return a value as in JSON, but strings without quotes."""
    if isinstance(value, str):
        return value if value else "''"
    return json.dumps(value, default=str)


def differences(trees: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the settings in which trees differ: a text for each tree, by key.

    Args:
        trees: Leaves of each tree, as from ``flatten``.
    """
    keys = dict.fromkeys(key for tree in trees for key in tree)
    rows = {key: [tree.get(key, ABSENT) for tree in trees] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def without(tree: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Return leaves without some keys, and without those below them."""
    excluded = tuple(keys)
    below = tuple(f"{key}." for key in excluded)
    return {
        key: text
        for key, text in tree.items()
        if key not in excluded and not key.startswith(below)
    }
