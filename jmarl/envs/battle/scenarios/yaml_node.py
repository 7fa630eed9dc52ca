"""Nodes of a YAML file with their lines, and checked access to their values."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import yaml

from jmarl.config.errors import ConfigError, check_range, suggest


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHOWN = 40
"""Maximum number of letters of a value in an error."""
_INTEGER = re.compile(r"[-+]?\d{1,12}")


@dataclass(frozen=True)
class Node:
    """Value in a YAML file.

    Attributes:
        source: name of the file.
        key: dotted key of the value; empty for the whole file.
        line: line of the key, from 1.
        yaml: parsed value.
    """

    source: str
    key: str
    line: int
    yaml: yaml.Node = field(repr=False)

    @property
    def where(self) -> str:
        """Return ``file:line: key`` for errors."""
        return f"{self.source}:{self.line}: {self.key}".removesuffix(": ")

    @property
    def is_mapping(self) -> bool:
        """Return whether the value has keys."""
        return isinstance(self.yaml, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        """Return whether the value is a list."""
        return isinstance(self.yaml, yaml.SequenceNode)

    def error(self, rule: str) -> ConfigError:
        """Return the error ``file:line: key=value: rule``."""
        shown = _show(self.yaml)
        value = f"={shown}" if shown and self.key else ""
        return ConfigError(f"{self.where}{value}: {rule}")

    def check(self, holds: bool, rule: str) -> None:
        """Raise the error unless the rule holds."""
        if not holds:
            raise self.error(rule)

    def entries(self, example: str) -> dict[str, Node]:
        """Return the values of a mapping by key."""
        self.check(self.is_mapping, f"expected keys, such as {example}")
        entries: dict[str, Node] = {}
        for key, value in self.yaml.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else _show(key)
            node = self._child(f".{name}", key, value)
            node.check(isinstance(key, yaml.ScalarNode), "a key must be a word")
            node.check(name not in entries, "given twice; leave one out")
            entries[name] = node
        return entries

    def fields(self, known: Collection[str], example: str) -> dict[str, Node]:
        """Return the values of a mapping with known keys."""
        entries = self.entries(example)
        for name, node in entries.items():
            fix = suggest(name, known, f"known keys: {', '.join(known)}")
            node.check(name in known, f"unknown key; {fix}")
        return entries

    def items(self, example: str) -> list[Node]:
        """Return the values of a list."""
        self.check(self.is_list, f"expected a list, such as {example}")
        children = enumerate(self.yaml.value)
        return [self._child(f"[{i}]", value, value) for i, value in children]

    def _child(self, suffix: str, marked: yaml.Node, value: yaml.Node) -> Node:
        key = (self.key + suffix).removeprefix(".")
        return Node(self.source, key, marked.start_mark.line + 1, value)

    def text(self) -> str:
        """Return a scalar as text."""
        self.check(isinstance(self.yaml, yaml.ScalarNode), "expected a single word")
        return self.yaml.value

    def choice(self, known: Collection[str], kind: str) -> str:
        """Return a word that must be in a list."""
        word = self.text()
        fix = suggest(word, known, f"expected one of {', '.join(known)}")
        self.check(word in known, f"unknown {kind}; {fix}")
        return word

    def flag(self) -> bool:
        """Return ``true`` or ``false``."""
        self.check(self.text() in ("true", "false"), "expected true or false")
        return self.text() == "true"

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Return a finite number in a closed range."""
        try:
            value = float(self.text())
        except ValueError:
            raise self.error("expected a number") from None
        self.check(math.isfinite(value), "expected a finite number")
        check_range(self.where, value, low, high)
        return value

    def integer(self, low: int, high: int) -> int:
        """Return a whole number in a closed range."""
        is_integer = _INTEGER.fullmatch(self.text()) is not None
        self.check(is_integer, f"expected a whole number in [{low}, {high}]")
        check_range(self.where, int(self.text()), low, high)
        return int(self.text())


def read_yaml(text: str, source: str) -> Node:
    """Return the content of a YAML file.

    Args:
        text: content.
        source: name of the file, for errors.

    Raises:
        ConfigError: If the text is not YAML, or empty.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax_error(error, source)) from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"{source}: cannot be read; expected YAML") from None
    if root is None:
        raise ConfigError(f"{source}: the file is empty")
    return Node(source, "", root.start_mark.line + 1, root)


def _syntax_error(error: yaml.MarkedYAMLError, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{source}:{mark.line + 1}" if mark else source
    return f"{where}: cannot be read as YAML: {error.problem or error.context}"


def _show(node: yaml.Node, depth: int = 2) -> str:
    """Return a short value as YAML, or nothing. The depth ends aliases to themselves."""
    if isinstance(node, yaml.ScalarNode):
        return _shorten(repr(node.value) if _is_odd(node.value) else node.value)
    if not isinstance(node, yaml.SequenceNode) or not depth:
        return ""
    items = [_show(item, depth - 1) for item in node.value]
    return _shorten(f"[{', '.join(items)}]") if all(items) else ""


def _is_odd(text: str) -> bool:
    return not text or not text.isprintable()


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
