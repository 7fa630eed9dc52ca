"""Frozen dataclasses from plain data."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from jmarl.config.errors import ConfigError, check, nearest


def read_value(key: str, text: str) -> Any:
    """The value of ``key=text``, in yaml; ``1e6`` and ``2e-3`` are numbers, which YAML 1.1 takes for text.

    Raises ``ConfigError`` for what is no yaml.
    """
    try:
        return _numbers(yaml.safe_load(text) if text else "")
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{key}={text}: cannot be read") from None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    number = isinstance(value, str) and re.fullmatch(
        r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value
    )
    return float(value) if number else value


def build(
    cls: Any, tree: Mapping[str, Any], path: str = "", also: Iterable[str] = ()
) -> Any:
    """Make the frozen dataclass ``cls`` (or the right one of a union) from plain data.

    Nested dataclasses, ``Literal``, ``Optional``, unions of dataclasses (chosen by the value of
    their ``name`` field), tuples and ``dict`` are followed; an int does for a float, and a
    float without a fraction (``1e6``) for an int. ``path`` is the key under which ``tree``
    stands, ``also`` are further valid keys to name to someone who mistyped one.

    Raises ``ConfigError`` for a key that is unknown or missing and a value of a wrong type.
    """
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        return _convert(cls, tree, path)
    kinds = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            near = nearest(_join(path, key), [*key_paths(cls, path), *also])
            raise ConfigError(
                f"{_join(path, key)}={tree[key]!r}: unknown key; the nearest valid one is {near}"
            )
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in tree and not optional:
            raise ConfigError(f"{_join(path, name)}: missing; give it a value")
    return cls(
        **{
            key: _convert(kinds[key], value, _join(path, key))
            for key, value in tree.items()
        }
    )


def key_paths(kind: Any, path: str = "") -> list[str]:
    """Every dotted key that a configuration class has, those of its alternatives included."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return [
            p
            for f in dataclasses.fields(kind)
            for p in key_paths(hints[f.name], _join(path, f.name))
        ]
    nested = [k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)]
    return [p for k in nested for p in key_paths(k, path)] or [path]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return build(kind, value, path)
    if origin is Literal:
        choices = [str(a) for a in args]
        rule = f"must be one of {', '.join(choices)}; the nearest is {nearest(str(value), choices)}"
        check(value in args, path, value, rule)
        return value
    if origin in (typing.Union, types.UnionType):
        return _alternative(args, value, path)
    if origin is tuple:
        return _sequence(args, value, path)
    if (origin or kind) is dict:
        check(isinstance(value, Mapping), path, value, "expected a group of keys")
        return dict(value)
    return _scalar(kind, value, path)


def _scalar(kind: type, value: Any, path: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and float(value).is_integer():
        return int(value)
    check(type(value) is kind, path, value, f"expected {kind.__name__}")
    return value


def _sequence(kinds: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    check(isinstance(value, list | tuple), path, value, "expected a list")
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    check(len(value) == len(kinds), path, value, f"expected {len(kinds)} items")
    return tuple(
        _convert(kind, item, f"{path}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _alternative(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """One of a union: None for ``Optional``, a dataclass by its ``name``, else the first plain type that fits."""
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, Mapping):
        nested = [k for k in kinds if dataclasses.is_dataclass(k)]
        return build(
            nested[0] if len(nested) == 1 else _named(nested, value, path), value, path
        )
    plain = [
        k for k in kinds if k is not type(None) and not dataclasses.is_dataclass(k)
    ]
    for kind in sorted(plain, key=lambda k: k is not type(value)):
        try:
            return _convert(kind, value, path)
        except ConfigError:
            continue
    expected = " or ".join(
        "null" if k is type(None) else getattr(k, "__name__", str(k)) for k in kinds
    )
    raise ConfigError(f"{path}={value!r}: expected {expected}")


def _named(kinds: list[Any], tree: Mapping[str, Any], path: str) -> Any:
    """The dataclass whose ``name: Literal[...]`` holds the name that the tree gives."""
    by_name = {
        n: k for k in kinds for n in typing.get_args(typing.get_type_hints(k)["name"])
    }
    name = tree.get("name")
    rule = f"must be one of {', '.join(by_name)}; the nearest is {nearest(str(name), by_name)}"
    check(name in by_name, _join(path, "name"), name, rule)
    return by_name[str(name)]
